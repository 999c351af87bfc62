//! Every check and every test, in the order in which they fail fastest.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::build::{self, cargo};
use crate::tidy;

/// What to run; nothing given is everything.
#[derive(Args)]
pub(crate) struct Selection {
    /// Runs only the tests on this host: no machine is booted.
    #[arg(long, conflicts_with = "lab")]
    host: bool,
    /// Runs only the tests that boot machines.
    #[arg(long)]
    lab: bool,
    /// Runs only tests whose name contains this text; the checks are left out.
    filter: Option<String>,
}

/// Runs the selection and stops at the first part that fails.
pub(crate) fn run(selection: &Selection) -> Result<()> {
    let begun = Instant::now();
    let filter = selection.filter.as_deref();
    if filter.is_none() && !selection.lab {
        checks()?;
    }
    if !selection.lab {
        host_tests(filter)?;
    }
    if !selection.host {
        lab_tests(filter)?;
    }
    if filter.is_none() && !selection.host {
        say("the demo, as a user runs it");
        build::binaries()?.demo(&[])?;
    }
    say(&format!("all done in {} s", begun.elapsed().as_secs()));
    Ok(())
}

fn checks() -> Result<()> {
    say("format");
    build::run(cargo().args(["fmt", "--all", "--check"]))?;
    say("tidy");
    tidy::run()?;
    say("clippy");
    build::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// Unit, property, golden and documentation tests.
fn host_tests(filter: Option<&str>) -> Result<()> {
    say("tests on this host");
    // INSTA_UPDATE: a golden that is not as it should be fails, and is never rewritten here.
    build::run(
        cargo()
            .args(["test", "--workspace", "--exclude", "lab"])
            .args(filter)
            .env("INSTA_UPDATE", "no"),
    )
}

/// The lab's own tests, and those that run inside a machine: one boot for all of them.
fn lab_tests(filter: Option<&str>) -> Result<()> {
    let built = build::binaries()?;
    say("set up the lab");
    build::run(Command::new(&built.lab).arg("setup"))?;
    say("tests inside a machine");
    let guest = build::guest_tests()?;
    // One boot for all: sh runs the binaries in turn and stops at the first that fails.
    let line: Vec<String> = guest
        .tests
        .iter()
        .map(|binary| {
            let binary = binary.display();
            format!("'{binary}' --include-ignored --test-threads=1 \"$@\"")
        })
        .collect();
    build::run(
        Command::new(&built.lab)
            .args(["run", "--nic", "igb,igb", "--nvme", "vfs=4"])
            .args(["--timeout", "30m", "--env"])
            .arg(format!("VIRTFN={}", guest.virtfn.display()))
            .args(["--", "sh", "-c", &line.join(" && "), "sh"])
            .args(filter),
    )?;
    say("tests of the lab");
    build::run(
        cargo()
            .args(["test", "--package", "lab"])
            .args(filter)
            .args(["--", "--test-threads=1"]),
    )
}

fn say(what: &str) {
    eprintln!("\n=== {what}");
}
