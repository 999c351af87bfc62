//! `virtfn attach` and `virtfn detach` on the real drivers.

use std::fs;

use crate::support::*;

#[test]
fn equal_vlans_talk_and_others_do_not() {
    let _machine = Machine::with_vfs(3);
    let (a, b, c) = (
        Namespace::new("a"),
        Namespace::new("b"),
        Namespace::new("c"),
    );
    for (index, netns, vlan, address) in [
        ("0", &a, "100", "192.0.2.1/24"),
        ("1", &b, "100", "192.0.2.2/24"),
        ("2", &c, "200", "192.0.2.3/24"),
    ] {
        let vf = format!("{}#{index}", netdev(PF0));
        virtfn(&[
            "attach",
            &vf,
            "--netns",
            netns.0,
            "--name",
            "net1",
            "--vlan",
            vlan,
            "--address",
            address,
        ])
        .ok();
    }
    eventually("VLAN 100 to VLAN 100", || pings("a", "192.0.2.2"));
    assert!(!pings("a", "192.0.2.3"), "VLAN 100 to VLAN 200");
}

#[test]
fn detach_brings_the_original_state_back() {
    let machine = Machine::with_vfs(2);
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    let blue = Namespace::new("blue");
    virtfn(&[
        "attach",
        VF1,
        "--netns",
        blue.0,
        "--name",
        "net1",
        "--vlan",
        "100",
        "--qos",
        "2",
        "--mac",
        "02:00:00:00:00:42",
        "--spoofchk",
        "off",
        "--trust",
        "on",
        "--mtu",
        "1400",
        "--address",
        "192.0.2.1/24",
        "--address",
        "2001:db8::1/64",
    ])
    .ok();
    let held = machine.vf(VF1);
    assert_eq!(held["holder"]["kind"], "attach");
    assert_eq!((&held["vlan"], &held["qos"]), (&100.into(), &2.into()));
    assert_eq!(
        (&held["spoofCheck"], &held["trust"]),
        (&false.into(), &true.into())
    );
    assert_eq!(held["netdev"]["netns"]["path"], "/run/netns/blue");
    let addresses = blue.ip(&["address", "show", "dev", "net1"]);
    for text in [
        "192.0.2.1/24",
        "2001:db8::1/64",
        "02:00:00:00:00:42",
        "mtu 1400",
        "UP",
    ] {
        assert!(addresses.contains(text), "{text} is not in {addresses}");
    }
    virtfn(&["detach", VF1]).ok();
    assert_eq!(machine.settled(), before);
    assert_eq!(machine.kernel_vfs(), kernel);
}

#[test]
fn a_mac_reaches_the_interface_although_igbvf_must_be_reloaded_for_it() {
    let _machine = Machine::with_vfs(1);
    let blue = Namespace::new("blue");
    virtfn(&[
        "attach",
        VF0,
        "--netns",
        blue.0,
        "--name",
        "net1",
        "--mac",
        "02:00:00:00:00:07",
    ])
    .ok();
    assert!(
        blue.ip(&["link", "show", "dev", "net1"])
            .contains("02:00:00:00:00:07")
    );
    assert_eq!(_machine.vf(VF0)["adminMac"], "02:00:00:00:00:07");
}

#[test]
fn a_held_vf_is_not_given_twice() {
    let machine = Machine::with_vfs(1);
    let (blue, red) = (Namespace::new("blue"), Namespace::new("red"));
    virtfn(&["attach", VF0, "--netns", blue.0]).ok();
    virtfn(&["attach", VF0, "--netns", red.0]).refused(4, &["error[vf-in-use]", VF0, "blue"]);
    assert_eq!(
        machine.vf(VF0)["netdev"]["netns"]["path"],
        "/run/netns/blue"
    );
}

