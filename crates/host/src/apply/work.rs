//! The steps of each PF, on a thread with the host to itself.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use model::{
    Code, DiscoverError, Host, Inventory, PciAddress, PfPlan, PlannedStep, Scope, Step, StepError,
};
use policy::Decision;

use super::{ApplyContext, Decide, Event, PfApplied, PfFault, VfFault};
use crate::checkpoint::Checkpoint;
use crate::journal::Journal;
use crate::state::StateError;

/// How often the plan of one PF may go on after it was cut. One cut is normal: the VFs are created,
/// then configured.
const MOST_ROUNDS: usize = 4;

/// What the threads share.
pub(super) struct Work<'a, H> {
    pub(super) context: ApplyContext<'a>,
    pub(super) open: &'a (dyn Fn() -> Result<H, DiscoverError> + Sync),
    pub(super) decide: &'a Decide<'a>,
    /// The host before the first step.
    pub(super) seen: &'a Inventory,
    /// What is made true.
    pub(super) decision: &'a Decision,
    pub(super) journal: &'a Journal,
}

impl<H> Clone for Work<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Work<'_, H> {}

/// Does all PFs at once.
pub(super) fn all_pfs<H: Host>(
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
                scope.spawn(move || one_pf(work, &plan, events))
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

fn one_pf<H: Host>(work: Work<'_, H>, plan: &PfPlan, events: Sender<Event>) -> PfApplied {
    let pf = plan.pf;
    let mut course = Course {
        work,
        pf,
        events,
        agreed: interrupted(plan),
        made: Vec::new(),
        faults: Vec::new(),
        faulty: BTreeSet::new(),
        is_late: false,
        planned: 0,
    };
    let outcome = match is_owned_before(work, plan) {
        Ok(was_owned) => {
            let outcome = course.rounds(plan);
            let records = keep_record(work, pf, was_owned, &course, outcome.is_ok());
            outcome.and(records.map_err(PfFault::from))
        }
        Err(error) => Err(error.into()),
    };
    let ended = Event::PfEnded {
        pf,
        failed: outcome.is_err() || !course.faults.is_empty(),
    };
    course.tell(ended);
    PfApplied {
        pf,
        name: plan.name.clone(),
        made: course.made,
        vfs: course.faults,
        outcome,
    }
}

/// Notes what VFs have by hand that a decision destroys.
fn note_lost<H>(work: Work<'_, H>, decision: &Decision, pf: PciAddress) -> Result<(), StateError> {
    match decision.lost.get(&pf) {
        Some(vfs) => work.context.owned.note_lost(pf, work.context.boot, vfs),
        None => Ok(()),
    }
}

/// Owns a PF that is wanted before its first step, and says whether it was owned before.
fn is_owned_before<H>(work: Work<'_, H>, plan: &PfPlan) -> Result<bool, StateError> {
    let owned = work.context.owned;
    let was_owned = owned.is_recorded(plan.pf);
    let wanted = work.decision.desired.pfs.get(&plan.pf);
    if let (Some(wanted), Some(function)) = (wanted, work.seen.get(plan.pf)) {
        owned.note_original(function)?;
        owned.own(wanted)?;
        note_lost(work, work.decision, plan.pf)?;
        work.context.checkpoints.passed(Checkpoint::Owned);
    }
    Ok(was_owned)
}

/// Disowns a PF that was given back, or that was not changed after all.
fn keep_record<H>(
    work: Work<'_, H>,
    pf: PciAddress,
    was_owned: bool,
    course: &Course<'_, H>,
    is_ok: bool,
) -> Result<(), StateError> {
    let is_given_back = work.decision.released.contains(&pf) && is_ok;
    let is_untouched = !was_owned && !is_ok && course.made.is_empty();
    if is_ok && course.faults.is_empty() {
        work.context.owned.forget_lost(pf)?;
    }
    if is_given_back || is_untouched {
        work.context.owned.disown(pf)?;
        work.context.checkpoints.passed(Checkpoint::Disowned);
    }
    Ok(())
}

/// Returns the VFs whose holders a plan interrupts.
fn interrupted(plan: &PfPlan) -> BTreeSet<PciAddress> {
    let prices = plan.steps.iter().map(|planned| &planned.price);
    let named = prices.flat_map(|price| price.interrupts.iter().map(|(vf, _)| *vf));
    named.collect()
}

/// How far one PF came.
struct Course<'a, H> {
    work: Work<'a, H>,
    pf: PciAddress,
    events: Sender<Event>,
    /// VFs whose holders may be interrupted: somebody agreed to that.
    agreed: BTreeSet<PciAddress>,
    made: Vec<PlannedStep>,
    faults: Vec<VfFault>,
    /// VFs that nothing more is done to.
    faulty: BTreeSet<PciAddress>,
    /// Was a netdev awaited in vain? Then the others had as long, and are not awaited again.
    is_late: bool,
    /// Steps of the rounds before, made or not.
    planned: usize,
}

