//! Devices that vanish and come back while virtfn looks at them or works on them.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

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
