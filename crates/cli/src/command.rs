//! One module a command: its request, the call below, and how the result is shown.

mod completions;
pub(crate) mod list;
mod plan;
mod record;
#[cfg(test)]
pub(crate) mod target;
mod topology;

use std::error::Error;

use model::{Code, Explain, Inventory};
use serde::Serialize;

use crate::args::{Cli, Command, StateArgs};
use crate::failure::{Exit, Failure};
use crate::sight::{Place, Sight};
use crate::ui::Ui;
use crate::view::{HostView, host_view};

/// Runs a command.
pub(crate) fn run(cli: Cli, ui: &mut Ui) -> Result<Exit, Failure> {
    let here = match cli.root {
        Some(dir) => Place::Beneath(dir),
        None => Place::Here,
    };
    match cli.command {
        Command::List(args) => list::run(&args, here, ui)?,
        Command::Topology(args) => topology::run(&args, here, ui)?,
        Command::Plan(args) => return plan::run(&args, here, ui),
        Command::Record(args) => record::run(&args, &here, ui)?,
        Command::Completions(args) => completions::run(args.shell, ui),
    }
    Ok(Exit::Done)
}

/// Returns the host that a command looks at.
fn place(args: &StateArgs, here: Place) -> Place {
    match &args.recorded {
        Some(path) => Place::Recording(path.clone()),
        None => here,
    }
}

/// Sees a host as the stable view.
fn see(place: &Place) -> Result<(Inventory, HostView), Failure> {
    let mut sight = Sight::open(place)?;
    let inventory = sight.inventory()?;
    let names = sight.names(&inventory);
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
