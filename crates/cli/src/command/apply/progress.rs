//! What is said while an apply runs: one line a step, and what happens beside.

use std::collections::BTreeMap;
use std::time::Duration;

use host::{Event, Healed, Mended};
use model::{PciAddress, Plan, Step, VfIndex};

use crate::command::plan::warn;
use crate::ui::{Style, Ui};

/// Names of the PFs and VFs of a plan, for lines about its steps.
pub(super) struct Progress {
    pfs: BTreeMap<PciAddress, String>,
    vfs: BTreeMap<PciAddress, VfIndex>,
}

impl Progress {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            pfs: plan
                .pfs
                .iter()
                .filter_map(|pf| Some((pf.pf, pf.name.as_ref()?.to_string())))
                .collect(),
            vfs: plan.pfs.iter().flat_map(|pf| pf.vfs.clone()).collect(),
        }
    }

    pub(super) fn tell(&self, event: &Event, ui: &mut Ui) {
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
            Event::NotWritten(error) => {
                ui.note(
                    "what was applied stands; `virtfn status` may tell less of it, or call it \
                     interrupted",
                );
                warn(error, ui);
            }
            Event::SetAside { path, kept, error } => {
                ui.note(format_args!(
                    "{} is kept as {}",
                    path.display(),
                    kept.display()
                ));
                warn(error.as_ref(), ui);
            }
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

pub(super) fn tell_healed(healed: &Healed, ui: &mut Ui) {
    let function = healed.function;
    match &healed.outcome {
        Ok(Mended::TakenBack(holder)) => {
            ui.note(format_args!(
                "took VF {function} back from {holder}, who is gone"
            ));
        }
        Ok(Mended::Autoprobe) => ui.note(format_args!(
            "switched autoprobe of PF {function} off again, which a process that died had left on"
        )),
        Ok(Mended::Void(damage)) => ui.warn(format_args!(
            "VF {function}: {damage}; it is of a former boot, so the VF is free"
        )),
        Err(error) => ui.warn(format_args!("VF {function}: {error}")),
    }
}
