//! One module a command: its request, the call below, and how the result is shown.

mod agent;
mod apply;
mod attach;
mod completions;
mod detach;
mod explain;
pub(crate) mod list;
mod persist;
mod plan;
mod pools;
mod record;
mod status;
pub(crate) mod target;
mod topology;
mod wanted;

use std::error::Error;

use model::{Code, Explain, Inventory};
use serde::Serialize;

use crate::args::{Cli, Command, StateArgs};
use crate::failure::{Exit, Failure};
use crate::sight::Sight;
use crate::ui::Ui;
use crate::view::{HostView, Names, host_view};
use crate::workplace::Site;

/// Runs a command.
pub(crate) fn run(cli: &Cli, ui: &mut Ui) -> Result<Exit, Failure> {
    let site = Site::new(cli);
    match &cli.command {
        Command::List(args) => list::run(args, &site, ui)?,
        Command::Topology(args) => topology::run(args, &site, ui)?,
        Command::Plan(args) => return plan::run(args, &site, ui),
        Command::Apply(args) => return apply::run(args, &site, ui),
        Command::Status(args) => return status::run(args, &site, ui),
        Command::Attach(args) => attach::run(args, &site, ui)?,
        Command::Detach(args) => detach::run(args, &site, ui)?,
        Command::Explain(args) => explain::run(args, &site, ui)?,
        Command::Agent(args) => agent::run(args, &site)?,
        Command::Record(args) => record::run(args, &site, ui)?,
        Command::Completions(args) => completions::run(args.shell, ui),
    }
    Ok(Exit::Done)
}

/// Returns the host that a command looks at.
fn site(args: &StateArgs, here: &Site) -> Site {
    match &args.recorded {
        Some(path) => here.recorded(path),
        None => here.clone(),
    }
}

/// Are names of vendors and devices wanted? Looking them up reads a file of 1.5 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WithNames {
    Yes,
    No,
}

/// Sees a host as the stable view.
fn see(site: &Site, with_names: WithNames) -> Result<(Inventory, HostView), Failure> {
    let mut sight = Sight::open(site)?;
    let inventory = sight.inventory()?;
    let names = match with_names {
        WithNames::Yes => sight.names(&inventory),
        WithNames::No => Names::new(),
    };
    let view = host_view(&inventory, sight.host_name(), &names);
    Ok((inventory, view))
}

/// The result cannot be written in the form that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("write the result as {form}")]
struct FormError {
    form: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl Explain for FormError {
    fn code(&self) -> Code {
        Code::new("output")
    }
}

/// Writes a view as JSON, without a newline at the end.
fn json(view: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(view).map_err(|error| {
        Failure::failed(FormError {
            form: "JSON",
            source: error.into(),
        })
    })
}

/// Writes a view as YAML.
fn yaml(view: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(view).map_err(|error| {
        Failure::failed(FormError {
            form: "YAML",
            source: error.into(),
        })
    })
}
