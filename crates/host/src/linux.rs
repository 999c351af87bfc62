//! The real host, and a recorded one.

use std::collections::BTreeMap;
use std::path::Path;

use model::{Code, DiscoverError, Holder, Host, Inventory, PciAddress, Scope, Step, StepError};

use crate::discover::discover;
use crate::queries::{Live, Queries, Recorded};
use crate::record::{RecordError, Tree, record};
use crate::root::{AccessError, HostRoot};

/// A Linux host: its files beneath one directory, and who answers for its kernel.
pub struct Linux {
    root: HostRoot,
    queries: Box<dyn Queries>,
    /// A recording answers questions but cannot be changed.
    recorded: bool,
}

impl Linux {
    /// Opens the machine that this process runs on.
    pub fn this_machine() -> Result<Self, AccessError> {
        HostRoot::this_machine().map(Self::at)
    }

    /// Takes the running kernel, with its files beneath `root`: `/host` in a container.
    #[must_use]
    pub fn at(root: HostRoot) -> Self {
        Self {
            root,
            queries: Box::new(Live::default()),
            recorded: false,
        }
    }

    /// Opens a recording that was unpacked into `dir`. It can be observed, not changed.
    pub fn recorded(dir: &Path) -> Result<Self, AccessError> {
        Ok(Self {
            root: HostRoot::open(dir)?,
            queries: Box::new(Recorded::new(HostRoot::open(dir)?)),
            recorded: true,
        })
    }

    /// Returns the host's files.
    #[must_use]
    pub fn root(&self) -> &HostRoot {
        &self.root
    }

    /// Records what [`Linux::observe_with`] reads, so that it can be observed elsewhere.
    pub fn record(&mut self) -> Result<Tree, RecordError> {
        record(&self.root, self.queries.as_mut())
    }

    /// Observes the host as [`Host::observe`] does; `ledger` says who was given which VF.
    pub fn observe_with(
        &mut self,
        scope: Scope,
        ledger: &BTreeMap<PciAddress, Holder>,
    ) -> Result<Inventory, DiscoverError> {
        discover(&self.root, self.queries.as_mut(), scope, ledger)
    }
}

impl Host for Linux {
    fn observe(&mut self, scope: Scope) -> Result<Inventory, DiscoverError> {
        self.observe_with(scope, &BTreeMap::new())
    }

    fn perform(&mut self, step: &Step) -> Result<(), StepError> {
        let (attempt, code) = if self.recorded {
            ("change a recording", "recording-is-read-only")
        } else {
            ("perform a step", "not-implemented")
        };
        Err(StepError {
            object: step.to_string(),
            attempt: attempt.to_owned(),
            source: None,
            code: Code::new(code),
            remedy: None,
        })
    }
}
