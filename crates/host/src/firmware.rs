//! Firmware settings of NICs: asked and written with the vendor's own tool.
//!
//! What is needed is decided in [`policy::vendor::mellanox`]. Only NICs that lack something are asked,
//! because an answer takes up to five seconds. What would surprise: with Secure Boot the kernel locks
//! firmware away from tools; the settings can then only be made elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Code, Desired, Explain, Inventory, PciAddress};
use policy::Owned;
use policy::vendor::Invocation;
use policy::vendor::mellanox::{
    FirmwareChange, FirmwareReport, firmware_reset, is_locked_down, lacking, query, unwanted,
};

use crate::program::{Call, ProgramError, Programs, find};
use crate::root::HostRoot;

/// `mstconfig` takes about five seconds, and more while another tool has the NIC.
const PATIENCE: Duration = Duration::from_secs(60);

/// The settings of a NIC could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareToolError {
    /// The kernel does not let tools reach firmware.
    #[error("the kernel is locked down, so no tool can reach the firmware of {nic}")]
    LockedDown {
        /// The NIC.
        nic: PciAddress,
    },
    /// The tool is not there.
    #[error("this host has no {program}")]
    NoTool {
        /// The tool.
        program: &'static str,
    },
    /// The tool failed.
    #[error(transparent)]
    Tool(#[from] ProgramError),
    /// The tool said something else than its settings.
    #[error(transparent)]
    Report(#[from] policy::vendor::mellanox::ParseReportError),
}

impl Explain for FirmwareToolError {
    fn code(&self) -> Code {
        match self {
            Self::LockedDown { .. } => Code::new("kernel-locked-down"),
            Self::NoTool { .. } => Code::new("no-firmware-tool"),
            Self::Tool(error) => error.code(),
            Self::Report(_) => Code::new("firmware-report-not-understood"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::LockedDown { .. } => Some(
                "set SRIOV_EN and NUM_OF_VFS in the firmware's set-up, or from a system without \
                 Secure Boot"
                    .to_owned(),
            ),
            Self::NoTool { program } => Some(format!(
                "install {program} (package mstflint), or run the command elsewhere"
            )),
            Self::Tool(error) => error.remedy(),
            Self::Report(_) => Some("update mstflint".to_owned()),
        }
    }
}

/// Asks the firmware of each NIC that lacks something of what is wanted, and of those that were
/// configured and are wanted no more.
///
/// Why one could not be asked is a text beside the others' answers.
pub fn see_firmware(
    root: &HostRoot,
    seen: &Inventory,
    wanted: &Desired,
    owned: &BTreeMap<PciAddress, Owned>,
    programs: &mut dyn Programs,
) -> BTreeMap<PciAddress, Result<FirmwareReport, String>> {
    let lacking = lacking(seen, wanted).into_iter().map(|nic| nic.nic);
    lacking
        .chain(unwanted(seen, wanted, owned))
        .map(|nic| {
            let answer = ask(root, nic, programs).map_err(|error| error.to_string());
            (nic, answer)
        })
        .collect()
}

/// Makes the firmware of a NIC read its settings now, which some needs although a reboot follows. All its
/// links go down meanwhile, and it must have no VFs.
pub fn reset_firmware(
    root: &HostRoot,
    nic: PciAddress,
    programs: &mut dyn Programs,
) -> Result<(), FirmwareToolError> {
    run(root, nic, &firmware_reset(nic), programs).map(drop)
}

/// Writes settings; nothing is run when there are none to write.
pub fn write_firmware(
    root: &HostRoot,
    change: &FirmwareChange,
    programs: &mut dyn Programs,
) -> Result<(), FirmwareToolError> {
    match change.command() {
        Some(command) => run(root, change.nic, &command, programs).map(drop),
        None => Ok(()),
    }
}

fn ask(
    root: &HostRoot,
    nic: PciAddress,
    programs: &mut dyn Programs,
) -> Result<FirmwareReport, FirmwareToolError> {
    let said = run(root, nic, &query(nic), programs)?;
    Ok(FirmwareReport::parse(&String::from_utf8_lossy(&said))?)
}

fn run(
    root: &HostRoot,
    nic: PciAddress,
    command: &Invocation,
    programs: &mut dyn Programs,
) -> Result<Vec<u8>, FirmwareToolError> {
    let lockdown = root.read_text("/sys/kernel/security/lockdown");
    if lockdown.is_ok_and(|lockdown| is_locked_down(&lockdown)) {
        return Err(FirmwareToolError::LockedDown { nic });
    }
    let program = command.program;
    let path = find(root, program).ok_or(FirmwareToolError::NoTool { program })?;
    let arguments: Vec<&str> = command.arguments.iter().map(String::as_str).collect();
    let call = Call {
        program: &path,
        arguments: &arguments,
        deadline: PATIENCE,
    };
    Ok(programs.run(&call)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fixtures::{inventory, mlx5, parsed};
    use model::PfDesired;

    use super::*;

    const REPORT: &str = "\
Configurations:                              Default         Current         Next Boot
         NUM_OF_VFS                          0               8               8
         SRIOV_EN                            False(0)        True(1)         True(1)
";

    /// Says what a NIC says, and notes what it was asked.
    #[derive(Default)]
    struct Told(Vec<String>);

    impl Programs for Told {
        fn run(&mut self, call: &Call<'_>) -> Result<Vec<u8>, ProgramError> {
            self.0
                .push(format!("{} {}", call.program, call.arguments.join(" ")));
            Ok(REPORT.as_bytes().to_vec())
        }
    }

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, HostRoot) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = HostRoot::open(dir.path()).unwrap();
        (dir, root)
    }

    fn wanted(num_vfs: u16) -> Desired {
        let pf = PfDesired {
            pf: parsed("0000:3b:00.0"),
            name: None,
            num_vfs,
            mtu: None,
            link_type: None,
            eswitch: None,
            externally_managed: false,
            groups: Vec::new(),
        };
        Desired {
            pfs: [(pf.pf, pf)].into(),
            ..Desired::default()
        }
    }

    #[test]
    fn only_a_nic_that_lacks_something_is_asked_and_told() {
        let (_dir, root) = machine(&[("usr/bin/mstconfig", "")]);
        let seen = inventory([mlx5("0000:3b:00.0", "ens1").facts(|facts| facts.total_vfs = 8)]);
        let mut told = Told::default();
        assert!(see_firmware(&root, &seen, &wanted(8), &BTreeMap::new(), &mut told).is_empty());
        let firmware = see_firmware(&root, &seen, &wanted(16), &BTreeMap::new(), &mut told);
        let known = policy::Circumstances {
            firmware,
            ..policy::Circumstances::default()
        };
        let decision = policy::decide(&seen, &wanted(16), &known);
        let change = decision.firmware[0].change.clone().unwrap();
        write_firmware(&root, &change, &mut told).unwrap();
        insta::assert_snapshot!(told.0.join("\n"), @r"
        /usr/bin/mstconfig -e -d 0000:3b:00.0 query
        /usr/bin/mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=16
        ");
    }

    #[test]
    fn firmware_that_cannot_be_reached_is_told_with_the_reason() {
        let seen = inventory([mlx5("0000:3b:00.0", "ens1").facts(|facts| facts.total_vfs = 0)]);
        let why = |files: &[(&str, &str)]| {
            let (_dir, root) = machine(files);
            let mut told = Told::default();
            let mut firmware = see_firmware(&root, &seen, &wanted(4), &BTreeMap::new(), &mut told);
            assert!(told.0.is_empty());
            firmware.pop_first().unwrap().1.unwrap_err()
        };
        assert_eq!(why(&[]), "this host has no mstconfig");
        let locked = [
            ("usr/bin/mstconfig", ""),
            (
                "sys/kernel/security/lockdown",
                "none [integrity] confidentiality\n",
            ),
        ];
        insta::assert_snapshot!(why(&locked), @"the kernel is locked down, so no tool can reach the firmware of 0000:3b:00.0");
    }

    #[test]
    fn a_nic_that_nobody_wants_any_more_stops_offering_vfs_unless_somebody_else_has_it() {
        let (_dir, root) = machine(&[("usr/bin/mstconfig", ""), ("usr/bin/mstfwreset", "")]);
        let seen = inventory([
            mlx5("0000:3b:00.0", "ens1").with_vfs(2),
            mlx5("0000:3b:00.1", "ens2"),
        ]);
        let owned = |externally_managed| {
            let owned = Owned {
                externally_managed,
                ..Owned::default()
            };
            BTreeMap::from([(parsed("0000:3b:00.1"), owned)])
        };
        let nothing = Desired::default();
        let mut told = Told::default();
        assert!(see_firmware(&root, &seen, &nothing, &owned(true), &mut told).is_empty());
        // The other port is wanted, and the firmware is that of both.
        assert!(see_firmware(&root, &seen, &wanted(2), &owned(false), &mut told).is_empty());
        assert_eq!(told.0, [""; 0]);
        let known = policy::Circumstances {
            firmware: see_firmware(&root, &seen, &nothing, &owned(false), &mut told),
            owned: owned(false),
            ..policy::Circumstances::default()
        };
        let decision = policy::decide(&seen, &nothing, &known);
        assert!(decision.firmware[0].is_given_back && decision.reboots().is_empty());
        let change = decision.firmware[0].change.clone().unwrap();
        write_firmware(&root, &change, &mut told).unwrap();
        reset_firmware(&root, change.nic, &mut told).unwrap();
        insta::assert_snapshot!(told.0.join("\n"), @r"
        /usr/bin/mstconfig -e -d 0000:3b:00.0 query
        /usr/bin/mstconfig -d 0000:3b:00.0 -y set SRIOV_EN=False NUM_OF_VFS=0
        /usr/bin/mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset
        ");
    }
}
