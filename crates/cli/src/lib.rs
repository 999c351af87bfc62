//! The `virtfn` command: raw arguments in, a typed request to the crates below, a result out.
//!
//! It decides nothing about SR-IOV: what a plan holds is `policy`'s affair, and how a step is made is
//! `host`'s. What is here is how people and scripts meet it: [`args`], the stable [`view`] of a host,
//! drawings of it, and one way out through [`Ui`].

pub mod args;
mod command;
mod failure;
mod policies;
mod sight;
mod table;
mod topology;
mod ui;
pub mod view;
mod workplace;

#[cfg(test)]
mod testing;

pub use args::Cli;
pub use failure::Exit;
use failure::Failure;
pub use ui::{Style, Ui};

/// Runs a command and says how it ended; errors are told on `ui`.
pub fn run(cli: &Cli, mut ui: Ui) -> Exit {
    let exit = command::run(cli, &mut ui).unwrap_or_else(|failure| {
        failure.tell(&mut ui);
        failure.exit
    });
    match ui.end() {
        Ok(()) => exit,
        Err(error) => {
            Failure::failed(error).tell(&mut ui);
            if exit == Exit::Done {
                Exit::Failed
            } else {
                exit
            }
        }
    }
}
