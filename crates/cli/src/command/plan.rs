//! `virtfn plan`: what policies would change on a host. Nothing is changed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::{Desired, Inventory, NodePolicy, Plan};
use policy::{ResolveError, resolve};

use crate::args::{PlanArgs, PlanOutput};
use crate::failure::{Exit, Failure};
use crate::policies;
use crate::sight::Sight;
use crate::ui::Ui;
use crate::view::plan_view;
use crate::workplace::Site;

/// The policies that were named, and the labels of this node.
pub(crate) struct Wanted {
    policies: Vec<NodePolicy>,
    labels: BTreeMap<String, String>,
}

impl Wanted {
    /// Reads files and labels; what in them has no effect is told.
    pub(crate) fn read(files: &[PathBuf], labels: &[String], ui: &mut Ui) -> Result<Self, Failure> {
        Ok(Self {
            policies: policies::read(files, ui).map_err(Failure::input)?,
            labels: policies::labels(labels).map_err(Failure::input)?,
        })
    }

    /// Says what `seen` should have, and what of the policies has no effect there; all or nothing.
    pub(crate) fn on(&self, seen: &Inventory) -> Result<(Desired, Vec<String>), ResolveError> {
        let (desired, notes) = resolve(seen, &self.policies, &self.labels).accept()?;
        Ok((desired, notes.iter().map(ToString::to_string).collect()))
    }

    /// Says what is to be done to `seen`: nothing when the policies cannot be meant for it, as after
    /// a PF that they name was removed.
    pub(crate) fn plan(&self, seen: &Inventory) -> Plan {
        self.on(seen)
            .map(|(desired, _)| policy::plan(seen, &desired))
            .unwrap_or_default()
    }
}

/// Shows the plan.
pub(crate) fn run(args: &PlanArgs, site: &Site, ui: &mut Ui) -> Result<Exit, Failure> {
    let wanted = Wanted::read(&args.policies.files, &args.policies.node_labels, ui)?;
    let seen = Sight::open(&super::site(&args.state, site))?.inventory()?;
    let (desired, notes) = wanted.on(&seen).map_err(Failure::input)?;
    let plan = policy::plan(&seen, &desired);
    for note in &notes {
        ui.note(note);
    }
    match args.output {
        PlanOutput::Text => ui.result(&policy::render(&plan)),
        PlanOutput::Json => ui.line(super::json(&plan_view(&plan, notes))?),
    }
    if args.check && !plan.is_empty() {
        Ok(Exit::Pending)
    } else {
        Ok(Exit::Done)
    }
}
