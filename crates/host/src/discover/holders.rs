//! Who has a VF that virtfn's own ledger does not know of, or another device.
//!
//! Two questions, and neither is asked when nothing hints at an answer:
//!
//! - A VF on a network driver of the kernel without a netdev here was perhaps moved to another
//!   namespace. Then, and only then, the other namespaces are looked at.
//! - A function on VFIO, vhost-vdpa or UIO is perhaps open in a process. Then the descriptors of all
//!   processes are looked at. One holder is enough: a VFIO group and a vDPA device can be open once.
//!
//! Both cost as much as the host has pods and processes. When one function is observed only that
//! one is a hint, and one on VFIO that is not enabled is open nowhere.

use std::collections::BTreeMap;

use model::{
    DeviceId, DriverName, Function, Holder, HolderKind, IfIndex, Netdev, Netns, NodeUse,
    PciAddress, Role,
};

use super::Aim;
use super::device::Notes;
use super::functions::{PCI_DEVICES, Scan};
use super::host_use::Uppers;
use crate::root::HostRoot;

/// Most descriptors looked at: a busy node has some 100,000.
const MOST_DESCRIPTORS: usize = 1024 * 1024;

/// Is there a function whose netdev may be in another namespace?
pub(super) fn netdevs_may_be_elsewhere(scan: &Scan<'_>, aim: Aim<'_>) -> bool {
    let mut functions = hints(scan, aim);
    functions.any(|function| {
        let kernel = function.driver.as_ref().is_some_and(|d| !d.is_user_space());
        let of_sriov = !matches!(function.role, Role::Plain);
        of_sriov
            && kernel
            && function.class.is_network()
            && function.netdevs.is_empty()
            && function.vdpa.is_empty()
    })
}

/// Returns the functions that were asked for, not those seen beside them.
fn hints<'s>(scan: &'s Scan<'_>, aim: Aim<'s>) -> impl Iterator<Item = &'s Function> {
    let functions = scan.functions.values();
    functions.filter(move |function| aim.names(function.address))
}

/// Tells of every function who has it: what the ledger knows comes first.
pub(super) fn tell(
    root: &HostRoot,
    scan: &mut Scan<'_>,
    ledger: &BTreeMap<PciAddress, Holder>,
    aim: Aim<'_>,
) {
    let may_be_open = match aim.functions {
        None => scan.functions.values().any(has_node),
        Some(functions) => functions
            .iter()
            .any(|function| group_may_be_open(root, scan, *function)),
    };
    let open = if may_be_open {
        scan.name_vfio_nodes();
        open_nodes(root, &mut scan.notes)
    } else {
        BTreeMap::new()
    };
    for function in scan.functions.values_mut() {
        let known = ledger.get(&function.address).cloned();
        let holder = known
            .or_else(|| node_holder(function, &open))
            .or_else(|| namespace_holder(function));
        if let Some(holder) = holder {
            give(&mut scan.users, function, holder);
        }
    }
}

/// Says who has a function, unless that is known.
fn give(users: &mut BTreeMap<DeviceId, Holder>, function: &mut Function, holder: Holder) {
    match &mut function.role {
        Role::Vf(facts) => drop(facts.holder.get_or_insert(holder)),
        Role::Pf(_) | Role::Plain => {
            let device = DeviceId::Pci(function.address);
            users.entry(device).or_insert(holder);
        }
    }
}

/// Tells of the devices that nobody has which of them the host itself uses.
pub(super) fn tell_of_host(
    scan: &mut Scan<'_>,
    uppers: &Uppers,
    uses: &BTreeMap<IfIndex, NodeUse>,
    mut disks: BTreeMap<PciAddress, Holder>,
) {
    let host = |netdevs: &[Netdev]| {
        let mut own = netdevs.iter().filter(|netdev| !netdev.is_representor());
        own.find_map(|netdev| uppers.host_as_holder(netdev, uses))
    };
    for function in scan.functions.values_mut() {
        let user = host(&function.netdevs).or_else(|| disks.remove(&function.address));
        if let Some(user) = user {
            give(&mut scan.users, function, user);
        }
    }
    let parts = scan.sub_functions.values();
    let parts = parts.filter_map(|part| {
        let device = DeviceId::Aux(part.name.clone());
        Some((device, host(&part.netdevs)?))
    });
    scan.users.extend(parts);
}

