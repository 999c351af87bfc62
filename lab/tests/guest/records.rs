//! Records of VFs that cannot be used: whose the VF is cannot be told, so it is treated as somebody's.

use std::fs;
use std::path::Path;

use crate::support::*;

/// The record of [`VF0`].
fn record() -> String {
    format!("/var/lib/virtfn/ledger/{VF0}.json")
}

/// A machine with two VFs, the first of which is free and was given away before.
fn used_once() -> Machine {
    let machine = Machine::with_vfs(2);
    let blue = Namespace::new("blue");
    virtfn(&["attach", VF0, "--netns", blue.0]).ok();
    virtfn(&["detach", VF0]).ok();
    machine
}

#[test]
fn a_vf_whose_record_is_damaged_is_neither_destroyed_nor_given_away_unasked() {
    let machine = used_once();
    let blue = Namespace::new("blue");
    fs::write(record(), "{\"version\":1,").expect("/var is writable");
    let holder = machine.vf(VF0)["holder"].clone();
    assert_eq!(
        (&holder["kind"], &holder["id"]),
        (&"unknown".into(), &"its record is damaged".into())
    );
    let more = write_policy(&policy("vfs", PF0, 4, "netdevice"));
    let plan = virtfn(&["plan", "-f", &more]).ok();
    assert!(
        plan.stdout().contains("somebody unknown") && plan.stderr().contains("virtfn detach"),
        "{}{}",
        plan.stdout(),
        plan.stderr()
    );
    let told = ["error[vf-in-use]", VF0, "is damaged", "virtfn detach"];
    virtfn(&["apply", "-f", &more]).refused(4, &told);
    virtfn(&["attach", VF0, "--netns", blue.0]).refused(4, &told);
    assert_eq!(num_vfs(PF0), "2");
    // What does not concern the VF goes on beside it.
    virtfn(&["attach", VF1, "--netns", blue.0]).ok();
    virtfn(&["detach", VF1]).ok();

    let shown = virtfn(&["detach", "--dry-run", VF0]).ok();
    assert!(
        shown.stdout().contains("somebody unknown"),
        "{}",
        shown.stdout()
    );
    let detached = virtfn(&["detach", VF0]).ok();
    let kept = format!("{}.damaged", record());
    assert!(detached.stderr().contains(&kept) && Path::new(&kept).exists());
    virtfn(&["attach", VF0, "--netns", blue.0]).ok();
    virtfn(&["detach", VF0]).ok();
    virtfn(&["apply", "-f", &more]).ok();
    assert_eq!(num_vfs(PF0), "4");
}

#[test]
fn a_record_of_a_later_virtfn_is_respected() {
    used_once();
    let blue = Namespace::new("blue");
    let later = "{\"version\":99,\"vf\":{\"a new\":\"form\"}}";
    fs::write(record(), later).expect("/var is writable");
    let fewer = write_policy(&policy("vfs", PF0, 1, "netdevice"));
    virtfn(&["apply", "-f", &fewer]).refused(4, &["error[vf-in-use]", "a later virtfn"]);
    for command in [&["attach", VF0, "--netns", blue.0][..], &["detach", VF0]] {
        virtfn(command).refused(1, &["error[state-of-later-version]", "help:"]);
    }
    let left = fs::read_to_string(record()).expect("it stays");
    assert_eq!((left.as_str(), num_vfs(PF0).as_str()), (later, "2"));
    virtfn(&["apply", "--disrupt", "-f", &fewer]).ok();
    assert_eq!(num_vfs(PF0), "1");
}

#[test]
fn records_that_cannot_be_listed_make_every_vf_somebody_s() {
    let machine = used_once();
    let ledger = Path::new("/var/lib/virtfn/ledger");
    fs::rename(ledger, "/var/lib/virtfn/aside").expect("/var is writable");
    fs::write(ledger, "in the way").expect("/var is writable");
    assert_eq!(machine.vf(VF1)["holder"]["kind"], "unknown");
    let fewer = write_policy(&policy("vfs", PF0, 1, "netdevice"));
    virtfn(&["apply", "-f", &fewer]).refused(4, &["error[vf-in-use]", VF0, VF1]);
    assert_eq!(num_vfs(PF0), "2");
    fs::remove_file(ledger).expect("it was written above");
    virtfn(&["apply", "-f", &fewer]).ok();
}

#[test]
fn what_a_former_boot_left_damaged_keeps_nobody_from_the_vf() {
    let machine = Machine::with_vfs(1);
    fs::create_dir_all("/var/lib/virtfn/ledger").expect("/var is writable");
    // Nobody locked the VF since the machine started.
    fs::write(record(), "\0\0\0").expect("/var is writable");
    assert_eq!(machine.vf(VF0)["holder"], serde_json::Value::Null);
    let listed = virtfn(&["list"]).ok();
    assert!(
        listed.stderr().contains("of a former boot"),
        "{}",
        listed.stderr()
    );
    let blue = Namespace::new("blue");
    let attached = virtfn(&["attach", VF0, "--netns", blue.0]).ok().stderr();
    assert!(
        attached.contains(&format!("{}.damaged", record())),
        "{attached}"
    );
    virtfn(&["detach", VF0]).ok();
    // An apply brings order into it as well.
    fs::remove_dir_all("/run/virtfn/lock").expect("as a reboot does");
    fs::write(record(), "\0").expect("/var is writable");
    let text = policy("vfs", PF0, 2, "netdevice");
    let applied = machine.apply(&text).ok().stderr();
    assert!(
        applied.contains(VF0) && applied.contains("former boot"),
        "{applied}"
    );
    let quiet = machine.apply(&text).ok().stderr();
    assert!(!quiet.contains("former boot"), "{quiet}");
}
