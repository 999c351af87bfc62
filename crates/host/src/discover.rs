//! One pass over the host: sysfs and netlink in, an [`Inventory`] out.
//!
//! ```text
//! /sys/bus/pci/devices ─ functions ─┐
//! one link dump ─────── netdevs ────┤
//! /sys/class/infiniband ─ rdma ─────┼─ Inventory
//! /sys/bus/vdpa ──────── vdpa ──────┤
//! /sys/bus/auxiliary ─── aux ───────┤
//! devlink, per PF ──────────────────┤
//! routes, addresses ────────────────┤   only of the whole host
//! other namespaces, /proc ─ holders ┤   only when a function hints at it
//! /sys/class/block, /sys/fs ─ disks ┘   only when a function is a storage controller
//! ```
//!
//! [`Scope::Function`] is for attach and detach: the function, its PF and the members of its IOMMU
//! group. It leaves out what only pools and plans for the whole host ask for: what devlink says (firmware,
//! how switches are set), NUMA node and driver override, the VFIO nodes of what nobody can have open, the
//! holders and far netdevs of all but the function itself; of its PF it tells only what says how VFs are
//! set, and of the PF's other VFs only their MACs. [`look_again`] looks at some functions with all that is
//! around them, and [`renewed`] puts what it saw into what was seen of the whole host before.
//!
//! It reads and never changes anything. Devices come and go meanwhile: one that left is not in the
//! inventory, one that cannot be read in part is there with a [`model::Gap`]. Only a host of which nothing
//! can be seen is an error. What it costs is measured against the bare reads in
//! `benches/discover.rs`.

mod aux;
pub mod config;
mod device;
mod disks;
mod functions;
mod holders;
mod host_use;
mod netdevs;
mod rdma;
mod renew;
mod vdpa;
mod vfio;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Code, DiscoverError, Holder, IfIndex, Inventory, PciAddress, PfFacts, Role, Scope, with_causes,
};
use netlink::Link;
use serde::Deserialize;

pub(crate) use self::aux::AUX_DEVICES;
use self::device::Notes;
pub(crate) use self::disks::{BLOCK_DEVICES, SWAPS, mounted};
pub(crate) use self::functions::PCI_DEVICES;
use self::functions::Scan;
pub(crate) use self::holders::is_device_node;
use self::host_use::Uppers;
pub(crate) use self::netdevs::LOOPBACK;
pub use self::rdma::nearest_function;
pub(crate) use self::renew::renewed;
pub(crate) use self::vdpa::VDPA_DEVICES;
use crate::queries::{Firmware, Queries, QueryError};
use crate::root::HostRoot;

/// What one pass looks at.
#[derive(Clone, Copy)]
struct Aim<'a> {
    /// These functions and what is around them; `None` for the whole host.
    functions: Option<&'a BTreeSet<PciAddress>>,
    /// What was seen of the whole host before, if that is to be renewed.
    before: Option<&'a Inventory>,
}

impl Aim<'_> {
    /// Is a function wanted for itself, and not only seen beside one that is?
    fn names(&self, function: PciAddress) -> bool {
        self.functions
            .is_none_or(|functions| functions.contains(&function))
    }

    /// Is everything to be known of what is wanted, also what is dear?
    fn is_thorough(&self) -> bool {
        self.functions.is_none() || self.before.is_some()
    }
}

/// Observes the host.
///
/// `ledger` says who was given which VF, as far as virtfn gave it; other holders are found here.
pub(crate) fn discover(
    root: &HostRoot,
    queries: &mut dyn Queries,
    scope: Scope,
    ledger: &BTreeMap<PciAddress, Holder>,
) -> Result<Inventory, DiscoverError> {
    let functions = match scope {
        Scope::All => None,
        Scope::Function(address) => Some(BTreeSet::from([address])),
    };
    let aim = Aim {
        functions: functions.as_ref(),
        before: None,
    };
    look(root, queries, aim, ledger)
}

/// Looks at some functions again, and at what is around them, for [`renewed`].
pub(crate) fn look_again(
    root: &HostRoot,
    queries: &mut dyn Queries,
    functions: &BTreeSet<PciAddress>,
    before: &Inventory,
    ledger: &BTreeMap<PciAddress, Holder>,
) -> Result<Inventory, DiscoverError> {
    let aim = Aim {
        functions: Some(functions),
        before: Some(before),
    };
    look(root, queries, aim, ledger)
}

