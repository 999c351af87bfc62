//! The real host, and a recorded one.

use std::collections::BTreeMap;
use std::path::Path;

use model::{
    Code, DiscoverError, Holder, Host, Inventory, Netns, PciAddress, Role, Scope, Step, StepError,
};

use crate::discover::discover;
use crate::ledger::Ledger;
use crate::perform::{Reported, Sockets, Tools, perform};
use crate::queries::{Live, Queries, Recorded};
use crate::record::{RecordError, Tree, record};
use crate::root::{AccessError, HostRoot};

/// A Linux host: its files beneath one directory, and who answers for its kernel.
pub struct Linux {
    root: HostRoot,
    queries: Box<dyn Queries>,
    /// A recording answers questions but cannot be changed.
    recorded: bool,
    /// Who was given which VF, for [`Host::observe`].
    ledger: Option<Ledger>,
    sockets: Sockets,
    /// What the PF said of the VF that was observed last.
    reported: Option<Reported>,
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
            ledger: None,
            sockets: Sockets::default(),
            reported: None,
        }
    }

    /// Lets observations say whom virtfn gave which VF.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Opens a recording that was unpacked into `dir`. It can be observed, not changed.
    pub fn recorded(dir: &Path) -> Result<Self, AccessError> {
        Ok(Self {
            root: HostRoot::open(dir)?,
            queries: Box::new(Recorded::new(HostRoot::open(dir)?)),
            recorded: true,
            ledger: None,
            sockets: Sockets::default(),
            reported: None,
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
        let holders = self.ledger.as_ref().map(Ledger::holders);
        let holders = holders.unwrap_or_default();
        let mut seen = self.observe_with(scope, &holders.by_vf)?;
        for vf in holders.moved {
            let Some(function) = seen.functions.get_mut(&vf) else {
                continue;
            };
            let came_back = function
                .netdev()
                .is_some_and(|netdev| netdev.netns == Netns::Host);
            if let (true, Role::Vf(facts)) = (came_back, &mut function.role) {
                facts.holder = None;
            }
        }
        seen.gaps.extend(holders.gaps);
        if let Scope::Function(function) = scope {
            self.reported = seen.get(function).and_then(Reported::of);
        }
        Ok(seen)
    }

    fn perform(&mut self, step: &Step) -> Result<(), StepError> {
        if self.recorded {
            return Err(StepError {
                object: step.function().to_string(),
                attempt: step.to_string(),
                source: Some("a recording cannot be changed".into()),
                code: Code::new("recording-is-read-only"),
                remedy: None,
            });
        }
        let mut tools = Tools {
            root: &self.root,
            sockets: &mut self.sockets,
            reported: &mut self.reported,
        };
        perform(&mut tools, step)
    }
}
