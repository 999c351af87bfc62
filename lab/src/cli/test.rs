//! `virtfn-lab test`: the tests of cargo test binaries, shared among machines.
//!
//! A few tests of a module are run together, by libtest, in the machine that comes free first. What
//! libtest says is passed on whole when it ends.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, iter, thread};

use anyhow::{Context, Result, ensure};
use clap::Args;

use lab::{Exit, Lab, Machine, Output};

use super::run::{ended, prepared};
use super::session::Session;
use super::topology::{TopologyArgs, parse_time};
use super::ui;

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    topology: TopologyArgs,
    /// Run only tests whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Set a variable for the tests
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// How long a few tests of one module may take
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_time)]
    timeout: Duration,
    /// Test binaries, as `cargo test --no-run` builds them
    #[arg(required = true, value_name = "BINARY")]
    binaries: Vec<PathBuf>,
}

/// Most tests that are run by one call of libtest: with more, one machine would still have a lot to
/// do when the others are done.
const TOGETHER: usize = 4;

/// Tests of one module that are run by one call of libtest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    binary: PathBuf,
    tests: Vec<String>,
}

/// What became of a group.
struct Outcome {
    group: Group,
    /// Where it ran and how long it took, in words.
    ran: String,
    output: Result<Output>,
    /// What was kept of a machine in which tests failed; `None` when they passed.
    logs: Option<Result<PathBuf>>,
}

impl Group {
    /// Runs the tests in a machine, one at a time: they change the host that they run on.
    fn run(&self, machine: &Machine, args: &TestArgs) -> Result<Output> {
        let mut argv: Vec<OsString> = vec![self.binary.clone().into()];
        argv.extend(["--include-ignored", "--test-threads=1", "--exact"].map(OsString::from));
        argv.extend(self.tests.iter().map(OsString::from));
        let session = Session {
            argv,
            env: ui::environment(&args.env, false),
            cwd: std::env::current_dir().ok(),
            terminal: false,
            limit: args.timeout,
        };
        session.command(machine)?.output()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = self.binary.file_name().unwrap_or_default();
        // Cargo adds a number of its own to a binary's name.
        let binary = binary.to_string_lossy();
        let binary = binary.split('-').next().unwrap_or_default();
        f.write_str(binary)?;
        match self.tests.first().and_then(|name| module(name)) {
            Some(module) => write!(f, " {module}"),
            None => Ok(()),
        }
    }
}

/// Runs the tests; status 1 if any fails, after all of them were run.
pub(crate) fn test(args: &TestArgs) -> Result<ExitCode> {
    let mut groups = Vec::new();
    for binary in &args.binaries {
        groups.extend(grouped(binary, &names(binary, args.filter.as_deref())?));
    }
    if groups.is_empty() {
        ui::say("no machine is booted: there is no test of such a name");
        return Ok(ExitCode::SUCCESS);
    }
    longest_first(&mut groups);
    let topology = args.topology.topology()?.apart();
    let (boot, caught) = prepared(&args.topology)?;
    let result = boot.boot(&topology).map(|lab| {
        let passed = run(&lab, groups, args);
        if caught.signal() == 0 {
            lab.power_off();
        }
        Exit::Code(i32::from(!passed))
    });
    ended(&caught, result)
}

/// Returns the names of the tests in a binary that contain `filter`.
fn names(binary: &Path, filter: Option<&str>) -> Result<Vec<String>> {
    let list = Command::new(binary)
        .args(["--list", "--format", "terse"])
        .output()
        .with_context(|| format!("start {}", binary.display()))?;
    ensure!(
        list.status.success(),
        "{} --list ended with {}",
        binary.display(),
        list.status
    );
    let list = String::from_utf8(list.stdout)
        .with_context(|| format!("read the names of tests in {}", binary.display()))?;
    Ok(list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        .map(str::to_owned)
        .collect())
}

