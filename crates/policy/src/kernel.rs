//! What the VFs that are wanted need of the kernel: arguments at its start, and modules.
//!
//! The effect decides, not the text: when IOMMU groups exist the IOMMU is on, whatever the command
//! line says. An argument that is on the command line without having its effect is never asked for
//! again; what stands against it is said instead ([`Obstacle`]). Together with the count of
//! [`Reboots`] this is why virtfn never makes a host reboot in a loop.
//!
//! Nothing here is needed to *have* VFs: without an IOMMU they can still be netdevs.

mod argument;
mod obstacle;
mod reboots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use model::{Desired, PciAddress, RebootReason, VdpaKind, VfDriver};

pub use argument::{KernelArgument, ParseKernelArgumentError, Presence, presence};
pub use obstacle::Obstacle;
pub use reboots::{MAX_REBOOTS, RebootRefused, Reboots};

/// What was seen of a kernel and of the machine beneath it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// Who made the processor.
    pub cpu: CpuMaker,
    /// IOMMU tables that the firmware hands to the kernel; `None` when that cannot be seen.
    pub tables: Option<IommuTables>,
    /// How many IOMMUs the kernel drives (`/sys/class/iommu`).
    pub iommus: usize,
    /// How many IOMMU groups there are (`/sys/kernel/iommu_groups`).
    pub iommu_groups: usize,
    /// Do the host's own drivers bypass the IOMMU (type `identity`)? `None` before Linux 5.11.
    pub bypassed: Option<bool>,
    /// The words of `/proc/cmdline`.
    pub command_line: Vec<String>,
    /// The modules that were asked about.
    pub modules: BTreeMap<ModuleName, ModuleState>,
}

impl KernelFacts {
    /// Does the IOMMU work? This is the authoritative test.
    #[must_use]
    pub fn has_iommu(&self) -> bool {
        self.iommus > 0 && self.iommu_groups > 0
    }
}

/// Who made a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuMaker {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD`, or Hygon's `HygonGenuine`, which has AMD's IOMMU.
    Amd,
    /// Another one, or it is not said, as on arm64.
    #[default]
    Other,
}

/// ACPI tables that describe IOMMUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IommuTables {
    /// `DMAR`: Intel VT-d. A virtual machine may have it on an AMD processor.
    pub dmar: bool,
    /// `IVRS`: AMD-Vi.
    pub ivrs: bool,
    /// `IORT` or `VIOT`: Arm SMMU and virtio-iommu, which need no argument.
    pub other: bool,
}

/// Name of a kernel module, with `_` for the `-` that some people write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleName(String);

impl ModuleName {
    /// Returns the name as text; it is one path component.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Text that is not the name of a kernel module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a kernel module such as vfio_pci")]
pub struct ParseModuleNameError;

impl FromStr for ModuleName {
    type Err = ParseModuleNameError;

    fn from_str(text: &str) -> Result<Self, ParseModuleNameError> {
        let fits = (1..=55).contains(&text.len());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if fits && text.bytes().all(plain) {
            Ok(Self(text.replace('-', "_")))
        } else {
            Err(ParseModuleNameError)
        }
    }
}

/// How a module is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// It is part of the kernel.
    BuiltIn,
    /// It is loaded.
    Loaded,
    /// It can be loaded.
    Available,
    /// `modprobe` is told not to load it (`install … /bin/false`).
    Blocked,
    /// The running kernel has none of this name.
    Absent,
}

/// What is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelNeeds {
    /// Arguments that the kernel should be started with.
    pub arguments: Vec<ArgumentNeed>,
    /// Modules that must be loaded at each boot.
    pub modules: Vec<ModuleName>,
    /// What keeps the VFs from working and no argument mends.
    pub obstacles: Vec<Obstacle>,
}

impl KernelNeeds {
    /// Returns the arguments, needed and advised ones.
    pub fn arguments(&self) -> impl Iterator<Item = &KernelArgument> {
        self.arguments.iter().map(|need| &need.argument)
    }

    /// Returns why a reboot is needed; advised arguments alone are no reason.
    #[must_use]
    pub fn reboot(&self) -> Option<RebootReason> {
        self.reboot_for(|_| true)
    }

    /// Returns why a reboot is needed, as far as some arguments are the reason.
    pub(crate) fn reboot_for(
        &self,
        is_meant: impl Fn(&KernelArgument) -> bool,
    ) -> Option<RebootReason> {
        let is_needed = |need: &&ArgumentNeed| need.urgency == Urgency::Needed;
        let needed = self.arguments.iter().filter(is_needed);
        let needed = needed.filter(|need| is_meant(&need.argument));
        let needed: Vec<String> = needed.map(|need| need.argument.to_string()).collect();
        (!needed.is_empty()).then_some(RebootReason::KernelArguments(needed))
    }
}

/// One argument, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentNeed {
    /// The argument.
    pub argument: KernelArgument,
    /// Does anything fail without it?
    pub urgency: Urgency,
    /// What it is for.
    pub why: &'static str,
}

impl fmt::Display for ArgumentNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urgency = match self.urgency {
            Urgency::Needed => "needed",
            Urgency::Advised => "advised",
        };
        write!(f, "{} ({urgency}: {})", self.argument, self.why)
    }
}

/// Does anything fail without an argument?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The VFs cannot work as wanted without it.
    Needed,
    /// It makes things faster; it is written when kernel arguments are written at all.
    Advised,
}

