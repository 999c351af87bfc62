//! The real host, and a recorded one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use model::{
    Code, DiscoverError, Holder, Host, Inventory, Netns, PciAddress, Role, Scope, Step, StepError,
};

use crate::checkpoint::{Checkpoints, Uninterrupted};
use crate::discover::{discover, look_again, renewed};
use crate::ledger::{Holders, Ledger};
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
    /// Where tests may kill the process, within steps.
    checkpoints: Arc<dyn Checkpoints>,
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
            checkpoints: Arc::new(Uninterrupted),
        }
    }

    /// Lets tests kill the process within steps.
    #[must_use]
    pub fn with_checkpoints(mut self, checkpoints: Arc<dyn Checkpoints>) -> Self {
        self.checkpoints = checkpoints;
        self
    }

    /// Lets observations say whom virtfn gave which VF, and steps know the locks of others.
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
            checkpoints: Arc::new(Uninterrupted),
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

    /// Brings what was seen of the whole host up to date where these functions changed.
    ///
    /// It costs as much as the functions, their PFs and the PFs' other VFs do, and one list of
    /// interfaces. Returns `None` when only a look at the whole host can tell: functions came or went, or
    /// something could not be read. What changed in other functions is not seen.
    pub fn renew(
        &mut self,
        before: &Inventory,
        changed: &BTreeSet<PciAddress>,
    ) -> Result<Option<Inventory>, DiscoverError> {
        let holders = self
            .ledger
            .as_ref()
            .map(|ledger| ledger.holders_of(changed));
        let holders = holders.unwrap_or_default();
        let queries = self.queries.as_mut();
        let mut part = look_again(&self.root, queries, changed, before, &holders.by_vf)?;
        tell_what_is_on_record(&mut part, holders);
        Ok(renewed(before, part, changed))
    }
}

/// Tells what the records say beyond who has which VF.
fn tell_what_is_on_record(seen: &mut Inventory, holders: Holders) {
    for vf in &holders.moved {
        let Some(function) = seen.functions.get_mut(vf) else {
            continue;
        };
        let came_back = function
            .netdev()
            .is_some_and(|netdev| netdev.netns == Netns::Host);
        if let (true, Role::Vf(facts)) = (came_back, &mut function.role) {
            facts.holder = None;
        }
    }
    for (address, function) in &mut seen.functions {
        if let Role::Vf(facts) = &mut function.role
            && facts.holder.is_none()
        {
            facts.holder = holders.unknown_of(*address).cloned();
        }
    }
    seen.gaps.extend(holders.gaps);
}

impl Host for Linux {
    fn observe(&mut self, scope: Scope) -> Result<Inventory, DiscoverError> {
        let holders = self.ledger.as_ref().map(Ledger::holders);
        let holders = holders.unwrap_or_default();
        let mut seen = self.observe_with(scope, &holders.by_vf)?;
        tell_what_is_on_record(&mut seen, holders);
        if let Scope::Function(function) = scope {
            self.reported = Reported::of(&seen, function);
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
        self.sockets.adopt_route(self.queries.take_route());
        let mut tools = Tools {
            root: &self.root,
            sockets: &mut self.sockets,
            reported: &mut self.reported,
            state: self.ledger.as_ref().map(Ledger::state),
            checkpoints: self.checkpoints.as_ref(),
        };
        perform(&mut tools, step)
    }
}
