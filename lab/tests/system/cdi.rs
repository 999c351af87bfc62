//! A CDI specification of `virtfn agent`, read by a container engine as Debian has it.

use lab::{Lab, Topology};

use crate::support::{PATIENCE, add_engines, eventually, make_rootfs, run, virtfn};

const POOLS: &str =
    r#"{"resourceList": [{"resourceName": "user", "selectors": {"drivers": ["vfio-pci"]}}]}"#;

/// VF 0 of the machine's NIC.
const VF: &str = "0000:01:10.0";

#[test]
fn podman_gives_a_container_the_nodes_that_the_specification_names() {
    let lab = Lab::boot(&Topology::igb(1)).expect("these tests need the lab");
    let machine = &lab[0];
    add_engines(machine, "");
    make_rootfs(machine, "ls");
    machine
        .write("/root/config.json", POOLS.as_bytes())
        .unwrap();
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
