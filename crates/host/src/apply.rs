//! Making a plan true: all PFs at once, each with its steps in order.
//!
//! ```text
//! lock apply ─ heal ─ lock PFs ─ observe, plan again ─ journal ─┬─ PF 1: step, step, …  ─┬─ observe, plan again
//!                                                               └─ PF 2: step, step, …  ─┘   = what remains
//! ```
//!
//! The plan that was shown is what is done: if the host changed since, so that the plan for a PF
//! would be another one now, that PF is left alone. A PF that fails stops at that step and does not
//! stop the others; nothing is taken back then, because the next apply goes on from there, and
//! removing VFs again would hurt more than it helps.
//!
//! A plan may end where VFs do not exist yet that later steps are about ([`model::PfPlan::is_cut`]);
//! then the PF is observed and planned again, until nothing is left.

mod report;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use model::{DiscoverError, Host, Inventory, PfPlan, Plan, PlannedStep, Scope};

pub use report::{Applied, ApplyError, Event, PfApplied, PfFault};

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::engine::{Engine, Ground, PATIENCE};
use crate::journal::{Journal, LastApply, last_apply};
use crate::ledger::{BootId, Ledger};
use crate::lock::{Lock, LockOf, exclusive, if_free};
use crate::state::StateDir;

/// How often the plan of one PF may go on after it was cut. One cut is normal: the VFs are created,
/// then configured.
const MOST_ROUNDS: usize = 4;

/// What apply works with.
#[derive(Clone, Copy)]
pub struct ApplyContext<'a> {
    /// Where locks and the journal are.
    pub state: &'a StateDir,
    /// Who has which VF.
    pub ledger: &'a Ledger,
    /// Which boot this is.
    pub boot: &'a BootId,
    /// What is asked of the host beside observing it.
    pub ground: &'a dyn Ground,
    /// Where tests may kill the process.
    pub checkpoints: &'a dyn Checkpoints,
    /// How long to wait for another apply to end.
    pub patience: Duration,
}

