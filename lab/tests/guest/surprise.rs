//! Devices that vanish and come back while virtfn looks at them or works on them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;

/// Takes a function off the bus and brings it back, again and again, until told to stop.
fn pull_and_push(function: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        fs::write(pci(function).join("remove"), "1").expect("a function can be removed");
        fs::write("/sys/bus/pci/rescan", "1").expect("the bus can be scanned");
        eventually("the function to come back", || {
            netdev_or_none(function).is_some()
        });
    }
}

/// Says "stop" when it goes away, also when a test fails, so that no thread is waited for in vain.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_pf_that_vanishes_during_discovery_is_no_error() {
    let machine = Machine::fresh();
    set_num_vfs(PF0, 2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| pull_and_push(PF1, &stop));
        let _stop = StopAtEnd(&stop);
        for _round in 0..25 {
            let view = machine.seen();
            assert_eq!(find(&view["pfs"], PF0)["numVfs"], 2);
        }
    });
}

#[test]
fn vfs_that_vanish_during_discovery_are_no_error() {
    let machine = Machine::fresh();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                set_num_vfs(PF1, 3);
                set_num_vfs(PF1, 0);
            }
        });
        let _stop = StopAtEnd(&stop);
        for _round in 0..25 {
            let view = machine.seen();
            assert!(find(&view["pfs"], PF1)["numVfs"].is_u64());
        }
    });
    set_num_vfs(PF1, 0);
}

#[test]
fn a_vf_that_vanished_while_held_is_forgotten() {
    let machine = Machine::with_vfs(2);
    let blue = Namespace::new("blue");
    virtfn(&["attach", VF0, "--netns", blue.0, "--vlan", "5"]).ok();
    set_num_vfs(PF0, 0);
    set_num_vfs(PF0, 2);
    let red = Namespace::new("red");
    virtfn(&["attach", VF0, "--netns", red.0]).ok();
    assert_eq!(machine.vf(VF0)["netdev"]["netns"]["path"], "/run/netns/red");
    assert_eq!(machine.vf(VF0)["vlan"], 0);
}

/// Applies a policy while somebody else gives [`PF1`] two VFs, as soon as the plan is on the disk.
fn apply_beside_a_rival(file: &str) -> Output {
    let journal = Path::new("/var/lib/virtfn/journal/apply.jsonl");
    let _none = fs::remove_file(journal);
    let mut apply = virtfn_command(&["apply", "-f", file]);
    let apply = apply.stderr(Stdio::piped()).spawn();
    let apply = apply.expect("virtfn starts");
    // Without a pause, in which the apply would come first.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !journal.exists() {
        assert!(Instant::now() < deadline, "no plan");
        std::thread::yield_now();
    }
    if let Err(error) = fs::write(pci(PF1).join("sriov_numvfs"), "2") {
        // The kernel's word for who came second.
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    }
    apply.wait_with_output().expect("virtfn ends")
}

#[test]
fn who_loses_the_race_for_a_pf_says_so_and_goes_on_with_the_others() {
    let _machine = Machine::fresh();
    let both = policy_for_all(7, "netdevice");
    let file = write_policy(&both);
    let lost = (0..10).find_map(|_round| {
        set_num_vfs(PF0, 0);
        set_num_vfs(PF1, 0);
        let output = apply_beside_a_rival(&file);
        (!output.status.success()).then_some(output)
    });
    let lost = lost.expect("a rival that begins in time is first in one of ten rounds");
    let stderr = String::from_utf8_lossy(&lost.stderr);
    assert_eq!(lost.status.code(), Some(1), "{stderr}");
    // Seen before the write, or the kernel's EBUSY.
    let told = ["error[vfs-exist]", "error[device-busy]"];
    assert!(told.iter().any(|code| stderr.contains(code)), "{stderr}");
    assert!(
        stderr.contains(PF1) && stderr.contains("help: remove "),
        "{stderr}"
    );
    assert_eq!(num_vfs(PF0), "7", "{stderr}");
    assert_eq!(num_vfs(PF1), "2", "{stderr}");
    virtfn(&["apply", "-f", &file]).ok();
    assert_eq!(num_vfs(PF1), "7");
}
