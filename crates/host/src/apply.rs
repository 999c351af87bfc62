//! Making a decision true: all PFs at once, each with its steps in order.
//!
//! ```text
//! lock apply ─ heal ─ lock PFs ─ observe, decide ─ journal ─┬─ PF 1: own it, step, step, … ─┬─ observe, decide
//!                                                           └─ PF 2: step, …, disown it    ─┘  = what remains
//! ```
//!
//! The plan that was shown is what is done: if the host changed since, so that the plan for a PF
//! would be another one now, that PF is left alone. What fails stops as little as possible:
//!
//! - a step about a VF: the other steps of that VF; its neighbours go on;
//! - a step about a PF: the rest of that PF; the other PFs go on.
//!
//! Nothing is taken back then, because the next apply goes on from there, and removing VFs again would
//! hurt more than it helps. A step that waits for a reboot is left out.
//!
//! A plan may end where VFs do not exist yet that later steps are about ([`model::PfPlan::is_cut`]),
//! or name VFs that come to be elsewhere; then the PF is observed and planned again, until nothing is
//! left.
//!
//! Records: a PF's first state is noted and the PF is owned before its first step, so that whatever
//! a kill leaves behind can be given back; it is disowned after the last step of giving it back. What its
//! VFs have by hand that go with them is noted with it, and forgotten once new VFs have it again.

mod report;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeSet;
use std::time::Duration;

use model::{DiscoverError, Host, Inventory, PciAddress, PfPlan, Plan, Scope};
use policy::Decision;

pub use report::{Applied, ApplyError, Event, PfApplied, PfFault, Undecided, VfFault};

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::engine::{Engine, Ground, PATIENCE};
use crate::journal::{Journal, LastApply, last_apply};
use crate::ledger::{BootId, Ledger};
use crate::lock::{Lock, LockOf, exclusive, if_free};
use crate::owned::PfLedger;
use crate::state::{StateDir, StateError, keep_aside};
use work::Work;

/// What apply works with.
#[derive(Clone, Copy)]
pub struct ApplyContext<'a> {
    /// Where locks and the journal are.
    pub state: &'a StateDir,
    /// Who has which VF.
    pub ledger: &'a Ledger,
    /// Which PFs were configured.
    pub owned: PfLedger<'a>,
    /// Which boot this is.
    pub boot: &'a BootId,
    /// What is asked of the host beside observing it.
    pub ground: &'a dyn Ground,
    /// Where tests may kill the process.
    pub checkpoints: &'a dyn Checkpoints,
    /// How long to wait for another apply to end.
    pub patience: Duration,
}

/// Says what is to be done to a host that looks like this: what [`policy::decide`] gives.
///
/// It is asked several times, and must look for what it depends on afresh, such as the records of
/// PFs.
pub type Decide<'a> = dyn Fn(&Inventory) -> Result<Decision, Undecided> + Sync + 'a;

/// Makes a decision true.
///
/// `open` opens the host once per PF, `decide` says what is to be done now, `shown` is the plan that
/// somebody agreed to, or `None` when whatever `decide` says is agreed to. `tell` hears of progress.
pub fn apply<H: Host>(
    context: ApplyContext<'_>,
    open: &(dyn Fn() -> Result<H, DiscoverError> + Sync),
    decide: &Decide<'_>,
    shown: Option<&Plan>,
    tell: &mut dyn FnMut(Event),
) -> Result<Applied, ApplyError> {
    let _apply = lock_apply(context, tell)?;
    let interrupted = interrupted(context, tell)?;
    if let Some(last) = &interrupted {
        tell(Event::Interrupted(last.clone()));
    }
    set_damaged_records_aside(context, tell)?;
    let mut host = open()?;
    heal(context, &mut host, tell);
    let agreed = match shown {
        Some(shown) => shown.clone(),
        None => decide(&host.observe(Scope::All)?)?.plan,
    };
    let agreed = agreed.pfs.iter().filter(|pf| !pf.steps.is_empty());
    let (locks, unlocked) = lock_pfs_within(context, agreed, PATIENCE);
    context.checkpoints.passed(Checkpoint::Locked);

    // Only now nobody else changes these PFs.
    let seen = host.observe(Scope::All)?;
    let fresh = decide(&seen)?;
    let agreed = locks.iter().map(|(pf, _)| pf);
    let (todo, outdated) = compare(agreed, &seen, &fresh.plan, shown.is_some());
    let mut pfs: Vec<PfApplied> = unlocked.into_iter().chain(outdated).collect();
    if !todo.is_empty() {
        let journal = Journal::begin(context.state, context.boot, &todo)?;
        context.checkpoints.passed(Checkpoint::Recorded);
        let work = Work {
            context,
            open,
            decide,
            seen: &seen,
            decision: &fresh,
            journal: &journal,
        };
        pfs.extend(work::all_pfs(work, todo, tell));
        context.checkpoints.passed(Checkpoint::Unconfirmed);
        let failed = pfs.iter().filter(|pf| !pf.is_complete()).count();
        if let Some(error) = journal.end(u32::try_from(failed).unwrap_or(u32::MAX)) {
            tell(Event::NotWritten(error));
        }
        context.checkpoints.passed(Checkpoint::Confirmed);
    }
    pfs.extend(keep_records(context, &seen, &fresh, &pfs));
    pfs.sort_by_key(|pf| pf.pf);
    let (remaining, undecided) = match decide(&host.observe(Scope::All)?) {
        Ok(decision) => (decision.plan, None),
        Err(error) => (Plan::default(), Some(error)),
    };
    Ok(Applied {
        pfs,
        forgotten: fresh.forget,
        remaining,
        undecided,
        interrupted,
    })
}