/// Makes a plan true.
///
/// `open` opens the host once per PF, `plan` says what is to be done now, `shown` is the plan that
/// somebody agreed to, or `None` when whatever `plan` says is agreed to. `tell` hears of progress.
pub fn apply<H: Host>(
    context: ApplyContext<'_>,
    open: &(dyn Fn() -> Result<H, DiscoverError> + Sync),
    plan: &(dyn Fn(&Inventory) -> Plan + Sync),
    shown: Option<&Plan>,
    tell: &mut dyn FnMut(Event),
) -> Result<Applied, ApplyError> {
    let _apply = lock_apply(context, tell)?;
    let interrupted = interrupted(context);
    if let Some(last) = &interrupted {
        tell(Event::Interrupted(last.clone()));
    }
    let mut host = open()?;
    heal(context, &mut host, tell);
    let fresh = plan(&host.observe(Scope::All)?);
    let wanted = shown.unwrap_or(&fresh).pfs.iter();
    let wanted = wanted.filter(|pf| !pf.steps.is_empty());
    let (locks, unlocked) = lock_pfs_within(context, wanted, PATIENCE);
    context.checkpoints.passed(Checkpoint::Locked);

    // Again, because only now nobody else changes these PFs.
    let fresh = plan(&host.observe(Scope::All)?);
    let (todo, outdated) = compare(locks.iter().map(|(pf, _)| pf), &fresh, shown.is_some());
    let mut pfs: Vec<PfApplied> = unlocked.into_iter().chain(outdated).collect();
    if !todo.is_empty() {
        let journal = Journal::begin(context.state, context.boot, &todo)?;
        context.checkpoints.passed(Checkpoint::Recorded);
        let work = Work {
            context,
            open,
            plan,
            journal: &journal,
        };
        pfs.extend(all_pfs(work, todo, tell));
        context.checkpoints.passed(Checkpoint::Unconfirmed);
        let failed = pfs.iter().filter(|pf| pf.outcome.is_err()).count();
        journal.end(u32::try_from(failed).unwrap_or(u32::MAX))?;
        context.checkpoints.passed(Checkpoint::Confirmed);
    }
    pfs.sort_by_key(|pf| pf.pf);
    let remaining = plan(&host.observe(Scope::All)?);
    Ok(Applied {
        pfs,
        remaining,
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

/// Returns the former apply if it died. A journal that cannot be read is no reason not to apply.
fn interrupted(context: ApplyContext<'_>) -> Option<LastApply> {
    match last_apply(context.state) {
        Ok(last) => last.filter(|last| last.was_interrupted(context.boot)),
        Err(error) => {
            tracing::warn!(%error, "journal of the former apply not read");
            None
        }
    }
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
    fresh: &Plan,
    was_shown: bool,
) -> (Vec<PfPlan>, Vec<PfApplied>) {
    let mut todo = Vec::new();
    let mut outdated = Vec::new();
    for agreed in agreed {
        let now = fresh.pfs.iter().find(|plan| plan.pf == agreed.pf);
        match now {
            // Whoever had the lock before us did it.
            None => {}
            Some(now) if now.steps.is_empty() => {}
            Some(now) if !was_shown || now == agreed => todo.push(now.clone()),
            Some(_) => outdated.push(PfApplied::not_begun(agreed, PfFault::Outdated)),
        }
    }
    (todo, outdated)
}

/// What the threads share.
struct Work<'a, H> {
    context: ApplyContext<'a>,
    open: &'a (dyn Fn() -> Result<H, DiscoverError> + Sync),
    plan: &'a (dyn Fn(&Inventory) -> Plan + Sync),
    journal: &'a Journal,
}

impl<H> Clone for Work<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Work<'_, H> {}

/// Does all PFs at once, each on a thread with the host to itself.
fn all_pfs<H: Host>(
    work: Work<'_, H>,
    plans: Vec<PfPlan>,
    tell: &mut dyn FnMut(Event),
) -> Vec<PfApplied> {
    let (events, heard): (Sender<Event>, Receiver<Event>) = channel();
    thread::scope(|scope| {
        let threads: Vec<_> = plans
            .into_iter()
            .map(|plan| {
                let events = events.clone();
                scope.spawn(move || one_pf(work, &plan, &events))
            })
            .collect();
        drop(events);
        // Ends when the last thread dropped its end.
        heard.iter().for_each(&mut *tell);
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn one_pf<H: Host>(work: Work<'_, H>, plan: &PfPlan, events: &Sender<Event>) -> PfApplied {
    let mut made = Vec::new();
    let outcome = rounds(work, plan, &mut made, events);
    // The receiver lives as long as the threads do.
    let _heard = events.send(Event::PfEnded {
        pf: plan.pf,
        failed: outcome.is_err(),
    });
    PfApplied {
        pf: plan.pf,
        name: plan.name.clone(),
        made,
        outcome,
    }
}

fn rounds<H: Host>(
    work: Work<'_, H>,
    plan: &PfPlan,
    made: &mut Vec<PlannedStep>,
    events: &Sender<Event>,
) -> Result<(), PfFault> {
    let mut host = (work.open)()?;
    let mut plan = plan.clone();
    for _round in 0..MOST_ROUNDS {
        steps(work, &mut host, &plan, made, events)?;
        if !plan.is_cut {
            return Ok(());
        }
        let next = (work.plan)(&host.observe(Scope::All)?);
        let Some(next) = next.pfs.into_iter().find(|next| next.pf == plan.pf) else {
            return Ok(());
        };
        plan = next;
        work.journal.more(plan.pf, &plan.steps)?;
    }
    Err(PfFault::Endless {
        rounds: MOST_ROUNDS,
    })
}

fn steps<H: Host>(
    work: Work<'_, H>,
    host: &mut H,
    plan: &PfPlan,
    made: &mut Vec<PlannedStep>,
    events: &Sender<Event>,
) -> Result<(), PfFault> {
    let pf = plan.pf;
    let of = made.len() + plan.steps.len();
    for planned in &plan.steps {
        let at = made.len();
        let _heard = events.send(Event::StepBegun {
            pf,
            number: at + 1,
            of,
            step: planned.step.clone(),
        });
        work.journal.step_begun(pf, at)?;
        let begun = Instant::now();
        if let Err(source) = host.perform(&planned.step) {
            work.journal.step_failed(pf, at, source.to_string())?;
            return Err(source.into());
        }
        work.journal.step_made(pf, at)?;
        made.push(planned.clone());
        work.context.checkpoints.passed(Checkpoint::StepMade);
        let _heard = events.send(Event::StepMade {
            pf,
            number: at + 1,
            of,
            step: planned.step.clone(),
            elapsed: begun.elapsed(),
        });
    }
    Ok(())
}