fn look(
    root: &HostRoot,
    queries: &mut dyn Queries,
    aim: Aim<'_>,
    ledger: &BTreeMap<PciAddress, Holder>,
) -> Result<Inventory, DiscoverError> {
    let mut scan = Scan::new(root);
    let links = match aim.functions {
        None => {
            scan.all().map_err(|error| DiscoverError {
                attempt: error.to_string(),
                source: error.source.into(),
                code: Code::new("sysfs-unreadable"),
                remedy: Some("make sure that sysfs is mounted on /sys of this host".to_owned()),
            })?;
            queries.links()
        }
        Some(functions) => {
            for function in functions {
                if aim.is_thorough() {
                    scan.all_around(*function);
                } else {
                    scan.around(*function);
                }
            }
            links_around(root, &scan, queries, aim)
        }
    };
    let links = links.map_err(|error| DiscoverError {
        attempt: "see the network interfaces of the host".to_owned(),
        source: Box::new(error),
        code: Code::new("netlink-failed"),
        remedy: None,
    })?;
    if aim.functions.is_none() {
        aux::add(root, &mut scan);
    }
    let mut uppers = Uppers::of(&links);
    netdevs::add(root, &mut scan, links, aim);
    rdma::add(root, &mut scan);
    vdpa::add(root, &mut scan);
    let node_uses = match aim.functions {
        None => queries.node_uses().unwrap_or_else(|error| {
            scan.notes.gap("routes and addresses", with_causes(&error));
            BTreeMap::new()
        }),
        Some(_) => aim
            .before
            .map_or_else(BTreeMap::new, |before| before.node_uses.clone()),
    };
    let may_be_elsewhere = holders::netdevs_may_be_elsewhere(&scan, aim)
        || uppers.may_be_elsewhere(&scan, aim, &node_uses);
    if may_be_elsewhere {
        let (namespaces, errors) = queries.elsewhere(root);
        for error in errors {
            scan.notes.gap("network namespaces", with_causes(&error));
        }
        uppers.add_elsewhere(&namespaces);
        netdevs::add_elsewhere(&mut scan, namespaces);
    }
    ask_pfs(root, &mut scan, queries, aim);
    let rdma_netns = if is_of_rdma(&scan, aim) {
        queries.rdma_netns().unwrap_or_else(|error| {
            scan.notes.gap("rdma", with_causes(&error));
            None
        })
    } else {
        None
    };
    holders::tell(root, &mut scan, ledger, aim);
    let disks = disks::in_use(root, &scan, aim);
    holders::tell_of_host(&mut scan, &uppers, &node_uses, disks);
    Ok(Inventory {
        functions: scan.functions,
        sub_functions: scan.sub_functions,
        node_uses,
        users: scan.users,
        rdma_netns,
        gaps: scan.notes.gaps,
    })
}

/// Has RDMA to do with what is observed? A VF without an RDMA device has none that could be moved.
fn is_of_rdma(scan: &Scan<'_>, aim: Aim<'_>) -> bool {
    let asked = |address: &PciAddress| {
        let function = scan.functions.get(address);
        function.is_none_or(|function| function.vf().is_none() || !function.rdma.is_empty())
    };
    let functions = aim.functions.filter(|_| !aim.is_thorough());
    functions.is_none_or(|functions| functions.iter().any(asked))
}

/// Asks for the netdevs of what was scanned: one by one where that tells all, and else for all
/// netdevs, but for VF reports only of the PFs that were scanned.
fn links_around(
    root: &HostRoot,
    scan: &Scan<'_>,
    queries: &mut dyn Queries,
    aim: Aim<'_>,
) -> Result<Vec<Link>, QueryError> {
    // Only all of them say what the host has on one.
    if !aim.is_thorough()
        && let Some(links) = queries.links_on(root, &mut scan.functions.values())?
    {
        return Ok(links);
    }
    let mut links = queries.links_without_vfs()?;
    for link in &mut links {
        let function = netdevs::function_of(root, link).and_then(|at| scan.functions.get(&at));
        let has_vfs = function
            .and_then(|f| f.pf())
            .is_some_and(|pf| pf.num_vfs > 0);
        if has_vfs && let Some(full) = queries.link(link.index)? {
            *link = full;
        }
    }
    Ok(links)
}

/// Asks devlink, and reads what the operator left behind about each PF.
///
/// Firmware and the mode of the switch are for people and plans that look at the whole host, so
/// neither is asked for one function.
fn ask_pfs(root: &HostRoot, scan: &mut Scan<'_>, queries: &mut dyn Queries, aim: Aim<'_>) {
    for function in scan.functions.values_mut() {
        let netdev = function.netdev_name().cloned();
        let index = function.netdev().map(|netdev| netdev.index);
        let address = function.address;
        let Role::Pf(facts) = &mut function.role else {
            continue;
        };
        if !aim.is_thorough() {
            continue;
        }
        facts.externally_managed = externally_managed(root, address);
        if netdev.is_none() || !aim.names(address) {
            continue;
        }
        facts.eswitch = queries.eswitch(address).unwrap_or_else(|error| {
            scan.notes.gap(address, with_causes(&error));
            None
        });
        if let (Some(_), Some(index)) = (facts.eswitch, index) {
            ask_switch(facts, address, index, &mut scan.notes, queries);
        }
        let firmware = queries.firmware(address, netdev.as_ref());
        let firmware = firmware.unwrap_or_else(|error| {
            scan.notes.gap(address, with_causes(&error));
            Firmware::default()
        });
        (facts.firmware, facts.ddp) = (firmware.version, firmware.ddp);
    }
}

/// Asks what only a PF with an eswitch has.
fn ask_switch(
    facts: &mut PfFacts,
    pf: PciAddress,
    netdev: IfIndex,
    notes: &mut Notes,
    queries: &mut dyn Queries,
) {
    facts.steering = queries.steering(pf).unwrap_or_else(|error| {
        notes.gap(pf, with_causes(&error));
        None
    });
    facts.tc_offload = queries.tc_offload(pf, netdev).unwrap_or_else(|error| {
        notes.gap(pf, with_causes(&error));
        None
    });
}

/// Reads `externallyManaged` in the file that the operator keeps of a PF that it configured.
fn externally_managed(root: &HostRoot, pf: PciAddress) -> bool {
    #[derive(Deserialize)]
    struct Kept {
        #[serde(default, rename = "externallyManaged")]
        externally_managed: bool,
    }
    root.read(&format!("/etc/sriov-operator/pci/{pf}"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok())
        .is_some_and(|kept| kept.externally_managed)
}

#[cfg(test)]
mod tests;