/// Returns the modules that the VFs' drivers and vDPA devices are in.
#[must_use]
pub fn modules_of(wanted: &Desired) -> BTreeSet<ModuleName> {
    let groups = || wanted.pfs.values().flat_map(|pf| &pf.groups);
    let drivers = groups().filter_map(|group| match &group.driver {
        VfDriver::Kernel => None,
        VfDriver::Named(driver) => driver.as_str().parse().ok(),
    });
    let vdpa = groups()
        .filter_map(|group| group.vdpa)
        .map(|kind| match kind {
            VdpaKind::Vhost => "vhost_vdpa",
            VdpaKind::Virtio => "virtio_vdpa",
        });
    drivers
        .chain(vdpa.filter_map(|module| module.parse().ok()))
        .collect()
}

/// Says what is missing for `wanted`.
///
/// `starved` are the PFs whose VFs could not be made for want of memory space: the kernel answered
/// `ENOMEM` to `sriov_numvfs`.
#[must_use]
pub fn needs(wanted: &Desired, facts: &KernelFacts, starved: &BTreeSet<PciAddress>) -> KernelNeeds {
    let mut needs = KernelNeeds::default();
    if wants_vfio(wanted) {
        iommu(&mut needs, facts);
    }
    if !starved.is_empty() {
        memory_space(&mut needs, facts, starved);
    }
    for module in modules_of(wanted) {
        match facts.modules.get(&module) {
            Some(ModuleState::BuiltIn) => {}
            Some(ModuleState::Loaded | ModuleState::Available) => needs.modules.push(module),
            Some(ModuleState::Blocked) => needs.obstacles.push(Obstacle::ModuleBlocked(module)),
            Some(ModuleState::Absent) | None => {
                needs.obstacles.push(Obstacle::ModuleAbsent(module));
            }
        }
    }
    needs
}

fn wants_vfio(wanted: &Desired) -> bool {
    let groups = wanted.pfs.values().flat_map(|pf| &pf.groups);
    groups
        .filter_map(|group| match &group.driver {
            VfDriver::Named(driver) => Some(driver),
            VfDriver::Kernel => None,
        })
        .any(model::DriverName::is_vfio)
}

fn iommu(needs: &mut KernelNeeds, facts: &KernelFacts) {
    if !facts.has_iommu() {
        let tables = facts.tables.unwrap_or(IommuTables {
            dmar: facts.cpu == CpuMaker::Intel,
            ivrs: facts.cpu == CpuMaker::Amd,
            other: facts.cpu == CpuMaker::Other,
        });
        if tables.dmar {
            let why = "VFs for vfio-pci need the IOMMU, and there are no IOMMU groups";
            ask(
                needs,
                facts,
                KernelArgument::intel_iommu(),
                Urgency::Needed,
                why,
            );
        } else if tables.ivrs {
            // AMD's is on by default: no argument turns it on, only one that turns it off is in
            // the way. (`amd_iommu=on`, which many guides name, is not known to the kernel.)
            needs.obstacles.push(match off_switch(facts) {
                Some(present) => Obstacle::TurnedOff { present },
                None => Obstacle::IommuUnused,
            });
        } else if tables.other {
            needs.obstacles.push(Obstacle::IommuUnused);
        } else {
            needs.obstacles.push(Obstacle::IommuOffInFirmware);
        }
        if needs.arguments.is_empty() {
            return;
        }
    }
    let is_x86 = facts.cpu != CpuMaker::Other || facts.tables.is_some_and(|t| t.dmar || t.ivrs);
    if is_x86 && facts.bypassed != Some(true) {
        let argument = KernelArgument::iommu_pt();
        // Being advice, it does not overrule what somebody wrote.
        if presence(&facts.command_line, &argument) == Presence::Absent {
            needs.arguments.push(ArgumentNeed {
                argument,
                urgency: Urgency::Advised,
                why: "the host's own devices are faster when they bypass the IOMMU",
            });
        }
    }
}

fn memory_space(needs: &mut KernelNeeds, facts: &KernelFacts, starved: &BTreeSet<PciAddress>) {
    let argument = KernelArgument::pci_realloc();
    match presence(&facts.command_line, &argument) {
        Presence::Present => needs.obstacles.push(Obstacle::NoMemorySpace {
            pfs: starved.iter().copied().collect(),
        }),
        Presence::Absent | Presence::Contradicted(_) => {
            let why = "the firmware left no memory space for the VFs";
            ask(needs, facts, argument, Urgency::Needed, why);
        }
    }
}

/// Asks for an argument, unless it was given without effect or somebody wrote the opposite.
fn ask(
    needs: &mut KernelNeeds,
    facts: &KernelFacts,
    argument: KernelArgument,
    urgency: Urgency,
    why: &'static str,
) {
    match presence(&facts.command_line, &argument) {
        Presence::Absent => needs.arguments.push(ArgumentNeed {
            argument,
            urgency,
            why,
        }),
        Presence::Present => needs.obstacles.push(Obstacle::NoEffect { argument }),
        Presence::Contradicted(present) => needs.obstacles.push(Obstacle::TurnedOff { present }),
    }
}

/// Returns the word of the command line that turns AMD's IOMMU off.
fn off_switch(facts: &KernelFacts) -> Option<String> {
    let mut words = facts.command_line.iter();
    words
        .rfind(|word| matches!(word.as_str(), "amd_iommu=off" | "iommu=off"))
        .cloned()
}
