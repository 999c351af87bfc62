//! Claims about making plans true, on a host that is played.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use policy::Circumstances;
use policy::kernel::{KernelFacts, ModuleState};

use fixtures::{FakeHost, igb, inventory, parsed};
use model::{
    Code, Desired, Explain, NetnsTarget, PciAddress, PfDesired, Role, Step, StepError, VfDriver,
    VfGroup, VfRange,
};

use super::*;
use crate::checkpoint::Uninterrupted;
use crate::root::HostRoot;

mod kept;
mod records;
mod vfs;

const PF0: &str = "0000:01:00.0";
const PF1: &str = "0000:02:00.0";
const KILLED: &str = "killed at a checkpoint";

/// One host that several threads open.
#[derive(Clone)]
struct Shared(Arc<Mutex<FakeHost>>, Surprise);

/// What a plan cannot know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surprise {
    None,
    /// As PCIe allows, the VFs are elsewhere once their number is set.
    VfsMove,
    /// The firmware left no memory space for the VFs of a PF.
    NoSpace(PciAddress),
}

impl Host for Shared {
    fn observe(&mut self, scope: Scope) -> Result<Inventory, DiscoverError> {
        let mut seen = self.0.lock().unwrap().observe(scope)?;
        for function in seen.functions.values_mut() {
            if let (Role::Pf(facts), Surprise::VfsMove) = (&mut function.role, self.1)
                && facts.num_vfs == 0
            {
                facts.offset = Some(64);
            }
        }
        Ok(seen)
    }

    fn perform(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::SetNumVfs { pf, count } if self.1 == Surprise::NoSpace(*pf) && *count > 0 => {
                Err(StepError {
                    object: format!("PF {pf}"),
                    attempt: step.to_string(),
                    // ENOMEM
                    source: Some(std::io::Error::from_raw_os_error(12).into()),
                    code: Code::new(crate::perform::NO_ROOM_FOR_VFS),
                    remedy: None,
                })
            }
            step => self.0.lock().unwrap().perform(step),
        }
    }
}

struct NoVfs;

impl Ground for NoVfs {
    fn pf_of(&self, _vf: PciAddress) -> Option<PciAddress> {
        None
    }

    fn can_have(&self, _target: &NetnsTarget, _vf: PciAddress) -> bool {
        false
    }
}

/// Dies at the n-th checkpoint, on whichever thread, and at every later one.
struct DiesAt(AtomicUsize);

impl Checkpoints for DiesAt {
    fn passed(&self, _at: Checkpoint) {
        if self.0.fetch_add(1, Ordering::SeqCst) + 1 >= usize::MAX / 2 {
            std::panic::panic_any(KILLED);
        }
    }
}

impl DiesAt {
    fn nth(n: usize) -> Self {
        Self(AtomicUsize::new(usize::MAX / 2 - n))
    }
}

