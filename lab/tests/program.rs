//! `virtfn-lab` as a program: statuses, signals, and what it leaves behind. Each test boots.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may panic as tests may"
)]

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// One lab at a time: they share two processors.
static TURN: Mutex<()> = Mutex::new(());

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtfn-lab"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts a lab whose command says `started` and waits, and returns its QEMU too.
fn start_waiting(arguments: &[&str]) -> (Child, Vec<u32>) {
    let command = ["--", "sh", "-c", "echo started; sleep 600"];
    let mut child = lab(&[arguments, &command].concat()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    if line != "started\n" {
        let mut complaint = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut complaint)
            .unwrap();
        panic!("{line:?} {complaint}");
    }
    let machines = children(child.id());
    assert!(!machines.is_empty(), "no QEMU below {}", child.id());
    (child, machines)
}

fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let is_dead = status.lines().any(|line| line.starts_with("State:\tZ"));
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))?
        .parse()
        .ok()?;
    (!is_dead).then_some(parent)
}

fn send(child: &Child, signal: Signal) {
    kill_process(
        Pid::from_raw(child.id().try_into().unwrap()).unwrap(),
        signal,
    )
    .unwrap();
}

#[track_caller]
fn check_gone(machines: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Some(pid) = machines.iter().find(|pid| parent_of(**pid).is_some()) {
        assert!(Instant::now() < deadline, "QEMU {pid} still runs");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Files of the cache that come and go; what set-up fetched stays.
fn leftovers() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cache = std::env::var_os("VIRTFN_LAB_CACHE")
        .or_else(|| {
            std::env::var_os("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("virtfn").into())
        })
        .map_or_else(|| Path::new(&home).join(".cache/virtfn"), PathBuf::from);
    let mut found: Vec<_> = std::fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

fn check_status(output: &Output, status: i32) {
    assert_eq!(
        output.status.code(),
        Some(status),
        "stdout {}\nstderr {}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// The directory with logs of a failure, as a message names it.
fn named_bundle(errors: &str) -> &Path {
    let bundle = errors
        .lines()
        .find_map(|line| line.split_once("machines are in "));
    Path::new(bundle.expect("a bundle is named").1)
}

#[test]
fn run_passes_streams_and_status_and_names_the_bundle_of_a_failure() {
    let _turn = TURN.lock();
    let script = "cat; echo complaint >&2; echo $GREETING $PATH; pwd; exit 7";
    let mut child = lab(&["run", "-e", "GREETING=hi", "--", "sh", "-c", script])
        .env("PATH", "/opt/own/bin")
        .stdin(Stdio::piped())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"input\n").unwrap();
    let output = child.wait_with_output().unwrap();
    check_status(&output, 7);
    assert_eq!(
        text(&output.stdout),
        format!(
            "input\nhi /opt/own/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n{}\n",
            env!("CARGO_MANIFEST_DIR")
        )
    );
    let errors = text(&output.stderr);
    assert!(errors.contains("complaint\n"), "{errors}");
    let bundle = named_bundle(&errors);
    assert!(bundle.join("lab0/serial.log").exists() && bundle.join("lab0/state.txt").exists());
    std::fs::remove_dir_all(bundle).unwrap();
}

#[test]
fn run_on_all_names_the_lines_and_returns_the_first_failure() {
    let _turn = TURN.lock();
    let script = "hostname; test $(hostname) != lab2";
    let output = lab(&[
        "run",
        "-m",
        "3",
        "--mem",
        "512",
        "--on",
        "all",
        "--no-bundle",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let output = { output }.output().unwrap();
    check_status(&output, 1);
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["lab0| lab0", "lab1| lab1", "lab2| lab2"]);
}

#[test]
fn tests_are_shared_among_machines_and_all_run_although_one_fails() {
    let _turn = TURN.lock();
    // What `test` asks of a cargo test binary.
    let script = r#"#!/bin/sh
case "$*" in
  --list*) printf '%s: test\n' list::a1 list::a2 kill::a3 kill::b;;
  *) echo "$GREETING $*"; case "$*" in *kill*) exit 101;; esac;;
esac
"#;
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("guest-0123");
    std::fs::write(&binary, script).unwrap();
    std::fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
    let output = lab(&["test", "-m", "2", "-e", "GREETING=hi", "--filter", ":a"])
        .arg(&binary)
        .output()
        .unwrap();
    check_status(&output, 1);
    let said = text(&output.stdout);
    let mut said: Vec<_> = said.lines().collect();
    said.sort_unstable();
    let options = "hi --include-ignored --test-threads=1 --exact";
    let expected = ["kill::a3", "list::a1 list::a2"].map(|tests| format!("{options} {tests}"));
    assert_eq!(said, expected);
    let errors = text(&output.stderr);
    assert!(errors.contains("guest kill: failed"), "{errors}");
    assert!(!errors.contains("guest list: failed"), "{errors}");
    std::fs::remove_dir_all(named_bundle(&errors)).unwrap();
}

#[test]
fn time_and_signals_end_a_run_and_leave_nothing() {
    let _turn = TURN.lock();
    let before = leftovers();
    let output = lab(&[
        "run",
        "--no-bundle",
        "--timeout",
        "1s",
        "--",
        "sleep",
        "600",
    ])
    .output()
    .unwrap();
    check_status(&output, 124);
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (mut child, machines) = start_waiting(&["run"]);
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(status));
        check_gone(&machines);
    }
    assert_eq!(leftovers(), before);
}

