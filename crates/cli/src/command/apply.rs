//! `virtfn apply`: makes a host as policies want it, step by step.
//!
//! The plan that was checked is the one that is made: when the host changes in between, as by
//! another apply, the new plan is checked again before anything of it is done. What takes effect only
//! after a reboot is written when that was asked for, after everything else.

mod firmware;
mod progress;
mod rdma;
mod reboot;
#[cfg(test)]
mod tests;

use std::time::Duration;

use host::{Applied, ApplyContext, PfApplied, PfFault, PfLedger, Undecided, VfFault};
use model::{Code, Explain, Host, Inventory, Scope, StepError};
use policy::{Circumstances, Decision, check, check_uplinks, render, render_decision};

use super::persist;
use super::plan::{uplinks, warn};
use super::wanted::{Wanted, circumstances};
use crate::args::ApplyArgs;
use crate::failure::{Exit, Failure};
use crate::ui::Ui;
use crate::workplace::{Site, Workplace};
use progress::{Progress, tell_healed};

/// How long to wait for another apply: one that creates VFs on many slow NICs takes minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a plan may become outdated before it is made. Another apply of the same policies
/// outdates it once; more than that is somebody who fights.
const MOST_PLANS: usize = 3;

/// Applies policies, or shows what that would take.
pub(crate) fn run(args: &ApplyArgs, site: &Site, ui: &mut Ui) -> Result<Exit, Failure> {
    if args.unpersist {
        return persist::forget(args, site, ui);
    }
    persist::check(args, site)?;
    let work = Workplace::open(site)?;
    let files = &args.policies;
    let mut wanted = Wanted::read(&files.files, &files.node_labels, site, ui)?;
    if let Some(path) = &args.vf_settings {
        wanted.keep_vfs(persist::vf_settings(path, &work.root, ui));
    }
    let exit = make(&wanted, args, &work, ui)?;
    if args.persist {
        // Also when a PF failed or waits for a reboot: the next boot goes on.
        persist::keep(args, &wanted, &work, ui)?;
    }
    Ok(exit)
}

/// Makes the host as it is wanted, or shows what that would take.
fn make(wanted: &Wanted, args: &ApplyArgs, work: &Workplace, ui: &mut Ui) -> Result<Exit, Failure> {
    let (mut seen, known) = look(wanted, args, work, ui)?;
    let job = Job {
        wanted,
        args,
        work,
        known: &known,
    };
    let mut decision = job.decide(&seen)?;
    if args.dry_run {
        ui.result(&render_decision(&decision));
        return Ok(Exit::Done);
    }
    for obstacle in &decision.kernel.obstacles {
        warn(obstacle, ui);
    }
    let mut steps = 0;
    for _plan in 0..MOST_PLANS {
        job.check(&seen, &decision, ui)?;
        let applied = job.perform(&decision, ui)?;
        steps += applied.pfs.iter().map(|pf| pf.made.len()).sum::<usize>();
        let outdated = |pf: &PfApplied| matches!(pf.outcome, Err(PfFault::Outdated));
        if !applied.pfs.iter().any(outdated) {
            let later = reboot::see_to(&job, &decision, &applied, ui);
            return Ok(conclude(applied, steps, later, ui));
        }
        ui.note("the host changed since the plan was made; planning again");
        seen = work.linux()?.observe(Scope::All).map_err(Failure::failed)?;
        decision = job.decide(&seen)?;
    }
    Err(Failure::failed(PfFault::Outdated))
}

/// What is to be done, by whom and with what.
struct Job<'a> {
    wanted: &'a Wanted,
    args: &'a ApplyArgs,
    work: &'a Workplace,
    known: &'a Circumstances,
}

