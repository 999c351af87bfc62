//! The tools are stand-ins that note what they were asked, on a host where files say that they exist.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use fixtures::{inventory, mlx5, parsed};
use host::{Call, ProgramError, ProgramFault};
use model::{IfName, PfDesired};
use policy::vendor::mellanox::FirmwareReport;
use policy::{Circumstances, Purpose, UplinkUse, decide};

use super::*;
use crate::testing::spoken;

const NIC: &str = "0000:3b:00.0";
const BOTH: &[&str] = &["usr/bin/mstconfig", "usr/bin/mstfwreset"];

/// Says what goes wrong.
type Why = fn() -> ProgramFault;

/// Notes what it was asked; the one that is to fail does.
#[derive(Default)]
struct StandIn {
    asked: Vec<String>,
    fails: Option<(&'static str, Why)>,
}

impl Programs for StandIn {
    fn run(&mut self, call: &Call<'_>) -> Result<Vec<u8>, ProgramError> {
        let command = format!("{} {}", call.program, call.arguments.join(" "));
        self.asked.push(command.clone());
        match self.fails {
            Some((program, why)) if call.program.ends_with(program) => {
                let fault = why();
                Err(ProgramError { command, fault })
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// What the firmware says of its number of VFs: now, and after the next boot.
fn need(now: u16, next_boot: u16) -> FirmwareNeed {
    let report = format!(
        "\
Configurations:                              Default         Current         Next Boot
         NUM_OF_VFS                          0               {now}               {next_boot}
         SRIOV_EN                            False(0)        True(1)         True(1)
"
    );
    let pf = PfDesired {
        pf: parsed(NIC),
        name: None,
        num_vfs: 16,
        mtu: None,
        link_type: None,
        eswitch: None,
        externally_managed: false,
        groups: Vec::new(),
    };
    let wanted = model::Desired {
        pfs: [(pf.pf, pf)].into(),
        ..model::Desired::default()
    };
    let seen = inventory([mlx5(NIC, "ens1").facts(|facts| facts.total_vfs = now)]);
    let known = Circumstances {
        firmware: [(parsed(NIC), Ok(FirmwareReport::parse(&report).unwrap()))].into(),
        ..Circumstances::default()
    };
    decide(&seen, &wanted, &known).firmware.remove(0)
}

/// How it went: what was asked, what was said, whether all is well, and how many reboots are asked for.
struct Went {
    asked: String,
    said: String,
    all_well: bool,
    reboots: usize,
}

fn run(files: &[&str], need: &FirmwareNeed, programs: &mut StandIn, needed: Option<&str>) -> Went {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let file = dir.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    let root = HostRoot::open(dir.path()).unwrap();
    let (mut reasons, mut all_well) = (Vec::new(), false);
    let (_, said) = spoken(|ui| {
        let mut tools = Tools {
            root: &root,
            programs,
            may_write: true,
            may_reset: true,
            why_not: &mut |_, _| Ok(needed.map(str::to_owned)),
        };
        all_well = tools.see_to(need, &mut reasons, ui);
    });
    Went {
        asked: programs.asked.join("\n"),
        said,
        all_well,
        reboots: reasons.len(),
    }
}

fn broken() -> ProgramFault {
    ProgramFault::Failed(ExitStatus::from_raw(1 << 8), "-E- cannot open".to_owned())
}

fn failing(program: &'static str, why: Why) -> StandIn {
    StandIn {
        fails: Some((program, why)),
        ..StandIn::default()
    }
}

#[test]
fn a_nic_is_reset_once_its_settings_are_written() {
    let went = run(BOTH, &need(8, 8), &mut StandIn::default(), None);
    insta::assert_snapshot!(went.asked, @"
    /usr/bin/mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=16
    /usr/bin/mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset
    ");
    insta::assert_snapshot!(went.said, @"
    firmware written: mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=16
    firmware of NIC 0000:3b:00.0 reset
    ");
    assert!(went.all_well);
    assert_eq!(went.reboots, 1, "a reset does not save the reboot");
}

#[test]
fn settings_that_only_wait_for_the_next_boot_are_not_written_again() {
    let went = run(BOTH, &need(8, 16), &mut StandIn::default(), None);
    insta::assert_snapshot!(went.asked, @"/usr/bin/mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset");
    assert!(went.all_well && went.reboots == 1);
}

#[test]
fn settings_that_could_not_be_written_are_no_reason_for_a_reset() {
    let mut tools = failing("mstconfig", broken);
    let went = run(BOTH, &need(8, 8), &mut tools, None);
    insta::assert_snapshot!(went.asked, @"/usr/bin/mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=16");
    insta::assert_snapshot!(went.said, @"
    error[program-failed]: `/usr/bin/mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=16` failed with exit status: 1: -E- cannot open
    help: run `/usr/bin/mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=16` by hand to see why
    ");
    assert!(!went.all_well && went.reboots == 0);
}

#[test]
fn a_nic_that_somebody_needs_is_not_reset() {
    let went = run(
        BOTH,
        &need(8, 8),
        &mut StandIn::default(),
        Some("PF ens1 has VFs"),
    );
    assert!(!went.asked.contains("mstfwreset"), "{}", went.asked);
    insta::assert_snapshot!(went.said, @"
    firmware written: mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=16
    warning: NIC 0000:3b:00.0 is not reset: PF ens1 has VFs
    ");
    assert!(went.all_well && went.reboots == 1);
}

#[test]
fn a_reset_that_fails_is_told_and_leaves_the_reboot() {
    let late = || ProgramFault::Late(Duration::from_secs(60));
    let mut said = Vec::new();
    for (files, mut tools) in [
        (&BOTH[..1], StandIn::default()),
        (BOTH, failing("mstfwreset", broken)),
        (BOTH, failing("mstfwreset", late)),
    ] {
        let went = run(files, &need(8, 8), &mut tools, None);
        assert!(went.all_well && went.reboots == 1);
        said.extend(
            went.said
                .lines()
                .filter(|line| line.contains("reset"))
                .map(str::to_owned),
        );
    }
    insta::assert_snapshot!(said.join("\n"), @"
    warning: NIC 0000:3b:00.0 is not reset: this host has no mstfwreset; install mstfwreset (package mstflint), or run the command elsewhere
    warning: NIC 0000:3b:00.0 is not reset: `/usr/bin/mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset` failed with exit status: 1: -E- cannot open; run `/usr/bin/mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset` by hand to see why
    warning: NIC 0000:3b:00.0 is not reset: `/usr/bin/mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset` did not end within 60 s; run `/usr/bin/mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset` by hand to see why
    ");
}

#[test]
fn a_nic_is_needed_while_a_port_has_vfs_or_carries_the_default_route() {
    let ports = |vfs| {
        inventory([
            mlx5(NIC, "ens1"),
            mlx5("0000:3b:00.1", "ens2").with_vfs(vfs),
        ])
    };
    let route = |interface: &str| UplinkFacts {
        uses: vec![UplinkUse {
            purpose: Purpose::DefaultRouteV4,
            interface: parsed::<IfName>(interface),
        }],
        ..UplinkFacts::default()
    };
    let who = |vfs, uplinks: Option<&UplinkFacts>| who_needs(&ports(vfs), parsed(NIC), uplinks);
    assert_eq!(who(0, Some(&route("ens9"))), None);
    insta::assert_snapshot!(who(2, None).unwrap(), @"PF ens2 (0000:3b:00.1) has VFs");
    insta::assert_snapshot!(who(0, Some(&route("ens2"))).unwrap(), @"PF ens2 (0000:3b:00.1) carries the IPv4 default route, and would have no link meanwhile");
    assert_eq!(who(0, None), None, "--allow-default-route");
}
