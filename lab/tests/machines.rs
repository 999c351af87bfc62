//! The lab tried out with real machines. Most tests share one boot of two machines.
//!
//! They fail, rather than skip, where the lab cannot be set up.

mod support;

use std::time::{Duration, Instant};

use lab::{Exit, TimedOut};
use support::machines;

#[test]
fn a_machine_shows_the_hosts_files_and_keeps_its_own_writes() {
    let machine = &machines()[0];
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert_eq!(machine.read(here).unwrap(), std::fs::read(here).unwrap());
    machine.write(here, b"changed").unwrap();
    assert_eq!(machine.read(here).unwrap(), b"changed");
    assert_ne!(
        std::fs::read(here).unwrap(),
        b"changed",
        "the host's file changed"
    );
    assert_ne!(
        machines()[1].read(here).unwrap(),
        b"changed",
        "the other machine's file changed"
    );
}

#[test]
fn a_machine_has_what_tests_need() {
    let machine = &machines()[1];
    let facts = machine
        .run("hostname; id -u; echo $HOME; findmnt -no FSTYPE /; findmnt -no FSTYPE /sys/fs/cgroup; ls /run | wc -l; cat /sys/class/net/lo/operstate")
        .unwrap()
        .check()
        .unwrap();
    let facts: Vec<&str> = facts.lines().collect();
    assert_eq!(facts[..5], ["lab1", "0", "/root", "overlay", "cgroup2"]);
    machine.run("ping -c1 127.0.0.1 && modprobe 8021q && ethtool -i eth0 && devlink dev && tcpdump --version").unwrap().check().unwrap();
    machine
        .run(
            "test -e /usr/share/misc/pci.ids && test -e /dev/fd && test -d /sys/kernel/debug/block",
        )
        .unwrap()
        .check()
        .unwrap();
}

#[test]
fn devices_are_where_the_recipe_says() {
    let vfs = |address: &str| format!("/sys/bus/pci/devices/{address}/sriov_totalvfs");
    let machine = &machines()[0];
    assert_eq!(machine.read(&vfs("0000:01:00.0")).unwrap(), b"7\n");
    assert_eq!(machine.read(&vfs("0000:02:00.0")).unwrap(), b"7\n");
    assert_eq!(
        machine.read(&vfs("0000:03:00.0")).unwrap(),
        b"4\n",
        "the NVMe controller"
    );
    assert_eq!(
        machine
            .run("cat /sys/class/net/eth0/address")
            .unwrap()
            .check()
            .unwrap(),
        "52:54:00:1a:00:00\n"
    );
    assert_eq!(
        machines()[1]
            .run("cat /sys/class/net/eth1/address")
            .unwrap()
            .check()
            .unwrap(),
        "52:54:00:1a:01:01\n"
    );
}

/// The two NICs of a machine are two wires, and a VLAN on a VF holds across them.
#[test]
fn vfs_of_two_machines_reach_each_other_on_their_wire_and_vlan() {
    for (number, machine) in machines().machines().iter().enumerate() {
        let number = number + 1;
        let script = format!(
            "set -e
             pf=/sys/class/net/eth0; ip link set eth0 up; echo 1 > $pf/device/sriov_numvfs
             for try in $(seq 100); do vf=$(ls $pf/device/virtfn0/net 2>/dev/null) && break; sleep 0.1; done
             ip link set eth0 vf 0 vlan 100
             ip netns add blue; ip link set $vf netns blue name vf0
             ip -n blue addr add 192.0.2.{number}/24 dev vf0; ip -n blue link set vf0 up
             ip link set eth1 up; ip addr add 198.51.100.{number}/24 dev eth1"
        );
        machine.run(&script).unwrap().check().unwrap();
    }
    let first = &machines()[0];
    first
        .run("ip netns exec blue ping -c 1 -w 20 192.0.2.2")
        .unwrap()
        .check()
        .unwrap();
    first
        .run("ping -c 1 -w 20 198.51.100.2")
        .unwrap()
        .check()
        .unwrap();
    machines()[1]
        .run("ip link set eth0 vf 0 vlan 200")
        .unwrap()
        .check()
        .unwrap();
    let lost = first
        .run("ip netns exec blue ping -c 2 -w 3 192.0.2.2")
        .unwrap();
    assert_eq!(
        lost.exit,
        Exit::Code(1),
        "VLAN 100 reached VLAN 200:\n{}",
        lost.text()
    );
    for machine in machines().machines() {
        machine
            .run("ip netns del blue; echo 0 > /sys/class/net/eth0/device/sriov_numvfs")
            .unwrap()
            .check()
            .unwrap();
    }
}

