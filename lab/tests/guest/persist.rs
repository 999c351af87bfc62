//! `virtfn apply --persist`, `--unpersist` and `virtfn status`: what is kept, what is told of it, and
//! that nothing is left behind. That it works across a reboot is `tests/system/reboot.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::*;

/// Where a `virtfn` is installed that may run at boot: not below `/tmp`, and root's alone.
const INSTALLED: &str = "/usr/local/bin/virtfn-under-test";

/// Copies the `virtfn` under test to where a boot finds it, and removes what a test before left.
fn fresh() -> Machine {
    let machine = Machine::fresh();
    let program = std::env::var_os("VIRTFN").expect("$VIRTFN names the virtfn under test");
    if !Path::new(INSTALLED).exists() {
        fs::copy(program, INSTALLED).expect("/usr/local/bin is writable");
        fs::set_permissions(INSTALLED, fs::Permissions::from_mode(0o755)).expect("a mode is set");
    }
    installed(&["apply", "--unpersist"]);
    machine
}

/// Runs the installed `virtfn`, which must succeed, and returns what it wrote to stdout.
#[track_caller]
fn installed(arguments: &[&str]) -> String {
    let output = run_installed(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run_installed(arguments: &[&str]) -> Output {
    Command::new(INSTALLED)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("virtfn starts")
}

/// Every path below the directories that `--persist` writes to, with its mode and content.
fn tree() -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    // Not all of /etc: each file of the host is a round trip.
    let mut open: Vec<std::path::PathBuf> = [
        "/etc/systemd",
        "/etc/udev",
        "/etc/modules-load.d",
        "/etc/modprobe.d",
        "/etc/NetworkManager",
        "/etc/virtfn",
    ]
    .map(Into::into)
    .into();
    for dir in &open {
        tree.insert(dir.display().to_string(), dir.exists().to_string());
    }
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = path.symlink_metadata() else {
                continue;
            };
            let mut what = format!("{:o}", meta.permissions().mode());
            if meta.is_dir() {
                open.push(path.clone());
            } else if meta.is_symlink() {
                what.push_str(&format!(" -> {:?}", fs::read_link(&path).ok()));
            } else if path.to_string_lossy().contains("virtfn") {
                what.push_str(&fs::read_to_string(&path).unwrap_or_default());
            } else {
                what.push_str(&format!(" {}", meta.len()));
            }
            tree.insert(path.to_string_lossy().into_owned(), what);
        }
    }
    tree
}

fn new_paths<'a>(
    before: &BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
) -> Vec<&'a str> {
    let is_new = |path: &&String| !before.contains_key(*path);
    after.keys().filter(is_new).map(String::as_str).collect()
}

#[test]
fn every_trace_is_removed_and_a_second_run_changes_nothing() {
    let machine = fresh();
    let before = tree();
    let file = write_policy(&policy("vfs", PF0, 3, "vfio-pci"));
    installed(&["apply", "-f", &file, "--persist", "--node-label", "rack=a"]);
    let kept = tree();
    let new = new_paths(&before, &kept);
    for path in [
        "/etc/systemd/system/virtfn-pre-network.service",
        "/etc/systemd/system/virtfn-post-network.service",
        "/etc/systemd/system/multi-user.target.wants/virtfn-pre-network.service",
        "/etc/udev/rules.d/10-virtfn.rules",
        "/etc/systemd/network/00-virtfn-vf.network",
        "/etc/modules-load.d/virtfn.conf",
        "/etc/virtfn/vf-settings",
    ] {
        assert!(new.contains(&path), "{path} is not among {new:#?}");
    }
    let again = installed(&["apply", "-f", &file, "--persist", "--node-label", "rack=a"]);
    assert!(again.contains("kept across reboots already"), "{again}");
    assert_eq!(tree(), kept);
    let status = installed(&["status", "--check"]);
    assert!(status.contains("kept across reboots"), "{status}");
    let with_vfs = machine.settled();
    let gone = installed(&["apply", "--unpersist"]);
    assert!(gone.contains("kept no more"), "{gone}");
    assert_eq!(tree(), before);
    assert_eq!(machine.settled(), with_vfs, "VFs stay as they are");
    assert!(installed(&["apply", "--unpersist"]).contains("nothing was kept"));
}

#[test]
fn a_dry_run_installs_and_removes_nothing() {
    fresh();
    let before = tree();
    let file = write_policy(&policy("vfs", PF0, 1, "netdevice"));
    let told = installed(&["apply", "-f", &file, "--persist", "--dry-run"]);
    assert!(
        told.contains("create /etc/systemd/system/virtfn-pre-network.service"),
        "{told}"
    );
    assert_eq!((tree(), num_vfs(PF0).as_str()), (before, "0"));
    installed(&["apply", "-f", &file, "--persist"]);
    let kept = tree();
    let told = installed(&["apply", "--unpersist", "--dry-run"]);
    assert!(
        told.contains("remove /etc/systemd/system/virtfn-pre-network.service"),
        "{told}"
    );
    assert_eq!(tree(), kept);
    installed(&["apply", "--unpersist"]);
}

