//! PCI functions as sysfs describes them.
//!
//! One pass over `/sys/bus/pci/devices` in the order of addresses. A PF comes before its VFs
//! (First VF Offset is positive, PCIe SR-IOV specification section 2.1.2), so its `virtfnN` links
//! already say which of the later functions are its VFs and most VFs cost no look at `physfn`.
//!
//! `uevent` holds driver, class, id and subsystem in one read; the single files are read only when
//! it lacks them. What surprises: a VF's configuration space answers 0xffff for vendor and device,
//! so ids always come from sysfs.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AuxName, DeviceId, DriverName, Function, Holder, IommuGroup, NumaNode, PciAddress, PciClass,
    PciId, PfFacts, Role, SubFunction, VfFacts, VfIndex,
};

use super::config::{self, SriovCapability};
use super::device::{Device, Notes, hex, number};
use super::vfio;
use crate::root::{AccessError, HostRoot};

/// Where sysfs lists the functions.
pub(crate) const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// Which functions are wanted besides those of SR-IOV.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Network controllers and whatever has or is VFs.
    Relevant,
    /// This one in any case.
    Always,
    /// The one function that is looked at: not what only pools and plans for the whole host ask for.
    One,
    /// The PF of that one: only which VFs it has.
    Pf,
    /// A member of its IOMMU group: only who may have it.
    Mate,
}

/// The functions seen so far.
pub(super) struct Scan<'a> {
    root: &'a HostRoot,
    pub(super) notes: Notes,
    pub(super) functions: BTreeMap<PciAddress, Function>,
    pub(super) sub_functions: BTreeMap<AuxName, SubFunction>,
    /// Who has what is no VF.
    pub(super) users: BTreeMap<DeviceId, Holder>,
    /// PF and number of the VFs that a `virtfnN` link named.
    linked: BTreeMap<PciAddress, (PciAddress, VfIndex)>,
    /// Functions of no interest in themselves, which may share a group with one that is.
    bystanders: Vec<(PciAddress, IommuGroup)>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(root: &'a HostRoot) -> Self {
        Self {
            root,
            notes: Notes::default(),
            functions: BTreeMap::new(),
            sub_functions: BTreeMap::new(),
            users: BTreeMap::new(),
            linked: BTreeMap::new(),
            bystanders: Vec::new(),
        }
    }

    /// Reads every function that matters.
    pub(super) fn all(&mut self) -> Result<(), AccessError> {
        let mut addresses = Vec::new();
        for name in self.root.list(PCI_DEVICES)? {
            match name.parse::<PciAddress>() {
                Ok(address) => addresses.push(address),
                Err(error) => self.notes.gap(PCI_DEVICES, error.to_string()),
            }
        }
        addresses.sort_unstable();
        for address in addresses {
            self.read(address, Want::Relevant);
        }
        let groups: BTreeSet<IommuGroup> = self.groups();
        for (address, group) in std::mem::take(&mut self.bystanders) {
            if groups.contains(&group) {
                self.read(address, Want::Always);
            }
        }
        self.settle();
        Ok(())
    }

    /// Reads one function, its PF, and the members of its IOMMU group.
    pub(super) fn around(&mut self, address: PciAddress) {
        self.read(address, Want::One);
        let Some(function) = self.functions.get(&address) else {
            return;
        };
        let group = function.iommu_group;
        if let Some(VfFacts { pf, .. }) = function.vf() {
            self.read(*pf, Want::Pf);
        }
        for other in self.members(address) {
            if !self.functions.contains_key(&other) {
                self.read(other, Want::Mate);
            }
            if let Some(mate) = self.functions.get_mut(&other) {
                mate.iommu_group = group;
            }
        }
        self.settle();
    }

    /// Reads the same, all of the PF, and the PF's other VFs.
    pub(super) fn all_around(&mut self, address: PciAddress) {
        self.read_once(address);
        let Some(function) = self.functions.get(&address) else {
            return;
        };
        let pf = function.vf().map(|facts| facts.pf);
        pf.into_iter().for_each(|pf| self.read_once(pf));
        let siblings: Vec<PciAddress> = self.linked.keys().copied().collect();
        for other in siblings.into_iter().chain(self.members(address)) {
            self.read_once(other);
        }
        self.settle();
    }

    fn read_once(&mut self, address: PciAddress) {
        if !self.functions.contains_key(&address) {
            self.read(address, Want::Always);
        }
    }

    /// Names the nodes of functions on VFIO whose nodes were not read with them.
    pub(super) fn name_vfio_nodes(&mut self) {
        let is_unnamed = |function: &&mut Function| {
            let driver = function.driver.as_ref();
            function.vfio.is_none() && driver.is_some_and(DriverName::is_vfio)
        };
        for function in self.functions.values_mut().filter(is_unnamed) {
            let (path, driver) = (path_of(function.address), function.driver.as_ref());
            let object = function.address;
            let device = Device::open(self.root, path, &object, &mut self.notes);
            function.vfio = device.and_then(|mut device| {
                vfio::read_node(self.root, &mut device, driver, function.iommu_group)
            });
        }
    }

    fn groups(&self) -> BTreeSet<IommuGroup> {
        let functions = self.functions.values();
        functions
            .filter_map(|function| function.iommu_group)
            .collect()
    }

    fn members(&self, address: PciAddress) -> Vec<PciAddress> {
        let group = self.functions.get(&address).and_then(|f| f.iommu_group);
        let Some(group) = group else {
            return Vec::new();
        };
        let listed = self
            .root
            .list(&format!("/sys/kernel/iommu_groups/{group}/devices"));
        let names = listed.unwrap_or_default();
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Gives every VF the number that its PF's link has for it, whichever of both was read first.
    fn settle(&mut self) {
        for (address, (pf, index)) in &self.linked {
            if let Some(function) = self.functions.get_mut(address)
                && let Role::Vf(facts) = &mut function.role
            {
                facts.pf = *pf;
                facts.index = Some(*index);
            }
        }
    }

    fn read(&mut self, address: PciAddress, want: Want) {
        let path = path_of(address);
        let Some(mut device) = Device::open(self.root, path, &address, &mut self.notes) else {
            return;
        };
        let mut identity = Identity::read(&mut device);
        let Some((class, id)) = identity.class.zip(identity.id) else {
            if !device.is_gone(self.root, true) {
                device.gap("vendor, device or class is missing");
            }
            return;
        };
        let role = match self.linked.get(&address) {
            Some((pf, index)) => Role::Vf(new_vf(*pf, Some(*index))),
            None => read_role(&mut device, address, want),
        };
        let iommu_group = match want {
            // The group tells its members.
            Want::Pf | Want::Mate => None,
            Want::Relevant | Want::Always | Want::One => {
                device.link("iommu_group", "an IOMMU group", |name| {
                    number(name).map(IommuGroup)
                })
            }
        };
        if want == Want::Relevant && role == Role::Plain && !is_of_interest(class) {
            if let Some(group) = iommu_group {
                self.bystanders.push((address, group));
            }
            return;
        }
        let details = match want {
            Want::One | Want::Pf | Want::Mate => Details::default(),
            Want::Relevant | Want::Always => Details::read(&mut device, &role),
        };
        let vfio = match want {
            Want::One | Want::Pf | Want::Mate => None,
            Want::Relevant | Want::Always => vfio::read_node(
                self.root,
                &mut device,
                identity.driver.as_ref(),
                iommu_group,
            ),
        };
        let uio = read_uio(&mut device, identity.driver.as_ref());
        if device.is_gone(self.root, details.is_suspect) {
            return;
        }
        if let Role::Pf(facts) = &role {
            for (index, vf) in &facts.vfs {
                self.linked.insert(*vf, (address, *index));
            }
        }
        let function = Function {
            address,
            id,
            subsystem: identity.subsystem,
            class,
            driver: identity.driver.take(),
            driver_override: details.driver_override,
            iommu_group,
            numa: details.numa,
            acpi_index: details.acpi_index,
            netdevs: Vec::new(),
            rdma: Vec::new(),
            vdpa: Vec::new(),
            vfio,
            uio,
            role,
        };
        self.functions.insert(address, function);
    }
}

