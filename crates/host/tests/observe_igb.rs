//! A real SR-IOV NIC while it is observed: Intel 82576 (`igb`), as the lab emulates it.
//!
//! ```text
//! virtfn-lab run --nic igb -- target/debug/deps/observe_igb-… --ignored
//! ```
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use host::{HostRoot, Linux};
use model::{HolderKind, Host, Netns, PciAddress, Scope, VfIndex};

/// The tests share one NIC.
static NIC: Mutex<()> = Mutex::new(());

/// How often VFs come and go: about 0.3 s each under emulation.
const ROUNDS: usize = 6;

fn pf(linux: &mut Linux) -> PciAddress {
    let inventory = linux.observe(Scope::All).unwrap();
    let mut pfs = inventory.pfs().map(|(function, _)| function);
    let nic = pfs.find(|function| function.class.is_network());
    nic.expect("this test needs an SR-IOV NIC: run it in the lab")
        .address
}

/// Takes the NIC and makes it quiet: no VFs, and no link that could come up in the middle of a test.
fn take() -> (MutexGuard<'static, ()>, Linux, PciAddress) {
    let alone = NIC.lock().unwrap_or_else(PoisonError::into_inner);
    let mut linux = Linux::this_machine().unwrap();
    let pf = pf(&mut linux);
    set_num_vfs(pf, 0);
    let seen = linux.observe(Scope::All).unwrap();
    let name = seen.get(pf).unwrap().netdev_name().unwrap();
    ip(&["link", "set", name.as_str(), "down"]);
    (alone, linux, pf)
}

fn set_num_vfs(pf: PciAddress, count: u16) {
    let root = HostRoot::this_machine().unwrap();
    let path = format!("/sys/bus/pci/devices/{pf}/sriov_numvfs");
    root.write(&path, count.to_string()).unwrap();
}

/// Observes until `change` has ended; no pass may fail, and no VF may lack what every VF has.
fn observe_during(linux: &mut Linux, change: impl FnOnce() + Send) -> usize {
    let mut passes = 0;
    std::thread::scope(|scope| {
        let change = scope.spawn(change);
        while !change.is_finished() {
            let inventory = linux.observe(Scope::All).unwrap();
            for (function, facts) in inventory.vfs() {
                assert!(function.class.is_network(), "{function:?}");
                assert!(function.iommu_group.is_some(), "half a VF: {function:?}");
                assert_ne!(facts.pf, function.address);
            }
            passes += 1;
        }
        change.join().unwrap();
    });
    passes
}

#[test]
#[ignore = "needs the lab's igb"]
fn vfs_come_and_go_during_the_pass() {
    let (_alone, mut linux, pf) = take();
    let passes = observe_during(&mut linux, || {
        for _ in 0..ROUNDS {
            set_num_vfs(pf, 7);
            set_num_vfs(pf, 0);
        }
        set_num_vfs(pf, 3);
    });
    assert!(passes > 1, "only {passes} passes");
    let inventory = linux.observe(Scope::All).unwrap();
    assert_eq!(inventory.vfs().count(), 3);
    assert_eq!(inventory.gaps, []);
    set_num_vfs(pf, 0);
}

#[test]
#[ignore = "needs the lab's igb"]
fn the_pf_is_removed_and_found_again_during_the_pass() {
    let (_alone, mut linux, pf) = take();
    observe_during(&mut linux, || {
        for _ in 0..ROUNDS {
            set_num_vfs(pf, 2);
            fs::write(format!("/sys/bus/pci/devices/{pf}/remove"), "1").unwrap();
            fs::write("/sys/bus/pci/rescan", "1").unwrap();
        }
    });
    let inventory = linux.observe(Scope::All).unwrap();
    assert!(inventory.get(pf).unwrap().pf().is_some());
    assert_eq!(inventory.gaps, []);
}

#[test]
#[ignore = "needs the lab's igb"]
fn one_function_is_seen_as_in_the_whole() {
    let (_alone, mut linux, pf) = take();
    set_num_vfs(pf, 4);
    let whole = linux.observe(Scope::All).unwrap();
    for (vf, _) in whole.vfs() {
        let part = linux.observe(Scope::Function(vf.address)).unwrap();
        assert_eq!(part.get(vf.address), Some(vf));
    }
    set_num_vfs(pf, 0);
}

/// Runs `ip` and checks that it did what it should.
fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().unwrap();
    assert!(status.success(), "ip {words:?}");
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_vf_in_another_namespace_is_seen_there_and_held() {
    let (_alone, mut linux, pf) = take();
    set_num_vfs(pf, 2);
    let before = linux.observe(Scope::All).unwrap();
    let vf = before.vf_of(pf, VfIndex(1)).unwrap();
    assert_eq!(vf.vf().unwrap().holder, None);
    let netdev = vf.netdev().unwrap();
    ip(&["netns", "add", "seen"]);
    ip(&["link", "set", netdev.name.as_str(), "netns", "seen"]);
    let after = linux.observe(Scope::All).unwrap();
    let moved = after.get(vf.address).unwrap();
    let Netns::Other { path, .. } = &moved.netdev().unwrap().netns else {
        unreachable!("the netdev is seen here: {moved:?}");
    };
    assert_eq!(path.as_deref(), Some("/run/netns/seen"));
    assert_eq!(moved.netdev().unwrap().address, netdev.address);
    let holder = moved.vf().unwrap().holder.as_ref().unwrap();
    assert_eq!(
        (holder.kind, holder.id.as_str()),
        (HolderKind::Namespace, "seen")
    );
    assert_eq!(after.vf_of(pf, VfIndex(0)), before.vf_of(pf, VfIndex(0)));
    assert_eq!(after.gaps, []);
    // A recording of it is seen the same elsewhere.
    let dir = tempfile::tempdir().unwrap();
    linux.record().unwrap().unpack(dir.path()).unwrap();
    let again = Linux::recorded(dir.path())
        .unwrap()
        .observe(Scope::All)
        .unwrap();
    assert_eq!(again, after);
    ip(&["netns", "delete", "seen"]);
    set_num_vfs(pf, 0);
}
