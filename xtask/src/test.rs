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

/// The lab's own tests, and those that run inside machines.
fn lab_tests(filter: Option<&str>) -> Result<()> {
    let built = build::binaries()?;
    say("set up the lab");
    build::run(Command::new(&built.lab).arg("setup"))?;
    say("tests inside machines");
    tests_inside(&built, filter)?;
    say("tests of the lab");
    build::run(
        cargo()
            .args(["test", "--package", "lab"])
            .args(filter)
            .env("VIRTFN", &built.virtfn)
            .env("VIRTFN_CNI", &built.cni)
            .args(["--", "--test-threads=1"]),
    )
}

/// Machines that share the tests. An emulated machine keeps one processor of the host busy half of its
/// time; the other half it waits, mostly in the kernel, which sleeps 1.5 s whenever VFs go away.
const MACHINES: usize = 3;

/// Runs each test inside one of the machines, all of which run at once. The output of the first is
/// shown as it comes, that of the others when they end.
fn tests_inside(built: &build::Built, filter: Option<&str>) -> Result<()> {
    let guest = build::guest_tests()?;
    let mut lines = vec![Vec::new(); MACHINES];
    for binary in &guest.tests {
        let names = names_of(binary, filter)?;
        for (machine, line) in lines.iter_mut().enumerate() {
            line.extend(command_line(binary, &share(&names, machine)));
        }
    }
    let run = |line: &[String]| {
        let mut run = Command::new(&built.lab);
        run.args(["run", "--nic", "igb,igb", "--nvme", "vfs=4"])
            .args(["--timeout", "30m", "--env"])
            .arg(format!("VIRTFN={}", guest.virtfn.display()))
            .arg("--env")
            .arg(format!("VIRTFN_CNI={}", guest.cni.display()))
            // sh runs the binaries in turn and stops at the first that fails.
            .args(["--", "sh", "-c", &line.join(" && ")]);
        run
    };
    let wanted: Vec<_> = lines.iter().filter(|line| !line.is_empty()).collect();
    let Some((first, others)) = wanted.split_first() else {
        return Ok(());
    };
    thread::scope(|scope| {
        let others: Vec<_> = others
            .iter()
            .map(|line| scope.spawn(|| run(line).output()))
            .collect();
        let mut outcome = build::run(&mut run(first));
        for other in others {
            let Ok(output) = other.join() else {
                bail!("a thread that runs a machine panicked");
            };
            let output = output.context("start virtfn-lab")?;
            say("tests inside another machine");
            eprint!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            if !output.status.success() {
                outcome = outcome.and(Err(anyhow!("virtfn-lab run ended with {}", output.status)));
            }
        }
        outcome
    })
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

/// Returns the names of the tests that are for one of the machines.
fn share(names: &[String], machine: usize) -> Vec<&str> {
    let names = names.iter().skip(machine).step_by(MACHINES);
    names.map(String::as_str).collect()
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
            .flat_map(|machine| share(&names, machine))
            .collect();
        shared.sort_unstable();
        assert_eq!(shared, ["a", "b", "c"]);
        assert_eq!(share(&names[..1], 1), [""; 0]);
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
