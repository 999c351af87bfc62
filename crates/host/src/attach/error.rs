//! Why a VF was not given away, or not taken back.

use model::{Code, DiscoverError, Explain, Holder, HolderKind, NetnsTarget, PciAddress, StepError};
use policy::AttachRefused;

use crate::ledger::LedgerError;
use crate::lock::LockError;
use crate::undo::UndoError;

/// A VF was not given away; it is as it was before, unless `undo` says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else is at work on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its record could not be kept, and so nothing was changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The host could not be observed.
    #[error(transparent)]
    Observe(#[from] DiscoverError),
    /// There is no such VF.
    #[error("there is no VF {vf}")]
    NoVf {
        /// What was asked for.
        vf: PciAddress,
    },
    /// Somebody has it.
    #[error("VF {vf} is in use by {holder}{}", InNetns(netns.as_ref()))]
    InUse {
        /// The VF.
        vf: PciAddress,
        /// Who has it.
        holder: Holder,
        /// Where it is.
        netns: Option<NetnsTarget>,
    },
    /// It cannot be given away as asked for.
    #[error(transparent)]
    Refused(#[from] AttachRefused),
    /// What a process that died had left of it could not be taken back.
    #[error(
        "take back what was left of a former attach of VF {vf}{}",
        List(failures)
    )]
    Heal {
        /// The VF.
        vf: PciAddress,
        /// What could not be taken back.
        failures: Vec<UndoError>,
    },
    /// A step could not be made.
    #[error("attach VF {vf}{}", List(undo))]
    Step {
        /// The VF.
        vf: PciAddress,
        /// Which step, and why not.
        source: Box<StepFault>,
        /// What could not be taken back afterwards.
        undo: Vec<UndoError>,
    },
    /// All steps were made, but that could not be recorded, so they were taken back.
    #[error("confirm the attach{}", List(undo))]
    Confirm {
        /// Why not.
        source: LedgerError,
        /// What could not be taken back afterwards.
        undo: Vec<UndoError>,
    },
}

/// A VF was not taken back, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Somebody else is at work on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its record could not be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The host could not be observed.
    #[error(transparent)]
    Observe(#[from] DiscoverError),
    /// Nobody has it.
    #[error("VF {vf} is not attached")]
    NotAttached {
        /// The VF.
        vf: PciAddress,
    },
    /// Somebody else has it.
    #[error("VF {vf} belongs to {holder}, not to {by}")]
    OtherHolder {
        /// The VF.
        vf: PciAddress,
        /// Who has it.
        holder: Holder,
        /// Who wanted to give it back.
        by: Holder,
    },
    /// Some of it could not be taken back; the next detach tries again.
    #[error("detach VF {vf}{}", List(failures))]
    Undo {
        /// The VF.
        vf: PciAddress,
        /// What could not be taken back.
        failures: Vec<UndoError>,
    },
}

/// A step was not made.
#[derive(Debug, thiserror::Error)]
pub enum StepFault {
    /// The host refused it.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Somebody else was at work on the same PF.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// What is left of a former attach could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum HealError {
    /// The record could not be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The lock could not be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Some steps could not be taken back.
    #[error(
        "take back what was left of a former attach of VF {vf}{}",
        List(failures)
    )]
    Undo {
        /// The VF.
        vf: PciAddress,
        /// What could not be taken back.
        failures: Vec<UndoError>,
    },
}

#[derive(Debug)]
pub(crate) enum LockVfError {
    Lock(LockError),
    Ledger(LedgerError),
}

