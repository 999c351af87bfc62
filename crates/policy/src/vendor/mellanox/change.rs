//! What to write into the firmware, and whether it takes a reboot.

use std::fmt;

use model::{Code, Explain, LinkType, PciAddress, RebootReason};

use super::{FirmwareReport, FirmwareSettings, Invocation, PortLink, WantedNic, query};

/// How closely the firmware's `NUM_OF_VFS` and `SRIOV_EN` follow what is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// More is fine: what is there already costs nothing.
    #[default]
    Enough,
    /// As upstream has it: any difference is removed, with a reboot.
    Exact,
}

/// One setting to write, as `mstconfig set` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `SRIOV_EN`.
    Sriov(bool),
    /// `NUM_OF_VFS`.
    NumVfs(u32),
    /// `LINK_TYPE_P1` for port 0; the link is Ethernet or else InfiniBand.
    Link {
        /// Index of the port.
        port: usize,
        /// Is it Ethernet?
        ethernet: bool,
    },
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sriov(on) => write!(f, "SRIOV_EN={}", if *on { "True" } else { "False" }),
            Self::NumVfs(count) => write!(f, "NUM_OF_VFS={count}"),
            Self::Link { port, ethernet } => {
                let link = if *ethernet { "ETH" } else { "IB" };
                write!(f, "LINK_TYPE_P{}={link}", port + 1)
            }
        }
    }
}

/// What is to be done about the firmware of one NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareChange {
    /// The NIC.
    pub nic: PciAddress,
    /// What to write; empty when the next boot brings what is wanted.
    pub settings: Vec<Setting>,
    /// The settings that the firmware must start anew for, whether they are to be written or are
    /// there already; empty when what is wanted is in force.
    pub pending: Vec<Setting>,
}

impl FirmwareChange {
    /// Is what is wanted in force, and stays so?
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.settings.is_empty() && self.pending.is_empty()
    }

    /// Returns what writes the settings; `None` when there are none.
    #[must_use]
    pub fn command(&self) -> Option<Invocation> {
        if self.settings.is_empty() {
            return None;
        }
        let mut command = Invocation::new("mstconfig", ["-d", &self.nic.to_string(), "-y", "set"]);
        let settings = self.settings.iter().map(ToString::to_string);
        command.arguments.extend(settings);
        Some(command)
    }

    /// Returns why a reboot is needed.
    #[must_use]
    pub fn reboot(&self) -> Option<RebootReason> {
        if self.pending.is_empty() {
            return None;
        }
        let settings: Vec<_> = self.pending.iter().map(ToString::to_string).collect();
        Some(RebootReason::Firmware(format!(
            "{} of {}",
            settings.join(" "),
            self.nic
        )))
    }

    /// Notes that `setting` is wanted, which `current` and `next` say whether they have.
    fn want(&mut self, setting: Setting, is_current: bool, is_next: bool) {
        if !is_current {
            self.pending.push(setting);
        }
        if !is_next {
            self.settings.push(setting);
        }
    }
}

/// The firmware of a NIC cannot be what policies want.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("firmware of NIC {nic}: {problem}")]
pub struct FirmwareError {
    /// The NIC.
    pub nic: PciAddress,
    /// Why not.
    pub problem: FirmwareProblem,
}

/// Why the firmware of a NIC cannot be what policies want.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareProblem {
    /// The NIC's own CPU is in charge.
    #[error("the NIC is a DPU whose own CPU is in charge of it")]
    DpuMode,
    /// The firmware has no such setting.
    #[error("it has no setting {0}")]
    NoSetting(&'static str),
    /// The link layer of a port cannot be chosen.
    #[error("the link type of port {} cannot be set, and is not {wanted}", port + 1)]
    FixedLink {
        /// Index of the port.
        port: usize,
        /// What is wanted.
        wanted: LinkType,
    },
    /// The link layer of a port is set to something that says nothing.
    #[error("port {} is set to neither Ethernet nor InfiniBand", port + 1)]
    UnknownLink {
        /// Index of the port.
        port: usize,
    },
    /// A link layer was wanted that no port can have.
    #[error("{pf} cannot have link type {wanted}")]
    UnsupportedLink {
        /// The function.
        pf: PciAddress,
        /// What is wanted.
        wanted: LinkType,
    },
    /// It cannot be told which port a function is on.
    #[error("it cannot be told on which port {pf} is")]
    UnknownPort {
        /// The function.
        pf: PciAddress,
    },
    /// Two functions of one port want different link layers.
    #[error("port {} is wanted with two link types", port + 1)]
    TwoLinks {
        /// Index of the port.
        port: usize,
    },
    /// Somebody else configures the NIC, and has not given what is wanted.
    #[error("{missing} is wanted, but the NIC is externally managed")]
    External {
        /// The first setting that is missing.
        missing: Setting,
    },
}