impl Job<'_> {
    fn ledger(&self) -> PfLedger<'_> {
        PfLedger::new(&self.work.root, &self.work.state)
    }

    fn decide(&self, seen: &Inventory) -> Result<Decision, super::wanted::WantedError> {
        self.wanted.decide(seen, self.ledger(), self.known)
    }

    /// Refuses what would cost somebody something that was not agreed to.
    fn check(&self, seen: &Inventory, decision: &Decision, ui: &mut Ui) -> Result<(), Failure> {
        check(&decision.plan, self.args.disrupt).map_err(Failure::refused)?;
        if self.args.allow_default_route || decision.plan.is_empty() {
            return Ok(());
        }
        let uplinks = uplinks(&self.work.root, ui).map_err(Failure::failed)?;
        check_uplinks(seen, &decision.plan, &uplinks.facts, false).map_err(Failure::refused)
    }

    fn perform(&self, decision: &Decision, ui: &mut Ui) -> Result<Applied, Failure> {
        let work = self.work;
        let context = ApplyContext {
            state: &work.state,
            ledger: &work.ledger,
            owned: self.ledger(),
            boot: &work.boot,
            ground: &work.root,
            checkpoints: work.checkpoints.as_ref(),
            patience: PATIENCE,
        };
        let progress = Progress::new(&decision.plan);
        host::apply(
            context,
            &|| work.observer(),
            &|seen| self.decide(seen).map_err(Undecided::from),
            Some(&decision.plan),
            &mut |event| progress.tell(&event, ui),
        )
        .map_err(Failure::failed)
    }
}

/// Looks at the host, after healing what processes that died have left, unless nothing may be changed.
fn look(
    wanted: &Wanted,
    args: &ApplyArgs,
    work: &Workplace,
    ui: &mut Ui,
) -> Result<(Inventory, Circumstances), Failure> {
    let mut linux = work.linux()?;
    let mut seen = linux.observe(Scope::All).map_err(Failure::failed)?;
    // Bad policies change nothing, not even what was left behind.
    wanted.on(&seen)?;
    if !args.dry_run {
        let healed = work.engine(&mut linux).heal();
        if !healed.is_empty() {
            seen = linux.observe(Scope::All).map_err(Failure::failed)?;
        }
        for healed in &healed {
            tell_healed(healed, ui);
        }
    }
    let (desired, notes) = wanted.on(&seen)?;
    for note in notes {
        ui.note(note);
    }
    let known = circumstances(&work.root, &seen, &desired, &work.state, false)?;
    Ok((seen, known))
}

/// Says how it ended: every PF and VF that failed, and what is left to do.
fn conclude(applied: Applied, steps: usize, later: Exit, ui: &mut Ui) -> Exit {
    let is_done = applied.is_complete();
    let waits = applied.waits_for_reboot();
    for pf in applied.pfs {
        let title = pf
            .name
            .map_or_else(|| pf.pf.to_string(), |name| format!("{name} ({})", pf.pf));
        for fault in pf.vfs {
            let VfFault { vf, index, source } = fault;
            let index = index.map_or("VF".to_owned(), |index| index.to_string());
            let title = format!("{index} ({vf}) of PF {title}");
            Failure::failed(VfFailed { title, source }).tell(ui);
        }
        if let Err(fault) = pf.outcome {
            Failure::failed(PfFailed { title, fault }).tell(ui);
        }
    }
    if let Some(error) = applied.undecided {
        Failure::failed(error).tell(ui);
    }
    for pf in &applied.forgotten {
        ui.note(format_args!(
            "PF {pf} is no longer virtfn's; it was left as it is"
        ));
    }
    if is_done {
        ui.line(done(steps));
        return later;
    }
    if !applied.remaining.is_empty() {
        ui.say("still to do:");
        ui.say(render(&applied.remaining).trim_end());
    }
    if waits { later } else { Exit::Failed }
}

fn done(steps: usize) -> String {
    match steps {
        0 => "nothing to do".to_owned(),
        1 => "done: 1 step".to_owned(),
        steps => format!("done: {steps} steps"),
    }
}

/// A PF that is not as wanted.
#[derive(Debug, thiserror::Error)]
#[error("configure PF {title}")]
struct PfFailed {
    title: String,
    #[source]
    fault: PfFault,
}

impl Explain for PfFailed {
    fn code(&self) -> Code {
        self.fault.code()
    }

    fn remedy(&self) -> Option<String> {
        self.fault.remedy()
    }
}

/// A VF that is not as wanted; its neighbours are.
#[derive(Debug, thiserror::Error)]
#[error("configure {title}")]
struct VfFailed {
    title: String,
    source: StepError,
}

impl Explain for VfFailed {
    fn code(&self) -> Code {
        self.source.code()
    }

    fn remedy(&self) -> Option<String> {
        self.source.remedy()
    }
}
