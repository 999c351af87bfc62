//! What one pool says about one device.

use std::fmt;

use model::{
    ClassPrefix, DeviceId, Filter, Holder, HolderKind, IfIndex, IfName, Inventory, Netns, PciClass,
    Pool, PoolKind, Selector,
};

use super::Held;
use super::candidate::Candidate;
use super::filter::{Miss, first_miss, passes};

/// What a pool says about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The host has no such device.
    Absent,
    /// The pool is for devices of another kind.
    OtherKind {
        /// The pool's kind.
        wanted: PoolKind,
        /// The device's class.
        class: PciClass,
    },
    /// No selector was asked.
    Excluded(Exclusion),
    /// No selector takes it; for each, in order, the first filter that it does not pass.
    NotSelected(Vec<Miss>),
    /// A selector takes it.
    Selected {
        /// Its place, from 0.
        selector: usize,
    },
}

/// Why a device is in no pool, whatever the selectors say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// No driver is bound, so it is not known what it would bring.
    NoDriver,
    /// It is a PF, and its VFs are what is offered.
    HasVfs(u16),
    /// The host's own traffic leaves through it.
    DefaultRoute(IfName),
    /// The node has an IP address on it.
    NodeAddress(IfName),
    /// It is a port of a bond, a bridge or a switch of this host.
    Port(IfName, IfIndex),
    /// Somebody outside Kubernetes has it.
    Held(Holder),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.pad("it is not on this host"),
            Self::OtherKind { wanted, class } => {
                write!(f, "the pool is of type {wanted}, and its class is {class}")
            }
            Self::Excluded(exclusion) => write!(f, "excluded: {exclusion}"),
            Self::NotSelected(misses) => {
                for (at, miss) in misses.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "; " };
                    write!(f, "{comma}selector {at} wants {miss}")?;
                }
                Ok(())
            }
            Self::Selected { selector } => write!(f, "selector {selector} takes it"),
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.pad("no driver is bound"),
            Self::HasVfs(count) => write!(f, "it is a PF with {count} VFs"),
            Self::DefaultRoute(name) => {
                write!(f, "a default route of the node leads out of {name}")
            }
            Self::NodeAddress(name) => write!(f, "the node has an IP address on {name}"),
            Self::Port(name, master) => write!(f, "{name} is a port of interface {master}"),
            Self::Held(holder) => write!(f, "held outside Kubernetes by {holder}"),
        }
    }
}

/// Says what `pool` makes of `device`, whatever other pools say.
#[must_use]
pub fn judge(pool: &Pool, device: &DeviceId, seen: &Inventory, held: &Held) -> Verdict {
    match Candidate::find(seen, device) {
        Some(candidate) => judge_candidate(pool, &candidate, held),
        None => Verdict::Absent,
    }
}

pub(super) fn judge_candidate(pool: &Pool, candidate: &Candidate<'_>, held: &Held) -> Verdict {
    match choose(pool, candidate, held) {
        Choice::OtherKind => Verdict::OtherKind {
            wanted: pool.kind,
            class: candidate.function.class,
        },
        Choice::Excluded(exclusion) => Verdict::Excluded(exclusion),
        Choice::Selected(selector) => Verdict::Selected { selector },
        Choice::NotSelected => {
            let selectors = pool.selectors.iter();
            let misses = selectors.filter_map(|one| first_miss(&one.filters, candidate));
            Verdict::NotSelected(misses.collect())
        }
    }
}

/// Returns the selector of `pool` that takes the device.
pub(super) fn taking(pool: &Pool, candidate: &Candidate<'_>, held: &Held) -> Option<usize> {
    match choose(pool, candidate, held) {
        Choice::Selected(selector) => Some(selector),
        Choice::OtherKind | Choice::Excluded(_) | Choice::NotSelected => None,
    }
}

/// A verdict without the reasons of selectors, which are many texts when pools and devices are many.
enum Choice {
    OtherKind,
    Excluded(Exclusion),
    NotSelected,
    Selected(usize),
}

