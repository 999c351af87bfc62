//! Killed at every instant: the next run finishes or undoes, and no VF is lost.
//!
//! `--kill-at N` (only in a `virtfn` built with the feature `kill-points`) ends the process with
//! SIGKILL at its N-th checkpoint: around every record and every step.

use std::os::unix::process::ExitStatusExt;

use crate::support::*;

/// More checkpoints than any operation here has; reaching it means that the counting is broken.
pub(crate) const MOST: u32 = 100;

/// Runs `virtfn --kill-at N …` for N = 1, 2 … until it gets through alive; after each death
/// `check` sees what is left and brings the host back for the next round.
pub(crate) fn kill_at_each(
    arguments: &[&str],
    mut prepare: impl FnMut(),
    mut check: impl FnMut(u32),
) {
    for at in 1..MOST {
        prepare();
        if !dies_at(arguments, at) {
            assert!(at > 3, "only {} checkpoints were passed", at - 1);
            return;
        }
        check(at);
    }
    panic!("{arguments:?} passed {MOST} checkpoints");
}

/// Runs `virtfn --kill-at N …`, and returns whether it got as far as that checkpoint; otherwise it succeeds.
pub(crate) fn dies_at(arguments: &[&str], at: u32) -> bool {
    let number = at.to_string();
    let mut all = vec!["--kill-at", number.as_str()];
    all.extend(arguments);
    let output = virtfn_command(&all).output().expect("virtfn starts");
    let is_dead = output.status.signal() == Some(9);
    assert!(
        is_dead || output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    is_dead
}

/// Detaches the VF; there may be nothing to detach, before the first change or after the last.
fn detach_what_was_begun(round: u32) {
    let detached = virtfn(&["detach", VF0]);
    let nothing_was_begun = detached.stderr().contains("not-attached");
    assert!(
        detached.code() == Some(0) || nothing_was_begun,
        "{round}: {}",
        detached.stderr()
    );
}

const ATTACH: [&str; 13] = [
    "attach",
    VF0,
    "--netns",
    "blue",
    "--name",
    "net1",
    "--vlan",
    "100",
    "--mac",
    "02:00:00:00:00:42",
    "--address",
    "192.0.2.1/24",
    "--trust=on",
];

#[test]
fn a_killed_attach_is_undone_by_detach() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let blue = Namespace::new("blue");
    kill_at_each(
        &ATTACH,
        || {},
        |at| {
            detach_what_was_begun(at);
            assert_eq!(machine.settled(), before, "killed at {at}");
        },
    );
    drop(blue);
}

#[test]
fn a_killed_attach_is_done_by_the_next_attach() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let blue = Namespace::new("blue");
    kill_at_each(
        &ATTACH,
        || {},
        |at| {
            let again = virtfn(&ATTACH);
            let all_was_done = again.stderr().contains("vf-in-use");
            assert!(
                again.code() == Some(0) || all_was_done,
                "{at}: {}",
                again.stderr()
            );
            let shown = blue.ip(&["address", "show", "dev", "net1"]);
            assert!(
                shown.contains("192.0.2.1/24") && shown.contains("02:00:00:00:00:42"),
                "{at}: {shown}"
            );
            assert_eq!(machine.vf(VF0)["vlan"], 100, "killed at {at}");
            virtfn(&["detach", VF0]).ok();
            assert_eq!(machine.settled(), before, "killed at {at}");
        },
    );
}

#[test]
fn a_killed_attach_whose_namespace_went_away_leaves_a_free_vf() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    kill_at_each(
        &ATTACH,
        || {
            run("ip", &["netns", "add", "blue"]);
        },
        |at| {
            run("ip", &["netns", "delete", "blue"]);
            eventually("the kernel to bring the VF back", || {
                netdev_or_none(VF0).is_some()
            });
            detach_what_was_begun(at);
            assert_eq!(machine.settled(), before, "killed at {at}");
        },
    );
}

#[test]
fn a_killed_detach_is_finished_by_the_next() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let _blue = Namespace::new("blue");
    kill_at_each(
        &["detach", VF0],
        || {
            virtfn(&ATTACH).ok();
        },
        |at| {
            detach_what_was_begun(at);
            assert_eq!(machine.settled(), before, "killed at {at}");
        },
    );
}

#[test]
fn a_killed_apply_converges() {
    let machine = Machine::fresh();
    let file = write_policy(
        &policy("mixed", PF0, 2, "vfio-pci").replace("  priority", "  mtu: 9000\n  priority"),
    );
    let arguments = ["apply", "-f", file.as_str()];
    kill_at_each(
        &arguments,
        || {
            set_num_vfs(PF0, 0);
            run("ip", &["link", "set", &netdev(PF0), "down", "mtu", "1500"]);
        },
        |at| {
            virtfn(&arguments).ok();
            virtfn(&["plan", "--check", "-f", &file]).ok();
            assert_eq!(machine.vf(VF1)["driver"], "vfio-pci", "killed at {at}");
        },
    );
}

#[test]
fn a_killed_apply_that_gives_a_pf_back_is_completed() {
    let machine = Machine::fresh();
    let wanted =
        policy("mixed", PF0, 2, "vfio-pci").replace("  priority", "  mtu: 9000\n  priority");
    let nothing = write_policy(&policy("mixed", PF0, 0, "vfio-pci"));
    let arguments = ["apply", "-f", nothing.as_str()];
    kill_at_each(
        &arguments,
        || {
            let wanted_file = "/tmp/policy-wanted.yaml";
            std::fs::write(wanted_file, &wanted).expect("/tmp is writable");
            virtfn(&["apply", "-f", wanted_file]).ok();
        },
        |at| {
            virtfn(&arguments).ok();
            virtfn(&["plan", "--check", "-f", &nothing]).ok();
            assert_eq!(num_vfs(PF0), "0", "killed at {at}");
            let pf = find(&machine.seen()["pfs"], PF0);
            assert_eq!(pf["netdev"]["mtu"], 1500, "killed at {at}");
            let record = format!("/etc/sriov-operator/pci/{PF0}");
            assert!(!std::path::Path::new(&record).exists(), "killed at {at}");
        },
    );
}

#[test]
fn killed_by_surprise_nothing_is_lost() {
    // Without checkpoints: SIGKILL after growing fractions of a run, wherever that is.
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let _blue = Namespace::new("blue");
    for round in 0..12_u32 {
        let mut child = virtfn_command(&ATTACH).spawn().expect("virtfn starts");
        std::thread::park_timeout(std::time::Duration::from_millis(u64::from(round) * 25));
        // It may have ended by itself.
        let _ended = child.kill();
        child.wait().expect("virtfn ends");
        detach_what_was_begun(round);
        assert_eq!(machine.settled(), before, "round {round}");
    }
}
