//! What somebody gave VFs by hand, when their number changes: the kernel forgets it with the VFs, virtfn
//! gives it back, and no kill in between loses it.

use std::fs;

use serde_json::Value;

use crate::kill::{MOST, dies_at};
use crate::support::*;

const MAC: &str = "02:00:00:00:00:51";

/// Gives VF 1 of [`PF0`] a MAC and a VLAN, and takes its spoof check. VF 0 has the MAC that its driver made
/// up, which the PF reports as well.
fn give_by_hand() {
    let pf = netdev(PF0);
    let vf = ["link", "set", &pf, "vf", "1"];
    for setting in [
        &["mac", MAC][..],
        &["vlan", "100", "qos", "3"],
        &["spoofchk", "off"],
    ] {
        run("ip", &[&vf[..], setting].concat());
    }
}

/// Returns what the PF says of VFs 0 and 1.
fn both(machine: &Machine) -> Vec<Value> {
    let vfs = machine.kernel_vfs();
    vec![vfs[0].clone(), vfs[1].clone()]
}

/// Says what the netdev of VF 1 took for its MAC when its driver was bound.
fn mac_of_netdev(machine: &Machine) -> Value {
    machine.vf(VF1)["netdev"]["mac"].clone()
}

#[test]
fn at_another_number_vfs_have_what_they_were_given() {
    let machine = Machine::with_vfs(2);
    give_by_hand();
    let before = both(&machine);
    for count in [4, 2] {
        let file = write_policy(&policy("vfs", PF0, count, "netdevice"));
        let plan = virtfn(&["plan", "-f", &file]).ok().stdout();
        assert!(plan.contains("vf 1: set vlan 100 qos 3"), "{plan}");
        assert!(plan.contains(&format!("vf 1: set mac {MAC}")), "{plan}");
        virtfn(&["apply", "-f", &file]).ok();
        assert_eq!(both(&machine), before, "at {count} VFs");
        assert_eq!(mac_of_netdev(&machine), MAC, "at {count} VFs");
        virtfn(&["plan", "--check", "-f", &file]).ok();
    }
    machine.apply(&policy("vfs", PF0, 4, "vfio-pci")).ok();
    assert_eq!(both(&machine), before, "on vfio-pci");
    assert_eq!(machine.vf(VF1)["driver"], "vfio-pci");
    // A VF that is no more is forgotten.
    machine.apply(&policy("vfs", PF0, 1, "netdevice")).ok();
    machine.apply(&policy("vfs", PF0, 2, "netdevice")).ok();
    assert_eq!(machine.vf(VF1)["vlan"], 0);
}

#[test]
fn killed_in_between_nothing_that_was_given_is_lost() {
    let machine = Machine::with_vfs(2);
    give_by_hand();
    let before = both(&machine)[1].clone();
    // Each round begins where the one before ended, so the number goes up and down.
    let counts = [3, 2];
    let mut alive = 0;
    for (at, count) in (1..MOST).zip(counts.into_iter().cycle()) {
        let file = write_policy(&policy("vfs", PF0, count, "netdevice"));
        let arguments = ["apply", "-f", file.as_str()];
        if dies_at(&arguments, at) {
            virtfn(&arguments).ok();
            alive = 0;
        } else {
            alive += 1;
        }
        assert_eq!(both(&machine)[1], before, "killed at {at}");
        assert_eq!(mac_of_netdev(&machine), MAC, "killed at {at}");
        virtfn(&["plan", "--check", "-f", &file]).ok();
        if alive == counts.len() {
            assert!(at > 10, "only {at} checkpoints were passed");
            return;
        }
    }
    panic!("{MOST} checkpoints were passed");
}

#[test]
fn what_a_driver_does_not_take_back_can_be_given_up() {
    let machine = Machine::with_vfs(2);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the kernel has it");
    let note = format!("/var/lib/virtfn/lost/{PF0}.json");
    fs::create_dir_all("/var/lib/virtfn/lost").expect("root can make it");
    // igb has no link state for VFs, so this stands for another PF in the same place.
    let had = r#"{"1":{"link":"enable"}}"#;
    let text = format!(r#"{{"version":1,"boot":"{}","vfs":{had}}}"#, boot.trim());
    fs::write(&note, text).expect("root can write it");
    let policy = policy("vfs", PF0, 2, "netdevice");
    let told = ["error[not-supported]", "link-state enable", "remove", &note];
    machine.apply(&policy).refused(1, &told);
    fs::remove_file(&note).expect("the note stays until then");
    machine.apply(&policy).ok();
}
