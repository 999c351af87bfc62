//! What `virtfn plan -o json` writes.

use model::{PciAddress, PfPlan, Plan, PlannedStep};
use serde::{Deserialize, Serialize};

use super::build::holder_view;
use super::{HolderView, PfRefView};

/// Name and version of the format of [`PlanView`].
pub const PLAN_SCHEMA: &str = "virtfn.plan/v1";

/// What would be done to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// [`PLAN_SCHEMA`].
    pub schema: String,
    /// The PFs that need something done, by address; empty when there is nothing to do.
    pub pfs: Vec<PfPlanView>,
    /// What of the policies has no effect here, or another one than it seems.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What would be done to one PF and its VFs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PfPlanView {
    /// The PF.
    pub pf: PfRefView,
    /// The steps, in order.
    pub steps: Vec<StepView>,
    /// Do more steps follow that cannot be named before the VFs exist?
    #[serde(rename = "isCut")]
    pub is_cut: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Kind of step in kebab case, such as `set-num-vfs`.
    pub kind: String,
    /// The function that it changes.
    pub function: PciAddress,
    /// Index of the VF that it is about; `null` when it is about the PF.
    #[serde(default)]
    pub vf: Option<u16>,
    /// The step for people.
    pub text: String,
    /// What was before, for people.
    #[serde(default)]
    pub before: Option<String>,
    /// What takes it back, for people.
    #[serde(default)]
    pub undo: Option<String>,
    /// Whose traffic stops.
    #[serde(default)]
    pub interrupts: Vec<InterruptView>,
    /// Does every VF of the PF vanish?
    #[serde(default)]
    pub destroys_vfs: bool,
    /// Why it takes effect only after a reboot.
    #[serde(default)]
    pub reboot: Option<String>,
}

/// Somebody whose traffic stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptView {
    /// The VF.
    pub vf: PciAddress,
    /// Who holds it.
    pub holder: HolderView,
}

/// Shows a plan.
#[must_use]
pub fn plan_view(plan: &Plan, notes: Vec<String>) -> PlanView {
    PlanView {
        schema: PLAN_SCHEMA.to_owned(),
        pfs: plan
            .pfs
            .iter()
            .filter(|pf| !pf.steps.is_empty())
            .map(pf_plan_view)
            .collect(),
        notes,
    }
}

fn pf_plan_view(pf: &PfPlan) -> PfPlanView {
    PfPlanView {
        pf: PfRefView {
            address: pf.pf,
            name: pf.name.as_ref().map(ToString::to_string),
        },
        steps: pf.steps.iter().map(|step| step_view(pf, step)).collect(),
        is_cut: pf.is_cut,
    }
}

fn step_view(pf: &PfPlan, planned: &PlannedStep) -> StepView {
    let step = &planned.step;
    let of_step = match step {
        model::Step::SetVf { vf, .. } => Some(*vf),
        _ => pf.vfs.get(&step.function()).copied(),
    };
    StepView {
        kind: step.kind().to_owned(),
        function: step.function(),
        vf: of_step.map(|index| index.0),
        text: step.to_string(),
        before: planned.before.clone(),
        undo: planned.undo.as_ref().map(ToString::to_string),
        interrupts: planned
            .price
            .interrupts
            .iter()
            .map(|(vf, holder)| InterruptView {
                vf: *vf,
                holder: holder_view(holder),
            })
            .collect(),
        destroys_vfs: planned.price.destroys_vfs,
        reboot: planned.price.reboot.as_ref().map(ToString::to_string),
    }
}
