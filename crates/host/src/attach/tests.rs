//! Claims about giving VFs away, on a host that is played.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixtures::{FakeHost, igb, inventory, parsed};
use model::{
    AttachInterface, Explain, HolderKind, Netns, NetnsTarget, VfSettings, VlanId, VlanTag,
};

use super::*;
use crate::checkpoint::Checkpoints;
use crate::engine::Ground;
use crate::ledger::{BootId, Ledger};
use crate::state::StateDir;

mod damaged;
mod restore;

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";
/// Unwinds to here stand for SIGKILL: nothing but locks is given back on the way.
const KILLED: &str = "killed at a checkpoint";

/// A host with its state, which outlives the processes that work on it.
struct World {
    _dir: tempfile::TempDir,
    host: FakeHost,
    state: StateDir,
    ledger: Ledger,
    ground: Known,
    blue: NetnsTarget,
}

/// The cheap questions, answered by a list of the namespaces that live.
struct Known(Mutex<BTreeSet<u64>>);

impl Ground for Known {
    fn pf_of(&self, vf: PciAddress) -> Option<PciAddress> {
        (vf.to_string() != PF).then(|| parsed(PF))
    }

    fn can_have(&self, target: &NetnsTarget, _vf: PciAddress) -> bool {
        match target {
            NetnsTarget::Host => true,
            NetnsTarget::Path { inode, .. } => self.0.lock().unwrap().contains(inode),
        }
    }
}

/// Dies at the n-th checkpoint, from 1; never at 0.
struct DiesAt(AtomicUsize);

impl DiesAt {
    fn nth(n: usize) -> Self {
        Self(AtomicUsize::new(n))
    }
}

impl Checkpoints for DiesAt {
    fn passed(&self, _at: Checkpoint) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::panic::panic_any(KILLED);
        }
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
        let mut host = FakeHost::new(inventory([igb(PF, "ens1f0").with_vfs(2)]));
        let blue = host.add_netns("blue");
        let world = Self {
            ledger: Ledger::new(state.clone(), BootId::new("boot")),
            ground: Known(Mutex::default()),
            _dir: dir,
            host,
            state,
            blue,
        };
        world.revive(&world.blue);
        world
    }

    fn revive(&self, netns: &NetnsTarget) {
        if let NetnsTarget::Path { inode, .. } = netns {
            self.ground.0.lock().unwrap().insert(*inode);
        }
    }

    fn destroy(&mut self, netns: &NetnsTarget) {
        self.host.remove_netns(netns);
        if let NetnsTarget::Path { inode, .. } = netns {
            self.ground.0.lock().unwrap().remove(inode);
        }
    }

    fn engine<'a>(&'a mut self, checkpoints: &'a dyn Checkpoints) -> Engine<'a, FakeHost> {
        Engine {
            host: &mut self.host,
            ground: &self.ground,
            state: &self.state,
            ledger: &self.ledger,
            checkpoints,
        }
    }

    /// Attaches as a process that dies at the n-th checkpoint; `None` when it died.
    fn attach_dying(
        &mut self,
        request: &AttachRequest,
        nth: usize,
    ) -> Option<Result<Attached, AttachError>> {
        let dies = DiesAt::nth(nth);
        let mut engine = self.engine(&dies);
        survived(|| engine.attach(request))
    }

    fn detach_dying(&mut self, nth: usize) -> Option<Result<Detached, DetachError>> {
        let dies = DiesAt::nth(nth);
        let mut engine = self.engine(&dies);
        survived(|| engine.detach(parsed(VF), None))
    }

    fn attach(&mut self, request: &AttachRequest) -> Result<Attached, AttachError> {
        self.attach_dying(request, 0).unwrap()
    }

    fn detach(&mut self) -> Result<Detached, DetachError> {
        self.detach_dying(0).unwrap()
    }

    /// Returns what must be as before once nobody has the VF. Indices are the kernel's business.
    fn seen(&self) -> Inventory {
        let mut seen = self.host.inventory();
        let netdevs = seen.functions.values_mut().flat_map(|f| &mut f.netdevs);
        netdevs.for_each(|netdev| netdev.index = model::IfIndex::new(1).unwrap());
        seen
    }

    fn netns_of_vf(&self) -> Netns {
        let seen = self.host.inventory();
        let function = seen.get(parsed(VF)).unwrap();
        function.netdev().unwrap().netns.clone()
    }
}

