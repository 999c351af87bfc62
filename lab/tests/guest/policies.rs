//! Policies over time: several at once, changed, removed, taken over from the operator's own daemon.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::*;

/// Where the operator, and virtfn in its form, records which PFs were configured.
fn record(pf: &str) -> PathBuf {
    Path::new("/etc/sriov-operator/pci").join(pf)
}

/// A policy for some VFs of [`PF0`].
fn part(name: &str, range: &str, count: u16, device_type: &str) -> String {
    policy(name, PF0, count, device_type).replace(
        &format!("rootDevices: [\"{PF0}\"]"),
        &format!("pfNames: [\"{}#{range}\"]", netdev(PF0)),
    )
}

/// Policies that want nothing of anybody.
fn nothing() -> String {
    policy("nothing", PF0, 0, "netdevice")
}

fn vf_index(vf: &str) -> String {
    let path = pci(vf).join("net").join(netdev(vf)).join("ifindex");
    fs::read_to_string(path).expect("a VF has an index")
}

#[test]
fn of_two_policies_for_the_same_vfs_the_more_important_counts() {
    let machine = Machine::fresh();
    let all = part("all", "0-3", 4, "netdevice").replace("priority: 50", "priority: 99");
    let some = part("some", "2-3", 4, "vfio-pci").replace("priority: 50", "priority: 10");
    let low = part("low", "0-1", 4, "netdevice").replace("priority: 50", "priority: 90");
    machine.apply(&format!("{some}---\n{all}---\n{low}")).ok();
    let drivers: Vec<_> = (0..4)
        .map(|index| machine.vf(&format!("0000:01:10.{}", index * 2))["driver"].clone())
        .collect();
    assert_eq!(drivers, ["igbvf", "igbvf", "vfio-pci", "vfio-pci"]);
    let text = fs::read_to_string(record(PF0)).expect("the PF is owned");
    assert!(text.contains(r#""policyName":"some""#) && !text.contains(r#""policyName":"all""#));
}

#[test]
fn growing_and_shrinking_spare_vfs_in_use() {
    let machine = Machine::with_vfs(4);
    let blue = Namespace::new("blue");
    virtfn(&["attach", VF0, "--netns", blue.0, "--name", "net1"]).ok();
    // Its link comes up in its own time.
    let held = || {
        let mut vf = machine.vf(VF0);
        vf["netdev"]["state"].take();
        vf
    };
    let before = held();
    for count in [2, 7] {
        let file = write_policy(&policy("vfs", PF0, count, "netdevice"));
        let plan = virtfn(&["plan", "-f", &file]).ok().stdout();
        assert!(
            plan.contains("interrupts vf 0") && plan.contains("drain first"),
            "{plan}"
        );
        virtfn(&["apply", "-f", &file]).refused(4, &["error[vf-in-use]", VF0]);
        assert_eq!(num_vfs(PF0), "4");
    }
    // What does not concern the VF goes on beside it.
    let parts = format!(
        "{}---\n{}",
        part("kernel", "0-1", 4, "netdevice"),
        part("user", "2-3", 4, "vfio-pci")
    );
    machine.apply(&parts).ok();
    assert_eq!(machine.vf("0000:01:10.4")["driver"], "vfio-pci");
    assert_eq!(held(), before);
    let grown = policy("vfs", PF0, 7, "netdevice");
    virtfn(&["apply", "--disrupt", "-f", &write_policy(&grown)]).ok();
    assert_eq!(num_vfs(PF0), "7");
    virtfn(&["plan", "--check", "-f", &write_policy(&grown)]).ok();
}

#[test]
fn a_removed_policy_takes_back_what_was_configured_and_only_that() {
    let machine = Machine::fresh();
    set_num_vfs(PF1, 2);
    let jumbo =
        policy("jumbo", PF0, 3, "vfio-pci").replace("  priority", "  mtu: 9000\n  priority");
    machine.apply(&jumbo).ok();
    assert_eq!(find(&machine.seen()["pfs"], PF0)["netdev"]["mtu"], 9000);
    let file = write_policy(&nothing());
    let plan = virtfn(&["plan", "--check", "-f", &file]).ended(3).stdout();
    assert!(
        plan.contains("have 0 VFs") && plan.contains("set mtu 1500"),
        "{plan}"
    );
    assert_eq!(num_vfs(PF0), "3", "a plan changed the host");
    virtfn(&["apply", "-f", &file]).ok();
    assert_eq!((num_vfs(PF0).as_str(), num_vfs(PF1).as_str()), ("0", "2"));
    assert_eq!(find(&machine.seen()["pfs"], PF0)["netdev"]["mtu"], 1500);
    assert!(!record(PF0).exists());
    let again = virtfn(&["apply", "-f", &file]).ok();
    assert!(
        again.stdout().contains("nothing to do"),
        "{}",
        again.stdout()
    );
}

#[test]
fn what_the_operator_configured_is_taken_over_without_losing_a_vf() {
    let machine = Machine::fresh();
    set_num_vfs(PF0, 2);
    run("ip", &["link", "set", &netdev(PF0), "up", "mtu", "9000"]);
    for vf in [VF0, VF1] {
        run("ip", &["link", "set", &netdev(vf), "mtu", "9000"]);
    }
    let name = netdev(PF0);
    let upstreams = format!(
        r#"{{"pciAddress":"{PF0}","numVfs":2,"mtu":9000,"name":"{name}","vfGroups":[{{"resourceName":"taken","deviceType":"netdevice","vfRange":"0-1","policyName":"taken","mtu":9000}}]}}"#
    );
    fs::create_dir_all("/etc/sriov-operator/pci").expect("/etc is writable");
    fs::write(record(PF0), &upstreams).expect("/etc is writable");
    let initial = format!(
        r#"{{"status":{{"interfaces":[{{"pciAddress":"{PF0}","mtu":1600,"eSwitchMode":"legacy"}}]}}}}"#
    );
    fs::write("/tmp/sno-initial-node-state.json", initial).expect("/tmp is writable");
    let (index, file) = (
        vf_index(VF0),
        write_policy(
            &policy("taken", PF0, 2, "netdevice").replace("  priority", "  mtu: 9000\n  priority"),
        ),
    );
    let applied = virtfn(&["apply", "-f", &file]).ok();
    assert!(
        applied.stdout().contains("nothing to do"),
        "{}",
        applied.stdout()
    );
    assert_eq!(vf_index(VF0), index, "the VFs were made anew");
    let text = fs::read_to_string(record(PF0)).expect("the PF is owned");
    assert_eq!(text, upstreams, "the operator would see another record");
    machine.apply(&nothing()).ok();
    assert_eq!(num_vfs(PF0), "0");
    assert_eq!(find(&machine.seen()["pfs"], PF0)["netdev"]["mtu"], 1600);
    assert!(!record(PF0).exists());
    fs::remove_file("/tmp/sno-initial-node-state.json").expect("it was written above");
}

#[test]
fn pfs_of_somebody_else_keep_their_vfs() {
    let machine = Machine::fresh();
    let external = |count| {
        policy("external", PF0, count, "vfio-pci")
            .replace("  priority", "  externallyManaged: true\n  priority")
    };
    machine
        .apply(&external(2))
        .refused(2, &["error[externally-managed]", "there are 0"]);
    assert_eq!(num_vfs(PF0), "0");
    set_num_vfs(PF0, 3);
    machine.apply(&external(2)).ok();
    assert_eq!(num_vfs(PF0), "3");
    assert_eq!(machine.vf(VF1)["driver"], "vfio-pci");
    assert_eq!(machine.vf("0000:01:10.4")["driver"], "igbvf");
    machine.apply(&nothing()).ok();
    assert_eq!(num_vfs(PF0), "3", "VFs of somebody else were removed");
    assert!(!record(PF0).exists());
}

#[test]
fn devices_that_are_no_nics_are_left_alone() {
    let machine = Machine::fresh();
    let view = machine.seen();
    let nvme = view["pfs"].as_array().into_iter().flatten();
    let mut nvme = nvme.filter(|pf| pf["class"]["name"] == "nvme");
    let nvme = nvme.next().expect("the machine has an NVMe device")["address"]
        .as_str()
        .expect("an address is text")
        .to_owned();
    machine
        .apply(&policy("disk", &nvme, 1, "netdevice"))
        .refused(2, &["error[pf-not-usable]", "no network device"]);
    let before = find(&machine.seen()["pfs"], &nvme);
    let both = policy_for_all(2, "netdevice");
    machine.apply(&both).ok();
    machine.apply(&nothing()).ok();
    assert_eq!(find(&machine.seen()["pfs"], &nvme), before);
}

#[test]
fn a_node_state_is_applied_as_policies_are() {
    let machine = Machine::fresh();
    let state = node_state("netdevice");
    machine.apply(&state).ok();
    assert_eq!(machine.vf(VF0)["driver"], "igbvf");
    assert_eq!(machine.vf(VF1)["driver"], "vfio-pci");
    let none = state.split("  interfaces").next().unwrap_or_default();
    machine.apply(&none.replace("spec:", "spec: {}")).ok();
    assert_eq!(num_vfs(PF0), "0");
}

#[test]
fn status_plan_and_apply_agree() {
    let machine = Machine::fresh();
    let file = "/tmp/policy-agree.yaml";
    let agree = |text: &str, code: i32| {
        fs::write(file, text).expect("/tmp is writable");
        virtfn(&["plan", "--check", "-f", file]).ended(code);
        virtfn(&["status", "--check", "-f", file])
            .ended(code)
            .stdout()
    };
    let wanted = policy("vfs", PF0, 2, "netdevice");
    let told = agree(&wanted, 3);
    assert!(told.contains("number of VFs is 0, wanted 2"), "{told}");
    machine.apply(&wanted).ok();
    agree(&wanted, 0);
    let told = agree(&nothing(), 3);
    assert!(told.contains("gives it back"), "{told}");
    machine.apply(&nothing()).ok();
    let told = agree(&nothing(), 0);
    assert!(told.contains("as wanted"), "{told}");
    // Somebody else changes something.
    machine.apply(&wanted).ok();
    run("ip", &["link", "set", &netdev(PF0), "down"]);
    assert!(agree(&wanted, 3).contains("link is down, wanted up"));
}
