//! `virtfn status`: what is wanted of a host against what is seen, and how it came to be so.
//!
//! Wanted is what `-f` names, or else what `apply --persist` keeps. Nothing is changed, and nothing
//! that is wrong hides the rest: a damaged file, or one that only root may read, is told among the
//! findings. `-o json` and `-o yaml` are the `status` of upstream's `SriovNetworkNodeState`.

mod gather;
mod render;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;

use api::crd::SriovNetworkNodeStateStatus;
use host::{AskedReboots, FailedStep, LastApply};
use model::{Code, Desired, Explain, Inventory, PciAddress, RebootReason, with_causes};
use policy::{Decision, PfStanding};

use crate::args::{StatusArgs, StatusOutput};
use crate::failure::{Exit, Failure};
use crate::ui::Ui;
use crate::workplace::Site;
pub(super) use render::ago;

/// Shows the status.
pub(crate) fn run(args: &StatusArgs, site: &Site, ui: &mut Ui) -> Result<Exit, Failure> {
    let report = gather::gather(args, site, ui)?;
    match args.output {
        StatusOutput::Text => ui.result(&render::render(&report)),
        StatusOutput::Json => {
            tell_findings(&report, ui);
            ui.line(super::json(&upstreams(&report))?);
        }
        StatusOutput::Yaml => {
            tell_findings(&report, ui);
            ui.result(&super::yaml(&upstreams(&report))?);
        }
    }
    if args.check && !report.is_well() {
        Ok(Exit::Pending)
    } else {
        Ok(Exit::Done)
    }
}

/// Upstream's form has no place for them.
fn tell_findings(report: &Report, ui: &mut Ui) {
    for finding in &report.findings {
        ui.warn(finding);
    }
}

/// Returns the status in upstream's words.
///
/// Upstream shows the NICs that its table names. A PF that is not in the table, and yet can have
/// VFs here, is shown as well: virtfn configures it all the same.
fn upstreams(report: &Report) -> SriovNetworkNodeStateStatus {
    let seen = &report.seen;
    let here: std::collections::BTreeSet<_> = seen.pfs().map(|(pf, _)| pf.id).collect();
    let is_shown = |id| policy::vendor::known_nic(id).is_some() || here.contains(&id);
    SriovNetworkNodeStateStatus::of(seen, is_shown, &sync::sync(report))
}

/// All that the status tells.
#[derive(Debug, Default)]
struct Report {
    /// Name of the host; a recording has none.
    host: Option<String>,
    /// What is seen.
    seen: Inventory,
    /// What is wanted, and by whom; `None` when nobody wants anything, or that cannot be known.
    wanted: Option<Wants>,
    /// Are the policies kept across reboots?
    kept: Kept,
    /// How each PF that is wanted stands.
    standings: Vec<PfStanding>,
    /// PFs that nobody wants any more, with the VFs that virtfn made of them.
    unwanted: BTreeMap<PciAddress, u16>,
    /// What the last apply did; `None` when there was none.
    last: Option<Last>,
    /// What is to be done about that, as `plan` shows it and `apply` does it; `None` when it cannot be
    /// decided.
    decision: Option<Decision>,
    /// Reboots that were asked for.
    reboots: AskedReboots,
    /// Files that are damaged, changed by others or unreadable, and other things that are wrong.
    findings: Vec<Finding>,
    /// What of the policies has no effect here.
    notes: Vec<String>,
}

/// What is wanted.
#[derive(Debug, Default)]
struct Wants {
    /// Where it is said, for people.
    source: String,
    /// How many policies say it.
    policies: usize,
    /// What it means for this host.
    desired: Desired,
}

/// Are policies kept across reboots?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kept {
    /// It is not asked: another host is looked at.
    #[default]
    NotAsked,
    No,
    Yes,
    HalfDone,
}

/// The last apply.
#[derive(Debug)]
struct Last {
    apply: LastApply,
    /// Was it in this boot?
    is_here: bool,
    /// The process that applies now, if one does.
    runs: Option<u32>,
    /// How long ago it began, or ended if it did, in seconds.
    ago: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    code: Code,
    text: String,
    remedy: Option<String>,
}

impl Finding {
    /// Tells of an error with its causes.
    fn of(error: &(impl Explain + 'static)) -> Self {
        Self {
            code: error.code(),
            text: with_causes(error),
            remedy: error.remedy(),
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.code, self.text)?;
        self.remedy
            .as_ref()
            .map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl Report {
    /// Is everything as it should be, as far as is known?
    fn is_well(&self) -> bool {
        let last_failed = self
            .last
            .as_ref()
            .is_some_and(|last| last.is_here && !matches!(last.fate(), Fate::Succeeded));
        self.is_as_wanted()
            && !last_failed
            && self.findings.is_empty()
            && self.reboots.pending.is_empty()
            && self.kept != Kept::HalfDone
    }

    /// Is a reboot needed, and what for?
    fn needed_reboots(&self) -> Vec<RebootReason> {
        self.decision
            .as_ref()
            .map_or_else(Vec::new, Decision::reboots)
    }

    /// Does nothing differ from what is wanted, and is nothing to be done about it?
    fn is_as_wanted(&self) -> bool {
        let is_decided = self.decision.as_ref().is_some_and(Decision::is_empty);
        (is_decided || self.wanted.is_none())
            && self.unwanted.is_empty()
            && self
                .standings
                .iter()
                .all(|standing| standing.differences.is_empty())
    }
}

/// What became of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Succeeded,
    /// This many PFs could not be configured.
    Failed(u32),
    Runs(u32),
    /// Its process died, or the host did.
    Interrupted,
}

impl Last {
    fn fate(&self) -> Fate {
        match (self.apply.ended, self.runs) {
            (None, Some(pid)) if self.is_here => Fate::Runs(pid),
            (None, _) => Fate::Interrupted,
            (Some(end), _) if end.failed_pfs == 0 => Fate::Succeeded,
            (Some(end), _) => Fate::Failed(end.failed_pfs),
        }
    }

    /// Says what each PF that was not completed came to, one text a PF.
    fn failures(&self, seen: &Inventory) -> Vec<String> {
        let unfinished = self
            .apply
            .pfs
            .iter()
            .filter(|pf| pf.failed.is_some() || pf.made < pf.steps.len());
        unfinished
            .map(|pf| {
                let title = seen
                    .get(pf.pf)
                    .map_or_else(|| pf.pf.to_string(), model::Function::title);
                let of = pf.steps.len();
                let at = pf.failed.as_ref().map_or(pf.made, |failed| failed.at);
                let number = at + 1;
                let step = pf.steps.get(at);
                let step = step.map_or_else(String::new, |step| format!(" \"{}\"", step.step));
                match (&pf.failed, pf.begun) {
                    (Some(FailedStep { error, .. }), _) => {
                        format!("{title}: step {number} of {of}{step}: {error}")
                    }
                    (None, true) => format!("{title}: ended in step {number} of {of}{step}"),
                    (None, false) => format!("{title}: ended before step {number} of {of}{step}"),
                }
            })
            .collect()
    }
}