#[test]
fn killed_anywhere_the_next_run_mends_it() {
    fresh();
    let before = tree();
    let file = write_policy(&policy("vfs", PF0, 2, "netdevice"));
    let keep = ["apply", "-f", file.as_str(), "--persist"];
    installed(&keep);
    let kept = tree();
    let mut deaths = 0;
    // What is kept and forgotten, then the other way round, each killed at every change.
    for (arguments, start, end) in [
        (&keep[..], &["apply", "--unpersist"][..], &kept),
        (&["apply", "--unpersist"][..], &keep[..], &before),
    ] {
        for at in 1.. {
            installed(start);
            let number = at.to_string();
            let killed = run_installed(&[&["--kill-at", number.as_str()], arguments].concat());
            if killed.status.signal() != Some(9) {
                assert!(killed.status.success());
                break;
            }
            deaths += 1;
            let status = installed(&["status"]);
            assert!(
                !status.contains("[file-in-the-way]"),
                "killed at {at}: {status}"
            );
            installed(arguments);
            assert_eq!(&tree(), end, "{arguments:?} killed at {at}");
        }
    }
    assert!(deaths > 15, "only {deaths} places to die at");
    installed(&["apply", "--unpersist"]);
    assert_eq!(tree(), before);
}

#[test]
fn a_file_that_somebody_edited_is_respected_and_told() {
    fresh();
    let file = write_policy(&policy("vfs", PF0, 1, "netdevice"));
    installed(&["apply", "-f", &file, "--persist"]);
    let rules = "/etc/udev/rules.d/10-virtfn.rules";
    fs::write(rules, "# mine\n").expect("/etc is writable");
    let refused = run_installed(&["apply", "-f", &file, "--persist"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(
        told.contains("error[file-in-the-way]") && told.contains(rules),
        "{told}"
    );
    let status = installed(&["status"]);
    assert!(
        status.contains("[file-in-the-way]") && status.contains(rules),
        "{status}"
    );
    let gone = run_installed(&["apply", "--unpersist"]);
    let told = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(gone.status.success() && told.contains(rules), "{told}");
    assert_eq!(fs::read_to_string(rules).expect("it stays"), "# mine\n");
    fs::remove_file(rules).expect("it can be removed");
}

#[test]
fn a_program_that_a_reboot_takes_away_is_refused() {
    fresh();
    let before = tree();
    fs::copy(INSTALLED, "/tmp/virtfn-fleeting").expect("/tmp is writable");
    let file = write_policy(&policy("vfs", PF0, 1, "netdevice"));
    let refused = Command::new("/tmp/virtfn-fleeting")
        .args(["apply", "-f", &file, "--persist"])
        .output()
        .expect("virtfn starts");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("error[not-for-boot]"), "{told}");
    assert_eq!(tree(), before);
    assert_eq!(num_vfs(PF0), "0", "it was applied before it was refused");
}

#[test]
fn drift_is_told_vf_by_vf() {
    let machine = fresh();
    let text = policy("vfs", PF0, 3, "netdevice").replace("  priority", "  mtu: 2000\n  priority");
    let file = write_policy(&text);
    assert_eq!(
        run_installed(&["status", "--check", "-f", &file])
            .status
            .code(),
        Some(3)
    );
    installed(&["apply", "-f", &file, "--persist"]);
    let well = installed(&["status", "--check"]);
    assert!(well.contains(": as wanted"), "{well}");
    run("ip", &["link", "set", &netdev(VF1), "mtu", "1500"]);
    run(
        "ip",
        &["link", "set", &netdev(PF0), "vf", "2", "vlan", "42"],
    );
    let drift = run_installed(&["status", "--check"]);
    let told = String::from_utf8_lossy(&drift.stdout).into_owned();
    assert_eq!(drift.status.code(), Some(3), "{told}");
    for line in [
        "eth0 vf 1: mtu is 1500, wanted 2000",
        "eth0 vf 2: vlan is 42, wanted none",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&installed(&["status", "-o", "json"])).expect("JSON");
    assert_eq!(status["syncStatus"], "Failed");
    let nic = &status["interfaces"][0];
    assert_eq!(
        (&nic["pciAddress"], &nic["numVfs"]),
        (&PF0.into(), &3.into())
    );
    assert_eq!(nic["Vfs"][1]["mtu"], 1500);
    assert_eq!(nic["Vfs"][1]["mac"], machine.vf(VF1)["netdev"]["mac"]);
    // The boot services' own command brings it back.
    installed(&[
        "apply",
        "-f",
        "/etc/virtfn/policies.d",
        "--vf-settings",
        "/etc/virtfn/vf-settings",
    ]);
    installed(&["status", "--check"]);
    let status: serde_json::Value =
        serde_json::from_str(&installed(&["status", "-o", "json"])).expect("JSON");
    assert_eq!(status["syncStatus"], "Succeeded");
    assert_eq!(status.get("lastSyncError"), None);
    installed(&["apply", "--unpersist"]);
}

#[test]
fn what_became_of_a_killed_apply_is_told() {
    let machine = fresh();
    let file = write_policy(&policy("vfs", PF0, 2, "vfio-pci"));
    let killed = run_installed(&["--kill-at", "4", "apply", "-f", &file]);
    assert_eq!(killed.status.signal(), Some(9));
    let status = installed(&["status"]);
    assert!(status.contains("interrupted"), "{status}");
    fs::write("/var/lib/virtfn/journal/apply.jsonl", "\0").expect("the journal is there");
    let status = installed(&["status"]);
    assert!(status.contains("[journal-damaged]"), "{status}");
    machine.apply(&policy("vfs", PF0, 2, "vfio-pci")).ok();
    let status = installed(&["status", "-f", &file]);
    assert!(status.contains("last apply  done"), "{status}");
}
