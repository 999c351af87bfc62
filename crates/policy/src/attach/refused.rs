//! Why a VF is not given away.

use model::{
    Code, DriverName, Explain, Holder, HolderKind, IfName, MacAddr, Mbps, Netns, PciAddress,
    RdmaNetnsMode,
};

/// A VF is not given away; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachRefused {
    /// Nothing is at the address.
    #[error("there is no device {vf}")]
    NoSuchDevice {
        /// The address.
        vf: PciAddress,
    },
    /// The device is not a VF.
    #[error("{title} is {}, not a VF", if *is_pf { "a PF" } else { "a device without SR-IOV" })]
    NotAVf {
        /// The device.
        title: String,
        /// Is it a PF?
        is_pf: bool,
    },
    /// The VF is just being removed, or its PF is.
    #[error("VF {vf} is being removed")]
    Vanishing {
        /// The VF.
        vf: PciAddress,
    },
    /// Somebody has it.
    #[error("VF {vf} is in use by {holder}")]
    InUse {
        /// The VF.
        vf: PciAddress,
        /// Who has it.
        holder: Holder,
    },
    /// Its netdev is in another namespace.
    #[error("VF {vf} is in network namespace {netns}")]
    Elsewhere {
        /// The VF.
        vf: PciAddress,
        /// Where it is.
        netns: Netns,
    },
    /// It cannot be an interface because it has no netdev.
    #[error("VF {vf} has no netdev: {}", WhyNoNetdev(driver.as_ref()))]
    NoNetdev {
        /// The VF.
        vf: PciAddress,
        /// Its driver.
        driver: Option<DriverName>,
    },
    /// The kernel does not give an interface this name.
    #[error("no interface can be named {name}: {}", why_not(name))]
    BadInterfaceName {
        /// The name that was asked for.
        name: IfName,
    },
    /// The PF has no netdev through which VFs are set.
    #[error("set up VF {vf}: PF {pf} has no netdev on the host{}", OnDriver(driver.as_ref()))]
    PfWithoutNetdev {
        /// The VF.
        vf: PciAddress,
        /// The PF.
        pf: String,
        /// The PF's driver.
        driver: Option<DriverName>,
    },
    /// No interface can have this MAC.
    #[error("{mac} is {}, which no interface can have", if mac.is_zero() { "the zero address" } else { "a group address" })]
    BadMac {
        /// The MAC.
        mac: MacAddr,
    },
    /// Two different MACs are asked for.
    #[error("the PF is to set MAC {admin}, and the interface is to have {own}")]
    MacsDiffer {
        /// What the PF is to set.
        admin: MacAddr,
        /// What the interface is to have.
        own: MacAddr,
    },
    /// The guaranteed rate is above the highest.
    #[error("the guaranteed rate of {min} is above the highest rate of {max}")]
    MinAboveMax {
        /// The guaranteed rate.
        min: Mbps,
        /// The highest rate.
        max: Mbps,
    },
    /// RDMA devices are in all namespaces at once, or the kernel has none.
    #[error("move the RDMA device of {vf}: RDMA subsystem is in namespace mode {}, not exclusive", Mode(*mode))]
    RdmaNotExclusive {
        /// The function.
        vf: PciAddress,
        /// The mode; `None` when the kernel has no RDMA.
        mode: Option<RdmaNetnsMode>,
    },
    /// It has no RDMA device, or several.
    #[error("{}", HowManyRdma(*vf, devices))]
    NotOneRdma {
        /// The function.
        vf: PciAddress,
        /// Its RDMA devices on the host.
        devices: Vec<String>,
    },
    /// The PF's driver cannot set something.
    #[error("PF {pf}: it has no setting {attribute}{}", OnDriver(driver.as_ref()))]
    Unsupported {
        /// The PF.
        pf: String,
        /// Its driver.
        driver: Option<DriverName>,
        /// The setting.
        attribute: &'static str,
    },
}