impl From<LockError> for LockVfError {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl From<LedgerError> for LockVfError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<LockVfError> for AttachError {
    fn from(error: LockVfError) -> Self {
        match error {
            LockVfError::Lock(error) => Self::Lock(error),
            LockVfError::Ledger(error) => Self::Ledger(error),
        }
    }
}

impl From<LockVfError> for DetachError {
    fn from(error: LockVfError) -> Self {
        match error {
            LockVfError::Lock(error) => Self::Lock(error),
            LockVfError::Ledger(error) => Self::Ledger(error),
        }
    }
}

impl From<HealError> for AttachError {
    fn from(error: HealError) -> Self {
        match error {
            HealError::Ledger(error) => Self::Ledger(error),
            HealError::Lock(error) => Self::Lock(error),
            HealError::Undo { vf, failures } => Self::Heal { vf, failures },
        }
    }
}

/// Writes failures of an undo behind a message: all of them, each with its causes.
struct List<'a>(&'a [UndoError]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for failure in self.0 {
            f.write_str("; not taken back")?;
            let mut cause: Option<&dyn std::error::Error> = Some(&failure.source);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

struct InNetns<'a>(Option<&'a NetnsTarget>);

impl std::fmt::Display for InNetns<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .map_or(Ok(()), |netns| write!(f, " in namespace {netns}"))
    }
}

impl Explain for StepFault {
    fn code(&self) -> Code {
        match self {
            Self::Step(error) => error.code(),
            Self::Lock(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Step(error) => error.remedy(),
            Self::Lock(error) => error.remedy(),
        }
    }
}

impl Explain for AttachError {
    fn code(&self) -> Code {
        match self {
            Self::Lock(error) => error.code(),
            Self::Ledger(error) => error.code(),
            Self::Observe(error) => error.code(),
            Self::NoVf { .. } => Code::new("no-such-vf"),
            Self::InUse { .. } => Code::new("vf-in-use"),
            Self::Refused(error) => error.code(),
            Self::Heal { failures, .. } => undo_code(failures),
            Self::Step { source, .. } => source.code(),
            Self::Confirm { source, .. } => source.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.remedy(),
            Self::Ledger(error) => error.remedy(),
            Self::Observe(error) => error.remedy(),
            Self::NoVf { .. } => Some("see the VFs of this host with `virtfn list vf`".to_owned()),
            Self::InUse { vf, holder, .. } => Some(match holder.kind {
                HolderKind::Attach | HolderKind::Unknown => {
                    format!("take another VF, or free this one with `virtfn detach {vf}`")
                }
                _ => format!(
                    "take another VF, or wait until {holder} is gone; `virtfn explain {vf}` tells more"
                ),
            }),
            Self::Refused(error) => error.remedy(),
            Self::Heal { failures, .. } => undo_remedy(failures),
            Self::Step { source, .. } => source.remedy(),
            Self::Confirm { source, .. } => source.remedy(),
        }
    }
}

impl Explain for DetachError {
    fn code(&self) -> Code {
        match self {
            Self::Lock(error) => error.code(),
            Self::Ledger(error) => error.code(),
            Self::Observe(error) => error.code(),
            Self::NotAttached { .. } => Code::new("vf-not-attached"),
            Self::OtherHolder { .. } => Code::new("vf-of-another-holder"),
            Self::Undo { failures, .. } => undo_code(failures),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Lock(error) => error.remedy(),
            Self::Ledger(error) => error.remedy(),
            Self::Observe(error) => error.remedy(),
            Self::NotAttached { .. } => {
                Some("see who has which VF with `virtfn list vf`".to_owned())
            }
            Self::OtherHolder { holder, .. } => {
                Some(format!("let {holder} give it back, through the same door"))
            }
            Self::Undo { failures, .. } => undo_remedy(failures),
        }
    }
}

impl Explain for HealError {
    fn code(&self) -> Code {
        match self {
            Self::Ledger(error) => error.code(),
            Self::Lock(error) => error.code(),
            Self::Undo { failures, .. } => undo_code(failures),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Ledger(error) => error.remedy(),
            Self::Lock(error) => error.remedy(),
            Self::Undo { failures, .. } => undo_remedy(failures),
        }
    }
}

/// The first failure is the one that the others usually follow from.
fn undo_code(failures: &[UndoError]) -> Code {
    failures
        .first()
        .map_or(Code::new("not-taken-back"), |failure| failure.source.code())
}

fn undo_remedy(failures: &[UndoError]) -> Option<String> {
    failures.iter().find_map(|failure| failure.source.remedy())
}
