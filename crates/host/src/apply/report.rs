//! What apply tells while it runs and afterwards.

use std::path::PathBuf;
use std::time::Duration;

use model::{
    Code, DiscoverError, Explain, Function, IfName, Inventory, PciAddress, Plan, PlannedStep, Step,
    StepError, VfIndex,
};

use crate::heal::Healed;
use crate::journal::LastApply;
use crate::lock::{LockError, LockOf};
use crate::owned::ReadOwnedError;
use crate::state::StateError;

/// What apply did.
#[derive(Debug)]
pub struct Applied {
    /// Each PF that something was to be done to, by address.
    pub pfs: Vec<PfApplied>,
    /// PFs of which only the record that they were configured was left, and went.
    pub forgotten: Vec<PciAddress>,
    /// What would have to be done still; empty when all is as wanted.
    pub remaining: Plan,
    /// Why it cannot be said what would have to be done still, as after a PF vanished.
    pub undecided: Option<Undecided>,
    /// The former apply, when it died before its end.
    pub interrupted: Option<LastApply>,
}

impl Applied {
    /// Is the host as it was wanted?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.remaining.is_empty() && self.is_faultless()
    }

    /// Was all done that can be done before the next boot, and is something left for after it?
    #[must_use]
    pub fn waits_for_reboot(&self) -> bool {
        let mut left = self.remaining.steps().peekable();
        let is_left = left.peek().is_some();
        is_left && self.is_faultless() && left.all(|planned| planned.price.reboot.is_some())
    }

    fn is_faultless(&self) -> bool {
        self.undecided.is_none() && self.pfs.iter().all(PfApplied::is_complete)
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
    /// VFs that could not be configured; the others were.
    pub vfs: Vec<VfFault>,
    /// Why no more were made.
    pub outcome: Result<(), PfFault>,
}

/// A VF that could not be configured.
#[derive(Debug, thiserror::Error)]
#[error("configure VF {vf}")]
pub struct VfFault {
    /// The VF.
    pub vf: PciAddress,
    /// Its number on its PF.
    pub index: Option<VfIndex>,
    /// The step that failed; the later ones of this VF were left out.
    #[source]
    pub source: StepError,
}

impl Explain for VfFault {
    fn code(&self) -> Code {
        self.source.code()
    }

    fn remedy(&self) -> Option<String> {
        self.source.remedy()
    }
}

impl PfApplied {
    /// Was everything done that was to be done?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.outcome.is_ok() && self.vfs.is_empty()
    }

    /// A PF that nothing was to be done to, and whose record could not be kept.
    pub(super) fn without_steps(pf: PciAddress, seen: &Inventory, fault: PfFault) -> Self {
        let name = seen.get(pf).and_then(Function::netdev_name).cloned();
        Self {
            pf,
            name,
            made: Vec::new(),
            vfs: Vec::new(),
            outcome: Err(fault),
        }
    }

    pub(super) fn not_begun(plan: &model::PfPlan, fault: PfFault) -> Self {
        Self {
            pf: plan.pf,
            name: plan.name.clone(),
            made: Vec::new(),
            vfs: Vec::new(),
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
    /// The PF is no more.
    #[error("the device vanished")]
    Gone,
    /// What is wanted cannot be had of the host as it is now.
    #[error(transparent)]
    Undecided(#[from] Undecided),
    /// A step could not be made.
    #[error(transparent)]
    Step(#[from] StepError),
    /// That the PF is ours, or is no more, could not be recorded.
    #[error(transparent)]
    Record(#[from] StateError),
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
            Self::Gone => Code::new("no-such-device"),
            Self::Undecided(error) => error.code(),
            Self::Step(error) => error.code(),
            Self::Record(error) => error.code(),
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
            Self::Gone => Some(
                "see what the host has with `virtfn list`, and apply again once the device is back"
                    .into(),
            ),
            Self::Undecided(error) => error.remedy(),
            Self::Step(error) => error.remedy(),
            Self::Record(error) => error.remedy(),
            Self::Observe(error) => error.remedy(),
            Self::Endless { .. } => {
                Some("see what keeps changing with `virtfn plan`; another manager may fight".into())
            }
        }
    }
}

/// What is wanted cannot be had of a host as it is.
#[derive(Debug)]
pub struct Undecided(Box<dyn Explain + Send + Sync>);

impl Undecided {
    /// Takes the error of whoever was to decide.
    #[must_use]
    pub fn new(error: impl Explain + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

impl std::fmt::Display for Undecided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Undecided {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Explain for Undecided {
    fn code(&self) -> Code {
        self.0.code()
    }

    fn remedy(&self) -> Option<String> {
        self.0.remedy()
    }
}

/// Nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another apply runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It cannot be told which PFs were configured before.
    #[error(transparent)]
    Owned(#[from] ReadOwnedError),
    /// What is wanted cannot be had.
    #[error(transparent)]
    Undecided(#[from] Undecided),
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
            Self::Owned(error) => error.code(),
            Self::Undecided(error) => error.code(),
            Self::Journal(error) => error.code(),
            Self::Observe(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.remedy(),
            Self::Owned(error) => error.remedy(),
            Self::Undecided(error) => error.remedy(),
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
    /// A file of virtfn's own could not be believed and is kept aside; work goes on without it.
    SetAside {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        kept: PathBuf,
        /// What is wrong with it, and what that means.
        error: Box<dyn Explain + Send + Sync>,
    },
    /// Lines of the journal are missing. What was done is done all the same; only what is told of it
    /// afterwards may be wrong.
    NotWritten(StateError),
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