/// Puts a few tests of one module together; libtest lists them one after the other.
fn grouped(binary: &Path, names: &[String]) -> Vec<Group> {
    names
        .chunk_by(|one, other| module(one) == module(other))
        .flat_map(|module| module.chunks(TOGETHER))
        .map(|tests| Group {
            binary: binary.to_owned(),
            tests: tests.to_vec(),
        })
        .collect()
}

fn module(name: &str) -> Option<&str> {
    name.rsplit_once("::").map(|(module, _)| module)
}

/// Machines wait for the one that ends last, so what takes long is begun first: tests that kill
/// something at each of its steps.
fn longest_first(groups: &mut [Group]) {
    let kills = |name: &&String| name.contains("kill");
    groups.sort_by_key(|group| Reverse(group.tests.iter().filter(kills).count()));
}

/// Runs all groups and shows what they say; whether all tests passed.
fn run(lab: &Lab, groups: Vec<Group>, args: &TestArgs) -> bool {
    let left = Mutex::new(VecDeque::from(groups));
    let next = || {
        left.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let failed = thread::scope(|scope| {
        let (done, outcomes) = mpsc::channel();
        for machine in lab.machines() {
            let (next, done) = (&next, done.clone());
            scope.spawn(move || work(lab, machine, next, args, &done));
        }
        drop(done);
        outcomes
            .into_iter()
            .filter(|outcome| !show(outcome))
            .map(|outcome| outcome.group)
            .collect::<Vec<_>>()
    });
    failed
        .iter()
        .for_each(|group| ui::say(&format!("{group}: failed")));
    let left: Vec<_> = iter::from_fn(next).collect();
    left.iter()
        .for_each(|group| ui::say(&format!("{group}: not run, no machine is left")));
    failed.is_empty() && left.is_empty()
}

/// Runs one group after the other in a machine, as long as the machine works.
fn work(
    lab: &Lab,
    machine: &Machine,
    next: &dyn Fn() -> Option<Group>,
    args: &TestArgs,
    done: &Sender<Outcome>,
) {
    let mut works = true;
    while works && let Some(group) = next() {
        let begun = Instant::now();
        let output = group.run(machine, args);
        let took = begun.elapsed().as_secs();
        works = output.is_ok();
        let passed = output.as_ref().is_ok_and(|output| output.exit.success());
        let ran = format!("{} in {took} s", machine.name());
        let outcome = Outcome {
            logs: (!passed).then(|| lab.bundle_of(machine, &format!("{group} failed"))),
            group,
            ran,
            output,
        };
        if done.send(outcome).is_err() {
            return;
        }
    }
}

/// Shows what a group said; whether it passed.
fn show(outcome: &Outcome) -> bool {
    let Outcome {
        group, ran, output, ..
    } = outcome;
    ui::say(&format!("{group}: {} tests, {ran}", group.tests.len()));
    if let Some(logs) = &outcome.logs {
        ui::say_logs(logs);
    }
    match output {
        Ok(output) => ui::out(&output.text()),
        Err(error) => ui::say(&format!("{error:#}")),
    }
    outcome.logs.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(tests: &[&str]) -> Group {
        Group {
            binary: "/target/deps/guest-0123".into(),
            tests: tests.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn each_test_is_run_with_a_few_of_its_module() {
        let names = [
            "a::x", "a::y", "b::1", "b::2", "b::3", "b::4", "b::5", "top",
        ];
        let names = names.map(str::to_owned);
        let groups = grouped(Path::new("/target/deps/guest-0123"), &names);
        let four = ["b::1", "b::2", "b::3", "b::4"];
        let expected = [&["a::x", "a::y"][..], &four, &["b::5"], &["top"]];
        assert_eq!(groups, expected.map(group));
        assert_eq!(groups[0].to_string(), "guest a");
    }

    #[test]
    fn tests_that_kill_are_begun_first() {
        let mut groups = [
            group(&["list::x"]),
            group(&["kept::killed", "kept::y"]),
            group(&["kill::x", "kill::y"]),
        ];
        longest_first(&mut groups);
        assert_eq!(
            groups.map(|group| group.tests[0].clone()),
            ["kill::x", "kept::killed", "list::x"]
        );
    }
}
