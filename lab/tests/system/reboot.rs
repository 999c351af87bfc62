//! What `virtfn apply --persist` promises: after a reboot the VFs are there again, before anything
//! could use them, and network managers leave them alone. Real machines boot; systemd, udev and
//! systemd-networkd are the host's own.

use std::path::Path;
use std::time::Duration;

use lab::{Lab, Machine, Topology};

use crate::support::{run, virtfn};

/// Until systemd has started everything, or stopped everything, in an emulated machine that shares
/// its processors with others.
const PATIENCE: Duration = Duration::from_secs(180);

/// Two VFs for the kernel, with an MTU, and two for DPDK.
const POLICIES: &str = "\
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: net}
spec:
  resourceName: net
  nodeSelector: {rack: a}
  nicSelector: {pfNames: ['enp1s0#0-1']}
  numVfs: 4
  mtu: 2000
---
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: dpdk}
spec:
  resourceName: dpdk
  nodeSelector: {}
  nicSelector: {pfNames: ['enp1s0#2-3']}
  numVfs: 4
  deviceType: vfio-pci
";

/// Tells what there is of VFs, apart from virtfn's eyes.
const LOOK: &str = r#"#!/bin/sh
pf=/sys/bus/pci/devices/0000:01:00.0
echo "PF mtu $(cat $pf/net/enp1s0/mtu), $(cat $pf/sriov_numvfs) VFs, autoprobe $(cat $pf/sriov_drivers_autoprobe)"
for vf in 0 1 2 3; do
    test -e $pf/virtfn$vf || continue
    echo "vf $vf driver $(basename "$(readlink $pf/virtfn$vf/driver)")"
    for netdev in $pf/virtfn$vf/net/*; do
        test -e $netdev && echo "  mac $(cat $netdev/address) mtu $(cat $netdev/mtu)"
    done
done
ip link show dev enp1s0 | sed -n '/^ *vf /p'
"#;

/// Stands for whatever uses VFs: a network manager orders itself after this target.
const WITNESS: &str = "\
[Unit]
DefaultDependencies=no
After=network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c '/root/look > /root/saw'

[Install]
WantedBy=multi-user.target
";

/// What makes systemd-networkd take every Ethernet interface that it may.
const NETWORKD: &str = "\
[Match]
Name=en* eth*

[Network]
LinkLocalAddressing=no
ConfigureWithoutCarrier=yes
";

/// Boots, and waits until systemd has started what there is to start.
fn boot(topology: &Topology) -> Lab {
    let lab = Lab::boot(topology).expect("these tests need the lab");
    lab[0].await_services(PATIENCE).unwrap();
    lab
}

fn reboot(lab: Lab, topology: &Topology) -> Lab {
    run(&lab[0], "systemctl reboot");
    lab.await_off(PATIENCE).unwrap();
    boot(topology)
}

#[test]
fn vfs_are_back_before_anything_could_use_them() {
    let dir = tempfile::tempdir().unwrap();
    let topology = Topology::igb(1).keeping(dir.path()).with_systemd();
    let lab = boot(&topology);
    let machine = &lab[0];
    assert_eq!(run(machine, "cat /proc/1/comm"), "systemd\n");
    let install = format!(
        "install -m 755 {} /usr/local/bin/virtfn",
        virtfn().display()
    );
    run(machine, &install);
    machine
        .write("/root/policies.yaml", POLICIES.as_bytes())
        .unwrap();
    machine.write("/root/look", LOOK.as_bytes()).unwrap();
    machine
        .write("/etc/systemd/system/witness.service", WITNESS.as_bytes())
        .unwrap();
    run(machine, "mkdir -p /etc/systemd/network");
    machine
        .write("/etc/systemd/network/50-all.network", NETWORKD.as_bytes())
        .unwrap();
    run(
        machine,
        "chmod 755 /root/look && systemctl enable witness.service && \
         systemctl enable --now systemd-networkd.service",
    );
    let apply = "virtfn apply -f /root/policies.yaml --node-label rack=a";
    run(machine, apply);
    // Nothing keeps systemd-networkd off the VFs yet: it takes them and sets them up.
    run(
        machine,
        "timeout 60 sh -c 'until grep -q 0x1003 /sys/class/net/enp1s0v0/flags; do sleep 0.2; done'",
    );
    // What no policy says: somebody gave it to the VFs.
    run(machine, "ip link set enp1s0 vf 0 vlan 100 qos 3");
    run(machine, "ip link set enp1s0 vf 1 spoofchk off trust on");
    run(
        machine,
        "ip link set enp1s0 vf 2 mac 02:00:00:00:00:42 vlan 200",
    );
    run(machine, &format!("{apply} --persist"));
    let before = run(machine, "/root/look");
    assert!(before.contains("vf 2 driver vfio-pci"), "{before}");
    assert!(before.contains("02:00:00:00:00:42"), "{before}");
    assert!(before.contains("vlan 100, qos 3"), "{before}");
    assert!(before.contains("mtu 2000"), "{before}");

    let lab = reboot(lab, &topology);
    let machine = &lab[0];
    let journal = run(machine, "journalctl -b --no-pager -u 'virtfn-*' -o cat");
    assert_eq!(run(machine, "cat /root/saw"), before, "{journal}");
    assert_eq!(run(machine, "/root/look"), before, "{journal}");
    let results = run(
        machine,
        "systemctl show -P Result -P ActiveState virtfn-pre-network virtfn-post-network",
    );
    assert_eq!(
        results.split_whitespace().collect::<Vec<_>>(),
        ["success", "active", "success", "active"],
        "{journal}"
    );
    let order = run(
        machine,
        "systemctl show -P ActiveEnterTimestampMonotonic virtfn-pre-network network-pre.target \
         virtfn-post-network",
    );
    let order: Vec<u64> = order
        .split_whitespace()
        .map(|time| time.parse().unwrap())
        .collect();
    assert!(
        order.is_sorted() && order.len() == 3 && order[0] > 0,
        "{order:?}"
    );
    let status = run(machine, "virtfn status --check");
    assert!(status.contains(": as wanted"), "{status}");
    check_left_alone(machine);

    // Once it is not kept any more, the same witness sees a host without VFs.
    run(machine, "virtfn apply --unpersist");
    let lab = reboot(lab, &topology);
    let saw = run(&lab[0], "cat /root/saw");
    assert!(saw.contains(", 0 VFs,") && !saw.contains("vf 0"), "{saw}");
    lab.power_off();
}

/// systemd-networkd has the PF and not its VFs, and NetworkManager would find the mark that it obeys.
#[track_caller]
fn check_left_alone(machine: &Machine) {
    let links = run(machine, "networkctl list --no-pager --no-legend");
    let managed = |name: &str| {
        let line = links
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{links}"));
        line.split_whitespace().last() != Some("unmanaged")
    };
    assert!(managed("enp1s0"), "{links}");
    for vf in ["enp1s0v0", "enp1s0v1"] {
        assert!(!managed(vf), "{links}");
        let flags = run(machine, &format!("cat /sys/class/net/{vf}/flags"));
        assert_eq!(flags, "0x1002\n", "{vf} was set up");
        let marks = run(machine, &format!("udevadm info /sys/class/net/{vf}"));
        assert!(marks.contains("E: NM_UNMANAGED=1"), "{marks}");
    }
    let marks = run(machine, "udevadm info /sys/class/net/enp1s0");
    assert!(!marks.contains("NM_UNMANAGED"), "{marks}");
}

#[test]
fn a_machine_finds_what_it_kept() {
    let dir = tempfile::tempdir().unwrap();
    let topology = Topology::bare(1).keeping(dir.path());
    let files = "/root/file /etc/file /var/lib/virtfn/file";
    let lab = Lab::boot(&topology).expect("these tests need the lab");
    run(
        &lab[0],
        &format!("echo kept | tee {files} && rm /etc/passwd"),
    );
    lab.power_off();
    let lab = Lab::boot(&topology).unwrap();
    assert_eq!(run(&lab[0], &format!("cat {files}")), "kept\n".repeat(3));
    assert_eq!(
        run(&lab[0], "ls /etc/passwd 2>/dev/null || echo gone"),
        "gone\n"
    );
    lab.power_off();
    assert!(Path::new("/etc/passwd").exists(), "the host's file is gone");
}
