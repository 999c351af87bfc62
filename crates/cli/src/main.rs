//! Starts `virtfn`; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;

use cli::args::{Command, as_agent};
use cli::{Cli, Exit, Style, Ui};

fn main() -> ExitCode {
    tell_bugs();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = Cli::parse_from(as_agent(&arguments).unwrap_or(arguments));
    // Nobody stands beside a daemon: its log is what is left of it.
    let daemon = u8::from(matches!(cli.command, Command::Agent(_)));
    trace(cli.verbose + daemon);
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let ui = Ui::process(locale.as_deref());
    ExitCode::from(cli::run(&cli, ui).number())
}

/// Turns a panic into a message that asks for a report, and the exit status of a bug.
fn tell_bugs() {
    std::panic::set_hook(Box::new(|panic| {
        let mut ui = Ui::process(None);
        let head = Style::Bad.paint("error[bug]:");
        ui.say(format_args!("{head} {panic}"));
        let head = Style::Good.paint("help:");
        ui.say(format_args!(
            "{head} this is a bug in virtfn; please report it with the lines above"
        ));
        #[expect(
            clippy::exit,
            reason = "the status of a bug, which neither unwinding nor aborting gives"
        )]
        std::process::exit(i32::from(Exit::Bug.number()));
    }));
}

/// Writes events to stderr when asked to; otherwise nothing is set up, which costs nothing.
fn trace(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing_subscriber::filter::LevelFilter::INFO,
        2 => tracing_subscriber::filter::LevelFilter::DEBUG,
        _ => tracing_subscriber::filter::LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}
