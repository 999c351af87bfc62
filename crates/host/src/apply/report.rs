//! What apply tells while it runs and afterwards.

use std::time::Duration;

use model::{Code, DiscoverError, Explain, IfName, PciAddress, Plan, PlannedStep, Step, StepError};

use crate::heal::Healed;
use crate::journal::LastApply;
use crate::lock::{LockError, LockOf};
use crate::state::StateError;

/// What apply did.
#[derive(Debug)]
pub struct Applied {
    /// Each PF that something was to be done to, by address.
    pub pfs: Vec<PfApplied>,
    /// What would have to be done still; empty when all is as wanted.
    pub remaining: Plan,
    /// The former apply, when it died before its end.
    pub interrupted: Option<LastApply>,
}

impl Applied {
    /// Is the host as it was wanted?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.remaining.is_empty() && self.pfs.iter().all(|pf| pf.outcome.is_ok())
    }
}

/// What apply did to one PF.
#[derive(Debug)]
pub struct PfApplied {
    /// The PF.
    pub pf: PciAddress,
    /// Its netdev's name when the plan was made.
    pub name: Option<IfName>,
    /// The steps that were made.
    pub made: Vec<PlannedStep>,
    /// Why no more were made.
    pub outcome: Result<(), PfFault>,
}

impl PfApplied {
    pub(super) fn not_begun(plan: &model::PfPlan, fault: PfFault) -> Self {
        Self {
            pf: plan.pf,
            name: plan.name.clone(),
            made: Vec::new(),
            outcome: Err(fault),
        }
    }
}

/// Why a PF was not configured, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum PfFault {
    /// Somebody gives away its VFs, or takes them back.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What is to be done is not what was agreed to any more.
    #[error("the host changed since the plan was shown")]
    Outdated,
    /// A step could not be made.
    #[error(transparent)]
    Step(#[from] StepError),
    /// How far it came could not be recorded, so it was stopped.
    #[error(transparent)]
    Journal(#[from] StateError),
    /// The host could not be observed.
    #[error(transparent)]
    Observe(#[from] DiscoverError),
    /// After each plan there was another one.
    #[error("still something to do after {rounds} plans")]
    Endless {
        /// How many plans were made true.
        rounds: usize,
    },
}

impl Explain for PfFault {
    fn code(&self) -> Code {
        match self {
            Self::Lock(error) => error.code(),
            Self::Outdated => Code::new("plan-outdated"),
            Self::Step(error) => error.code(),
            Self::Journal(error) => error.code(),
            Self::Observe(error) => error.code(),
            Self::Endless { .. } => Code::new("plan-endless"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.remedy(),
            Self::Outdated => {
                Some("look at the new plan with `virtfn plan`, and apply that".into())
            }
            Self::Step(error) => error.remedy(),
            Self::Journal(error) => error.remedy(),
            Self::Observe(error) => error.remedy(),
            Self::Endless { .. } => {
                Some("see what keeps changing with `virtfn plan`; another manager may fight".into())
            }
        }
    }
}

/// Nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another apply runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The plan could not be written to the journal, and so nothing was changed.
    #[error(transparent)]
    Journal(#[from] StateError),
    /// The host could not be observed.
    #[error(transparent)]
    Observe(#[from] DiscoverError),
}

impl Explain for ApplyError {
    fn code(&self) -> Code {
        match self {
            Self::Lock(error) => error.code(),
            Self::Journal(error) => error.code(),
            Self::Observe(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.remedy(),
            Self::Journal(error) => error.remedy(),
            Self::Observe(error) => error.remedy(),
        }
    }
}

/// Something that happened while apply ran.
#[derive(Debug)]
pub enum Event {
    /// Another process has this lock, and is waited for.
    Waiting(LockOf),
    /// The former apply died before its end.
    Interrupted(LastApply),
    /// A VF whose holder is no more was taken back, or could not be.
    Healed(Healed),
    /// A step begins.
    StepBegun {
        /// The PF.
        pf: PciAddress,
        /// Its number, from 1.
        number: usize,
        /// How many steps the PF has, as far as is known.
        of: usize,
        /// The step.
        step: Step,
    },
    /// A step was made.
    StepMade {
        /// The PF.
        pf: PciAddress,
        /// Its number, from 1.
        number: usize,
        /// How many steps the PF has, as far as is known.
        of: usize,
        /// The step.
        step: Step,
        /// How long it took.
        elapsed: Duration,
    },
    /// A PF has no more steps, or failed.
    PfEnded {
        /// The PF.
        pf: PciAddress,
        /// Did it fail? The result says why.
        failed: bool,
    },
}
