//! Words for the user. A closed stream is no reason to fail.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

/// Says something about the lab itself.
pub(crate) fn say(text: &str) {
    // One write, so that lines of several threads stay whole.
    io::stderr()
        .write_all(format!("virtfn-lab: {text}\n").as_bytes())
        .ok();
}

/// Says where logs and state of machines are kept.
pub(crate) fn say_logs(kept: &Result<PathBuf>) {
    match kept {
        Ok(dir) => say(&format!(
            "logs and state of the machines are in {}",
            dir.display()
        )),
        Err(error) => say(&format!(
            "logs and state of the machines could not be kept: {error:#}"
        )),
    }
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

/// Directories of programs that a machine has although this user does not look there.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of a command: this user's way to programs, on a terminal its type, and what the
/// user gives.
pub(crate) fn environment(given: &[String], terminal: bool) -> Vec<String> {
    let path = std::env::var("PATH").map(|path| format!("PATH={path}:{PROGRAMS}"));
    let kind = std::env::var("TERM").map(|kind| format!("TERM={kind}"));
    path.into_iter()
        .chain(kind.into_iter().filter(|_| terminal))
        .chain(given.iter().cloned())
        .collect()
}
