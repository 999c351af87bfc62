//! The CNI plugin with real clients and across a real reboot.
//!
//! containerd in one machine and podman in another, both as Debian has them, each start a container
//! with a VF on VLAN 100; the NICs of the machines are on one wire.

use lab::{Lab, Machine, Topology};

use crate::support::{add_engines, eventually, install_plugin, make_rootfs, make_vfs, run};

/// With a chained plugin, and addresses out of ranges.
const FOR_CONTAINERD: &str = r#"{
  "cniVersion": "1.0.0", "name": "blue", "plugins": [
    {"type": "sriov", "deviceID": "0000:01:10.0", "vlan": 100, "spoofchk": "off",
     "ipam": {"type": "host-local", "ranges": [
       [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.11", "rangeEnd": "192.0.2.11"}],
       [{"subnet": "2001:db8::/64", "rangeStart": "2001:db8::11", "rangeEnd": "2001:db8::11"}]]}},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.rp_filter": "2"}, "mtu": 1400}]}"#;

/// With fixed addresses.
const FOR_PODMAN: &str = r#"{
  "cniVersion": "1.0.0", "name": "blue", "plugins": [
    {"type": "sriov", "deviceID": "0000:01:10.0", "vlan": 100, "mac": "02:00:00:00:00:22",
     "ipam": {"type": "static", "addresses": [
       {"address": "192.0.2.22/24"}, {"address": "2001:db8::22/64"}]}},
    {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]}"#;

const NETWORKS_OF_PODMAN: &str = r#"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
"#;

/// What there is of the VF when nobody has it.
const LOOK: &str = "ls /sys/bus/pci/devices/0000:01:10.0/net && \
    cat /sys/bus/pci/devices/0000:01:10.0/net/*/mtu && ip link show dev eth0 | sed -n '/^ *vf /p'";

/// Makes a VF, installs the engines, the plugins and the network, and makes a root file system.
fn prepare(machine: &Machine, network: &str) {
    add_engines(machine, NETWORKS_OF_PODMAN);
    make_vfs(machine, 1);
    run(machine, "mkdir -p /etc/cni/net.d");
    machine
        .write("/etc/cni/net.d/10-blue.conflist", network.as_bytes())
        .unwrap();
    install_plugin(machine);
    make_rootfs(machine, "sleep");
}

/// Asserts that nothing of a container is left, once its engine is done with it.
#[track_caller]
fn assert_free(machine: &Machine, before: &str) {
    machine.write("/root/before", before.as_bytes()).unwrap();
    eventually(
        machine,
        &format!("({LOOK}) > /root/now; diff /root/before /root/now"),
    );
    let left = run(
        machine,
        "find /var/lib/cni/sriov /var/lib/cni/networks/blue /var/lib/virtfn/memo -type f \
             -not -name '*lock' -not -name 'last_reserved*' 2>/dev/null; true",
    );
    assert_eq!(left, "");
}

#[test]
fn containers_of_containerd_and_podman_reach_each_other() {
    let lab = Lab::boot(&Topology::igb(2)).expect("these tests need the lab");
    let (containerd, podman) = (&lab[0], &lab[1]);
    prepare(containerd, FOR_CONTAINERD);
    prepare(podman, FOR_PODMAN);
    let before = [containerd, podman].map(|machine| run(machine, LOOK));

    let start = "podman --storage-driver=vfs run --detach --name b --network blue \
                 --rootfs /root/rootfs /bin/sleep 3600";
    run(podman, start);
    let b = run(
        podman,
        "podman --storage-driver=vfs inspect --format '{{.State.Pid}}' b",
    );
    let inside_b = format!("nsenter --net=/proc/{}/ns/net", b.trim());
    let shown = run(podman, &format!("{inside_b} ip address show dev eth0"));
    for text in ["02:00:00:00:00:22", "192.0.2.22/24", "2001:db8::22/64"] {
        assert!(shown.contains(text), "{text} is not in {shown}");
    }
    // Somebody had these addresses before, so what is known of them is wrong.
    run(
        podman,
        &format!(
            "for a in 192.0.2.11 2001:db8::11; do \
             {inside_b} ip neighbour replace $a dev eth0 lladdr 02:00:00:00:00:99 nud stale; done; \
             {inside_b} tcpdump -Z root -lni eth0 'arp or icmp6' > /root/seen 2> /root/tcpdump &"
        ),
    );
    eventually(podman, "grep -q listening /root/tcpdump");

    containerd
        .write(
            "/root/containerd.toml",
            b"version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )
        .unwrap();
    run(
        containerd,
        "mkdir -p /var/lib/containerd && mount -t tmpfs none /var/lib/containerd && \
         (containerd -c /root/containerd.toml > /root/containerd.log 2>&1 &)",
    );
    eventually(containerd, "ctr version");
    run(
        containerd,
        "(ctr run --cni --rootfs /root/rootfs a /bin/sleep 3600 < /dev/null > /root/ctr 2>&1 &)",
    );
    let a = eventually(
        containerd,
        "pid=$(ctr task ls | sed -n 's/^a  *\\([0-9]*\\) .*/\\1/p') && \
         nsenter --net=/proc/$pid/ns/net ip -4 address show dev eth0 | grep -q 192.0.2.11 && \
         echo $pid || { cat /root/ctr; false; }",
    );
    let inside_a = format!("nsenter --net=/proc/{}/ns/net", a.trim());
    let shown = run(containerd, &format!("{inside_a} ip address show dev eth0"));
    assert!(shown.contains("2001:db8::11/64"), "{shown}");
    let mac = run(
        containerd,
        &format!("{inside_a} ip -o link show dev eth0 | sed 's/.*ether \\([^ ]*\\) .*/\\1/'"),
    );
    eventually(
        containerd,
        &format!("{inside_a} ip link show dev eth0 | grep -q 'mtu 1400'"),
    );

    // The neighbour was told, of both families, before anybody asked.
    for address in ["192.0.2.11", "2001:db8::11"] {
        let line = format!(
            "{inside_b} ip neighbour show {address} | grep -q {} || {{ cat /root/seen; false; }}",
            mac.trim()
        );
        eventually(podman, &line);
    }
    let seen = eventually(
        podman,
        "grep -q 'advertisement, tgt is 2001:db8::11' /root/seen && cat /root/seen",
    );
    let told = ["Announcement 192.0.2.11", "tell 192.0.2.11"];
    assert!(told.iter().any(|text| seen.contains(text)), "{seen}");

    for address in ["192.0.2.22", "2001:db8::22"] {
        eventually(containerd, &format!("{inside_a} ping -c 1 -w 5 {address}"));
    }
    for address in ["192.0.2.11", "2001:db8::11"] {
        eventually(podman, &format!("{inside_b} ping -c 1 -w 5 {address}"));
    }

    run(podman, "podman --storage-driver=vfs rm --force --time 0 b");
    assert_free(podman, &before[1]);
    // Here the namespace is gone before DEL is called, and DEL is told of none.
    run(containerd, "ctr task kill --signal 9 a");
    assert_free(containerd, &before[0]);
    lab.power_off();
}

/// A network with addresses out of a range, for calls of the plugin itself.
const PLAIN: &str = r#"{"cniVersion": "1.0.0", "name": "blue", "type": "sriov",
  "deviceID": "0000:01:10.0", "vlan": 100, "ipam": {"type": "host-local", "subnet": "192.0.2.0/24"}}"#;

/// Calls the plugin for a container, in a namespace of the same name.
#[track_caller]
fn call(machine: &Machine, command: &str, container: &str) -> String {
    let line = format!(
        "CNI_COMMAND={command} CNI_CONTAINERID={container} CNI_NETNS=/run/netns/{container} \
         CNI_IFNAME=net1 CNI_PATH=/opt/cni/bin /opt/cni/bin/sriov < /root/network"
    );
    run(machine, &line)
}

#[test]
fn what_a_container_had_before_a_reboot_is_free_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let topology = Topology::igb(1).keeping(dir.path());
    let lab = Lab::boot(&topology).expect("these tests need the lab");
    let machine = &lab[0];
    make_vfs(machine, 1);
    install_plugin(machine);
    machine.write("/root/network", PLAIN.as_bytes()).unwrap();
    run(machine, "ip netns add a");
    call(machine, "ADD", "a");
    let boot = run(machine, "cat /proc/sys/kernel/random/boot_id");
    let reserved = "ls /var/lib/cni/networks/blue | grep -c 192";
    assert_eq!(run(machine, reserved), "1\n");
    // Nobody calls DEL.
    lab.power_off();

    let lab = Lab::boot(&topology).unwrap();
    let machine = &lab[0];
    assert_ne!(run(machine, "cat /proc/sys/kernel/random/boot_id"), boot);
    let kept = run(machine, "cat /var/lib/virtfn/ledger/*");
    assert!(kept.contains(boot.trim()), "{kept}");
    make_vfs(machine, 1);
    let before = run(machine, LOOK);
    run(machine, "ip netns add b");
    call(machine, "ADD", "b");
    assert_eq!(run(machine, reserved), "1\n", "of the former container");
    let held = run(machine, "ip link show dev eth0 | sed -n '/^ *vf /p'");
    assert!(held.contains("vlan 100"), "{held}");
    // The runtime comes round to the DEL of the former container.
    call(machine, "DEL", "a");
    let still = run(machine, "ip link show dev eth0 | sed -n '/^ *vf /p'");
    assert_eq!(still, held);
    call(machine, "DEL", "b");
    assert_free(machine, &before);
    lab.power_off();
}
