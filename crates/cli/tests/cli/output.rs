//! What every command promises of its streams, its help and its exit status.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::Stdio;

use crate::{command, recording, virtfn};

#[test]
fn help_is_what_it_was() {
    let mut all = virtfn(&["--help"]).out;
    let listed = all.clone();
    let commands = listed
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    for name in commands.filter(|name| *name != "help") {
        all.push_str(&format!("\n$ virtfn {name} --help\n"));
        all.push_str(&virtfn(&[name, "--help"]).out);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let tree = recording("ice");
    let mut child = command(&["list", "-o", "json", "--recorded", &tree])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{err}");
    assert!(!err.contains("panic") && !err.contains("error"), "{err}");
}

#[test]
fn a_full_disk_is_an_error() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(&["list", "--recorded", &recording("ice")])
        .stdout(full)
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("error[output-not-written]"), "{err}");
    assert!(err.contains("No space left on device"), "{err}");
}

#[test]
fn a_pipe_gets_no_colour_and_a_locale_without_utf_8_no_box() {
    let tree = recording("mlx5-legacy");
    let ran = virtfn(&["topology", "--recorded", &tree]);
    assert!(!ran.out.contains('\x1b') && ran.out.contains('╭'));
    let output = command(&["topology", "--recorded", &tree])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.stdout.is_ascii());
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = virtfn(&["completions", shell]).out;
        assert!(script.contains("topology"), "{shell}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = virtfn(&["--version"]).out;
    assert_eq!(version, format!("virtfn {}\n", env!("CARGO_PKG_VERSION")));
}
