//! Which machines, with which devices, joined how. All machines of a lab are alike.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Most machines in one lab: more would only take turns on the processors.
pub(crate) const MAX_MACHINES: usize = 8;
/// Most devices of a kind in one machine; each sits behind a root port of its own.
pub(crate) const MAX_NICS: usize = 8;

/// The shape of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// How many machines.
    pub machines: usize,
    /// NICs of each machine; NIC *n* of every machine is on the same wire.
    pub nics: Vec<Nic>,
    /// Whether each machine is alone on its wires instead.
    pub apart: bool,
    /// An NVMe controller with this many VFs.
    pub nvme_vfs: Option<u8>,
    /// Memory of each machine in MiB.
    pub memory_mib: u32,
    /// Processors of each machine.
    pub cpus: u8,
    /// More words for the kernel command line.
    pub append: Vec<String>,
    /// More arguments for QEMU.
    pub qemu_args: Vec<String>,
    /// How long a machine may take to its first command.
    pub boot_timeout: Duration,
    /// Directory with a disk for each machine, on which it keeps what it writes: machines that are
    /// booted again with the same directory find it as they left it. Made when missing.
    pub keep: Option<PathBuf>,
    /// Whether the host's systemd runs as process 1, with its own units and none of the host's
    /// configuration.
    pub systemd: bool,
}

impl Topology {
    /// Machines without any SR-IOV device.
    pub fn bare(machines: usize) -> Self {
        Self {
            machines,
            nics: Vec::new(),
            apart: false,
            nvme_vfs: None,
            memory_mib: 1024,
            cpus: 1,
            append: Vec::new(),
            qemu_args: Vec::new(),
            // Eight seconds on an idle host; emulated machines share processors with whatever else runs.
            boot_timeout: Duration::from_secs(180),
            keep: None,
            systemd: false,
        }
    }

    /// Machines that keep what they write below `dir`.
    #[must_use]
    pub fn keeping(mut self, dir: &Path) -> Self {
        self.keep = Some(dir.to_owned());
        self
    }

    /// Machines whose process 1 is systemd.
    #[must_use]
    pub fn with_systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// Machines with one `igb` each, joined.
    pub fn igb(machines: usize) -> Self {
        Self::bare(machines).nic(Nic::Igb { acs: true })
    }

    /// Adds a NIC to each machine.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// Machines that do not reach each other.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// Adds an NVMe controller with `vfs` VFs to each machine.
    #[must_use]
    pub fn nvme(mut self, vfs: u8) -> Self {
        self.nvme_vfs = Some(vfs);
        self
    }
}

/// A network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// Intel 82576: SR-IOV with seven VFs, joined to the same NIC of the other machines.
    Igb {
        /// Whether the root port isolates VFs from each other (one IOMMU group each).
        acs: bool,
    },
    /// Plain virtio with a user-mode network; the host is 10.0.2.2.
    User,
}

/// Text that names no NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseNicError(String);

impl fmt::Display for ParseNicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a NIC such as igb, igb:acs=off or user",
            self.0
        )
    }
}

impl std::error::Error for ParseNicError {}

impl FromStr for Nic {
    type Err = ParseNicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "igb" | "igb:acs=on" => Ok(Self::Igb { acs: true }),
            "igb:acs=off" => Ok(Self::Igb { acs: false }),
            "user" => Ok(Self::User),
            _ => Err(ParseNicError(text.to_owned())),
        }
    }
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igb { acs: true } => "igb",
            Self::Igb { acs: false } => "igb:acs=off",
            Self::User => "user",
        })
    }
}
