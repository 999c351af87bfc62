//! `virtfn list` against what sysfs and `ip` say.

use crate::support::*;

#[test]
fn pfs_are_listed_with_what_the_kernel_says() {
    let machine = Machine::fresh();
    let view = machine.seen();
    let pf = find(&view["pfs"], PF0);
    assert_eq!(pf["vendor"]["id"], "8086");
    assert_eq!(pf["device"]["id"], "10c9");
    assert_eq!(pf["driver"], "igb");
    assert_eq!(pf["netdev"]["name"], netdev(PF0));
    assert_eq!(pf["netdev"]["linkType"], "ether");
    assert_eq!(pf["netdev"]["mtu"], 1500);
    assert_eq!(pf["totalVfs"], 7);
    assert_eq!(pf["numVfs"], 0);
    assert!(pf["iommuGroup"].is_u64(), "{pf:#}");
    assert!(pf["firmware"].is_string(), "{pf:#}");
    assert_eq!(
        pf["eswitchMode"],
        serde_json::Value::Null,
        "igb has no devlink eswitch"
    );
    assert!(
        view["gaps"].as_array().is_some_and(Vec::is_empty),
        "{view:#}"
    );
}

#[test]
fn names_come_from_pci_ids() {
    let machine = Machine::fresh();
    let pf = find(&machine.seen()["pfs"], PF0);
    assert_eq!(pf["vendor"]["name"], "Intel Corporation");
    assert!(
        pf["device"]["name"]
            .as_str()
            .is_some_and(|name| name.contains("82576")),
        "{pf:#}"
    );
}

#[test]
fn vfs_are_listed_as_the_pf_reports_them() {
    let machine = Machine::with_vfs(2);
    let pf = netdev(PF0);
    run(
        "ip",
        &[
            "link",
            "set",
            &pf,
            "vf",
            "1",
            "mac",
            "02:00:00:00:00:11",
            "vlan",
            "100",
            "qos",
            "3",
        ],
    );
    run(
        "ip",
        &[
            "link", "set", &pf, "vf", "1", "spoofchk", "off", "trust", "on",
        ],
    );
    let vf = machine.vf(VF1);
    assert_eq!(vf["index"], 1);
    assert_eq!(vf["pf"]["address"], PF0);
    assert_eq!(vf["pf"]["name"], pf);
    assert_eq!(vf["driver"], "igbvf");
    assert_eq!(vf["netdev"]["name"], netdev(VF1));
    assert_eq!(vf["adminMac"], "02:00:00:00:00:11");
    assert_eq!(vf["vlan"], 100);
    assert_eq!(vf["qos"], 3);
    assert_eq!(vf["vlanProto"], "802.1q");
    assert_eq!(vf["spoofCheck"], false);
    assert_eq!(vf["trust"], true);
    assert_eq!(vf["iommuGroupMembers"], serde_json::json!([]));
    assert_eq!(vf["holder"], serde_json::Value::Null);
    let other = machine.vf(VF0);
    assert_eq!(
        (&other["vlan"], &other["spoofCheck"]),
        (&0.into(), &true.into())
    );
}

#[test]
fn a_vf_in_another_namespace_is_found_there() {
    let machine = Machine::with_vfs(1);
    let blue = Namespace::new("blue");
    run(
        "ip",
        &[
            "link",
            "set",
            &netdev(VF0),
            "netns",
            blue.0,
            "name",
            "moved",
        ],
    );
    let vf = machine.vf(VF0);
    assert_eq!(vf["netdev"]["name"], "moved");
    assert_eq!(vf["netdev"]["netns"]["path"], "/run/netns/blue");
    assert_eq!(vf["holder"]["kind"], "namespace");
}

#[test]
fn a_vf_bound_to_vfio_has_its_device_node() {
    let machine = Machine::fresh();
    machine.apply(&policy("user", PF0, 1, "vfio-pci")).ok();
    let vf = machine.vf(VF0);
    assert_eq!(vf["driver"], "vfio-pci");
    assert_eq!(vf["netdev"], serde_json::Value::Null);
    let group = vf["iommuGroup"]
        .as_u64()
        .expect("a VF has an IOMMU group of its own");
    assert_eq!(vf["vfio"]["group"], format!("/dev/vfio/{group}"));
    assert!(std::path::Path::new(&format!("/dev/vfio/{group}")).exists());
}

#[test]
fn devices_that_are_no_nics_are_listed_too() {
    let machine = Machine::fresh();
    let view = machine.seen();
    let nvme = view["pfs"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|pf| {
            pf["class"]["id"]
                .as_str()
                .is_some_and(|class| class.starts_with("0108"))
        })
        .expect("the machine has an NVMe device with SR-IOV");
    assert_eq!(nvme["totalVfs"], 4);
    assert_eq!(nvme["netdev"], serde_json::Value::Null);
    assert_eq!(nvme["driver"], "nvme");
}

#[test]
fn every_form_names_the_same_vfs() {
    let machine = Machine::with_vfs(3);
    for form in ["table", "wide", "name", "json", "yaml"] {
        let text = virtfn(&["list", "vf", "-o", form]).ok().stdout();
        for index in 0..3 {
            let address = format!("0000:01:10.{}", index * 2);
            let handle = format!("{}#{index}", netdev(PF0));
            assert!(
                text.contains(&address) || text.contains(&handle),
                "{form}:\n{text}"
            );
        }
    }
    assert_eq!(machine.kernel_vfs().as_array().map(Vec::len), Some(3));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    Machine::with_vfs(1);
    let mut child = virtfn_command(&["list", "-o", "json"])
        .spawn()
        .expect("virtfn starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("virtfn ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_ne!(output.status.code(), Some(70), "{stderr}");
}

fn forget_names(function: &mut serde_json::Value) {
    function["vendor"]["name"].take();
    function["device"]["name"].take();
}

#[test]
fn a_recorded_host_is_seen_as_it_was() {
    let machine = Machine::with_vfs(2);
    // Or it comes up between the recording and the look at what is there.
    run("ip", &["link", "set", &netdev(PF0), "down"]);
    let file = format!("/tmp/recorded-{}.tree", std::process::id());
    let _absent = std::fs::remove_file(&file);
    virtfn(&["record", &file]).ok();
    let mut there = machine.seen();
    set_num_vfs(PF0, 0);
    let mut replayed = virtfn(&["list", "-o", "json", "--state", &file])
        .ok()
        .json();
    // Names of vendors and devices are this machine's knowledge, not the recorded host's.
    for view in [&mut replayed, &mut there] {
        view["host"].take();
        for pf in view["pfs"].as_array_mut().into_iter().flatten() {
            forget_names(pf);
            pf["vfs"]
                .as_array_mut()
                .into_iter()
                .flatten()
                .for_each(forget_names);
        }
    }
    assert_eq!(replayed, there);
}
