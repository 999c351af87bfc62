//! The CNI plugin killed at every instant: DEL, GC, the next ADD and a reboot each bring the VF back
//! to the host as it was, free, with its addresses released.
//!
//! `VIRTFN_KILL_AT=N` (only in a plugin built with the feature `kill-points`) ends it with SIGKILL at
//! its N-th checkpoint: around every record and every step.

use serde_json::{Value, json};

use crate::cni_support::*;
use crate::support::*;

const BLUE: &str = "/run/netns/blue";
const RED: &str = "/run/netns/red";

/// More checkpoints than any call has; reaching it means that the counting is broken.
const MOST: u32 = 60;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Netdev,
    Vfio,
}

fn config() -> Value {
    with(
        &sriov(&json!({"vlan": 100, "mac": "02:00:00:00:00:42", "trust": "on"})),
        &host_local(),
    )
}

/// Kills `command` at each of its checkpoints, lets `next` come, and asserts that all is as before.
fn killed_at_each(mode: Mode, command: &str, next: impl Fn(Namespace)) {
    let machine = Machine::with_vfs(1);
    if mode == Mode::Vfio {
        bind(VF0, "vfio-pci");
    }
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    for at in 1..MOST {
        let blue = Namespace::new("blue");
        if command != "ADD" {
            call("ADD", "c1", BLUE, &config()).make().ok();
        }
        let answer = call(command, "c1", BLUE, &config())
            .env("VIRTFN_KILL_AT", at.to_string())
            .make();
        if !answer.was_killed() {
            answer.ok();
            assert!(at > 4, "only {} checkpoints were passed", at - 1);
            return;
        }
        next(blue);
        assert_eq!(machine.settled(), before, "killed at {at}");
        assert_eq!(machine.kernel_vfs(), kernel, "killed at {at}");
        assert_nothing_is_kept(&format!("killed at {at}"));
    }
    panic!("{command} passed {MOST} checkpoints");
}

fn del(_blue: Namespace) {
    call("DEL", "c1", BLUE, &config()).make().ok();
}

fn del_without_namespace(blue: Namespace) {
    drop(blue);
    call("DEL", "c1", "", &config()).make().ok();
}

fn gc_after(blue: Namespace) {
    drop(blue);
    call("GC", "", "", &gc()).make().ok();
}

fn next_add(blue: Namespace) {
    drop(blue);
    let _red = Namespace::new("red");
    call("ADD", "c2", RED, &config()).make().ok();
    call("DEL", "c2", RED, &config()).make().ok();
}

#[test]
fn a_killed_add_of_an_interface_is_undone_by_del() {
    killed_at_each(Mode::Netdev, "ADD", del);
}

#[test]
fn a_killed_add_of_an_interface_is_undone_by_del_without_its_namespace() {
    killed_at_each(Mode::Netdev, "ADD", del_without_namespace);
}

#[test]
fn a_killed_add_of_an_interface_is_undone_by_gc() {
    killed_at_each(Mode::Netdev, "ADD", gc_after);
}

#[test]
fn a_killed_add_of_an_interface_is_undone_by_the_next_add() {
    killed_at_each(Mode::Netdev, "ADD", next_add);
}

#[test]
fn a_killed_add_of_a_device_is_undone_by_del() {
    killed_at_each(Mode::Vfio, "ADD", del);
}

#[test]
fn a_killed_add_of_a_device_is_undone_by_gc() {
    killed_at_each(Mode::Vfio, "ADD", gc_after);
}

#[test]
fn a_killed_add_of_a_device_is_undone_by_the_next_add() {
    killed_at_each(Mode::Vfio, "ADD", next_add);
}

#[test]
fn a_killed_del_of_an_interface_is_finished_by_del() {
    killed_at_each(Mode::Netdev, "DEL", del);
}

#[test]
fn a_killed_del_of_an_interface_is_finished_by_gc() {
    killed_at_each(Mode::Netdev, "DEL", gc_after);
}

#[test]
fn a_killed_del_of_an_interface_is_finished_by_the_next_add() {
    killed_at_each(Mode::Netdev, "DEL", next_add);
}

#[test]
fn a_killed_del_of_a_device_is_finished_by_del_and_gc() {
    killed_at_each(Mode::Vfio, "DEL", del);
    killed_at_each(Mode::Vfio, "DEL", gc_after);
}

#[test]
fn a_killed_del_of_a_device_is_finished_by_the_next_add() {
    killed_at_each(Mode::Vfio, "DEL", next_add);
}

#[test]
fn killed_by_surprise_nothing_is_lost() {
    // Without checkpoints: SIGKILL after growing fractions of an ADD, wherever that is.
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let _blue = Namespace::new("blue");
    for round in 0..16_u64 {
        let mut child = call("ADD", "c1", BLUE, &config()).start();
        std::thread::park_timeout(std::time::Duration::from_millis(round * 15));
        // It may have ended by itself.
        let _ended = child.kill();
        child.wait().expect("the plugin ends");
        call("DEL", "c1", BLUE, &config()).make().ok();
        assert_eq!(machine.settled(), before, "round {round}");
        assert_nothing_is_kept(&format!("round {round}"));
    }
}

/// An IPAM plugin that reserves one address when it is let, and leaves a process behind when asked.
const SLOW_IPAM: &str = "\
#!/bin/sh
cd /tmp/slow
case $CNI_COMMAND in
ADD)
    touch begun
    until [ -e go ]; do sleep 0.05; done
    touch reserved ended
    { [ ! -e leaves ] || sleep 60; } </dev/null >/dev/null 2>&1 &
    echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"192.0.2.9/24\"}]}';;
