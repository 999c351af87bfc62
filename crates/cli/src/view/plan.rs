//! What `virtfn plan -o json` writes.

use model::{Explain, PciAddress, PfPlan, PlannedStep};
use policy::kernel::Urgency;
use policy::vendor::mellanox;
use policy::{Decision, FirmwareNeed};
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
    /// Must a cluster drain the node before, because somebody's traffic stops?
    #[serde(default, rename = "needsDrain")]
    pub needs_drain: bool,
    /// Why a reboot is needed, each cause once; empty when none is.
    #[serde(default)]
    pub reboots: Vec<String>,
    /// What apply refuses unless it is told otherwise.
    #[serde(default)]
    pub refusals: Vec<RefusalView>,
    /// Arguments that the kernel should be started with.
    #[serde(default, rename = "kernelArguments")]
    pub kernel_arguments: Vec<KernelArgumentView>,
    /// What keeps the VFs from working and virtfn does not mend.
    #[serde(default)]
    pub obstacles: Vec<ObstacleView>,
    /// Firmware that must be changed.
    #[serde(default)]
    pub firmware: Vec<FirmwareView>,
    /// What is to be done about the RDMA mode; `null` for nothing.
    #[serde(default)]
    pub rdma: Option<RdmaNeedView>,
    /// PFs that stay as they are, and of which the record that they were configured goes.
    #[serde(default)]
    pub forget: Vec<PciAddress>,
}

/// What is to be done about how RDMA devices relate to network namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaNeedView {
    /// What becomes of the line for modprobe that keeps the mode, for people; `null` when it stays.
    pub kept: Option<String>,
    /// The mode that the running kernel should have and has not, `shared` or `exclusive`.
    pub mode: Option<String>,
    /// Why a reboot is needed.
    pub reboot: Option<String>,
}

/// Something that apply refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalView {
    /// Stable code.
    pub code: String,
    /// Why, for people: one line each.
    pub text: String,
    /// The option that makes apply go on.
    pub option: String,
}

impl RefusalView {
    pub(crate) fn new(error: &impl Explain, option: &str) -> Self {
        Self {
            code: error.code().to_string(),
            text: error.to_string(),
            option: option.to_owned(),
        }
    }
}

/// An argument of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelArgumentView {
    /// The argument.
    pub argument: String,
    /// Does anything fail without it? Otherwise it is advice.
    pub needed: bool,
    /// What it is for, for people.
    pub why: String,
}

/// Something that a person must look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObstacleView {
    /// Stable code.
    pub code: String,
    /// What is wrong, for people.
    pub text: String,
    /// What can be done, for people.
    pub remedy: Option<String>,
}

/// Firmware of one NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareView {
    /// The NIC.
    pub nic: PciAddress,
    /// What would be run to write it, as a list of arguments; empty when the next boot brings it.
    pub command: Vec<String>,
    /// Why a reboot is needed.
    pub reboot: Option<String>,
    /// Why its settings could not be told, so that `command` is a guess; `null` when they could.
    pub unseen: Option<String>,
    /// What tells its settings, as a list of arguments.
    pub query: Vec<String>,
    /// Is SR-IOV taken back from a NIC of which nobody wants anything any more?
    #[serde(default, rename = "givenBack")]
    pub given_back: bool,
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

/// Shows a decision.
#[must_use]
pub fn plan_view(decision: &Decision, notes: Vec<String>, refusals: Vec<RefusalView>) -> PlanView {
    let plan = &decision.plan;
    let arguments = decision.kernel.arguments.iter();
    let obstacles = decision.kernel.obstacles.iter();
    PlanView {
        schema: PLAN_SCHEMA.to_owned(),
        pfs: plan
            .pfs
            .iter()
            .filter(|pf| !pf.steps.is_empty())
            .map(pf_plan_view)
            .collect(),
        notes,
        needs_drain: plan.steps().any(|step| step.price.needs_drain()),
        reboots: decision.reboots().iter().map(ToString::to_string).collect(),
        refusals,
        kernel_arguments: arguments
            .map(|need| KernelArgumentView {
                argument: need.argument.to_string(),
                needed: need.urgency == Urgency::Needed,
                why: need.why.to_owned(),
            })
            .collect(),
        obstacles: obstacles
            .map(|obstacle| ObstacleView {
                code: obstacle.code().to_string(),
                text: obstacle.to_string(),
                remedy: obstacle.remedy(),
            })
            .collect(),
        firmware: decision.firmware.iter().filter_map(firmware_view).collect(),
        rdma: decision.rdma.map(|need| RdmaNeedView {
            kept: need.kept.map(|kept| kept.to_string()),
            mode: need.mode.map(|mode| mode.to_string()),
            reboot: need.reboot().map(|reason| reason.to_string()),
        }),
        forget: decision.forget.clone(),
    }
}

fn firmware_view(need: &FirmwareNeed) -> Option<FirmwareView> {
    let words = |run: policy::vendor::Invocation| {
        let program = std::iter::once(run.program.to_owned());
        program.chain(run.arguments).collect()
    };
    let change = need.change.as_ref().ok()?;
    Some(FirmwareView {
        nic: change.nic,
        command: change.command().map(words).unwrap_or_default(),
        reboot: change.reboot().map(|reason| reason.to_string()),
        unseen: need.unseen.clone(),
        query: words(mellanox::query(change.nic)),
        given_back: need.is_given_back,
    })
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