struct World {
    dir: tempfile::TempDir,
    root: HostRoot,
    host: Shared,
    desired: Desired,
    state: StateDir,
    boot: BootId,
    ledger: Ledger,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
        let host = FakeHost::new(inventory([
            igb(PF0, "ens1f0").with_vfs(2),
            igb(PF1, "ens2f0"),
        ]));
        let boot = BootId::new("boot");
        let boot_id = dir.path().join("proc/sys/kernel/random/boot_id");
        std::fs::create_dir_all(boot_id.parent().unwrap()).unwrap();
        std::fs::write(boot_id, "boot\n").unwrap();
        Self {
            root: HostRoot::open(dir.path()).unwrap(),
            dir,
            host: Shared(Arc::new(Mutex::new(host)), Surprise::None),
            desired: desired(),
            ledger: Ledger::new(state.clone(), boot.clone()),
            state,
            boot,
        }
    }

    fn context<'a>(&'a self, checkpoints: &'a dyn Checkpoints) -> ApplyContext<'a> {
        ApplyContext {
            state: &self.state,
            ledger: &self.ledger,
            owned: PfLedger::new(&self.root, &self.state),
            boot: &self.boot,
            ground: &NoVfs,
            checkpoints,
            patience: Duration::from_millis(20),
        }
    }

    fn decide(&self, seen: &Inventory) -> Decision {
        policy::decide(seen, &self.desired, &self.known())
    }

    /// What is known beside what is seen, on a kernel that was started with no argument.
    fn known(&self) -> Circumstances {
        let ledger = PfLedger::new(&self.root, &self.state);
        let records = ledger.read().unwrap();
        Circumstances {
            owned: records.owned(),
            kept: records.lost,
            kernel: Some(KernelFacts {
                iommus: 1,
                iommu_groups: 9,
                bypassed: Some(true),
                modules: [("vfio_pci".parse().unwrap(), ModuleState::Loaded)].into(),
                ..KernelFacts::default()
            }),
            starved: crate::starved_before(&self.state, &self.boot),
            ..Circumstances::default()
        }
    }

    fn plan(&self) -> Plan {
        let seen = self.host.clone().observe(Scope::All).unwrap();
        self.decide(&seen).plan
    }

    fn apply_shown(&self, shown: Option<&Plan>) -> (Applied, Vec<Event>) {
        let mut events = Vec::new();
        let applied = self.apply_dying(&Uninterrupted, shown, &mut |event| events.push(event));
        (applied.unwrap(), events)
    }

    fn apply(&self) -> (Applied, Vec<Event>) {
        self.apply_shown(Some(&self.plan()))
    }

    fn apply_dying(
        &self,
        checkpoints: &dyn Checkpoints,
        shown: Option<&Plan>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Applied, ApplyError> {
        let open = || Ok(self.host.clone());
        let decide = |seen: &Inventory| Ok(self.decide(seen));
        apply(self.context(checkpoints), &open, &decide, shown, tell)
    }

    fn made(&self) -> usize {
        self.host.0.lock().unwrap().performed().len()
    }
}

/// Three VFs on each PF, one of them on vfio-pci.
fn desired() -> Desired {
    let group = |first, last, driver| VfGroup {
        resource: "r".to_owned(),
        policy: "p".to_owned(),
        range: VfRange::new(first, last).unwrap(),
        driver,
        mtu: None,
        is_rdma: false,
        vdpa: None,
    };
    let wanted = |pf: &str| PfDesired {
        pf: parsed(pf),
        name: None,
        num_vfs: 3,
        mtu: model::Mtu::new(9000),
        link_type: None,
        eswitch: None,
        externally_managed: false,
        groups: vec![
            group(0, 1, VfDriver::Kernel),
            group(2, 2, VfDriver::Named(parsed("vfio-pci"))),
        ],
    };
    Desired {
        pfs: BTreeMap::from([(parsed(PF0), wanted(PF0)), (parsed(PF1), wanted(PF1))]),
        ..Desired::default()
    }
}

#[test]
fn all_pfs_get_what_was_shown_and_a_second_run_changes_nothing() {
    let world = World::new();
    let (applied, events) = world.apply();
    assert!(applied.is_complete(), "{applied:#?}");
    assert_eq!(applied.pfs.len(), 2);
    let ended = events
        .iter()
        .filter(|event| matches!(event, Event::PfEnded { failed: false, .. }));
    assert_eq!(ended.count(), 2);
    let made = world.made();
    let (again, events) = world.apply();
    assert!(again.is_complete() && again.pfs.is_empty(), "{again:?}");
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(world.made(), made);
}

#[test]
fn a_pf_that_fails_does_not_stop_the_other() {
    let world = World::new();
    world.host.0.lock().unwrap().fail_at = Some(0);
    let (applied, _) = world.apply();
    let failed: Vec<_> = applied
        .pfs
        .iter()
        .filter(|pf| pf.outcome.is_err())
        .collect();
    assert_eq!(failed.len(), 1, "{:#?}", applied.pfs);
    assert!(!applied.is_complete());
    let remaining: Vec<_> = applied.remaining.pfs.iter().map(|pf| pf.pf).collect();
    assert_eq!(remaining, [failed[0].pf]);
    let last = last_apply(&world.state).unwrap().unwrap();
    assert_eq!(last.ended.unwrap().failed_pfs, 1);
    assert!(last.pfs.iter().any(|pf| pf.failed.is_some()));
    assert!(world.apply().0.is_complete());
}