fn survived<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(panic) if panic.downcast_ref() == Some(&KILLED) => None,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn holder(id: &str) -> Holder {
    Holder {
        kind: HolderKind::Attach,
        id: id.to_owned(),
        interface: Some(parsed("net1")),
    }
}

fn request(netns: &NetnsTarget) -> AttachRequest {
    let tag = VlanTag {
        id: VlanId::new(100).unwrap(),
        pcp: model::Pcp::default(),
        proto: model::VlanProto::Dot1q,
    };
    AttachRequest {
        vf: parsed(VF),
        holder: holder(&netns.to_string()),
        settings: VfSettings {
            vlan: Some(Some(tag)),
            trust: Some(true),
            ..VfSettings::default()
        },
        interface: Some(AttachInterface {
            netns: netns.clone(),
            name: Some(parsed("net1")),
            mac: Some(parsed("02:00:00:00:00:42")),
            mtu: model::Mtu::new(1400),
            addresses: vec![parsed("192.0.2.1/24")],
        }),
        with_rdma: false,
        lives_in: None,
    }
}

/// Runs `work` as a process that dies at the 1st, 2nd … checkpoint, in a fresh world each; after
/// each death `check` looks. Returns how many checkpoints there are.
fn killed_at_each(
    prepare: impl Fn() -> World,
    work: impl Fn(&mut World, usize) -> bool,
    check: impl Fn(&mut World, usize),
) -> usize {
    for nth in 1..100 {
        let mut world = prepare();
        if work(&mut world, nth) {
            return nth - 1;
        }
        check(&mut world, nth);
    }
    panic!("it passes checkpoints for ever");
}

#[test]
fn detach_brings_back_what_was_before_attach() {
    let mut world = World::new();
    let before = world.seen();
    let attached = world.attach(&request(&world.blue.clone())).unwrap();
    assert!(!attached.already && attached.healed.is_none());
    assert_eq!(world.netns_of_vf(), world.blue.netns());
    assert_eq!(world.ledger.holders().by_vf[&parsed(VF)], holder("blue"));
    let detached = world.detach().unwrap();
    assert_eq!(detached.holder, holder("blue"));
    assert_eq!(world.seen(), before);
    assert!(world.ledger.holders().by_vf.is_empty());
    let error = world.detach().unwrap_err();
    assert_eq!(error.code().as_str(), "vf-not-attached");
}

#[test]
fn the_same_attach_twice_changes_nothing_the_second_time() {
    let mut world = World::new();
    let request = request(&world.blue.clone());
    world.attach(&request).unwrap();
    let made = world.host.performed().len();
    assert!(world.attach(&request).unwrap().already);
    assert_eq!(world.host.performed().len(), made);
    // Another wish of the same holder is not silently passed over.
    let other = AttachRequest {
        settings: VfSettings::default(),
        ..request
    };
    let error = world.attach(&other).unwrap_err();
    assert_eq!(error.code().as_str(), "vf-in-use");
}

#[test]
fn a_held_vf_is_not_given_twice() {
    let mut world = World::new();
    let red = world.host.add_netns("red");
    world.revive(&red);
    world.attach(&request(&world.blue.clone())).unwrap();
    let error = world.attach(&request(&red)).unwrap_err();
    assert_eq!(error.code().as_str(), "vf-in-use");
    assert!(error.to_string().contains("attach blue as net1"), "{error}");
    assert_eq!(world.netns_of_vf(), world.blue.netns());
}

