//! A CDI specification of `virtfn agent`, read by a container engine as Debian has it.
//!
//! It fails, rather than skips, where the lab cannot be set up or where no `virtfn` was built.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::{Assets, Lab, Machine, Topology};

/// Until a container engine, emulated, has done something.
const PATIENCE: Duration = Duration::from_secs(120);

const POOLS: &str =
    r#"{"resourceList": [{"resourceName": "user", "selectors": {"drivers": ["vfio-pci"]}}]}"#;

const PODMAN: &str = r#"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
log_driver = "k8s-file"
"#;

/// VF 0 of the machine's NIC.
const VF: &str = "0000:01:10.0";

/// Returns the command under test: `$VIRTFN`, or the one that was built beside this test.
fn virtfn() -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().unwrap();
        let dir = test.parent().and_then(Path::parent).unwrap();
        dir.join("virtfn")
    };
    let path = std::env::var_os("VIRTFN").map_or_else(beside, PathBuf::from);
    assert!(
        path.exists(),
        "no {}: build it with `cargo build -p cli`, or run `cargo xtask test --lab`",
        path.display()
    );
    path
}

#[track_caller]
fn run(machine: &Machine, line: &str) -> String {
    let command = machine.command(["sh", "-c", line]).limit(PATIENCE);
    command.output().unwrap().check().unwrap()
}

/// Waits until a command succeeds, and returns what it writes.
#[track_caller]
fn eventually(machine: &Machine, line: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = machine.run(line).unwrap();
        if output.exit.success() {
            return output.check().unwrap();
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "`{line}` did not succeed:\n{}", output.text());
        std::thread::park_timeout(Duration::from_millis(300));
    }
}

#[test]
fn podman_gives_a_container_the_nodes_that_the_specification_names() {
    let lab = Lab::boot(&Topology::igb(1)).expect("these tests need the lab");
    let engines = Assets::container_engines(&|text| eprintln!("{text}")).unwrap();
    let machine = &lab[0];
    if let Some(engines) = &engines {
        let usr = format!("lowerdir=/usr:{}/usr", engines.display());
        run(
            machine,
            &format!("mount -t overlay overlay -o ro,{usr} /usr"),
        );
    }
    run(
        machine,
        "mount --make-rshared / && mkdir -p /etc/containers",
    );
    machine
        .write("/etc/containers/containers.conf", PODMAN.as_bytes())
        .unwrap();
    machine
        .write("/root/config.json", POOLS.as_bytes())
        .unwrap();
    run(
        machine,
        "mkdir -p /root/rootfs/bin /root/rootfs/proc /root/rootfs/sys /root/rootfs/dev \
             /root/rootfs/etc /root/rootfs/run /root/rootfs/tmp && \
         cp $(command -v busybox) /root/rootfs/bin/ && ln -s busybox /root/rootfs/bin/ls",
    );
    run(
        machine,
        &format!(
            "cd /sys/class/net/eth0/device && echo 0 > sriov_drivers_autoprobe && \
             echo 1 > sriov_numvfs && echo vfio-pci > virtfn0/driver_override && \
             echo {VF} > /sys/bus/pci/drivers_probe && test -e virtfn0/driver"
        ),
    );
    run(
        machine,
        &format!(
            "({} agent --config /root/config.json --use-cdi > /root/agent.log 2>&1 &)",
            virtfn().display()
        ),
    );
    eventually(
        machine,
        &format!(
            "grep {VF} /var/run/cdi/sriov-dp-intel.com-net-pci-user.yaml || \
             {{ cat /root/agent.log; false; }}"
        ),
    );
    let group = run(
        machine,
        &format!("basename $(readlink /sys/bus/pci/devices/{VF}/iommu_group)"),
    );
    let podman = |device: &str| {
        format!(
            "podman --storage-driver=vfs run --rm --network none {device} \
             --rootfs /root/rootfs /bin/ls /dev/vfio"
        )
    };
    let seen = run(
        machine,
        &podman(&format!("--device intel.com/net-pci={VF}")),
    );
    let nodes: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(nodes, [group.trim(), "vfio"], "{seen}");
    // Without the name there is nothing of it.
    let without = machine.command(["sh", "-c", &podman("")]).limit(PATIENCE);
    let without = without.output().unwrap();
    assert!(!without.exit.success(), "{}", without.text());
    lab.power_off();
}