#[test]
fn a_host_that_changed_since_the_plan_was_shown_is_left_alone() {
    let world = World::new();
    let shown = world.plan();
    let behind_our_back = Step::SetNumVfs {
        pf: parsed(PF0),
        count: 0,
    };
    world.host.clone().perform(&behind_our_back).unwrap();
    let (applied, _) = world.apply_shown(Some(&shown));
    let outcome = |pf: &str| {
        let found = applied.pfs.iter().find(|applied| applied.pf == parsed(pf));
        &found.unwrap().outcome
    };
    assert!(matches!(outcome(PF0), Err(PfFault::Outdated)));
    assert!(outcome(PF1).is_ok());
    assert_eq!(applied.remaining.pfs.len(), 1);
}

#[test]
fn what_another_apply_did_meanwhile_is_not_an_error() {
    let world = World::new();
    let shown = world.plan();
    world.apply();
    let made = world.made();
    let (applied, _) = world.apply_shown(Some(&shown));
    assert!(applied.is_complete(), "{applied:?}");
    assert_eq!(world.made(), made);
}

#[test]
fn one_apply_at_a_time() {
    let world = World::new();
    let _running = exclusive(&world.state, LockOf::Apply, Duration::ZERO).unwrap();
    let mut waited = false;
    let error = world
        .apply_dying(&Uninterrupted, None, &mut |event| {
            waited |= matches!(event, Event::Waiting(LockOf::Apply));
        })
        .unwrap_err();
    assert!(waited);
    assert_eq!(error.code().as_str(), "locked");
    assert_eq!(world.made(), 0);
}

#[test]
fn a_pf_whose_vfs_are_just_given_away_is_left_alone() {
    let world = World::new();
    let begun = Instant::now();
    let plans = world.plan();
    let pf = plans.pfs.iter().filter(|plan| plan.pf == parsed(PF0));
    let _attach = crate::lock::shared(&world.state, LockOf::Pf(parsed(PF0)), Duration::ZERO);
    let (locked, unlocked) =
        lock_pfs_within(world.context(&Uninterrupted), pf, Duration::from_millis(10));
    assert!(locked.is_empty() && begun.elapsed() < PATIENCE);
    assert!(matches!(unlocked[0].outcome, Err(PfFault::Lock(_))));
}

#[test]
fn a_journal_that_cannot_be_written_leaves_everything_as_it_was() {
    let world = World::new();
    std::fs::create_dir_all(world.dir.path().join("lib")).unwrap();
    std::fs::write(world.dir.path().join("lib/journal"), "in the way").unwrap();
    let error = world
        .apply_dying(&Uninterrupted, None, &mut |_| {})
        .unwrap_err();
    assert!(matches!(error, ApplyError::Journal(_)), "{error:?}");
    assert_eq!(world.made(), 0);
}

#[test]
fn a_journal_that_fills_the_disk_later_stops_nobody_half_way() {
    let world = World::new();
    let seen = world.host.clone().observe(Scope::All).unwrap();
    let decision = world.decide(&seen);
    let full = std::fs::OpenOptions::new().append(true).open("/dev/full");
    let journal = Journal::over(world.state.apply_journal(), full.unwrap());
    let work = Work {
        context: world.context(&Uninterrupted),
        open: &|| Ok(world.host.clone()),
        decide: &|seen: &Inventory| Ok(world.decide(seen)),
        seen: &seen,
        decision: &decision,
        journal: &journal,
    };
    let pfs = work::all_pfs(work, decision.plan.pfs.clone(), &mut |_| {});
    assert!(pfs.iter().all(PfApplied::is_complete), "{pfs:#?}");
    assert!(world.plan().is_empty());
    assert_eq!(journal.end(0).unwrap().code(), Code::new("state-full"));
}

#[test]
fn an_apply_killed_anywhere_converges_in_the_next_and_is_told_of() {
    for nth in 1..100 {
        let world = World::new();
        let dies = DiesAt::nth(nth);
        let shown = world.plan();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            world.apply_dying(&dies, Some(&shown), &mut |_| {})
        }));
        if outcome.is_ok() {
            assert!(nth > 10, "only {} checkpoints", nth - 1);
            return;
        }
        let ended = last_apply(&world.state)
            .unwrap()
            .is_none_or(|l| l.ended.is_some());
        let (applied, events) = world.apply();
        assert!(applied.is_complete(), "killed at {nth}: {applied:#?}");
        let told = events
            .iter()
            .any(|event| matches!(event, Event::Interrupted(_)));
        assert_eq!(told, !ended, "killed at {nth}");
    }
    panic!("apply passes checkpoints for ever");
}
