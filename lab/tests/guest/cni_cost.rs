//! What an ADD costs, counted and not timed: messages, forced writes, system calls.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::cni_support::*;
use crate::support::*;

/// Netlink messages of an ADD with a VLAN and without IPAM: the PF and the VF are looked at, the VLAN is
/// set, and one message moves, names and sets up.
const MESSAGES: usize = 4;

/// System calls of the C library, its loader and Rust's runtime before the first of ours; without the
/// loader, as it is shipped, there are 32.
const BEFORE_OURS: usize = 90;

/// System calls in all, but for what test builds and emulated clocks add: checks of descriptors, and
/// the time.
const ALL: usize = 189;

/// The same of a VFIO device.
const ALL_OF_DEVICE: usize = 170;

/// Makes an ADD and returns its system calls, one a line.
fn traced(more: &serde_json::Value) -> Vec<String> {
    // A VF is looked for on both buses, which other tests may have brought up or not.
    run("modprobe", &["--all", "ib_core", "vdpa"]);
    let add = call("ADD", "c1", "/run/netns/blue", &sriov(more));
    // The first one makes directories.
    add.make().ok();
    call("DEL", "c1", "/run/netns/blue", &sriov(more))
        .make()
        .ok();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-s", "512", "-o", "/tmp/trace"]);
    strace.arg(format!("{BIN}/sriov"));
    let child = add.start_as(strace);
    let output = child.wait_with_output().expect("strace ends");
    Answer { output }.ok();
    let trace = fs::read_to_string("/tmp/trace").expect("strace wrote");
    let is_added = |line: &&str| line.contains("fcntl(") || line.contains("clock_gettime(");
    let lines = trace.lines().filter(|line| !is_added(line));
    lines.map(str::to_owned).collect()
}

fn with_text<'a>(trace: &'a [String], text: &str) -> Vec<&'a String> {
    trace.iter().filter(|line| line.contains(text)).collect()
}

#[test]
fn an_add_costs_no_more_than_it_did() {
    let _machine = Machine::with_vfs(7);
    let _blue = Namespace::new("blue");
    let trace = traced(&json!({"vlan": 9}));
    let all = trace.join("\n");
    assert!(trace.len() <= ALL, "{} system calls:\n{all}", trace.len());
    assert_eq!(with_text(&trace, "sendto(").len(), MESSAGES, "{all}");
    // The record and its directory, before the first change; what comes after is void after a power cut.
    assert_eq!(with_text(&trace, "fsync(").len(), 2, "{all}");
    let line_of = |text: &str| trace.iter().rposition(|line| line.contains(text));
    let first_change = trace.iter().position(|line| line.contains("RTM_SETLINK"));
    assert!(line_of("fsync(") < first_change, "{all}");
    // The PF is asked for its VFs once, and not for statistics, which some read from their firmware.
    let asked = with_text(&trace, "RTEXT_FILTER_VF");
    assert_eq!(asked.len(), 1, "{all}");
    assert!(asked[0].contains("RTEXT_FILTER_SKIP_STATS"), "{asked:?}");
    // The record is looked for once and written once; a line behind it says that it is confirmed.
    let record = format!("ledger/{VF0}.json\"");
    let opened: Vec<_> = with_text(&trace, &record);
    let opened = opened.iter().filter(|line| line.contains("open"));
    let how: Vec<_> = opened.map(|line| line.contains("O_APPEND")).collect();
    assert_eq!(how, [false, true], "{all}");
    // No thread, and no look at other VFs or at other processes.
    assert_eq!(with_text(&trace, "clone").len(), 0, "{all}");
    assert_eq!(
        with_text(&trace, VF1).len(),
        1,
        "only the PF's link:\n{all}"
    );
    // What waits while others change interfaces is not read.
    assert_eq!(with_text(&trace, "/speed").len(), 0, "{all}");
    assert_eq!(with_text(&trace, "phys_switch_id").len(), 0, "{all}");
}

#[test]
fn a_call_begins_without_detours() {
    let _machine = Machine::with_vfs(1);
    let _blue = Namespace::new("blue");
    let trace = traced(&json!({}));
    let all = trace.join("\n");
    let first = trace.iter().position(|line| line.contains("read(0,"));
    let first = first.expect("it reads its configuration");
    assert!(
        first <= BEFORE_OURS,
        "{first} system calls before ours:\n{all}"
    );
    let opened = with_text(&trace[..first], "open");
    let of_loader = ["/proc/self/maps", ".so", "/etc/ld.so.cache"];
    let is_known = |line: &&String| of_loader.iter().any(|path| line.contains(path));
    assert!(
        opened.iter().copied().all(|line| is_known(&line)),
        "{opened:?}"
    );
}

#[test]
fn an_idle_device_is_given_without_a_look_at_processes() {
    let _machine = Machine::with_vfs(1);
    bind(VF0, "vfio-pci");
    let _blue = Namespace::new("blue");
    let trace = traced(&json!({"vlan": 9}));
    let all = trace.join("\n");
    let looked = trace.iter().filter(|line| {
        let is_other = line.contains("proc/") && line.contains("/fd");
        is_other && line.contains("open")
    });
    assert_eq!(looked.count(), 0, "{all}");
    assert_eq!(with_text(&trace, "/enable").len(), 1, "{all}");
    let most = ALL_OF_DEVICE;
    assert!(trace.len() <= most, "{} system calls:\n{all}", trace.len());
}
