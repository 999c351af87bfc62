//! Every check and every test, in the order in which they fail fastest.

use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
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
    let clippy = |targets: &[&str]| {
        let mut clippy = cargo();
        clippy.arg("clippy").args(targets);
        build::run(clippy.args(["--all-features", "--", "--deny", "warnings"]))
    };
    clippy(&["--workspace", "--all-targets"])?;
    // Not among all targets, as it is no test of this host.
    clippy(&["--package", "lab", "--test", "guest"])
}

/// Unit, property, golden and documentation tests.
fn host_tests(filter: Option<&str>) -> Result<()> {
    say("tests on this host");
    // INSTA_UPDATE: a golden that is not as it should be fails, and is never rewritten here.
    // PROPTEST_RNG_SEED: the same cases each time; `cargo test` draws others.
    build::run(
        cargo()
            .args(["test", "--workspace", "--exclude", "lab"])
            .args(filter)
            .env("INSTA_UPDATE", "no")
            .env("PROPTEST_RNG_SEED", "1"),
    )
}

/// The lab's own tests, and those that run inside machines, all at once: a machine mostly waits, above
/// all for the kernel, which sleeps 1.5 s whenever VFs of an `igb` go away.
fn lab_tests(filter: Option<&str>) -> Result<()> {
    let built = build::binaries()?;
    let guest = build::guest_tests()?;
    let own = |arguments: &[&str]| {
        let mut test = cargo();
        test.args(["test", "--package", "lab"]).args(arguments);
        test
    };
    build::run(&mut own(&["--no-run"]))?;
    say("set up the lab");
    build::run(Command::new(&built.lab).arg("setup"))?;
    let mut own = own(&[]);
    own.args(filter)
        .env("VIRTFN", &built.virtfn)
        .env("VIRTFN_CNI", &built.cni)
        .args(["--", "--test-threads=1"]);
    beside_each_other(
        ("tests inside machines", inside(&built, &guest, filter)),
        ("tests of the lab", own),
    )
}

/// Runs two commands, each with a name, at the same time. The output of the first is shown as it
/// comes, that of the other when both have ended.
fn beside_each_other(first: (&str, Command), other: (&str, Command)) -> Result<()> {
    let ((name, mut first), (other_name, mut other)) = (first, other);
    thread::scope(|scope| {
        let other = scope.spawn(move || other.output());
        say(name);
        let outcome = build::run(&mut first);
        let Ok(output) = other.join() else {
            bail!("a thread that waits for {other_name} panicked");
        };
        let output = output.with_context(|| format!("start {other_name}"))?;
        say(other_name);
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        outcome?;
        ensure!(
            output.status.success(),
            "{other_name} ended with {}",
            output.status
        );
        Ok(())
    })
}

/// Returns what runs each test inside one of a few machines.
fn inside(built: &build::Built, guest: &build::GuestTests, filter: Option<&str>) -> Command {
    let mut test = Command::new(&built.lab);
    test.args(["test", "--machines", "5"])
        .args(["--nic", "igb,igb", "--nvme", "vfs=4"])
        .arg("--env")
        .arg(format!("VIRTFN={}", guest.virtfn.display()))
        .arg("--env")
        .arg(format!("VIRTFN_CNI={}", guest.cni.display()))
        .args(filter.iter().flat_map(|filter| ["--filter", filter]))
        .args(&guest.tests);
    test
}

fn say(what: &str) {
    eprintln!("\n=== {what}");
}