/// How the steps of a plan ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Went {
    /// To the end.
    Through,
    /// To where the VFs turned out to be others than predicted.
    Astray,
}

impl<H: Host> Course<'_, H> {
    fn rounds(&mut self, plan: &PfPlan) -> Result<(), PfFault> {
        let mut host = (self.work.open)()?;
        let mut plan = plan.clone();
        for _round in 0..MOST_ROUNDS {
            let went = self.steps(&mut host, &plan)?;
            if went == Went::Through && !plan.is_cut {
                return Ok(());
            }
            self.planned += plan.steps.len();
            let decision = (self.work.decide)(&host.observe(Scope::All)?)?;
            note_lost(self.work, &decision, self.pf)?;
            let next = decision
                .plan
                .pfs
                .into_iter()
                .find(|next| next.pf == self.pf);
            let Some(next) = next else {
                return Ok(());
            };
            if !interrupted(&next).is_subset(&self.agreed) {
                return Err(PfFault::Outdated);
            }
            plan = next;
            self.work.journal.more(self.pf, &plan.steps);
        }
        Err(PfFault::Endless {
            rounds: MOST_ROUNDS,
        })
    }

    fn steps(&mut self, host: &mut H, plan: &PfPlan) -> Result<Went, PfFault> {
        for (at, planned) in plan.steps.iter().enumerate() {
            let vf = vf_of(plan, &planned.step);
            let is_out =
                planned.price.reboot.is_some() || vf.is_some_and(|vf| self.faulty.contains(&vf));
            if is_out {
                continue;
            }
            let of = self.planned + plan.steps.len();
            let outcome = self.step(host, self.planned + at, of, planned);
            match (outcome, vf) {
                (Ok(()), _) => {}
                (Err(fault), None) => {
                    self.end_by_hand(host, plan, at);
                    return Err(fault.into());
                }
                (Err(fault), Some(vf)) => {
                    if fault.code == Code::new("no-such-device") && self.is_gone(host) {
                        return Err(PfFault::Gone);
                    }
                    self.is_late |= fault.code == Code::new("no-netdev");
                    self.faulty.insert(vf);
                    self.faults.push(VfFault {
                        vf,
                        index: plan.vfs.get(&vf).copied(),
                        source: self.or_give_up(fault, &planned.step),
                    });
                }
            }
            if self.is_astray(host, plan, at)? {
                return Ok(Went::Astray);
            }
        }
        Ok(Went::Through)
    }

    /// Says how to give up what a VF had by hand and its driver does not take back: nobody asks for it
    /// with a policy or an option that could be left out.
    fn or_give_up(&self, mut fault: StepError, step: &Step) -> StepError {
        let Step::SetVf { pf, vf, .. } = step else {
            return fault;
        };
        if let Some(note) = self.work.context.owned.note_of_lost(*pf, *vf) {
            fault.remedy = Some(format!(
                "{vf} had this before it was made anew, and each apply tries to give it back; if \
                 nobody needs it any more, remove {}",
                note.display()
            ));
        }
        fault
    }

    /// Lets new VFs get drivers by themselves again when the plan ends while they do not: that is only for
    /// as long as VFs are bound one by one.
    fn end_by_hand(&mut self, host: &mut H, plan: &PfPlan, at: usize) {
        let (made, left) = plan.steps.split_at(at);
        let was_switched = made.iter().any(|planned| sets_autoprobe(planned, false));
        let mut left = left.iter().enumerate();
        let back = left.find(|(_, planned)| sets_autoprobe(planned, true));
        let of = self.planned + plan.steps.len();
        if let Some((offset, planned)) = back.filter(|_| was_switched)
            && let Err(error) = self.step(host, self.planned + at + offset, of, planned)
        {
            // The next apply has the step again.
            tracing::warn!(pf = %self.pf, %error, "autoprobe left off");
        }
    }

    /// Makes one step, with a line in the journal before and after it.
    fn step(
        &mut self,
        host: &mut H,
        at: usize,
        of: usize,
        planned: &PlannedStep,
    ) -> Result<(), StepError> {
        let (pf, journal) = (self.pf, self.work.journal);
        let (number, step) = (at + 1, &planned.step);
        self.tell(Event::StepBegun {
            pf,
            number,
            of,
            step: step.clone(),
        });
        journal.step_begun(pf, at);
        let begun = Instant::now();
        let outcome = match step {
            Step::AwaitNetdev { function } if self.is_late => look_for_netdev(host, *function),
            _ => host.perform(step),
        };
        if let Err(fault) = outcome {
            journal.step_failed(pf, at, &fault);
            return Err(fault);
        }
        journal.step_made(pf, at);
        self.made.push(planned.clone());
        self.work.context.checkpoints.passed(Checkpoint::StepMade);
        self.tell(Event::StepMade {
            pf,
            number,
            of,
            step: step.clone(),
            elapsed: begun.elapsed(),
        });
        Ok(())
    }

    /// Are the VFs that were just made others than the ones that later steps name?
    ///
    /// PCIe lets offset and stride change with the number of VFs.
    fn is_astray(&self, host: &mut H, plan: &PfPlan, at: usize) -> Result<bool, PfFault> {
        let made_vfs = plan.steps.get(at).is_some_and(
            |planned| matches!(planned.step, Step::SetNumVfs { count, .. } if count > 0),
        );
        let later = plan.steps.get(at + 1..).unwrap_or_default();
        if !made_vfs
            || later
                .iter()
                .all(|planned| vf_of(plan, &planned.step).is_none())
        {
            return Ok(false);
        }
        let seen = host.observe(Scope::Function(self.pf))?;
        let vfs = seen.get(self.pf).and_then(model::Function::pf);
        let is_there = |vf: PciAddress| {
            let index = plan.vfs.get(&vf)?;
            Some(vfs?.vfs.get(index) == Some(&vf))
        };
        let mut named = later
            .iter()
            .filter_map(|planned| vf_of(plan, &planned.step));
        Ok(!named.all(|vf| is_there(vf) == Some(true)))
    }

    /// Is the PF itself no more? Then it is of no use to tell that of each VF.
    fn is_gone(&self, host: &mut H) -> bool {
        host.observe(Scope::Function(self.pf))
            .is_ok_and(|seen| seen.get(self.pf).is_none())
    }

    fn tell(&self, event: Event) {
        // The receiver lives as long as the threads do.
        let _heard = self.events.send(event);
    }
}