#[test]
fn a_killed_lab_takes_its_machines_along() {
    let _turn = TURN.lock();
    let before = leftovers();
    let (mut child, machines) = start_waiting(&["run", "-m", "2"]);
    assert_eq!(machines.len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    check_gone(&machines);
    assert_eq!(leftovers(), before);
}

#[test]
fn a_kernel_panic_is_reported_at_once() {
    let _turn = TURN.lock();
    let started = Instant::now();
    let output = lab(&[
        "run",
        "--no-bundle",
        "--",
        "sh",
        "-c",
        "echo c > /proc/sysrq-trigger",
    ])
    .output()
    .unwrap();
    check_status(&output, 125);
    let errors = text(&output.stderr);
    assert!(
        errors.contains("its kernel panicked: sysrq triggered crash"),
        "{errors}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(300),
        "it took {:?}",
        started.elapsed()
    );
}

#[test]
fn a_boot_that_fails_is_told_with_the_kernels_reason() {
    let _turn = TURN.lock();
    let output = lab(&["run", "--append", "rdinit=/nothing", "--", "true"])
        .output()
        .unwrap();
    check_status(&output, 125);
    let errors = text(&output.stderr);
    assert!(
        errors.contains("lab0 ended while it booted")
            && errors.contains("its kernel panicked: VFS"),
        "{errors}"
    );
}

/// Takes a lab down, whatever became of the test.
struct Down(String);

impl Drop for Down {
    fn drop(&mut self) {
        lab(&["down", "--name", &self.0]).output().ok();
    }
}

#[test]
fn kept_machines_keep_their_state_and_a_killed_keeper_is_noticed() {
    let _turn = TURN.lock();
    let name = format!("test-{}", std::process::id());
    let _down = Down(name.clone());
    let with_name = |verb: &'static str, more: &[&str]| {
        lab(&[&[verb, "--name", &name], more].concat())
            .output()
            .unwrap()
    };
    check_status(&with_name("exec", &["--", "true"]), 125);
    check_status(&with_name("up", &[]), 0);
    check_status(&with_name("up", &[]), 125);
    check_status(
        &with_name("exec", &["--", "sh", "-c", "echo kept > /tmp/state"]),
        0,
    );
    assert_eq!(
        text(&with_name("exec", &["--", "cat", "/tmp/state"]).stdout),
        "kept\n"
    );
    check_status(&with_name("exec", &["--", "sh", "-c", "kill -9 $$"]), 137);
    check_status(&with_name("exec", &["-m", "1", "--", "true"]), 125);

    // Programs are replaced between commands, as a build does; these two have the same size.
    let program = std::env::temp_dir().join(format!("virtfn-{name}"));
    for (built, status) in [("/bin/true", 0), ("/bin/false", 1), ("/bin/true", 0)] {
        let new = program.with_extension("new");
        std::fs::copy(built, &new).unwrap();
        std::fs::rename(&new, &program).unwrap();
        check_status(
            &with_name("exec", &["--", program.to_str().unwrap()]),
            status,
        );
    }
    std::fs::remove_file(&program).unwrap();
    check_status(&with_name("exec", &["--", program.to_str().unwrap()]), 127);

    let listed = text(&lab(&["list"]).output().unwrap().stdout);
    let line = listed
        .lines()
        .find(|line| line.starts_with(&name))
        .expect("it is listed");
    let (keeper, dir) = line
        .split_once("process ")
        .map(|(_, rest)| rest.trim_start().split_once(' ').unwrap())
        .unwrap();
    let keeper: u32 = keeper.parse().unwrap();
    let dir = Path::new(dir.split_whitespace().last().unwrap()).to_owned();
    let machines = children(keeper);
    assert_eq!(machines.len(), 1, "{listed}");
    kill_process(
        Pid::from_raw(keeper.try_into().unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    check_gone(&machines);
    assert!(dir.exists(), "a killed keeper cannot clean up");
    assert!(!text(&lab(&["list"]).output().unwrap().stdout).contains(&name));
    assert!(!dir.exists(), "nobody cleaned up");

    check_status(&with_name("up", &[]), 0);
    check_status(&with_name("down", &[]), 0);
    assert!(!dir.exists(), "down left its directory");
}

#[test]
fn bad_usage_is_said_before_anything_boots() {
    for (arguments, said) in [
        (
            &["run", "--nic", "e1000", "--", "true"][..],
            "is not a NIC such as igb",
        ),
        (&["run", "-m", "0", "--", "true"], "0 machines"),
        (
            &["run", "--on", "4", "--", "true"],
            "--on 4: there are 1 machines",
        ),
        (
            &["run", "--kernel", "/nowhere", "--", "true"],
            "--kernel and --modules belong together",
        ),
        (
            &["run", "--qemu", "/bin/true", "--", "true"],
            "has no igb device",
        ),
        (
            &["run", "--timeout", "soon", "--", "true"],
            "not a time such as",
        ),
        (&["up", "--name", "../x"], "is no name for a lab"),
    ] {
        let started = Instant::now();
        let output = lab(arguments).output().unwrap();
        assert!(
            matches!(output.status.code(), Some(2 | 125)),
            "{arguments:?}: {}",
            output.status
        );
        assert!(
            text(&output.stderr).contains(said),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(started.elapsed() < Duration::from_secs(5), "{arguments:?}");
    }
}
