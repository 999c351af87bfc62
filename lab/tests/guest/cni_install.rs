//! The plugin installs itself as the init container of an operator: everything is read-only but the
//! directory of plugins that is mounted into it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::*;

/// Where upstream's images have the host's directory.
const MOUNTED: &str = "/host/opt/cni/bin";

/// The host's directory.
const DIR: &str = "/tmp/opt-cni-bin";

/// Runs the program in a mount namespace in which only [`MOUNTED`] can be written.
fn in_container(arguments: &str) -> Output {
    for dir in [MOUNTED, DIR] {
        fs::create_dir_all(dir).expect("the machine's root is writable");
    }
    let program = std::env::var("VIRTFN_CNI").expect("$VIRTFN_CNI names the plugin under test");
    let line = format!(
        "set -e; mount --bind {DIR} {MOUNTED}; mount -o remount,bind,ro /; \
         ! touch /tmp/probe 2>/dev/null; exec {program} {arguments}"
    );
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &line])
        .output()
        .expect("unshare starts")
}

#[track_caller]
fn installed(arguments: &str) -> Vec<String> {
    empty(&[DIR]);
    let output = in_container(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments}: {told}");
    let names = fs::read_dir(DIR).expect("it is there").flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Calls an installed plugin.
fn tells_its_versions(name: &str) -> bool {
    let output = Command::new(Path::new(DIR).join(name))
        .env("CNI_COMMAND", "VERSION")
        .output()
        .expect("it can be started");
    String::from_utf8_lossy(&output.stdout).contains("supportedVersions")
}

#[test]
fn an_operators_init_container_installs_all_three() {
    assert_eq!(installed("--no-sleep"), ["ib-sriov", "rdma", "sriov"]);
    for name in ["ib-sriov", "rdma", "sriov"] {
        assert!(tells_its_versions(name), "{name}");
    }
}

#[test]
fn upstreams_flags_name_one_plugin_each() {
    let dir = format!("--cni-bin-dir={MOUNTED} --no-sleep");
    for (flag, name) in [
        ("--sriov-bin-file=/usr/bin/sriov", "sriov"),
        ("--ib-sriov-cni-bin-file=/usr/bin/ib-sriov", "ib-sriov"),
        ("--rdma-cni-bin-file /usr/bin/rdma", "rdma"),
    ] {
        assert_eq!(installed(&format!("{flag} {dir}")), [name]);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let output = in_container("install /opt --no-sleep");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("/opt/sriov"), "{told}");
    assert!(told.contains("Read-only"), "{told}");
}

#[test]
fn a_plugin_can_be_started_at_any_instant_of_an_install() {
    assert_eq!(installed("--no-sleep").len(), 3);
    std::thread::scope(|scope| {
        let installs = scope.spawn(|| {
            for _ in 0..5 {
                assert!(in_container("--no-sleep").status.success());
            }
        });
        let mut calls = 0;
        while !installs.is_finished() || calls < 20 {
            assert!(tells_its_versions("sriov"), "call {calls}");
            calls += 1;
        }
    });
}
