//! Every check and every test, in the order in which they fail fastest.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
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
    build::run(
        cargo()
            .args(["test", "--workspace", "--exclude", "lab"])
            .args(filter)
            .env("INSTA_UPDATE", "no"),
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
    let mut lanes = inside(&built, &guest, filter)?;
    let mut own = own(&[]);
    own.args(filter)
        .env("VIRTFN", &built.virtfn)
        .env("VIRTFN_CNI", &built.cni)
        .args(["--", "--test-threads=1"]);
    lanes.push(("tests of the lab".to_owned(), own));
    beside_each_other(lanes)
}

/// Something to run, and what it is called.
type Lane = (String, Command);

/// Runs commands at the same time. The output of the first is shown as it comes, that of the others
/// when they end.
fn beside_each_other(lanes: Vec<Lane>) -> Result<()> {
    let mut lanes = lanes.into_iter();
    let Some((name, mut first)) = lanes.next() else {
        return Ok(());
    };
    thread::scope(|scope| {
        let others: Vec<_> = lanes
            .map(|(name, mut other)| (name, scope.spawn(move || other.output())))
            .collect();
        say(&name);
        let mut outcome = build::run(&mut first);
        for (name, other) in others {
            let Ok(output) = other.join() else {
                bail!("a thread that waits for {name} panicked");
            };
            let output = output.with_context(|| format!("start {name}"))?;
            say(&name);
            eprint!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            if !output.status.success() {
                outcome = outcome.and(Err(anyhow!("{name} ended with {}", output.status)));
            }
        }
        outcome
    })
}

/// Machines that share the tests.
const MACHINES: usize = 3;

/// Returns what runs each test inside one of the machines.
fn inside(
    built: &build::Built,
    guest: &build::GuestTests,
    filter: Option<&str>,
) -> Result<Vec<Lane>> {
    let mut lines = vec![Vec::new(); MACHINES];
    // Goes on where the binary before stopped: one with a single test is not always the first machine's.
    let mut next = 0;
    for binary in &guest.tests {
        let names = names_of(binary, filter)?;
        for (machine, line) in lines.iter_mut().enumerate() {
            line.extend(command_line(binary, &share(&names, next, machine)));
        }
        next += names.len();
    }
    let lines = lines.iter().filter(|line| !line.is_empty());
    let lane = |(number, line): (usize, &Vec<String>)| {
        let mut run = Command::new(&built.lab);
        run.args(["run", "--nic", "igb,igb", "--nvme", "vfs=4"])
            .args(["--timeout", "30m", "--env"])
            .arg(format!("VIRTFN={}", guest.virtfn.display()))
            .arg("--env")
            .arg(format!("VIRTFN_CNI={}", guest.cni.display()))
            // sh runs the binaries in turn and stops at the first that fails.
            .args(["--", "sh", "-c", &line.join(" && ")]);
        (format!("tests inside machine {number}"), run)
    };
    Ok(lines.enumerate().map(lane).collect())
}

/// Returns the names of the tests in a binary that contain `filter`.
fn names_of(binary: &Path, filter: Option<&str>) -> Result<Vec<String>> {
    let output = Command::new(binary)
        .args(["--list", "--format", "terse"])
        .output()
        .with_context(|| format!("start {}", binary.display()))?;
    ensure!(
        output.status.success(),
        "{} --list ended with {}",
        binary.display(),
        output.status
    );
    let names = String::from_utf8(output.stdout).context("read names of tests")?;
    Ok(names
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .map(str::to_owned)
        .collect())
}

/// Returns the names of the tests that are for one of the machines; the first is for machine `first`,
/// or as many machines further as there are.
fn share(names: &[String], first: usize, machine: usize) -> Vec<&str> {
    let numbered = (first..).zip(names);
    numbered
        .filter(|(number, _)| number % MACHINES == machine)
        .map(|(_, name)| name.as_str())
        .collect()
}

/// Returns the line of shell that runs some tests of a binary, if there are any.
fn command_line(binary: &Path, names: &[&str]) -> Option<String> {
    // Names of tests are Rust paths; the binary's own path is quoted.
    (!names.is_empty()).then(|| {
        format!(
            "'{}' --include-ignored --test-threads=1 --exact {}",
            binary.display(),
            names.join(" ")
        )
    })
}

fn say(what: &str) {
    eprintln!("\n=== {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_runs_in_one_machine() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let mut shared: Vec<&str> = (0..MACHINES)
            .flat_map(|machine| share(&names, 5, machine))
            .collect();
        shared.sort_unstable();
        assert_eq!(shared, ["a", "b", "c"]);
        assert_eq!(share(&names[..1], 0, 1), [""; 0]);
        assert_eq!(share(&names[..1], MACHINES + 1, 1), ["a"]);
    }

    #[test]
    fn a_binary_without_tests_for_a_machine_is_not_run_there() {
        assert_eq!(command_line(Path::new("/x"), &[]), None);
        assert_eq!(
            command_line(Path::new("/a b"), &["kill::x", "list::y"]).as_deref(),
            Some("'/a b' --include-ignored --test-threads=1 --exact kill::x list::y")
        );
    }
}
