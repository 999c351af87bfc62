//! What goes wrong while policies are applied: full disks, damaged files, drivers and devices that are
//! not there, and other processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;

/// A directory that is mounted for as long as the value lives.
struct Tmpfs(&'static str);

impl Tmpfs {
    fn new(at: &'static str, size: &str) -> Self {
        fs::create_dir_all(at).expect("a directory can be made");
        run("mount", &["-t", "tmpfs", "-o", size, "tmpfs", at]);
        Self(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg(self.0).output();
    }
}

/// A default route through a PF, for as long as the value lives.
struct DefaultRoute(String);

impl DefaultRoute {
    fn through(name: &str) -> Self {
        run("ip", &["link", "set", name, "up"]);
        run("ip", &["address", "add", "192.0.2.2/24", "dev", name]);
        run(
            "ip",
            &[
                "route",
                "add",
                "default",
                "via",
                "192.0.2.1",
                "metric",
                "4711",
            ],
        );
        Self(name.to_owned())
    }
}

impl Drop for DefaultRoute {
    fn drop(&mut self) {
        let _gone = Command::new("ip")
            .args(["address", "flush", "dev", &self.0])
            .output();
    }
}

#[test]
fn the_pf_with_the_default_route_is_kept_off() {
    Machine::fresh();
    let route = DefaultRoute::through(&netdev(PF0));
    let file = write_policy(&policy("vfs", PF0, 2, "netdevice"));
    let plan = virtfn(&["plan", "-f", &file]).ok().stderr();
    assert!(plan.contains("--allow-default-route"), "{plan}");
    virtfn(&["apply", "-f", &file]).refused(
        4,
        &["error[pf-carries-route]", PF0, "the IPv4 default route"],
    );
    assert_eq!(num_vfs(PF0), "0");
    let other = write_policy(&policy("vfs", PF1, 2, "netdevice"));
    virtfn(&["apply", "-f", &other]).ok();
    let file = write_policy(&policy("vfs", PF0, 2, "netdevice"));
    virtfn(&["apply", "--allow-default-route", "-f", &file]).ok();
    assert_eq!(num_vfs(PF0), "2");
    drop(route);
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let machine = Machine::fresh();
    let before = machine.settled();
    let disk = Tmpfs::new("/tmp/full", "size=64k,nr_inodes=32");
    fs::create_dir_all("/tmp/full/run/lock").expect("there is room for directories");
    // The last page is taken, so that files can be made and nothing written to them.
    let filled = fs::write("/tmp/full/ballast", vec![1; 1 << 20]);
    assert!(filled.is_err(), "the disk is not full");
    let file = write_policy(&policy("vfs", PF0, 2, "netdevice"));
    let arguments = ["--state-dir", disk.0, "apply", "-f", &file];
    virtfn(&arguments).refused(1, &["error[state-full]", "/tmp/full", "free space"]);
    assert_eq!(machine.settled(), before);
    fs::remove_file("/tmp/full/ballast").expect("the ballast is there");
    virtfn(&arguments).ok();
    assert_eq!(num_vfs(PF0), "2");
}

#[test]
fn a_disk_that_fills_up_at_any_point_leaves_all_or_nothing() {
    Machine::fresh();
    let disk = Tmpfs::new("/tmp/filling", "size=128k,nr_inodes=64");
    let file = write_policy(&policy("vfs", PF0, 2, "vfio-pci"));
    let arguments = ["--state-dir", disk.0, "apply", "-f", &file];
    // From a disk without a free page to one with room for all, page by page.
    for free in 0..32 {
        for name in ["journal", "ledger", "pf"] {
            let _may_be_absent = fs::remove_dir_all(format!("{}/{name}", disk.0));
        }
        fs::create_dir_all(format!("{}/run/lock", disk.0)).expect("there is room for directories");
        let ballast = format!("{}/ballast", disk.0);
        let _all_that_fits = fs::write(&ballast, vec![1; 128 << 10]);
        let file = fs::OpenOptions::new().write(true).open(&ballast);
        let file = file.expect("it was written");
        let filled = file.metadata().expect("it is there").len();
        file.set_len(filled.saturating_sub(free * 4096))
            .expect("it can be cut");
        let outcome = virtfn(&arguments);
        fs::remove_file(&ballast).expect("it was written above");
        if outcome.code() == Some(0) {
            assert_eq!(num_vfs(PF0), "2", "{free} pages free");
            assert!(
                !outcome.stderr().contains("warning"),
                "{}",
                outcome.stderr()
            );
            assert!(free > 0, "the disk was never full");
            return;
        }
        outcome.refused(1, &["error[state-full]", disk.0, "free space"]);
        assert_eq!(num_vfs(PF0), "0", "{free} pages free");
        let record = format!("/etc/sriov-operator/pci/{PF0}");
        assert!(!Path::new(&record).exists(), "{free} pages free");
    }
    panic!("128 KiB are not enough");
}

#[test]
fn a_state_directory_that_is_read_only_is_named_and_nothing_is_changed() {
    let machine = Machine::fresh();
    let before = machine.settled();
    let disk = Tmpfs::new("/tmp/read-only", "size=1m");
    fs::create_dir_all("/tmp/read-only/run/lock").expect("it is writable yet");
    let file = write_policy(&policy("vfs", PF0, 2, "netdevice"));
    run("mount", &["-o", "remount,ro", disk.0]);
    let arguments = ["--state-dir", disk.0, "apply", "-f", &file];
    virtfn(&arguments).refused(1, &["error[state-not-accessible]", disk.0, "help:"]);
    assert_eq!(machine.settled(), before);
    run("mount", &["-o", "remount,rw", disk.0]);
    virtfn(&arguments).ok();
    assert_eq!(num_vfs(PF0), "2");
}

#[test]
fn a_driver_that_never_makes_a_netdev_is_told_after_a_deadline() {
    let machine = Machine::fresh();
    let forbid = "/etc/modprobe.d/virtfn-test.conf";
    fs::create_dir_all("/etc/modprobe.d").expect("/etc is writable");
    fs::write(forbid, "install igbvf /bin/false\n").expect("/etc is writable");
    run("modprobe", &["-r", "igbvf"]);
    run("modprobe", &["pci-pf-stub"]);
    // A driver of the kernel's own that takes the VFs and does nothing with them.
    let stub = "/sys/bus/pci/drivers/pci-pf-stub";
    fs::write(format!("{stub}/new_id"), "8086 10ca").expect("a driver takes ids");
    let outcome = machine.apply(&policy("vfs", PF0, 4, "netdevice"));
    fs::write(format!("{stub}/remove_id"), "8086 10ca").expect("a driver gives ids back");
    fs::remove_file(forbid).expect("it was written above");
    let outcome = outcome.refused(1, &["error[no-netdev]", "vf 0 (0000:01:10.0)", "dmesg"]);
    let stderr = outcome.stderr();
    // The first is waited for; those that had as long by then are only looked at.
    assert_eq!(
        stderr.matches("no netdev appeared within").count(),
        1,
        "{stderr}"
    );
    assert_eq!(
        stderr.matches("no netdev appeared either").count(),
        3,
        "{stderr}"
    );
    assert_eq!(num_vfs(PF0), "4");
    let status = virtfn(&["status"]).ok().stdout();
    assert!(
        status.contains("failed") && status.contains("no netdev"),
        "{status}"
    );
    set_num_vfs(PF0, 0);
    run("modprobe", &["-r", "pci-pf-stub"]);
    run("modprobe", &["igbvf"]);
    machine.apply(&policy("vfs", PF0, 4, "netdevice")).ok();
    assert_eq!(machine.vf(VF1)["driver"], "igbvf");
}

#[test]
fn a_driver_that_does_not_exist_is_told_and_takes_nothing_away() {
    let machine = Machine::with_vfs(2);
    let told = ["error[no-driver]", "vf 0 (0000:01:10.0)", "no-such-driver"];
    let outcome = machine
        .apply(&node_state("no-such-driver"))
        .refused(1, &told);
    assert!(!outcome.stderr().contains("vf 1 ("), "{}", outcome.stderr());
    assert_eq!(
        machine.vf(VF0)["driver"],
        "igbvf",
        "its driver was taken away"
    );
    assert_eq!(machine.vf(VF1)["driver"], "vfio-pci");
    machine.apply(&node_state("netdevice")).ok();
}

#[test]
fn files_that_cannot_be_believed_are_kept_aside_and_told() {
    let machine = Machine::fresh();
    let text = policy("vfs", PF0, 2, "netdevice");
    machine.apply(&text).ok();
    let journal = Path::new("/var/lib/virtfn/journal/apply.jsonl");
    let record = format!("/etc/sriov-operator/pci/{PF0}");
    fs::write(journal, "\0\0\0").expect("the journal is there");
    fs::write(&record, "{\"pciAddress\":").expect("the record is there");
    let stderr = machine.apply(&text).ok().stderr();
    assert!(
        stderr.contains("apply.jsonl") && stderr.contains(&record),
        "{stderr}"
    );
    assert!(Path::new(&format!("{record}.damaged")).exists());
    assert!(journal.with_extension("damaged").exists());
    let written = fs::read_to_string(&record).expect("there is a new record");
    assert!(written.contains("\"numVfs\":2"), "{written}");
    fs::create_dir_all("/var/lib/virtfn/ledger").expect("/var is writable");
    fs::write(format!("/var/lib/virtfn/ledger/{VF0}.json"), "no record").expect("/var is writable");
    let stderr = machine.apply(&text).ok().stderr();
    assert!(stderr.contains(VF0), "{stderr}");
    assert_eq!(machine.vf(VF0)["holder"], serde_json::Value::Null);
}

#[test]
fn a_second_apply_waits_and_says_for_whom() {
    Machine::fresh();
    fs::create_dir_all("/run/virtfn/lock").expect("/run is writable");
    let mut first = Command::new("flock")
        .args(["/run/virtfn/lock/apply", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("flock starts");
    eventually("the lock to be taken", || {
        let free = Command::new("flock")
            .args(["-n", "/run/virtfn/lock/apply", "true"])
            .status();
        free.is_ok_and(|status| !status.success())
    });
    let file = write_policy(&policy("vfs", PF0, 2, "netdevice"));
    let mut apply = virtfn_command(&["apply", "-f", &file]);
    let mut apply = apply.stderr(Stdio::piped()).spawn().expect("virtfn starts");
    let said = BufReader::new(apply.stderr.take().expect("it is piped"));
    let mut lines = said.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("another virtfn works on apply")));
    drop(first.stdin.take());
    first.wait().expect("flock ends");
    let rest: Vec<_> = lines.collect();
    assert!(apply.wait().expect("virtfn ends").success(), "{rest:?}");
    assert_eq!(num_vfs(PF0), "2");
}

#[test]
fn a_driver_that_cannot_be_loaded_stops_only_its_own_vfs() {
    let machine = Machine::fresh();
    let pf = netdev(PF0);
    let part = |name: &str, range: &str, driver: &str| {
        policy(name, PF0, 4, driver).replace(
            &format!("rootDevices: [\"{PF0}\"]"),
            &format!("pfNames: [\"{pf}#{range}\"]"),
        )
    };
    let parts = format!(
        "{}---\n{}",
        part("kernel", "0-1", "netdevice"),
        part("user", "2-3", "vfio-pci")
    );
    let forbid = "/etc/modprobe.d/virtfn-test.conf";
    fs::create_dir_all("/etc/modprobe.d").expect("/etc is writable");
    fs::write(forbid, "install igbvf /bin/false\n").expect("/etc is writable");
    run("modprobe", &["-r", "igbvf"]);
    let outcome = machine.apply(&parts);
    fs::remove_file(forbid).expect("it was written above");
    let outcome = outcome.refused(1, &["vf 0 (0000:01:10.0)", "vf 1 (0000:01:10.2)", "help:"]);
    assert!(!outcome.stderr().contains("vf 2 ("), "{}", outcome.stderr());
    assert_eq!(num_vfs(PF0), "4");
    assert_eq!(machine.vf("0000:01:10.4")["driver"], "vfio-pci");
    assert_eq!(machine.vf("0000:01:10.6")["driver"], "vfio-pci");
    machine.apply(&parts).ok();
    assert_eq!(machine.vf(VF0)["driver"], "igbvf");
}

/// Removes the second NIC when an apply has begun to give it VFs, and brings it back afterwards.
fn remove_pf1_during_apply(file: &str) -> std::process::Output {
    Machine::fresh();
    let apply = virtfn_command(&["apply", "-f", file])
        .spawn()
        .expect("virtfn starts");
    eventually("the first VF of the second NIC", || {
        pci(PF1).join("virtfn0").exists()
    });
    fs::write(pci(PF1).join("remove"), "1").expect("a function can be removed");
    let output = apply.wait_with_output().expect("virtfn ends");
    fs::write("/sys/bus/pci/rescan", "1").expect("the bus can be scanned");
    eventually("the function to come back", || {
        netdev_or_none(PF1).is_some()
    });
    output
}

#[test]
fn a_pf_that_vanishes_in_the_middle_stops_nobody_else() {
    let both = policy_for_all(7, "netdevice");
    let file = write_policy(&both);
    // The kernel removes the NIC once its VFs are made; an apply can be through by then.
    let output = (0..10)
        .map(|_round| remove_pf1_during_apply(&file))
        .find(|output| !output.status.success())
        .expect("one of ten applies is in the middle");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(output.status.signal(), None);
    assert!(
        stderr.contains(PF1) && stderr.contains("error["),
        "{stderr}"
    );
    assert_eq!(num_vfs(PF0), "7", "{stderr}");
    virtfn(&["apply", "-f", &file]).ok();
    assert_eq!(num_vfs(PF1), "7");
}
