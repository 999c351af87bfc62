//! Runs the built `virtfn` as people and scripts do.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that cannot go on fails its test"
)]

mod list;
mod output;
mod plan;
mod price;
mod status;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// How a process ended, and what it wrote.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Returns the command, with an environment that does not depend on who runs the tests.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtfn"));
    command
        .args(args)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// Runs the command to its end.
pub(crate) fn virtfn(args: &[&str]) -> Ran {
    let output = command(args).output().unwrap();
    Ran {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Returns the file of a recorded host.
///
/// Each is written once and renamed, so that no test reads what another one is writing.
pub(crate) fn recording(name: &str) -> String {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let dir = WRITTEN.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recordings");
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in fixtures::TREES {
            let new = dir.join(format!("{name}.{}", std::process::id()));
            fs::write(&new, text).unwrap();
            fs::rename(&new, dir.join(name)).unwrap();
        }
        dir
    });
    let path = dir.join(name);
    assert!(path.exists(), "no recorded host is called {name}");
    path.to_string_lossy().into_owned()
}
