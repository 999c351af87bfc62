//! `virtfn plan`: what policies would change on a host. Nothing is changed.

use host::{HostRoot, PfLedger, SeenUplinks, UplinksError, see_uplinks};
use model::{Explain, Inventory, with_causes};
use policy::{Decision, check, check_uplinks, render_decision};

use super::wanted::{Wanted, circumstances, recorded_state};
use crate::args::{PlanArgs, PlanOutput};
use crate::failure::{Exit, Failure};
use crate::sight::{Place, Sight};
use crate::ui::Ui;
use crate::view::{RefusalView, plan_view};
use crate::workplace::Site;

/// The option that lets apply interrupt who holds VFs.
const DISRUPT: &str = "--disrupt";

/// Shows the plan.
pub(crate) fn run(args: &PlanArgs, site: &Site, ui: &mut Ui) -> Result<Exit, Failure> {
    let site = super::site(&args.state, site);
    let mut sight = Sight::open(&site)?;
    let files = &args.policies;
    let wanted = Wanted::read(&files.files, &files.node_labels, &site, ui)?;
    let seen = sight.inventory()?;
    let (desired, notes) = wanted.on(&seen)?;
    let root = sight.linux().root();
    let is_recorded = matches!(site.place, Place::Recording(_));
    let state = if is_recorded {
        recorded_state(root)
    } else {
        site.state()
    };
    let ledger = PfLedger::new(root, &state);
    let known = circumstances(root, &seen, &desired, &state, is_recorded)?;
    let decision = wanted.decide(&seen, ledger, &known)?;
    for note in &notes {
        ui.note(note);
    }
    for gap in &seen.gaps {
        ui.note(format_args!("{}: {}", gap.object, gap.reason));
    }
    let records = ledger.read().map_err(Failure::failed)?;
    for damaged in &records.damaged {
        warn(damaged, ui);
    }
    for unread in &records.unread {
        warn(unread, ui);
    }
    let refusals = refusals(&seen, &decision, (!is_recorded).then_some(root), ui);
    match args.output {
        PlanOutput::Text => {
            ui.result(&render_decision(&decision));
            for refusal in &refusals {
                tell_refusal(refusal, ui);
            }
        }
        PlanOutput::Json => ui.line(super::json(&plan_view(&decision, notes, refusals))?),
    }
    for obstacle in &decision.kernel.obstacles {
        warn(obstacle, ui);
    }
    if args.check && !decision.is_empty() {
        Ok(Exit::Pending)
    } else {
        Ok(Exit::Done)
    }
}

/// Says what apply refuses. Whom a plan interrupts is told in the plan itself.
fn tell_refusal(refusal: &RefusalView, ui: &mut Ui) {
    let RefusalView { code, text, option } = refusal;
    if option == DISRUPT {
        return ui.note(format_args!("apply refuses this without {option} ({code})"));
    }
    let text = text.replace('\n', "; ");
    ui.note(format_args!(
        "apply refuses this without {option} ({code}): {text}"
    ));
}

/// Says something that is wrong and does not keep the command from its work.
pub(super) fn warn(error: &dyn Explain, ui: &mut Ui) {
    ui.warn(explained(error));
}

/// Writes an error with its causes and what the user can do, as one line.
pub(super) fn explained(error: &dyn Explain) -> String {
    let mut text = with_causes(error);
    if let Some(remedy) = error.remedy() {
        text.push_str(&format!("; {remedy}"));
    }
    text
}

/// Finds out which interfaces the host itself needs; what cannot be told is said.
pub(super) fn uplinks(root: &HostRoot, ui: &mut Ui) -> Result<SeenUplinks, UplinksError> {
    let uplinks = see_uplinks(root, &[])?;
    for gap in &uplinks.gaps {
        ui.note(format_args!("{}: {}", gap.object, gap.reason));
    }
    Ok(uplinks)
}

/// Says what apply would refuse, and the option that makes it go on. The routes of a recorded host are
/// not known.
fn refusals(
    seen: &Inventory,
    decision: &Decision,
    root: Option<&HostRoot>,
    ui: &mut Ui,
) -> Vec<RefusalView> {
    let mut refusals = Vec::new();
    if let Err(error) = check(&decision.plan, false) {
        refusals.push(RefusalView::new(&error, DISRUPT));
    }
    if let Some(root) = root.filter(|_| !decision.plan.is_empty()) {
        let option = "--allow-default-route";
        match uplinks(root, ui) {
            Ok(uplinks) => {
                let checked = check_uplinks(seen, &decision.plan, &uplinks.facts, false);
                refusals.extend(checked.err().map(|error| RefusalView::new(&error, option)));
            }
            Err(error) => refusals.push(RefusalView::new(&error, option)),
        }
    }
    refusals
}
