//! Words for the user. A closed stream is no reason to fail.

use std::io::{self, Write};
use std::process::ExitCode;

/// Says something about the lab itself.
pub(crate) fn say(text: &str) {
    // One write, so that lines of several threads stay whole.
    io::stderr()
        .write_all(format!("virtfn-lab: {text}\n").as_bytes())
        .ok();
}

/// Writes a result.
pub(crate) fn out(text: &str) {
    let mut stdout = io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .ok();
}

/// A status as a process returns it.
pub(crate) fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status & 0xff).unwrap_or(u8::MAX))
}

/// The environment of a command: what the user gives, and on a terminal its type.
pub(crate) fn environment(given: &[String], terminal: bool) -> Vec<String> {
    let kind = std::env::var("TERM")
        .ok()
        .filter(|_| terminal)
        .map(|kind| format!("TERM={kind}"));
    kind.into_iter().chain(given.iter().cloned()).collect()
}