#[test]
fn streams_stay_apart_and_bytes_stay_as_they_are() {
    let machine = &machines()[0];
    let bytes: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let output = machine
        .command(["sh", "-c", "tee /dev/stderr; exit 5"])
        .stdin(&bytes)
        .output()
        .unwrap();
    assert_eq!(output.exit, Exit::Code(5));
    assert!(
        output.stdout == bytes,
        "{} of {} bytes",
        output.stdout.len(),
        bytes.len()
    );
    assert!(
        output.stderr == bytes,
        "{} of {} bytes",
        output.stderr.len(),
        bytes.len()
    );
}

#[test]
fn input_that_is_not_read_does_no_harm() {
    let output = machines()[0]
        .command(["true"])
        .stdin(&vec![0; 4 << 20])
        .output()
        .unwrap();
    assert_eq!(output.exit, Exit::Code(0));
}

#[test]
fn ends_are_told_as_a_shell_would() {
    let machine = &machines()[0];
    for (argv, status) in [
        (vec!["no-such-program"], 127),
        (vec!["/etc"], 126),
        (vec!["sh", "-c", "kill -15 $$"], 143),
        (vec!["false"], 1),
    ] {
        assert_eq!(
            machine.command(&argv).output().unwrap().exit.status(),
            status,
            "{argv:?}"
        );
    }
    let lost = machine
        .command(["true"])
        .cwd("/no/such/directory")
        .output()
        .unwrap();
    assert_eq!(lost.exit.status(), 126, "{lost:?}");
}

#[test]
fn a_command_that_stalls_holds_up_nobody() {
    let machine = &machines()[0];
    // Its output is not taken: it fills its window and waits.
    let flood = machine.command(["yes"]).start().unwrap();
    let deaf = machine.command(["sleep", "600"]).start().unwrap();
    deaf.feed(std::io::repeat(0)).unwrap();
    for _ in 0..3 {
        machine.run("echo still here").unwrap().check().unwrap();
    }
    drop((flood, deaf));
    let deadline = Instant::now() + Duration::from_secs(20);
    while machine
        .run("pgrep -x yes || pgrep -f 'sleep 600$'")
        .unwrap()
        .exit
        .success()
    {
        assert!(Instant::now() < deadline, "abandoned commands still run");
    }
}

#[test]
fn a_command_ends_in_time_and_takes_its_children_along() {
    let machine = &machines()[1];
    let started = Instant::now();
    let result = machine
        .command(["sh", "-c", "sleep 601; true"])
        .limit(Duration::from_secs(1))
        .output();
    assert!(result.unwrap_err().is::<TimedOut>());
    assert!(started.elapsed() < Duration::from_secs(30));
    let deadline = Instant::now() + Duration::from_secs(20);
    while machine.run("pgrep -f 'sleep 601$'").unwrap().exit.success() {
        assert!(Instant::now() < deadline, "the child still runs");
    }
}

#[test]
fn a_daemon_may_stay_behind_and_orphans_are_reaped() {
    let machine = &machines()[1];
    let output = machine
        .run("sleep 602 & echo started; (sleep 0.1 &)")
        .unwrap();
    assert_eq!(
        (output.exit, output.stdout.as_slice()),
        (Exit::Code(0), &b"started\n"[..])
    );
    machine
        .run("pgrep -f 'sleep 602$'; pkill -f 'sleep 602$'")
        .unwrap()
        .check()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while machine
        .run("grep -l '^State:.Z' /proc/[0-9]*/status")
        .unwrap()
        .exit
        .success()
    {
        assert!(Instant::now() < deadline, "zombies stay");
    }
}

#[test]
fn a_terminal_is_one() {
    let machine = &machines()[0];
    let output = machine
        .command(["sh", "-c", "tty; stty size; exit 4"])
        .terminal((33, 101))
        .output()
        .unwrap();
    assert_eq!(output.exit, Exit::Code(4));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "/dev/pts/0\r\n33 101\r\n"
    );
}

/// A test binary of the host runs inside as it is, libtest and all.
#[test]
fn a_cargo_test_binary_runs_inside() {
    let this = std::env::current_exe().unwrap();
    let this = this.to_str().unwrap();
    let output = machines()[0]
        .command([this, "--list"])
        .output()
        .unwrap()
        .check()
        .unwrap();
    assert!(
        output.contains("a_cargo_test_binary_runs_inside: test"),
        "{output}"
    );
}

#[test]
fn a_bundle_tells_the_state() {
    let dir = machines().bundle("a test asked for it").unwrap();
    let state = std::fs::read_to_string(dir.join("lab1/state.txt")).unwrap();
    assert!(state.contains("0000:01:00.0 0x8086:0x10c9"), "{state}");
    assert!(
        std::fs::read_to_string(dir.join("lab0/serial.log"))
            .unwrap()
            .contains("Linux version")
    );
    std::fs::remove_dir_all(dir).unwrap();
}