fn path_of(function: PciAddress) -> String {
    format!("{PCI_DEVICES}/{function}")
}

/// What `uevent` says, or the single files.
#[derive(Default)]
struct Identity {
    class: Option<PciClass>,
    id: Option<PciId>,
    subsystem: Option<PciId>,
    driver: Option<DriverName>,
}

impl Identity {
    fn read(device: &mut Device<'_>) -> Self {
        let uevent = device.attribute("uevent", "KEY=value lines", Self::of_uevent);
        let mut identity = uevent.unwrap_or_default();
        if identity.class.is_none() {
            identity.class = device.attribute("class", "a class code", |text| {
                number(text).map(PciClass::new)
            });
        }
        if identity.id.is_none() {
            identity.id = read_id(device, "vendor", "device");
            identity.subsystem = read_id(device, "subsystem_vendor", "subsystem_device");
            // `uevent` was of no use, so it did not say that there is no driver either.
            identity.driver = device.link("driver", "a driver", |name| name.parse().ok());
        }
        identity
    }

    /// Reads `pci_uevent`'s lines (`drivers/pci/pci-driver.c`); ids are in upper-case hex.
    fn of_uevent(text: &str) -> Option<Self> {
        let mut identity = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "DRIVER" => identity.driver = value.parse().ok(),
                "PCI_CLASS" => identity.class = hex(value).map(PciClass::new),
                "PCI_ID" => identity.id = value.parse().ok(),
                "PCI_SUBSYS_ID" => identity.subsystem = value.parse().ok(),
                _ => {}
            }
        }
        identity.id.is_some().then_some(identity)
    }
}

/// What says more of a function than what it is.
#[derive(Default)]
struct Details {
    numa: Option<NumaNode>,
    acpi_index: Option<String>,
    driver_override: Option<DriverName>,
    /// Was a file absent that every PCI device has?
    is_suspect: bool,
}