impl Explain for FirmwareError {
    fn code(&self) -> Code {
        Code::new(match self.problem {
            FirmwareProblem::DpuMode => "firmware-dpu-mode",
            FirmwareProblem::NoSetting(_) => "firmware-no-setting",
            FirmwareProblem::FixedLink { .. }
            | FirmwareProblem::UnknownLink { .. }
            | FirmwareProblem::UnsupportedLink { .. }
            | FirmwareProblem::UnknownPort { .. }
            | FirmwareProblem::TwoLinks { .. } => "firmware-link-type",
            FirmwareProblem::External { .. } => "externally-managed",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match &self.problem {
            FirmwareProblem::DpuMode => {
                "put the NIC into NIC mode, or leave it out of the policies".to_owned()
            }
            FirmwareProblem::NoSetting(_) => {
                format!(
                    "update the firmware; `{}` shows its settings",
                    query(self.nic)
                )
            }
            FirmwareProblem::FixedLink { .. }
            | FirmwareProblem::UnknownLink { .. }
            | FirmwareProblem::UnsupportedLink { .. }
            | FirmwareProblem::UnknownPort { .. } => {
                "leave out linkType of the policy, or set the port by hand".to_owned()
            }
            FirmwareProblem::TwoLinks { .. } => {
                "give the policies of both functions the same linkType".to_owned()
            }
            FirmwareProblem::External { missing } => format!(
                "set {missing} where the NIC is managed, or leave out externallyManaged of the policy"
            ),
        })
    }
}

/// Decides what to do about the firmware of a NIC.
pub fn change(
    wanted: &WantedNic,
    report: &FirmwareReport,
    fit: Fit,
) -> Result<FirmwareChange, FirmwareError> {
    let found = decide(wanted, report, fit);
    found.map_err(|problem| FirmwareError {
        nic: wanted.nic,
        problem,
    })
}

/// Returns what would be written if the firmware had nothing of what is wanted, for when its settings
/// cannot be told.
pub fn guessed_change(wanted: &WantedNic) -> Result<FirmwareChange, FirmwareError> {
    let nothing = FirmwareSettings {
        num_vfs: Some(0),
        sriov: Some(false),
        links: [None; 2],
        ..FirmwareSettings::default()
    };
    let has = |port: usize| {
        let seen = wanted.ports.iter().find(|it| it.port == Some(port))?.seen?;
        Some(match seen {
            LinkType::Ethernet => PortLink::Ethernet,
            LinkType::InfiniBand => PortLink::InfiniBand,
            LinkType::Other(_) => PortLink::Other,
        })
    };
    let nothing = FirmwareSettings {
        links: [has(0), has(1)],
        ..nothing
    };
    let report = FirmwareReport {
        current: nothing.clone(),
        next: nothing,
    };
    change(wanted, &report, Fit::Enough)
}

/// Returns what takes SR-IOV back from a NIC that nobody wants VFs of any more, as upstream does:
/// at the next boot, without asking for one.
#[must_use]
pub fn give_back(nic: PciAddress, report: &FirmwareReport) -> FirmwareChange {
    let next = &report.next;
    let is_off = next.sriov != Some(true) && next.num_vfs.unwrap_or(0) == 0;
    // A DPU that is in charge of itself is not the host's to change.
    if is_off || report.current.internal_cpu.is_in_charge() {
        return FirmwareChange {
            nic,
            settings: Vec::new(),
            pending: Vec::new(),
        };
    }
    guessed_give_back(nic)
}

/// Returns what would be written if SR-IOV was on, for when the settings cannot be told.
#[must_use]
pub fn guessed_give_back(nic: PciAddress) -> FirmwareChange {
    FirmwareChange {
        nic,
        settings: vec![Setting::Sriov(false), Setting::NumVfs(0)],
        pending: Vec::new(),
    }
}

fn decide(
    wanted: &WantedNic,
    report: &FirmwareReport,
    fit: Fit,
) -> Result<FirmwareChange, FirmwareProblem> {
    let mut change = FirmwareChange {
        nic: wanted.nic,
        settings: Vec::new(),
        pending: Vec::new(),
    };
    vfs(&mut change, wanted, report, fit)?;
    links(&mut change, wanted, report)?;
    if change.is_nothing() {
        return Ok(change);
    }
    if report.current.internal_cpu.is_in_charge() {
        return Err(FirmwareProblem::DpuMode);
    }
    if wanted.externally_managed {
        // What only the next boot takes away is for who manages the NIC.
        return match change.pending.first() {
            Some(missing) => Err(FirmwareProblem::External { missing: *missing }),
            None => Ok(FirmwareChange {
                settings: Vec::new(),
                ..change
            }),
        };
    }
    Ok(change)
}

fn vfs(
    change: &mut FirmwareChange,
    wanted: &WantedNic,
    report: &FirmwareReport,
    fit: Fit,
) -> Result<(), FirmwareProblem> {
    let count = u32::from(wanted.num_vfs);
    if count == 0 && (fit == Fit::Enough || wanted.externally_managed) {
        return Ok(());
    }
    let FirmwareReport { current, next } = report;
    let number = |settings: &FirmwareSettings| match settings.num_vfs {
        Some(has) if fit == Fit::Enough || wanted.externally_managed => Ok(has >= count),
        Some(has) => Ok(has == count),
        None => Err(FirmwareProblem::NoSetting("NUM_OF_VFS")),
    };
    let sriov = |settings: &FirmwareSettings| match settings.sriov {
        Some(on) => Ok(on == (count > 0)),
        None => Err(FirmwareProblem::NoSetting("SRIOV_EN")),
    };
    change.want(Setting::Sriov(count > 0), sriov(current)?, sriov(next)?);
    change.want(Setting::NumVfs(count), number(current)?, number(next)?);
    Ok(())
}

fn links(
    change: &mut FirmwareChange,
    wanted: &WantedNic,
    report: &FirmwareReport,
) -> Result<(), FirmwareProblem> {
    let mut links: [Option<bool>; 2] = [None; 2];
    let mut fits = [false; 2];
    for port in &wanted.ports {
        let Some(link) = port.link else { continue };
        let pf = port.pf;
        let ethernet = match link {
            LinkType::Ethernet => true,
            LinkType::InfiniBand => false,
            LinkType::Other(_) => {
                return Err(FirmwareProblem::UnsupportedLink { pf, wanted: link });
            }
        };
        let unknown = FirmwareProblem::UnknownPort { pf };
        let Some((index, slot)) = port.port.and_then(|at| Some((at, links.get_mut(at)?))) else {
            return Err(unknown);
        };
        if slot.is_some_and(|other| other != ethernet) {
            return Err(FirmwareProblem::TwoLinks { port: index });
        }
        *slot = Some(ethernet);
        if let Some(fits) = fits.get_mut(index) {
            *fits |= port.seen == Some(link);
        }
    }
    let settings = report.current.links.iter().zip(&report.next.links);
    for (port, ((link, fits), (current, next))) in
        links.into_iter().zip(fits).zip(settings).enumerate()
    {
        let Some(ethernet) = link else { continue };
        let tells = |link: &Option<PortLink>| {
            matches!(link, Some(PortLink::Ethernet | PortLink::InfiniBand))
        };
        // Without a setting that tells, the link that the port has must do.
        if fits && !(tells(current) && tells(next)) {
            continue;
        }
        let has = |link: &Option<PortLink>| match link {
            Some(PortLink::Ethernet) => Ok(ethernet),
            Some(PortLink::InfiniBand) => Ok(!ethernet),
            Some(PortLink::Other) => Err(FirmwareProblem::UnknownLink { port }),
            None => Err(FirmwareProblem::FixedLink {
                port,
                wanted: if ethernet {
                    LinkType::Ethernet
                } else {
                    LinkType::InfiniBand
                },
            }),
        };
        change.want(Setting::Link { port, ethernet }, has(current)?, has(next)?);
    }
    Ok(())
}
