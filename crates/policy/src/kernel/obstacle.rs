//! What no kernel argument of virtfn's mends.

use std::fmt;

use model::{Code, Explain, PciAddress};

use super::{KernelArgument, ModuleName};

/// Something that keeps VFs from working as wanted, and that a person must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The firmware describes no IOMMU.
    IommuOffInFirmware,
    /// The firmware describes an IOMMU that needs no argument, and the kernel does not use it.
    IommuUnused,
    /// Somebody turned off what is needed.
    TurnedOff {
        /// The word on the kernel's command line.
        present: String,
    },
    /// An argument was given and does not have its effect.
    NoEffect {
        /// The argument.
        argument: KernelArgument,
    },
    /// The kernel was allowed to make room for VFs, and there is none.
    NoMemorySpace {
        /// The PFs.
        pfs: Vec<PciAddress>,
    },
    /// A module that is needed is not there.
    ModuleAbsent(ModuleName),
    /// A module that is needed must not be loaded.
    ModuleBlocked(ModuleName),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IommuOffInFirmware => f.write_str("the firmware describes no IOMMU"),
            Self::IommuUnused => f.write_str("the kernel does not use the machine's IOMMU"),
            Self::TurnedOff { present } => {
                write!(f, "the kernel was started with {present}")
            }
            Self::NoEffect { argument } => write!(
                f,
                "the kernel was started with {argument}, and there is still no IOMMU group"
            ),
            Self::NoMemorySpace { pfs } => {
                f.write_str("there is no memory space for the VFs of")?;
                for (at, pf) in pfs.iter().enumerate() {
                    write!(f, "{} {pf}", if at > 0 { "," } else { "" })?;
                }
                f.write_str(", although the kernel may reallocate it")
            }
            Self::ModuleAbsent(module) => {
                write!(f, "the running kernel has no module {module}")
            }
            Self::ModuleBlocked(module) => {
                write!(f, "modprobe is configured not to load {module}")
            }
        }
    }
}

impl std::error::Error for Obstacle {}

impl Explain for Obstacle {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::IommuOffInFirmware => "iommu-off-in-firmware",
            Self::IommuUnused => "iommu-unused",
            Self::TurnedOff { .. } => "kernel-argument-contradicted",
            Self::NoEffect { .. } => "kernel-argument-without-effect",
            Self::NoMemorySpace { .. } => "no-memory-space",
            Self::ModuleAbsent(_) => "module-absent",
            Self::ModuleBlocked(_) => "module-blocked",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::IommuOffInFirmware => {
                "switch VT-d, AMD-Vi or SMMU on in the firmware's set-up; in a virtual machine give \
                 it a virtual IOMMU"
                    .to_owned()
            }
            Self::IommuUnused => {
                "use a kernel that is built with the driver of this IOMMU; its log tells why it \
                 does not use it (journalctl -k -g iommu)"
                    .to_owned()
            }
            Self::TurnedOff { present } => format!(
                "virtfn does not overrule what somebody wrote: remove {present} from the kernel's \
                 command line and reboot"
            ),
            Self::NoEffect { .. } => {
                "another reboot would not help: look at the kernel's log for the reason \
                 (journalctl -k -g 'DMAR|IOMMU')"
                    .to_owned()
            }
            Self::NoMemorySpace { .. } => {
                "switch \"Above 4G decoding\" and SR-IOV on in the firmware's set-up, or ask for \
                 fewer VFs"
                    .to_owned()
            }
            Self::ModuleAbsent(module) => format!(
                "install the package of the running kernel that holds {module} (often \
                 kernel-modules-extra or linux-modules-extra)"
            ),
            Self::ModuleBlocked(module) => {
                format!("remove the line `install {module} …` from /etc/modprobe.d")
            }
        })
    }
}