/// May a process have one function open, or another one of its IOMMU group?
///
/// A VFIO driver enables a function when it is opened and disables it when it is closed
/// (`vfio_pci_core_enable`, since Linux 3.6), so that one which is not enabled needs no search. What is
/// missed is a process that has the group or the node open, and not yet the device. Nothing tells that but
/// the descriptors of all processes, or opening the group: the kernel lets one process have it at a time
/// (`vfio_group_fops_open`, EBUSY). That is not tried, because it is not harmless: a VM that starts in that
/// moment, perhaps with another function of the group, is refused and does not try again. What is missed
/// does no harm: who is given the function cannot open the group either, and is told so.
fn group_may_be_open(root: &HostRoot, scan: &Scan<'_>, address: PciAddress) -> bool {
    let is_on_vfio =
        |function: &Function| function.driver.as_ref().is_some_and(DriverName::is_vfio);
    let can_be_open = |function: &Function| is_on_vfio(function) || has_node(function);
    let Some(asked) = scan.functions.get(&address).filter(|f| can_be_open(f)) else {
        return false;
    };
    let is_idle = |function: &Function| {
        is_on_vfio(function)
            && root
                .read_text(&format!("{PCI_DEVICES}/{}/enable", function.address))
                .is_ok_and(|count| count == "0")
    };
    let mut group = scan.functions.values().filter(|other| {
        let is_mate = asked.iommu_group.is_some() && other.iommu_group == asked.iommu_group;
        is_mate || other.address == address
    });
    group.any(|function| can_be_open(function) && !is_idle(function))
}

fn has_node(function: &Function) -> bool {
    nodes(function).next().is_some()
}

/// Returns the device nodes through which a process can have a function to itself.
fn nodes(function: &Function) -> impl Iterator<Item = (HolderKind, &String)> {
    let vfio = function.vfio.iter();
    let vfio = vfio.flat_map(|node| node.group.iter().chain(&node.cdev));
    let vdpa = function.vdpa.iter();
    let vdpa = vdpa.filter_map(|device| device.device_node.as_ref());
    vfio.map(|node| (HolderKind::Vfio, node)).chain(
        vdpa.chain(&function.uio)
            .map(|node| (HolderKind::Device, node)),
    )
}

fn node_holder(function: &Function, open: &BTreeMap<String, String>) -> Option<Holder> {
    nodes(function).find_map(|(kind, node)| {
        let id = open.get(node)?.clone();
        Some(Holder {
            kind,
            id,
            interface: None,
        })
    })
}

/// Is it the path of such a node?
pub(crate) fn is_device_node(path: &[u8]) -> bool {
    let prefixes: [&[u8]; 3] = [b"/dev/vfio/", b"/dev/vhost-vdpa-", b"/dev/uio"];
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

fn namespace_holder(function: &Function) -> Option<Holder> {
    let netdev = function.netdev()?;
    match &netdev.netns {
        Netns::Host => None,
        netns @ Netns::Other { .. } => Some(Holder {
            kind: HolderKind::Namespace,
            id: netns.to_string(),
            interface: Some(netdev.name.clone()),
        }),
    }
}

/// Returns the processes that have such a node open, by the node's path.
fn open_nodes(root: &HostRoot, notes: &mut Notes) -> BTreeMap<String, String> {
    let mut open = BTreeMap::new();
    let mut seen = 0_usize;
    let mut buffer = Vec::new();
    for pid in root.list("/proc").unwrap_or_default() {
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process that ended meanwhile, or one that is not ours to look into, has no list.
        let Ok(dir) = root.dir(&format!("/proc/{pid}/fd")) else {
            continue;
        };
        for fd in dir.list(".").unwrap_or_default() {
            seen += 1;
            if seen > MOST_DESCRIPTORS {
                notes.gap("/proc", "too many open files to see who has devices open");
                return open;
            }
            let target = dir.link_target(&fd, &mut buffer);
            let Some(node) = target.ok().filter(|path| is_device_node(path)) else {
                continue;
            };
            let node = String::from_utf8_lossy(node).into_owned();
            open.entry(node).or_insert_with(|| title(root, &pid));
        }
    }
    open
}

/// Names a process as people look for it: `qemu-system-x86 (pid 4321)`.
fn title(root: &HostRoot, pid: &str) -> String {
    match root.read_text(&format!("/proc/{pid}/comm")) {
        Ok(name) if !name.is_empty() => format!("{name} (pid {pid})"),
        _ => format!("pid {pid}"),
    }
}
