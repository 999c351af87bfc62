//! `virtfn apply`: makes a host as policies want it, step by step.
//!
//! The plan that was checked is the one that is made: when the host changes in between, as by
//! another apply, the new plan is checked again before anything of it is done.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use host::{Applied, ApplyContext, Event, Healed, PfApplied, PfFault};
use model::{Code, Explain, Host, PciAddress, Plan, Scope, Step, VfIndex};

use super::plan::Wanted;
use crate::args::ApplyArgs;
use crate::failure::{Exit, Failure};
use crate::ui::{Style, Ui};
use crate::workplace::{Site, Workplace};

/// How long to wait for another apply: one that creates VFs on many slow NICs takes minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a plan may become outdated before it is made. Another apply of the same policies
/// outdates it once; more than that is somebody who fights.
const MOST_PLANS: usize = 3;

/// Applies policies, or shows what that would take.
pub(crate) fn run(args: &ApplyArgs, site: &Site, ui: &mut Ui) -> Result<Exit, Failure> {
    let wanted = Wanted::read(&args.policies.files, &args.policies.node_labels, ui)?;
    let work = Workplace::open(site)?;
    let mut plan = first_plan(&wanted, args, &work, ui)?;
    if args.dry_run {
        ui.result(&policy::render(&plan));
        return Ok(Exit::Done);
    }
    let mut steps = 0;
    for _plan in 0..MOST_PLANS {
        if plan.is_empty() {
            break;
        }
        policy::check(&plan, args.disrupt).map_err(Failure::refused)?;
        let applied = perform(&wanted, &plan, &work, ui)?;
        steps += applied.pfs.iter().map(|pf| pf.made.len()).sum::<usize>();
        let outdated = |pf: &PfApplied| matches!(pf.outcome, Err(PfFault::Outdated));
        if !applied.pfs.iter().any(outdated) {
            return Ok(conclude(applied, steps, ui));
        }
        ui.note("the host changed since the plan was made; planning again");
        plan = applied.remaining;
    }
    if plan.is_empty() {
        ui.line(done(steps));
        return Ok(Exit::Done);
    }
    Err(Failure::failed(PfFault::Outdated))
}

/// Heals what processes that died have left, unless nothing may be changed, and plans.
fn first_plan(
    wanted: &Wanted,
    args: &ApplyArgs,
    work: &Workplace,
    ui: &mut Ui,
) -> Result<Plan, Failure> {
    let mut linux = work.linux()?;
    let mut seen = linux.observe(Scope::All).map_err(Failure::failed)?;
    // Bad policies change nothing, not even what was left behind.
    wanted.on(&seen).map_err(Failure::input)?;
    if !args.dry_run {
        let healed = work.engine(&mut linux).heal();
        if !healed.is_empty() {
            seen = linux.observe(Scope::All).map_err(Failure::failed)?;
        }
        for healed in &healed {
            tell_healed(healed, ui);
        }
    }
    let (desired, notes) = wanted.on(&seen).map_err(Failure::input)?;
    for note in notes {
        ui.note(note);
    }
    Ok(policy::plan(&seen, &desired))
}

fn perform(
    wanted: &Wanted,
    plan: &Plan,
    work: &Workplace,
    ui: &mut Ui,
) -> Result<Applied, Failure> {
    let context = ApplyContext {
        state: &work.state,
        ledger: &work.ledger,
        boot: &work.boot,
        ground: &work.root,
        checkpoints: work.checkpoints.as_ref(),
        patience: PATIENCE,
    };
    let progress = Progress::new(plan);
    host::apply(
        context,
        &|| work.observer(),
        &|seen| wanted.plan(seen),
        Some(plan),
        &mut |event| progress.tell(&event, ui),
    )
    .map_err(Failure::failed)
}

/// Says how it ended: every PF that failed, and what is left to do.
fn conclude(applied: Applied, steps: usize, ui: &mut Ui) -> Exit {
    let complete = applied.is_complete();
    for pf in applied.pfs {
        if let Err(fault) = pf.outcome {
            let title = pf
                .name
                .map_or_else(|| pf.pf.to_string(), |name| format!("{name} ({})", pf.pf));
            Failure::failed(PfFailed { title, fault }).tell(ui);
        }
    }
    if complete {
        ui.line(done(steps));
        return Exit::Done;
    }
    if !applied.remaining.is_empty() {
        ui.say("still to do:");
        ui.say(policy::render(&applied.remaining).trim_end());
    }
    Exit::Failed
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

/// Names of the PFs and VFs of a plan, for lines about its steps.
struct Progress {
    pfs: BTreeMap<PciAddress, String>,
    vfs: BTreeMap<PciAddress, VfIndex>,
}

impl Progress {
    fn new(plan: &Plan) -> Self {
        Self {
            pfs: plan
                .pfs
                .iter()
                .filter_map(|pf| Some((pf.pf, pf.name.as_ref()?.to_string())))
                .collect(),
            vfs: plan.pfs.iter().flat_map(|pf| pf.vfs.clone()).collect(),
        }
    }

    fn tell(&self, event: &Event, ui: &mut Ui) {
        match event {
            Event::Waiting(lock) => {
                ui.note(format_args!(
                    "another virtfn works on {lock}; waiting for it"
                ));
            }
            Event::Interrupted(last) => ui.note(format_args!(
                "the last apply (process {}) died before its end; going on from there",
                last.pid
            )),
            Event::Healed(healed) => tell_healed(healed, ui),
            Event::StepBegun {
                pf,
                number,
                of,
                step,
            } => ui.live(format_args!("… {}", self.line(*pf, *number, *of, step))),
            Event::StepMade {
                pf,
                number,
                of,
                step,
                elapsed,
            } => {
                let mark = Style::Good.paint(if ui.unicode() { "✓" } else { "+" });
                let line = self.line(*pf, *number, *of, step);
                // Only what a person would notice.
                if *elapsed >= Duration::from_millis(100) {
                    ui.say(format_args!(
                        "{mark} {line}  ({:.1} s)",
                        elapsed.as_secs_f32()
                    ));
                } else {
                    ui.say(format_args!("{mark} {line}"));
                }
            }
            Event::PfEnded { .. } => {}
        }
    }

    fn line(&self, pf: PciAddress, number: usize, of: usize, step: &Step) -> String {
        let name = self.pfs.get(&pf).cloned().unwrap_or_else(|| pf.to_string());
        let of = of.max(number);
        let width = of.to_string().len();
        let function = step.function();
        let whose = match self.vfs.get(&function) {
            _ if function == pf => String::new(),
            Some(index) => format!("{index}: "),
            None => format!("{function}: "),
        };
        format!("{name}  {number:>width$}/{of}  {whose}{step}")
    }
}

fn tell_healed(healed: &Healed, ui: &mut Ui) {
    let vf = healed.vf;
    match &healed.outcome {
        Ok(holder) => ui.note(format_args!("took VF {vf} back from {holder}, who is gone")),
        Err(error) => ui.warn(format_args!("VF {vf}: {error}")),
    }
}
