//! The one seam between logic and Linux.

use std::error::Error;

use crate::{Code, Explain, Inventory, PciAddress, Step};

/// A host: `host::Linux` is a real one, `fixtures::FakeHost` plays one on an [`Inventory`].
pub trait Host {
    /// Sees what the host has, in one pass.
    ///
    /// Devices that come or go meanwhile are normal; what could not be read is a
    /// [`crate::Gap`], not an error.
    fn observe(&mut self, scope: Scope) -> Result<Inventory, DiscoverError>;

    /// Makes one change, and waits until it took effect. A step that is already so changes nothing.
    fn perform(&mut self, step: &Step) -> Result<(), StepError>;
}

/// How much of a host to observe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    All,
    /// One function, its PF and the other VFs that the PF reports in the same message.
    Function(PciAddress),
}

/// Nothing of the host could be observed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct DiscoverError {
    /// What was tried, naming the path or the netlink family.
    pub attempt: String,
    /// What the kernel said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
    /// Stable code.
    pub code: Code,
    /// What the user can do.
    pub remedy: Option<String>,
}

impl Explain for DiscoverError {
    fn code(&self) -> Code {
        self.code
    }

    fn remedy(&self) -> Option<String> {
        self.remedy.clone()
    }
}

/// A step could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {attempt}")]
pub struct StepError {
    /// The object, such as `PF ens1f0 (0000:3b:00.0)`.
    pub object: String,
    /// What was tried, such as `set sriov_numvfs to 8`.
    pub attempt: String,
    /// What the kernel said; `None` when virtfn itself refused.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// Stable code.
    pub code: Code,
    /// What the user can do.
    pub remedy: Option<String>,
}

impl Explain for StepError {
    fn code(&self) -> Code {
        self.code
    }

    fn remedy(&self) -> Option<String> {
        self.remedy.clone()
    }
}