DEL) rm -f reserved;;
esac
";

/// Installs [`SLOW_IPAM`], and returns a configuration with it.
fn slow_ipam() -> Value {
    let config = sriov(&json!({"cniVersion": "1.0.0", "ipam": {"type": "slow"}}));
    // The first call installs the plugin under test beside it.
    call("VERSION", "", "", &config).make().ok();
    let path = format!("{BIN}/slow");
    std::fs::write(&path, SLOW_IPAM).expect("/tmp is writable");
    run("chmod", &["+x", &path]);
    empty(&["/tmp/slow"]);
    std::fs::create_dir_all("/tmp/slow").expect("/tmp is writable");
    config
}

fn slow(file: &str) -> std::path::PathBuf {
    std::path::Path::new("/tmp/slow").join(file)
}

#[test]
fn a_del_waits_for_the_ipam_plugin_of_a_killed_add() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let config = slow_ipam();
    let _blue = Namespace::new("blue");
    let mut add = call("ADD", "c1", BLUE, &config).start();
    eventually("the IPAM plugin", || slow("begun").exists());
    add.kill().expect("it waits for its IPAM plugin");
    add.wait().expect("the plugin ends");
    let del = call("DEL", "c1", BLUE, &config).start();
    std::thread::park_timeout(std::time::Duration::from_secs(1));
    std::fs::write(slow("go"), "").expect("/tmp is writable");
    let output = del.wait_with_output().expect("the plugin ends");
    Answer { output }.ok();
    assert!(slow("ended").exists());
    assert!(!slow("reserved").exists(), "an address is lost");
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after a DEL that waited");
}

#[test]
fn what_an_ipam_plugin_leaves_behind_keeps_no_vf() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let config = slow_ipam();
    for file in ["go", "leaves"] {
        std::fs::write(slow(file), "").expect("/tmp is writable");
    }
    let _blue = Namespace::new("blue");
    for _twice in 0..2 {
        call("ADD", "c1", BLUE, &config).make().ok();
        call("DEL", "c1", BLUE, &config).make().ok();
    }
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("beside what was left behind");
}

/// What virtfn and upstream's plugin keep on the disk, and what they keep until a reboot.
const KEPT: [&str; 2] = ["/var/lib/virtfn", "/var/lib/cni"];
const FLEETING: &str = "/run/virtfn";

/// Kills a call at each of its checkpoints and keeps what is on the disk then. All VFs are made anew,
/// as a reboot does, and each of the disks is found by the next ADD, its records those of another boot.
fn rebooted_at_each(mode: Mode, command: &str) {
    let machine = Machine::with_vfs(1);
    if mode == Mode::Vfio {
        bind(VF0, "vfio-pci");
    }
    let disks = disks_of_killed(command);
    set_num_vfs(PF0, 0);
    set_num_vfs(PF0, 1);
    if mode == Mode::Vfio {
        bind(VF0, "vfio-pci");
    }
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    for (at, disk) in (1..).zip(&disks) {
        empty(&[FLEETING, KEPT[0], KEPT[1]]);
        run("tar", &["-xf", disk, "-C", "/"]);
        forge_another_boot();
        assert_eq!(machine.vf(VF0)["holder"], Value::Null, "killed at {at}");
        next_add(Namespace::new("blue"));
        assert_eq!(machine.settled(), before, "killed at {at}");
        assert_eq!(machine.kernel_vfs(), kernel, "killed at {at}");
        assert_eq!(reserved(), [""; 0], "killed at {at}");
    }
}

/// Returns an archive of what is on the disk for each checkpoint that a call can be killed at.
fn disks_of_killed(command: &str) -> Vec<String> {
    let mut disks = Vec::new();
    for at in 1..MOST {
        let _blue = Namespace::new("blue");
        if command != "ADD" {
            call("ADD", "c1", BLUE, &config()).make().ok();
        }
        let answer = call(command, "c1", BLUE, &config())
            .env("VIRTFN_KILL_AT", at.to_string())
            .make();
        let disk = format!("/tmp/disk-{at}.tar");
        run("tar", &["-cf", &disk, KEPT[0], KEPT[1]]);
        call("DEL", "c1", BLUE, &config()).make().ok();
        if !answer.was_killed() {
            answer.ok();
            assert!(disks.len() > 3, "only {} checkpoints", disks.len());
            return disks;
        }
        disks.push(disk);
    }
    panic!("{command} passed {MOST} checkpoints");
}

/// Makes all records those of another boot, and all files that virtfn wrote for upstream.
fn forge_another_boot() {
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot has an id");
    let dirs = ["/var/lib/virtfn/ledger", "/var/lib/cni/sriov"];
    let records = dirs.into_iter().flat_map(std::fs::read_dir).flatten();
    for record in records.flatten().filter(|record| record.path().is_file()) {
        let text = std::fs::read_to_string(record.path()).expect("a record is text");
        let other = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
        std::fs::write(record.path(), other).expect("a record is writable");
    }
}

#[test]
fn a_killed_add_of_an_interface_is_void_after_a_reboot() {
    rebooted_at_each(Mode::Netdev, "ADD");
}

#[test]
fn a_killed_add_of_a_device_is_void_after_a_reboot() {
    rebooted_at_each(Mode::Vfio, "ADD");
}

#[test]
fn a_killed_del_is_void_after_a_reboot() {
    rebooted_at_each(Mode::Netdev, "DEL");
    rebooted_at_each(Mode::Vfio, "DEL");
}
