//! What a plan costs, on recorded hosts: resets, refusals, firmware, and what the kernel lacks.

use crate::plan::Files;
use crate::{Ran, recording, virtfn};

/// A policy for `pf` of a recorded host.
fn policy(pf: &str, count: u16, more: &str) -> String {
    format!(
        "apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {{name: rack-a}}
spec:
  resourceName: fast
  nodeSelector: {{}}
  nicSelector: {{pfNames: ['{pf}']}}
  numVfs: {count}
{more}"
    )
}

/// A recorded host with more in it.
fn host(files: &Files, tree: &str, more: &str) -> String {
    let text = std::fs::read_to_string(recording(tree)).unwrap();
    files.write("host.tree", format!("{text}\n{more}"))
}

fn plan(files: &Files, file: &str, host: &str, more: &[&str]) -> Ran {
    let _unused = files;
    virtfn(&[&["plan", "-f", file, "--state", host], more].concat())
}

const INTEL_WITHOUT_IOMMU: &str = "
/sys/kernel/iommu_groups/
[/proc]
cmdline = root=/dev/sda1 ro
cpuinfo = vendor_id\t: GenuineIntel
sys/kernel/osrelease = 6.12.0
[/sys/firmware/acpi/tables]
DMAR =
[/lib/modules/6.12.0]
modules.dep = kernel/drivers/vfio/pci/vfio-pci.ko: \n
";

#[test]
fn a_pf_of_no_policy_is_given_back_when_it_was_configured() {
    let files = Files::new();
    let owned = r#"/etc/sriov-operator/pci/0000:01:00.0 = {"pciAddress":"0000:01:00.0","numVfs":4,"name":"eth0"}"#;
    let host = host(&files, "igb-4-vfs", owned);
    let other = files.write("p.yaml", policy("eth0", 0, ""));
    let ran = plan(&files, &other, &host, &["--check"]);
    insta::assert_snapshot!("price-release", files.shown(&ran));
    let ran = plan(&files, &other, &recording("igb-4-vfs"), &["--check"]);
    assert_eq!((ran.out.as_str(), ran.status), ("nothing to do\n", 0));
}

#[test]
fn more_vfs_than_the_firmware_offers_need_the_firmware_changed() {
    let files = Files::new();
    let file = files.write("p.yaml", policy("ens1f1np1", 9, ""));
    let ran = plan(&files, &file, &recording("mlx5-legacy"), &["--check"]);
    insta::assert_snapshot!("price-firmware", files.shown(&ran));
    let ran = plan(&files, &file, &recording("mlx5-legacy"), &["-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["firmware"][0]["command"][0], "mstconfig");
    assert_eq!(json["reboots"].as_array().map(Vec::len), Some(1));
    assert!(json["pfs"][0]["steps"][0]["reboot"].is_string());
    let file = files.write("p.yaml", policy("eth0", 9, ""));
    let ran = plan(&files, &file, &recording("igb"), &[]);
    insta::assert_snapshot!("price-too-many", files.shown(&ran));
}

#[test]
fn vfio_without_an_iommu_names_the_arguments_and_waits_for_the_reboot() {
    let files = Files::new();
    let host = host(&files, "ixgbe", INTEL_WITHOUT_IOMMU);
    let file = files.write("p.yaml", policy("eno1", 2, "  deviceType: vfio-pci\n"));
    let ran = plan(&files, &file, &host, &["--check"]);
    insta::assert_snapshot!("price-kernel", files.shown(&ran));
}

#[test]
fn a_node_state_is_another_way_to_say_it() {
    let files = Files::new();
    let state = |name: &str, pf: &str| {
        format!(
            "apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodeState
metadata: {{name: {name}}}
spec:
  interfaces:
  - {{pciAddress: '{pf}', numVfs: 2, name: eth0, vfGroups: [{{resourceName: fast, deviceType: netdevice, vfRange: 0-1}}]}}
"
        )
    };
    let mut all = String::new();
    let igb = recording("igb");
    for (name, text) in [
        ("one.yaml", state("worker-1", "0000:01:00.0")),
        ("absent.yaml", state("worker-1", "0000:09:00.0")),
        (
            "two.yaml",
            format!(
                "{}---\n{}",
                state("worker-1", "0000:01:00.0"),
                state("worker-2", "0000:01:00.0")
            ),
        ),
        (
            "twice.yaml",
            [
                state("worker-1", "0000:01:00.0"),
                state("worker-1", "0000:02:00.0"),
            ]
            .join("---\n"),
        ),
        (
            "both.yaml",
            format!(
                "{}---\n{}",
                state("worker-1", "0000:01:00.0"),
                policy("eth0", 1, "")
            ),
        ),
    ] {
        let file = files.write(name, text);
        all.push_str(&format!(
            "{name}\n{}\n",
            files.shown(&plan(&files, &file, &igb, &[]))
        ));
    }
    insta::assert_snapshot!("price-node-state", all);
}

#[test]
fn one_of_several_names_may_be_missing() {
    let files = Files::new();
    let file = files.write("p.yaml", policy("eth0', 'ens9", 1, ""));
    let ran = plan(&files, &file, &recording("igb"), &[]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out.contains("have 1 VFs"), "{}", ran.out);
    assert!(
        ran.err
            .contains("it names PF ens9, which this host does not have"),
        "{}",
        ran.err
    );
}

#[test]
fn a_record_that_is_damaged_is_told_and_proves_nothing() {
    let files = Files::new();
    let host = host(
        &files,
        "igb-4-vfs",
        "/etc/sriov-operator/pci/0000:01:00.0 = {",
    );
    let file = files.write("p.yaml", policy("eth0", 0, ""));
    let ran = plan(&files, &file, &host, &["--check"]);
    assert_eq!(ran.status, 0, "{}", ran.out);
    assert!(
        ran.err
            .contains("record /etc/sriov-operator/pci/0000:01:00.0"),
        "{}",
        ran.err
    );
}