#[test]
fn only_its_holder_gives_a_vf_back() {
    let mut world = World::new();
    world.attach(&request(&world.blue.clone())).unwrap();
    let mut engine = world.engine(&crate::Uninterrupted);
    let error = engine.detach(parsed(VF), Some(&holder("red"))).unwrap_err();
    assert_eq!(error.code().as_str(), "vf-of-another-holder");
    assert!(engine.detach(parsed(VF), Some(&holder("blue"))).is_ok());
}

#[test]
fn a_vf_held_outside_is_refused_before_anything_is_written() {
    let mut world = World::new();
    world.host.perform(&move_to(&world.blue)).unwrap();
    let red = world.host.add_netns("red");
    let made = world.host.performed().len();
    let error = world.attach(&request(&red)).unwrap_err();
    assert_eq!(error.code().as_str(), "vf-in-use");
    assert_eq!(world.host.performed().len(), made);
    assert_eq!(world.ledger.look(parsed(VF)).unwrap(), None);
}

fn move_to(netns: &NetnsTarget) -> Step {
    Step::Move {
        function: parsed(VF),
        from: NetnsTarget::Host,
        to: netns.clone(),
        name: parsed("net7"),
        up: false,
    }
}

#[test]
fn a_step_that_fails_takes_back_those_before_it() {
    let steps = {
        let mut world = World::new();
        world.attach(&request(&world.blue.clone())).unwrap().steps
    };
    for (failing, step) in steps.iter().enumerate() {
        let mut world = World::new();
        let before = world.seen();
        world.host.fail_at = Some(failing);
        let error = world.attach(&request(&world.blue.clone())).unwrap_err();
        let AttachError::Step { undo, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(undo.is_empty(), "{error}");
        assert_eq!(world.seen(), before, "{step:?}");
        assert!(world.ledger.holders().by_vf.is_empty());
    }
}

#[test]
fn a_record_that_cannot_be_written_leaves_everything_as_it_was() {
    let mut world = World::new();
    std::fs::create_dir_all(world._dir.path().join("lib")).unwrap();
    std::fs::write(world._dir.path().join("lib/ledger"), "in the way").unwrap();
    let error = world.attach(&request(&world.blue.clone())).unwrap_err();
    assert!(matches!(error, AttachError::Ledger(_)), "{error:?}");
    assert_eq!(world.host.performed(), []);
}

#[test]
fn an_attach_killed_anywhere_is_done_by_the_next() {
    let all = killed_at_each(
        World::new,
        |world, nth| {
            world
                .attach_dying(&request(&world.blue.clone()), nth)
                .is_some()
        },
        |world, nth| {
            let fresh = World::new().seen();
            world.attach(&request(&world.blue.clone())).unwrap();
            assert_eq!(world.netns_of_vf(), world.blue.netns(), "killed at {nth}");
            world.detach().unwrap();
            assert_eq!(world.seen(), fresh, "killed at {nth}");
        },
    );
    assert!(all > 8, "only {all} checkpoints");
}

#[test]
fn an_attach_killed_anywhere_is_undone_by_detach_or_by_heal() {
    for heals in [true, false] {
        killed_at_each(
            World::new,
            |world, nth| {
                world
                    .attach_dying(&request(&world.blue.clone()), nth)
                    .is_some()
            },
            |world, nth| {
                let was_confirmed = world
                    .ledger
                    .look(parsed(VF))
                    .unwrap()
                    .and_then(|record| record.claim)
                    .is_some_and(|claim| claim.stage == Stage::Attached);
                if heals && !was_confirmed {
                    let healed = world.engine(&crate::Uninterrupted).heal();
                    assert!(healed.iter().all(|healed| healed.outcome.is_ok()));
                } else if let Err(error) = world.detach() {
                    assert_eq!(error.code().as_str(), "vf-not-attached", "killed at {nth}");
                }
                assert_eq!(world.seen(), World::new().seen(), "killed at {nth}");
            },
        );
    }
}

#[test]
fn an_attach_killed_anywhere_whose_namespace_is_gone_leaves_a_free_vf() {
    killed_at_each(
        World::new,
        |world, nth| {
            world
                .attach_dying(&request(&world.blue.clone()), nth)
                .is_some()
        },
        |world, nth| {
            world.destroy(&world.blue.clone());
            let healed = world.engine(&crate::Uninterrupted).heal();
            let failed: Vec<_> = healed.iter().filter(|h| h.outcome.is_err()).collect();
            assert!(failed.is_empty(), "killed at {nth}: {failed:?}");
            assert_eq!(world.seen(), World::new().seen(), "killed at {nth}");
        },
    );
}

#[test]
fn a_detach_killed_anywhere_is_finished_by_the_next() {
    let attached = || {
        let mut world = World::new();
        world.attach(&request(&world.blue.clone())).unwrap();
        world
    };
    killed_at_each(
        attached,
        |world, nth| world.detach_dying(nth).is_some(),
        |world, nth| {
            if let Err(error) = world.detach() {
                assert_eq!(error.code().as_str(), "vf-not-attached", "killed at {nth}");
            }
            assert_eq!(world.seen(), World::new().seen(), "killed at {nth}");
        },
    );
}

#[test]
fn a_vf_whose_namespace_is_gone_can_be_given_to_another() {
    let mut world = World::new();
    let red = world.host.add_netns("red");
    world.revive(&red);
    world.attach(&request(&world.blue.clone())).unwrap();
    world.destroy(&world.blue.clone());
    let attached = world.attach(&request(&red)).unwrap();
    assert_eq!(attached.healed, Some(holder("blue")));
    world.detach().unwrap();
    assert_eq!(world.seen(), World::new().seen());
}

#[test]
fn a_vf_that_is_gone_with_its_settings_is_detached() {
    let mut world = World::new();
    world.attach(&request(&world.blue.clone())).unwrap();
    let none = Step::SetNumVfs {
        pf: parsed(PF),
        count: 0,
    };
    world.host.perform(&none).unwrap();
    world.detach().unwrap();
    assert!(world.ledger.holders().by_vf.is_empty());
}

#[test]
fn what_cannot_be_taken_back_is_kept_in_the_record_and_tried_again() {
    let mut world = World::new();
    let before = world.seen();
    world.attach(&request(&world.blue.clone())).unwrap();
    world.host.dies_at = Some(0);
    let error = world.detach().unwrap_err();
    let DetachError::Undo { failures, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(
        failures.len() > 3,
        "it stopped at the first failure: {error}"
    );
    world.host.dies_at = None;
    world.detach().unwrap();
    assert_eq!(world.seen(), before);
}

/// As when it was attached by the id of a process, and that process ended before the others.
#[test]
fn a_holder_keeps_its_vf_while_its_namespace_lives_by_whatever_path() {
    let mut world = World::new();
    let before = world.seen();
    world.attach(&request(&world.blue.clone())).unwrap();
    world.host.rename_netns(&world.blue, "/proc/99/ns/net");
    world.ground.0.lock().unwrap().clear();
    let red = world.host.add_netns("red");
    world.revive(&red);
    let error = world.attach(&request(&red)).unwrap_err();
    assert_eq!(error.code().as_str(), "vf-in-use");
    assert!(world.engine(&crate::Uninterrupted).heal().is_empty());
    world.detach().unwrap();
    assert_eq!(world.seen(), before);
}

/// Says at each checkpoint whether somebody sets VFs through the PF.
struct WatchesSettings(StateDir, Mutex<Vec<(Checkpoint, bool)>>);

impl Checkpoints for WatchesSettings {
    fn passed(&self, at: Checkpoint) {
        let lock = crate::lock::if_free(&self.0, LockOf::PfSettings(parsed(PF)));
        self.1.lock().unwrap().push((at, lock.unwrap().is_none()));
    }
}

#[test]
fn vfs_are_set_through_their_pf_by_one_at_a_time_on_both_ways() {
    let mut world = World::new();
    let watch = WatchesSettings(world.state.clone(), Mutex::default());
    let request = request(&world.blue.clone());
    let mut engine = world.engine(&watch);
    let attached = engine.attach(&request).unwrap();
    engine.detach(parsed(VF), None).unwrap();
    let set = attached.steps.iter();
    let set = set.filter(|planned| matches!(planned.step, Step::SetVf { .. }));
    let set = set.count();
    let seen = watch.1.into_inner().unwrap();
    for way in [Checkpoint::StepMade, Checkpoint::StepUndone] {
        let locked = seen.iter().filter(|(at, locked)| *at == way && *locked);
        assert_eq!(locked.count(), set, "{way:?}");
    }
    assert!(set > 2 && seen.last() == Some(&(Checkpoint::Confirmed, false)));
}

/// Another plugin moved the VF to `netns`; what it did, and what takes it back.
fn given_by_another(world: &mut World, netns: &NetnsTarget) -> Adoption {
    let name = world
        .host
        .inventory()
        .get(parsed(VF))
        .unwrap()
        .netdev_name()
        .unwrap()
        .clone();
    let step = move_to(netns);
    world.host.perform(&step).unwrap();
    let undo = Step::Move {
        function: parsed(VF),
        from: netns.clone(),
        to: NetnsTarget::Host,
        name,
        up: false,
    };
    Adoption {
        vf: parsed(VF),
        pf: parsed(PF),
        holder: holder("theirs"),
        netns: Some(netns.clone()),
        before: crate::Before::default(),
        steps: vec![RecordedStep {
            step,
            undo: Some(undo),
            before: None,
        }],
    }
}

#[test]
fn what_another_plugin_gave_is_taken_back_once_adopted() {
    let mut world = World::new();
    let before = world.seen();
    let blue = world.blue.clone();
    let adoption = given_by_another(&mut world, &blue);
    let mut engine = world.engine(&crate::Uninterrupted);
    engine.adopt(&adoption).unwrap();
    engine.adopt(&adoption).unwrap();
    engine.detach(parsed(VF), Some(&holder("theirs"))).unwrap();
    assert_eq!(world.seen(), before);
}

#[test]
fn a_held_vf_is_not_adopted() {
    let mut world = World::new();
    let red = world.host.add_netns("red");
    world.attach(&request(&world.blue.clone())).unwrap();
    let adoption = Adoption {
        vf: parsed(VF),
        pf: parsed(PF),
        holder: holder("theirs"),
        netns: Some(red),
        before: crate::Before::default(),
        steps: Vec::new(),
    };
    let error = world.engine(&crate::Uninterrupted).adopt(&adoption);
    assert_eq!(error.unwrap_err().code().as_str(), "vf-in-use");
}

#[test]
fn a_vf_that_another_plugin_gave_away_after_us_is_left_to_it() {
    let mut world = World::new();
    let red = world.host.add_netns("red");
    world.revive(&red);
    world.attach(&request(&world.blue.clone())).unwrap();
    world.destroy(&world.blue.clone());
    given_by_another(&mut world, &red);
    let healed = world.engine(&crate::Uninterrupted).heal();
    assert!(healed[0].outcome.is_ok(), "{healed:?}");
    assert_eq!(world.netns_of_vf(), red.netns());
    assert!(world.ledger.holders().by_vf.is_empty());
}

#[test]
fn the_holder_of_a_mere_device_ends_with_its_namespace() {
    let mut world = World::new();
    let red = world.host.add_netns("red");
    world.revive(&red);
    let device = |netns: &NetnsTarget| AttachRequest {
        interface: None,
        with_rdma: false,
        lives_in: Some(netns.clone()),
        ..request(netns)
    };
    world.attach(&device(&world.blue.clone())).unwrap();
    let error = world.attach(&device(&red)).unwrap_err();
    assert_eq!(error.code().as_str(), "vf-in-use");
    world.destroy(&world.blue.clone());
    let attached = world.attach(&device(&red)).unwrap();
    assert_eq!(attached.healed, Some(holder("blue")));
}