fn choose(pool: &Pool, candidate: &Candidate<'_>, held: &Held) -> Choice {
    if !candidate.is_for(pool) {
        return Choice::OtherKind;
    }
    if let Some(exclusion) = exclusion(pool, candidate, held) {
        return Choice::Excluded(exclusion);
    }
    let takes = |one: &Selector| one.filters.iter().all(|filter| passes(filter, candidate));
    let selector = pool.selectors.iter().position(takes);
    selector.map_or(Choice::NotSelected, Choice::Selected)
}

fn exclusion(pool: &Pool, candidate: &Candidate<'_>, held: &Held) -> Option<Exclusion> {
    if candidate.function.driver.is_none() {
        return Some(Exclusion::NoDriver);
    }
    // Upstream offers an accelerator besides its VFs. Of other classes the PF is what manages them.
    let accelerator = ClassPrefix::ACCELERATORS.has(candidate.function.class);
    if candidate.part.is_none() && !accelerator {
        let vfs = candidate.function.pf().map_or(0, |pf| pf.num_vfs);
        if vfs > 0 {
            return Some(Exclusion::HasVfs(vfs));
        }
    }
    let spares_node = !pool.offer_used_by_node && !is_named(pool, candidate);
    if spares_node && let Some(exclusion) = used_by_node(candidate) {
        return Some(exclusion);
    }
    let holder = held_outside(candidate, held)?;
    let matters = spares_node || holder.kind != HolderKind::Host;
    matters.then_some(Exclusion::Held(holder))
}

/// Does the pool name the device by its address? Who does that means it. The address of a parent names no
/// part of it.
fn is_named(pool: &Pool, candidate: &Candidate<'_>) -> bool {
    if candidate.part.is_some() {
        return false;
    }
    let filters = pool.selectors.iter().flat_map(|selector| &selector.filters);
    filters.into_iter().any(|filter| match filter {
        Filter::PciAddresses(addresses) => addresses.contains(&candidate.function.address),
        Filter::Vendors(_)
        | Filter::Devices(_)
        | Filter::Drivers(_)
        | Filter::AcpiIndexes(_)
        | Filter::PfNames(_)
        | Filter::RootDevices(_)
        | Filter::LinkTypes(_)
        | Filter::DdpProfiles(_)
        | Filter::PKeys(_)
        | Filter::Rdma
        | Filter::Vdpa(_) => false,
    })
}

fn used_by_node(candidate: &Candidate<'_>) -> Option<Exclusion> {
    let mut here = candidate
        .netdevs()
        .filter(|netdev| netdev.netns == Netns::Host);
    here.find_map(|netdev| {
        let used = candidate.node_use(netdev);
        if used.default_route {
            Some(Exclusion::DefaultRoute(netdev.name.clone()))
        } else if used.address {
            Some(Exclusion::NodeAddress(netdev.name.clone()))
        } else {
            netdev
                .master
                .map(|master| Exclusion::Port(netdev.name.clone(), master))
        }
    })
}

/// Returns who has the device, when that is certainly no pod of the device plugin.
fn held_outside(candidate: &Candidate<'_>, held: &Held) -> Option<Holder> {
    if held.resource_of(&candidate.id).is_some() {
        return None;
    }
    let holder = candidate.holder()?;
    let outside = match holder.kind {
        HolderKind::Attach | HolderKind::Docker | HolderKind::Claim => true,
        // A pod puts something on its VF, but seldom has a whole NIC; without it the node may be lost.
        HolderKind::Host if !candidate.is_vf() => true,
        // The CNI plugin works for pods, of which the kubelet knows, and for containers of others. A pod
        // may also have something on its VF, which then counts as used by the host.
        HolderKind::Cni
        | HolderKind::Namespace
        | HolderKind::Vfio
        | HolderKind::Device
        | HolderKind::Host
        | HolderKind::Unknown => held.complete,
    };
    outside.then(|| holder.clone())
}
