//! Ordered steps, with the undo and the price of each.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Holder, HolderKind, IfName, PciAddress, RdmaNetnsMode, Step, VfIndex};

/// What would be done to a host, PF by PF. PFs do not depend on each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The PFs that need something done, by address.
    pub pfs: Vec<PfPlan>,
}

impl Plan {
    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pfs.iter().all(|pf| pf.steps.is_empty())
    }

    /// Returns all steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.pfs.iter().flat_map(|pf| &pf.steps)
    }
}

/// What would be done to one PF and its VFs, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfPlan {
    /// The PF.
    pub pf: PciAddress,
    /// Its netdev's name when the plan was made.
    pub name: Option<IfName>,
    /// The steps.
    pub steps: Vec<PlannedStep>,
    /// The VFs that the steps name, for a reader; those that do not exist yet are predicted.
    pub vfs: BTreeMap<PciAddress, VfIndex>,
    /// Do more steps follow that cannot be named before the VFs exist? Once they do, plan again.
    pub is_cut: bool,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// What is done.
    pub step: Step,
    /// What was before, for a reader: `0 VFs`, `mtu 1500`. `None` when nothing was.
    pub before: Option<String>,
    /// What takes it back; `None` when there is nothing to take back, as after a wait.
    pub undo: Option<Step>,
    /// What it costs others.
    pub price: Price,
}

/// What a step costs others than the one who asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Holders whose traffic stops, with the VF that each holds.
    pub interrupts: Vec<(PciAddress, Holder)>,
    /// Does every VF of the PF vanish, held or not?
    pub destroys_vfs: bool,
    /// Does it take effect only after a reboot, and why?
    pub reboot: Option<RebootReason>,
}

impl Price {
    /// Does it cost nobody anything?
    #[must_use]
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }

    /// Must a cluster drain the node before, because somebody's traffic stops? What the host itself
    /// uses is not drained away.
    #[must_use]
    pub fn needs_drain(&self) -> bool {
        let mut holders = self.interrupts.iter().map(|(_, holder)| holder.kind);
        holders.any(|kind| kind != HolderKind::Host)
    }
}

/// Why a change takes effect only after a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebootReason {
    /// The kernel must be started with these arguments.
    KernelArguments(Vec<String>),
    /// The NIC's firmware reads its settings at start only.
    Firmware(String),
    /// The kernel changes the namespace mode of RDMA only while no other network namespace exists.
    RdmaNetns(RdmaNetnsMode),
}

impl fmt::Display for RebootReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelArguments(arguments) => {
                write!(f, "kernel arguments {}", arguments.join(" "))
            }
            Self::Firmware(what) => write!(f, "firmware setting {what}"),
            Self::RdmaNetns(mode) => write!(f, "RDMA namespace mode {mode}"),
        }
    }
}