#[test]
fn of_two_racing_attaches_one_wins_and_the_other_is_told_who() {
    for _round in 0..3 {
        let machine = Machine::with_vfs(1);
        let (_blue, _red) = (Namespace::new("blue"), Namespace::new("red"));
        let racers: Vec<_> = ["blue", "red"]
            .into_iter()
            .map(|netns| {
                virtfn_command(&["attach", VF0, "--netns", netns])
                    .spawn()
                    .expect("virtfn starts")
            })
            .collect();
        let ended: Vec<_> = racers
            .into_iter()
            .map(|child| child.wait_with_output().expect("virtfn ends"))
            .collect();
        let winners = ended
            .iter()
            .filter(|output| output.status.success())
            .count();
        assert_eq!(winners, 1, "{ended:?}");
        let loser = ended
            .iter()
            .find(|output| !output.status.success())
            .expect("one lost");
        let stderr = String::from_utf8_lossy(&loser.stderr);
        assert!(stderr.contains("vf-in-use"), "{stderr}");
        assert_eq!(machine.vf(VF0)["holder"]["kind"], "attach");
    }
}

#[test]
fn a_vf_moved_without_virtfn_is_not_taken_away() {
    let machine = Machine::with_vfs(1);
    let (blue, red) = (Namespace::new("blue"), Namespace::new("red"));
    run("ip", &["link", "set", &netdev(VF0), "netns", blue.0]);
    virtfn(&["attach", VF0, "--netns", red.0]).refused(4, &["error[vf-in-use]", "blue"]);
    assert_eq!(
        machine.vf(VF0)["netdev"]["netns"]["path"],
        "/run/netns/blue"
    );
}

/// Attaches VF 0 to a namespace that goes away without a detach.
#[track_caller]
fn lose_with_its_namespace() {
    let blue = Namespace::new("blue");
    virtfn(&[
        "attach", VF0, "--netns", blue.0, "--name", "net1", "--vlan", "7",
    ])
    .ok();
    drop(blue);
    eventually("the kernel to bring the VF back", || {
        netdev_or_none(VF0).is_some()
    });
}

#[test]
fn a_namespace_that_went_away_gives_its_vf_back() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    lose_with_its_namespace();
    virtfn(&["detach", VF0]).ok();
    assert_eq!(machine.settled(), before);
}

#[test]
fn the_next_attach_heals_a_vf_whose_namespace_went_away() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    lose_with_its_namespace();
    let red = Namespace::new("red");
    virtfn(&["attach", VF0, "--netns", red.0, "--name", "net1"]).ok();
    assert_eq!(
        machine.vf(VF0)["vlan"],
        0,
        "the VLAN of the former holder stayed"
    );
    virtfn(&["detach", VF0]).ok();
    assert_eq!(machine.settled(), before);
}

/// Whoever has `NET_ADMIN` in a container names its interfaces as the kernel lets them.
#[test]
fn a_holder_cannot_keep_a_vf_by_the_names_that_it_gave() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    for dies in [false, true] {
        let blue = Namespace::new("blue");
        virtfn(&["attach", VF0, "--netns", blue.0, "--name", "net1"]).ok();
        blue.ip(&["link", "set", "net1", "down"]);
        blue.ip(&["link", "set", "net1", "name", "été"]);
        let taken = netdev(PF1);
        blue.ip(&["link", "property", "add", "dev", "été", "altname", &taken]);
        if dies {
            drop(blue);
            eventually("the kernel to bring the VF back", || {
                netdev_or_none(VF0).is_some()
            });
        }
        virtfn(&["detach", VF0]).ok();
        assert_eq!(machine.settled(), before);
    }
}

#[test]
fn a_namespace_that_is_not_there_changes_nothing() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let failed = virtfn(&["attach", VF0, "--netns", "nowhere", "--vlan", "5"]);
    assert_ne!(failed.code(), Some(0));
    assert!(failed.stderr().contains("nowhere"), "{}", failed.stderr());
    assert_eq!(machine.settled(), before);
}

#[test]
fn a_name_that_is_taken_changes_nothing() {
    let machine = Machine::with_vfs(1);
    let blue = Namespace::new("blue");
    blue.ip(&["link", "add", "net1", "type", "dummy"]);
    let before = machine.settled();
    let failed = virtfn(&[
        "attach", VF0, "--netns", blue.0, "--name", "net1", "--vlan", "5",
    ]);
    assert_ne!(failed.code(), Some(0));
    assert!(failed.stderr().contains("net1"), "{}", failed.stderr());
    assert_eq!(machine.settled(), before);
}

