//! `virtfn completions`: the script that a shell loads.

use clap::CommandFactory;

use crate::args::Cli;
use crate::ui::Ui;

/// Writes the completion script of `shell`.
pub(crate) fn run(shell: clap_complete::Shell, ui: &mut Ui) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "virtfn", &mut script);
    ui.result(&String::from_utf8_lossy(&script));
}