fn sets_autoprobe(planned: &PlannedStep, wanted: bool) -> bool {
    matches!(planned.step, Step::SetAutoprobe { on, .. } if on == wanted)
}

/// Looks whether a netdev came after all, without waiting for it again.
fn look_for_netdev(host: &mut impl Host, function: PciAddress) -> Result<(), StepError> {
    let missing = |source| StepError {
        object: format!("VF {function}"),
        attempt: Step::AwaitNetdev { function }.to_string(),
        source,
        code: Code::new("no-netdev"),
        remedy: Some("see dmesg for what its driver says".to_owned()),
    };
    match host.observe(Scope::Function(function)) {
        Ok(seen) if seen.get(function).is_some_and(|vf| vf.netdev().is_some()) => Ok(()),
        Ok(_) => Err(missing(Some("no netdev appeared either".into()))),
        Err(error) => Err(missing(Some(error.into()))),
    }
}

/// Returns the VF that a step is about; `None` when it is about the PF.
fn vf_of(plan: &PfPlan, step: &Step) -> Option<PciAddress> {
    if let Step::SetVf { vf, .. } = step {
        let mut vfs = plan.vfs.iter();
        return vfs.find(|(_, index)| *index == vf).map(|(vf, _)| *vf);
    }
    Some(step.function()).filter(|function| *function != plan.pf)
}
