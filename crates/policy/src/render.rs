//! Plans as text: the same in the command line, the agent and the tests.
//!
//! ```text
//! pf ens1f0 0000:3b:00.0   traffic kept, no drain
//!   1    set link up                      was down
//!   2    have 2 VFs                       was 0 VFs
//!   3-4  vf 0-1: wait for the netdev
//! ```
//!
//! Equal steps of neighbouring VFs are one line, so that 64 VFs do not hide what matters.

use std::fmt::Write;

use model::{PfPlan, Plan, PlannedStep, Step, VfAttr, VfIndex};

use crate::RdmaNeed;
use crate::decide::{Decision, FirmwareNeed};
use crate::kernel::{KernelNeeds, Urgency};
use crate::vendor::mellanox;

/// Writes all that is to be done: the plan, then firmware and kernel, then records that go.
#[must_use]
pub fn render_decision(decision: &Decision) -> String {
    let has_other_work = !decision.firmware.is_empty()
        || decision.kernel.reboot().is_some()
        || decision.rdma.is_some();
    let mut text = if decision.plan.is_empty() && has_other_work {
        String::new()
    } else {
        render(&decision.plan)
    };
    for need in &decision.firmware {
        render_firmware(need, &mut text);
    }
    render_kernel(&decision.kernel, &mut text);
    if let Some(need) = &decision.rdma {
        render_rdma(need, &mut text);
    }
    for pf in &decision.forget {
        line(
            &mut text,
            &format!("pf - {pf}   left as it is; the record that it was configured goes"),
        );
    }
    text
}

fn render_firmware(need: &FirmwareNeed, text: &mut String) {
    match &need.change {
        Ok(change) => {
            let price = match change.reboot() {
                Some(_) => "needs a reboot",
                None if need.is_given_back => "nobody wants VFs of it any more",
                None => "",
            };
            line(text, &format!("firmware {}   {price}", change.nic));
            if let Some(why) = &need.unseen {
                let query = mellanox::query(change.nic);
                line(text, &format!("  `{query}` would say what it has: {why}"));
            }
            if let Some(command) = change.command() {
                line(text, &format!("  {command}"));
            }
        }
        Err(error) => line(text, &error.to_string()),
    }
}

fn render_kernel(needs: &KernelNeeds, text: &mut String) {
    if !needs.arguments.is_empty() {
        let price = needs.reboot().map_or("", |_| "needs a reboot");
        line(text, &format!("kernel arguments   {price}"));
    }
    let widest = needs.arguments().map(|argument| argument.as_str().len());
    let width = widest.max().unwrap_or(0);
    for need in &needs.arguments {
        let urgency = match need.urgency {
            Urgency::Needed => "needed",
            Urgency::Advised => "advised",
        };
        line(
            text,
            &format!("  {:<width$}   {urgency}: {}", need.argument, need.why),
        );
    }
}

fn render_rdma(need: &RdmaNeed, text: &mut String) {
    let price = need.reboot().map_or("", |_| "needs a reboot");
    line(text, &format!("rdma   {price}"));
    if let Some(kept) = need.kept {
        line(text, &format!("  {kept}"));
    }
    if let Some(mode) = need.mode {
        let when = if need.needs_reboot {
            "   after a reboot, since other network namespaces exist"
        } else {
            ""
        };
        line(text, &format!("  set namespace mode {mode}{when}"));
    }
}

/// Writes a plan, one line a step or a run of equal steps.
#[must_use]
pub fn render(plan: &Plan) -> String {
    if plan.is_empty() {
        return "nothing to do\n".to_owned();
    }
    let mut text = String::new();
    for pf in plan.pfs.iter().filter(|pf| !pf.steps.is_empty()) {
        render_pf(pf, &mut text);
    }
    text
}

fn render_pf(pf: &PfPlan, text: &mut String) {
    let name = pf.name.as_ref().map_or("-", |name| name.as_str());
    line(text, &format!("pf {name} {}   {}", pf.pf, price(pf)));
    let lines = lines(pf);
    let numbers = lines.iter().map(|line| line.number.len()).max();
    let whats = lines.iter().map(|line| line.what.chars().count()).max();
    let (numbers, whats) = (numbers.unwrap_or(0), whats.unwrap_or(0).min(60));
    for Line { number, what, rest } in lines {
        line(
            text,
            &format!("  {number:<numbers$}  {what:<whats$}   {rest}"),
        );
    }
    if pf.is_cut {
        line(
            text,
            &format!("  {:<numbers$}  then more, once the VFs exist", "…"),
        );
    }
}

/// Writes a line without blanks at its end.
fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}