fn lock_apply(context: ApplyContext<'_>, tell: &mut dyn FnMut(Event)) -> Result<Lock, ApplyError> {
    if let Some(lock) = if_free(context.state, LockOf::Apply)? {
        return Ok(lock);
    }
    tell(Event::Waiting(LockOf::Apply));
    Ok(exclusive(context.state, LockOf::Apply, context.patience)?)
}

/// Returns the former apply if it died. A journal that cannot be read is no reason not to apply: it is
/// no recipe, so it is set aside and said.
fn interrupted(
    context: ApplyContext<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<Option<LastApply>, StateError> {
    match last_apply(context.state) {
        Ok(last) => Ok(last.filter(|last| last.was_interrupted(context.boot))),
        Err(error) => set_aside(error, tell).map(|()| None),
    }
}

/// Sets a file of virtfn's own aside that cannot be read.
fn set_aside(error: StateError, tell: &mut dyn FnMut(Event)) -> Result<(), StateError> {
    let path = error.path.clone();
    let kept = keep_aside(&path, &path.with_extension("damaged"))?;
    tell(Event::SetAside {
        path,
        kept,
        error: Box::new(error),
    });
    Ok(())
}

/// Sets records of PFs aside that cannot be believed. A PF that is wanted gets a new one.
fn set_damaged_records_aside(
    context: ApplyContext<'_>,
    tell: &mut dyn FnMut(Event),
) -> Result<(), ApplyError> {
    let records = context.owned.read()?;
    for unread in records.unread {
        set_aside(unread, tell)?;
    }
    for damaged in records.damaged {
        let kept = context.owned.keep_aside(&damaged)?;
        tell(Event::SetAside {
            path: damaged.path.clone(),
            kept,
            error: Box::new(damaged),
        });
    }
    Ok(())
}

/// Keeps the records of PFs that nothing was to be done to: those that are wanted are owned, those of
/// which only the record is left are forgotten.
fn keep_records(
    context: ApplyContext<'_>,
    seen: &Inventory,
    decision: &Decision,
    pfs: &[PfApplied],
) -> Vec<PfApplied> {
    let busy: BTreeSet<PciAddress> = pfs.iter().map(|pf| pf.pf).collect();
    let mut failed = Vec::new();
    let mut note = |pf, outcome: Result<(), StateError>| {
        if let Err(error) = outcome {
            failed.push(PfApplied::without_steps(pf, seen, error.into()));
        }
    };
    for (pf, wanted) in &decision.desired.pfs {
        if let Some(function) = seen.get(*pf).filter(|_| !busy.contains(pf)) {
            let owned = context.owned.note_original(function);
            let owned = owned.and_then(|()| context.owned.own(wanted));
            note(*pf, owned.and_then(|()| context.owned.forget_lost(*pf)));
        }
    }
    for pf in &decision.forget {
        note(*pf, context.owned.disown(*pf));
    }
    failed
}

fn heal(context: ApplyContext<'_>, host: &mut impl Host, tell: &mut dyn FnMut(Event)) {
    let mut engine = Engine {
        host,
        ground: context.ground,
        state: context.state,
        ledger: context.ledger,
        checkpoints: context.checkpoints,
    };
    for healed in engine.heal() {
        tell(Event::Healed(healed));
    }
}

type Locked = Vec<(PfPlan, Lock)>;

/// Locks the PFs in the order of their addresses, as everybody does.
fn lock_pfs_within<'p>(
    context: ApplyContext<'_>,
    plans: impl Iterator<Item = &'p PfPlan>,
    patience: Duration,
) -> (Locked, Vec<PfApplied>) {
    let mut plans: Vec<&PfPlan> = plans.collect();
    plans.sort_by_key(|plan| plan.pf);
    let mut locked = Vec::new();
    let mut unlocked = Vec::new();
    for plan in plans {
        match exclusive(context.state, LockOf::Pf(plan.pf), patience) {
            Ok(lock) => locked.push((plan.clone(), lock)),
            Err(error) => unlocked.push(PfApplied::not_begun(plan, error.into())),
        }
    }
    (locked, unlocked)
}

/// Finds what is to be done now among what was agreed to.
fn compare<'p>(
    agreed: impl Iterator<Item = &'p PfPlan>,
    seen: &Inventory,
    fresh: &Plan,
    was_shown: bool,
) -> (Vec<PfPlan>, Vec<PfApplied>) {
    let mut todo = Vec::new();
    let mut outdated = Vec::new();
    for agreed in agreed {
        let now = fresh.pfs.iter().find(|plan| plan.pf == agreed.pf);
        match now {
            None if seen.get(agreed.pf).is_none() => {
                outdated.push(PfApplied::not_begun(agreed, PfFault::Gone));
            }
            // Whoever had the lock before us did it.
            None => {}
            Some(now) if now.steps.is_empty() => {}
            Some(now) if !was_shown || now == agreed => todo.push(now.clone()),
            Some(_) => outdated.push(PfApplied::not_begun(agreed, PfFault::Outdated)),
        }
    }
    (todo, outdated)
}