impl Explain for AttachRefused {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::NoSuchDevice { .. } => "no-such-vf",
            Self::NotAVf { .. } => "not-a-vf",
            Self::Vanishing { .. } => "vf-vanishing",
            Self::InUse { .. } | Self::Elsewhere { .. } => "vf-in-use",
            Self::NoNetdev { .. } => "no-netdev",
            Self::BadInterfaceName { .. } => "bad-interface-name",
            Self::PfWithoutNetdev { .. } => "pf-without-netdev",
            Self::BadMac { .. } => "bad-mac",
            Self::MacsDiffer { .. } => "macs-differ",
            Self::MinAboveMax { .. } => "bad-rate",
            Self::RdmaNotExclusive { .. } => "rdma-not-exclusive",
            Self::NotOneRdma { .. } => "no-rdma",
            Self::Unsupported { .. } => "not-supported",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchDevice { .. } => {
                "see the VFs of this host with `virtfn list vf`".to_owned()
            }
            Self::NotAVf { is_pf: true, .. } => {
                "name one of its VFs, such as <pf>/0; `virtfn list vf` shows them".to_owned()
            }
            Self::NotAVf { is_pf: false, .. } => {
                "name a VF; `virtfn list vf` shows them".to_owned()
            }
            Self::Vanishing { .. } => "try again once its PF has VFs".to_owned(),
            Self::InUse { holder, .. } if holder.kind == HolderKind::Host => {
                "take another VF, or end the host's own use of this one".to_owned()
            }
            Self::InUse { vf, .. } => {
                format!("take another VF, or free this one with `virtfn detach {vf}`")
            }
            Self::Elsewhere { .. } => "take another VF, or move this one back".to_owned(),
            Self::NoNetdev { vf, driver } => match driver {
                Some(driver) if !driver.is_user_space() => {
                    format!("see what driver {driver} says about {vf} in dmesg")
                }
                _ => format!("give it its kernel driver with `virtfn unbind {vf}`"),
            },
            Self::BadInterfaceName { .. } => "name it such as net1".to_owned(),
            Self::PfWithoutNetdev { .. } => {
                "give the PF its kernel driver, or ask for no settings".to_owned()
            }
            Self::BadMac { .. } => "choose one such as 02:00:5e:10:00:01".to_owned(),
            Self::MacsDiffer { .. } => "ask for one MAC".to_owned(),
            Self::MinAboveMax { .. } => "lower the one, or raise the other".to_owned(),
            Self::RdmaNotExclusive { .. } => {
                "start the kernel with ib_core.netns_mode=0, or run `rdma system set netns exclusive` while there are no network namespaces".to_owned()
            }
            Self::NotOneRdma { vf, .. } => {
                format!("see its RDMA devices with `virtfn list vf {vf} -o wide`, and dmesg")
            }
            Self::Unsupported { attribute, .. } => format!("leave out {attribute}"),
        })
    }
}

/// Returns why the kernel does not give an interface this name; `None` when it does.
///
/// It makes another name of one with `%`, its pattern for numbers (`dev_alloc_name`), and cannot have
/// directories of settings beside those for all interfaces (`sysctl_dev_name_is_allowed`).
pub(super) fn reserved(name: &IfName) -> Option<&'static str> {
    match name.as_str() {
        "all" | "default" => Some("the kernel keeps its settings for all of them there"),
        text if text.contains('%') => Some("the kernel makes a number of the %"),
        _ => None,
    }
}

fn why_not(name: &IfName) -> &'static str {
    reserved(name).unwrap_or("the kernel refuses it")
}

struct Mode(Option<RdmaNetnsMode>);

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(mode) => mode.fmt(f),
            None => f.write_str("none (no RDMA in this kernel)"),
        }
    }
}

struct HowManyRdma<'a>(PciAddress, &'a [String]);

impl std::fmt::Display for HowManyRdma<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(function, devices) = self;
        if devices.is_empty() {
            write!(f, "no RDMA devices found for {function} on the host")
        } else {
            let devices = devices.join(", ");
            write!(
                f,
                "{function} has several RDMA devices, and only one can be moved: {devices}"
            )
        }
    }
}

struct WhyNoNetdev<'a>(Option<&'a DriverName>);

impl std::fmt::Display for WhyNoNetdev<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("no driver is bound"),
            Some(driver) if driver.is_user_space() => write!(f, "it is bound to {driver}"),
            Some(driver) => write!(f, "driver {driver} made none"),
        }
    }
}

struct OnDriver<'a>(Option<&'a DriverName>);

impl std::fmt::Display for OnDriver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .map_or(Ok(()), |driver| write!(f, " (driver {driver})"))
    }
}