fn price(pf: &PfPlan) -> String {
    let mut holders: Vec<_> = pf
        .steps
        .iter()
        .flat_map(|step| step.price.interrupts.iter().map(|(vf, _)| *vf))
        .collect();
    holders.sort();
    holders.dedup();
    let destroys = pf.steps.iter().any(|step| step.price.destroys_vfs);
    let drain = if pf.steps.iter().any(|step| step.price.needs_drain()) {
        "drain first"
    } else {
        "which is the host's own"
    };
    let mut words = match (holders.len(), destroys) {
        (0, false) => "traffic kept, no drain".to_owned(),
        (0, true) => {
            let becomes = |step: &PlannedStep| matches!(step.step, Step::SetNumVfs { count, .. } if count > 0);
            let fate = if pf.steps.iter().any(becomes) {
                "are made anew"
            } else {
                "go"
            };
            format!("all its VFs {fate}, none is in use, no drain")
        }
        (1, _) => format!("interrupts 1 VF in use, {drain}"),
        (many, _) => format!("interrupts {many} VFs in use, {drain}"),
    };
    let mut reasons: Vec<String> = Vec::new();
    for reason in pf
        .steps
        .iter()
        .filter_map(|step| step.price.reboot.as_ref())
    {
        let reason = reason.to_string();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if !reasons.is_empty() {
        words.push_str(&format!("; needs a reboot ({})", reasons.join(", ")));
    }
    words
}

struct Line {
    number: String,
    what: String,
    rest: String,
}

/// A run of equal steps on VFs with consecutive numbers.
struct Run<'a> {
    first: usize,
    last: usize,
    vfs: Option<(VfIndex, VfIndex)>,
    step: &'a PlannedStep,
}

fn lines(pf: &PfPlan) -> Vec<Line> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for (at, step) in pf.steps.iter().enumerate() {
        let vf = if let Step::SetVf { vf, .. } = &step.step {
            Some(*vf)
        } else {
            pf.vfs.get(&step.step.function()).copied()
        };
        if let Some(run) = runs.last_mut()
            && let (Some((_, last)), Some(vf)) = (&mut run.vfs, vf)
            && last.0.checked_add(1) == Some(vf.0)
            && is_same(run.step, step)
        {
            *last = vf;
            run.last = at;
            continue;
        }
        runs.push(Run {
            first: at,
            last: at,
            vfs: vf.map(|vf| (vf, vf)),
            step,
        });
    }
    runs.iter().map(|run| run_line(pf, run)).collect()
}

fn run_line(pf: &PfPlan, run: &Run<'_>) -> Line {
    let (first, last) = (run.first + 1, run.last + 1);
    let step = &run.step.step;
    let what = match run.vfs {
        // The JSON has each.
        Some((a, b)) if a != b && is_mac(step) => format!("{a}-{}: set their macs", b.0),
        Some(_) if matches!(step, Step::SetVf { .. }) => step.to_string(),
        Some((a, b)) if a != b => format!("{a}-{}: {step}", b.0),
        Some((vf, _)) => format!("{vf}: {step}"),
        None if step.function() != pf.pf => format!("{}: {step}", step.function()),
        None => step.to_string(),
    };
    let mut rest: Vec<String> = Vec::new();
    rest.extend(
        run.step
            .before
            .as_ref()
            .map(|before| format!("was {before}")),
    );
    let price = &run.step.price;
    if price.destroys_vfs {
        rest.push("destroys all its VFs".to_owned());
    }
    if price.reboot.is_some() {
        rest.push("after a reboot".to_owned());
    }
    for (vf, holder) in &price.interrupts {
        let vf = pf
            .vfs
            .get(vf)
            .map_or_else(|| vf.to_string(), VfIndex::to_string);
        rest.push(format!("interrupts {vf} in use by {holder}"));
    }
    Line {
        number: if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        },
        what,
        rest: rest.join(", "),
    }
}

/// Do two steps differ in nothing but the VF? What costs somebody something stands alone.
fn is_same(a: &PlannedStep, b: &PlannedStep) -> bool {
    a.price == b.price
        && a.price.interrupts.is_empty()
        && !a.price.destroys_vfs
        && a.before == b.before
        && a.step.kind() == b.step.kind()
        && (a.step.to_string() == b.step.to_string() || is_mac(&a.step) && is_mac(&b.step))
}

/// Is it the MAC of a VF, of which each has another?
fn is_mac(step: &Step) -> bool {
    matches!(
        step,
        Step::SetVf {
            attr: VfAttr::Mac(_),
            ..
        }
    )
}