impl Details {
    fn read(device: &mut Device<'_>, role: &Role) -> Self {
        let numa = device.attribute("numa_node", "a NUMA node", |text| match text {
            "-1" => Some(None),
            text => number(text).map(|node| Some(NumaNode(node))),
        });
        // A VF has no firmware node of its own that could number it.
        let acpi_index = match role {
            Role::Vf(_) => None,
            Role::Pf(_) | Role::Plain => device.attribute("acpi_index", "an index", |text| {
                (!text.is_empty()).then(|| text.to_owned())
            }),
        };
        // It is there (since Linux 3.16) even when nothing was written to it.
        let overridden = device.attribute("driver_override", "a driver", |text| match text {
            "(null)" | "" => Some(None),
            text => text.parse::<DriverName>().ok().map(Some),
        });
        Self {
            numa: numa.flatten(),
            acpi_index,
            is_suspect: overridden.is_none(),
            driver_override: overridden.flatten(),
        }
    }
}

fn read_id(device: &mut Device<'_>, vendor: &str, id: &str) -> Option<PciId> {
    Some(PciId {
        vendor: device.attribute(vendor, "a vendor id", number)?,
        device: device.attribute(id, "a device id", number)?,
    })
}

/// Network controllers, and processing accelerators (base class 12): what pools can be made of.
fn is_of_interest(class: PciClass) -> bool {
    class.is_network() || class.base() == 0x12
}

/// Returns the node of the function while a UIO driver is bound.
fn read_uio(device: &mut Device<'_>, driver: Option<&DriverName>) -> Option<String> {
    let of_uio = matches!(driver?.as_str(), "uio" | "igb_uio" | "uio_pci_generic");
    let name = of_uio.then(|| device.list("uio").into_iter().next())??;
    Some(format!("/dev/{name}"))
}

fn read_role(device: &mut Device<'_>, address: PciAddress, want: Want) -> Role {
    if want != Want::Pf {
        let pf = device.link("physfn", "a PCI address", |name| name.parse().ok());
        if let Some(pf) = pf {
            return Role::Vf(new_vf(pf, None));
        }
    }
    let total_vfs = device.attribute("sriov_totalvfs", "a number of VFs", number);
    if total_vfs.is_none() && !device.has("sriov_totalvfs") {
        return Role::Plain;
    }
    let num_vfs = match want {
        // Its links tell.
        Want::Pf => None,
        Want::Relevant | Want::Always | Want::One | Want::Mate => {
            device.attribute("sriov_numvfs", "a number of VFs", number)
        }
    };
    let vfs = read_vfs(device, num_vfs.unwrap_or(0));
    let mut facts = PfFacts {
        total_vfs: total_vfs.unwrap_or(0),
        num_vfs: num_vfs.unwrap_or_else(|| u16::try_from(vfs.len()).unwrap_or(u16::MAX)),
        vfs,
        ..PfFacts::default()
    };
    if matches!(want, Want::Relevant | Want::Always | Want::One) {
        complete_pf(device, address, &mut facts);
    }
    Role::Pf(facts)
}

fn new_vf(pf: PciAddress, index: Option<VfIndex>) -> VfFacts {
    VfFacts {
        pf,
        index,
        state: None,
        representor: None,
        holder: None,
    }
}

/// Reads what else sysfs tells of a PF.
fn complete_pf(device: &mut Device<'_>, address: PciAddress, facts: &mut PfFacts) {
    facts.autoprobe = device.attribute("sriov_drivers_autoprobe", "0 or 1", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    });
    facts.vf_device = device.attribute("sriov_vf_device", "a device id", hex);
    facts.offset = device.attribute("sriov_offset", "a number", number);
    facts.stride = device.attribute("sriov_stride", "a number", number);
    if facts.offset.is_none() || facts.stride.is_none() || facts.vf_device.is_none() {
        complete_from_config(device, address, facts);
    }
}

/// Reads the `virtfnN` links in the order of N.
///
/// The kernel makes them from 0 without a hole, so the first that is missing at or after `count`
/// ends the list; one missing before is a VF on its way in or out.
fn read_vfs(device: &mut Device<'_>, count: u16) -> BTreeMap<VfIndex, PciAddress> {
    let mut vfs = BTreeMap::new();
    let mut name = String::new();
    for index in 0..=u16::MAX {
        name.clear();
        name.push_str("virtfn");
        name.push_str(&index.to_string());
        match device.link(&name, "a PCI address", |name| name.parse().ok()) {
            Some(vf) => drop(vfs.insert(VfIndex(index), vf)),
            None if index < count => {}
            None => break,
        }
    }
    vfs
}

/// Takes from the SR-IOV capability what kernels before 4.14 do not tell as files.
fn complete_from_config(device: &mut Device<'_>, address: PciAddress, facts: &mut PfFacts) {
    let Some(bytes) = device.bytes("config") else {
        return;
    };
    match config::sriov(bytes) {
        Ok(Some(SriovCapability {
            first_vf_offset,
            vf_stride,
            vf_device,
            ..
        })) => {
            facts.offset.get_or_insert(first_vf_offset);
            facts.stride.get_or_insert(vf_stride);
            facts.vf_device.get_or_insert(vf_device);
        }
        Ok(None) => {}
        Err(error) => device.gap(format!("config of {address}: {error}")),
    }
}