#[test]
fn what_the_driver_refuses_is_said_and_taken_back() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let blue = Namespace::new("blue");
    let failed = virtfn(&[
        "attach",
        VF0,
        "--netns",
        blue.0,
        "--vlan",
        "9",
        "--link-state",
        "enable",
    ]);
    assert_ne!(failed.code(), Some(0));
    assert!(
        failed.stderr().contains("link-state"),
        "{}",
        failed.stderr()
    );
    assert!(failed.stderr().contains("help:"), "{}", failed.stderr());
    assert_eq!(machine.settled(), before);
}

#[test]
fn a_disk_that_is_full_changes_nothing() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let blue = Namespace::new("blue");
    fs::create_dir_all("/var/lib/virtfn").expect("create the state directory");
    run(
        "mount",
        &["-t", "tmpfs", "-o", "size=64k", "none", "/var/lib/virtfn"],
    );
    let filled = std::process::Command::new("dd")
        .args(["if=/dev/zero", "of=/var/lib/virtfn/filler", "bs=4k"])
        .output()
        .expect("dd starts");
    let failed = virtfn(&["attach", VF0, "--netns", blue.0, "--vlan", "5"]);
    run("umount", &["/var/lib/virtfn"]);
    assert!(!filled.status.success(), "the disk was not full");
    assert_eq!(failed.code(), Some(1), "{}", failed.stderr());
    assert!(
        failed.stderr().contains("/var/lib/virtfn"),
        "{}",
        failed.stderr()
    );
    assert_eq!(machine.settled(), before);
}

#[test]
fn a_damaged_record_is_set_aside_and_said() {
    let machine = Machine::with_vfs(1);
    let blue = Namespace::new("blue");
    virtfn(&["attach", VF0, "--netns", blue.0]).ok();
    let record = format!("/var/lib/virtfn/ledger/{VF0}.json");
    let whole = fs::read(&record).expect("an attached VF has a record");
    fs::write(&record, &whole[..whole.len() / 2]).expect("cut the record short");
    let listed = virtfn(&["list", "vf"]).ok();
    assert!(listed.stdout().contains("blue"), "{}", listed.stdout());
    let red = Namespace::new("red");
    virtfn(&["attach", VF0, "--netns", red.0]).refused(4, &["vf-in-use", "blue"]);
    drop(blue);
    eventually("the kernel to bring the VF back", || {
        netdev_or_none(VF0).is_some()
    });
    // Where it is says nothing of whose it is.
    virtfn(&["attach", VF0, "--netns", red.0]).refused(4, &["vf-in-use", "virtfn detach"]);
    let freed = virtfn(&["detach", VF0]).ok().stderr();
    assert!(freed.contains(&format!("{record}.damaged")), "{freed}");
    virtfn(&["attach", VF0, "--netns", red.0]).ok();
    assert_eq!(machine.vf(VF0)["netdev"]["netns"]["path"], "/run/netns/red");
}

#[test]
fn a_vf_attached_by_a_process_is_its_namespaces_when_the_process_ends() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let (blue, red) = (Namespace::new("blue"), Namespace::new("red"));
    let mut process = std::process::Command::new("ip")
        .args(["netns", "exec", blue.0, "sleep", "600"])
        .spawn()
        .expect("ip starts");
    let pid = process.id().to_string();
    let inode = |path: &str| fs::read_link(path).ok();
    let own = inode("/proc/self/ns/net");
    eventually("the process to be in its namespace", || {
        inode(&format!("/proc/{pid}/ns/net")).is_some_and(|found| Some(found) != own)
    });
    virtfn(&["attach", VF0, "--netns", &pid, "--name", "net1"]).ok();
    process.kill().expect("it is ours");
    process.wait().expect("it is ours");
    virtfn(&["attach", VF0, "--netns", red.0]).refused(4, &["error[vf-in-use]"]);
    assert!(blue.ip(&["link", "show", "net1"]).contains("UP"));
    let begun = std::time::Instant::now();
    virtfn(&["detach", VF0]).ok();
    // A namespace that is gone would be waited for, for 30 s.
    assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
    assert_eq!(machine.settled(), before);
}

#[test]
fn detaching_what_nobody_holds_is_an_error_that_says_so() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let failed = virtfn(&["detach", VF0]);
    assert_ne!(failed.code(), Some(0));
    assert!(failed.stderr().contains("error["), "{}", failed.stderr());
    assert_eq!(machine.settled(), before);
}
