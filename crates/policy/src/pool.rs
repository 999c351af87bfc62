//! Pools of the device plugin: which device is offered under which resource name, and why.
//!
//! ```text
//! pools × inventory ─ offer ─▶ Offer: pool by pool, device by device, with health
//!         ▲                       │
//!       Held ◀── what pods have ──┘ prefer: which of the free ones a container should get
//! ```
//!
//! Pools are asked in the order of their file, each pool's selectors in theirs, devices in the order
//! of their addresses; the first that takes a device has it. [`judge`] decides for one pool and one
//! device, for [`offer`] as for [`explain`], so the two cannot disagree.
//!
//! What would surprise: a device that a pod has stays in the pool that the pod got it from, even
//! when no selector takes it any more. Its netdev, and perhaps its RDMA device, are in the pod and
//! cannot be seen; and the kubelet refuses to restart a container whose device is not listed.

mod candidate;
mod explain;
mod filter;
mod prefer;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{DeviceId, Filter, Inventory, NumaNode, OperState, PciAddress, Pool, ResourceName};

use candidate::{Candidate, candidates};
pub use explain::{DeviceStory, PoolStory, PoolVerdict, explain_device, explain_pool};
pub use filter::Miss;
pub use prefer::prefer;
pub use verdict::{Exclusion, Verdict, judge};

/// Which devices pods have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The devices that pods have, by the resource that they were got under.
    pub by_pods: BTreeMap<ResourceName, BTreeSet<DeviceId>>,
    /// Are these all? Then a device that somebody else holds is held outside Kubernetes.
    pub complete: bool,
}

impl Held {
    /// Returns the resource under which a pod got `device`.
    #[must_use]
    pub fn resource_of(&self, device: &DeviceId) -> Option<&ResourceName> {
        let mut resources = self.by_pods.iter();
        resources
            .find(|(_, devices)| devices.contains(device))
            .map(|(resource, _)| resource)
    }
}

/// What a host offers, pool by pool in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The pools, also those without a device: a resource that vanishes keeps its old count in the
    /// kubelet for five minutes, one of zero devices does not.
    pub pools: Vec<PoolOffer>,
}

/// What one pool offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOffer {
    /// The resource.
    pub resource: ResourceName,
    /// Its devices, by address and then by auxiliary name.
    pub devices: BTreeMap<DeviceId, Offered>,
}

/// A device that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The selector that took it, from 0.
    pub selector: usize,
    /// Can it be given to a container?
    pub health: Health,
    /// NUMA node; `None` also when the pool does not tell.
    pub numa: Option<NumaNode>,
    /// The PF of a VF, the parent of a sub-function.
    pub pf: Option<PciAddress>,
}

/// Can a device be given to a container?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Healthy,
    /// No: it is listed because a pod has it, or because it may get well.
    Unhealthy(Ailment),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.pad("healthy"),
            Self::Unhealthy(ailment) => write!(f, "unhealthy: {ailment}"),
        }
    }
}

/// Why a device is unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// It is not on the host any more.
    Gone,
    /// No driver is bound.
    NoDriver,
    /// A driver is bound that the pool does not want.
    OtherDriver,
    /// Its PF has no carrier, and the pool asks for one.
    PfLinkDown,
}

impl Ailment {
    /// Returns a word for a metric.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NoDriver => "no-driver",
            Self::OtherDriver => "other-driver",
            Self::PfLinkDown => "pf-link-down",
        }
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gone => "it is gone",
            Self::NoDriver => "no driver is bound",
            Self::OtherDriver => "another driver is bound",
            Self::PfLinkDown => "the PF has no link",
        })
    }
}

/// Decides what is offered.
#[must_use]
pub fn offer(pools: &[Pool], seen: &Inventory, held: &Held) -> Offer {
    let mut taken: BTreeSet<DeviceId> = BTreeSet::new();
    let known = |resource: &ResourceName| pools.iter().any(|pool| pool.resource == *resource);
    for (_, devices) in held.by_pods.iter().filter(|(name, _)| known(name)) {
        taken.extend(devices.iter().cloned());
    }
    let candidates: Vec<Candidate<'_>> = candidates(seen).collect();
    let pools = pools.iter().map(|pool| {
        let mut devices = held_devices(pool, seen, held);
        for candidate in &candidates {
            if taken.contains(&candidate.id) {
                continue;
            }
            if let Some(selector) = verdict::taking(pool, candidate, held) {
                taken.insert(candidate.id.clone());
                devices.insert(candidate.id.clone(), offered(pool, candidate, selector));
            }
        }
        PoolOffer {
            resource: pool.resource.clone(),
            devices,
        }
    });
    Offer {
        pools: pools.collect(),
    }
}

/// A pool would take devices that another one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The pool that has them, because it is asked first or a pod got them from it.
    pub owner: ResourceName,
    /// The pool that would take them.
    pub loser: ResourceName,
    /// The devices, in their order.
    pub devices: Vec<DeviceId>,
}

/// Returns which pools claim the same devices, in the order of the pools that go without.
#[must_use]
pub fn overlaps(pools: &[Pool], seen: &Inventory, held: &Held, offer: &Offer) -> Vec<Overlap> {
    let mut owners: BTreeMap<&DeviceId, &ResourceName> = BTreeMap::new();
    for pool in &offer.pools {
        owners.extend(pool.devices.keys().map(|id| (id, &pool.resource)));
    }
    let candidates: Vec<Candidate<'_>> = candidates(seen).collect();
    let mut overlaps: Vec<Overlap> = Vec::new();
    for pool in pools {
        let first = overlaps.len();
        for candidate in &candidates {
            let owner = owners.get(&candidate.id).copied();
            let Some(owner) = owner.filter(|owner| **owner != pool.resource) else {
                continue;
            };
            if verdict::taking(pool, candidate, held).is_none() {
                continue;
            }
            let id = candidate.id.clone();
            let mut own = overlaps.iter_mut().skip(first);
            match own.find(|known| known.owner == *owner) {
                Some(known) => known.devices.push(id),
                None => overlaps.push(Overlap {
                    owner: owner.clone(),
                    loser: pool.resource.clone(),
                    devices: vec![id],
                }),
            }
        }
    }
    overlaps
}

/// Returns the devices that pods got from `pool`.
fn held_devices(pool: &Pool, seen: &Inventory, held: &Held) -> BTreeMap<DeviceId, Offered> {
    let mut devices = BTreeMap::new();
    for id in held.by_pods.get(&pool.resource).into_iter().flatten() {
        let offered = match Candidate::find(seen, id) {
            None => Offered {
                selector: 0,
                health: Health::Unhealthy(Ailment::Gone),
                numa: None,
                pf: None,
            },
            Some(candidate) => {
                let selector = lasting_selector(pool, &candidate);
                let mut offered = offered(pool, &candidate, selector.unwrap_or(0));
                if candidate.function.driver.is_none() {
                    offered.health = Health::Unhealthy(Ailment::NoDriver);
                } else if !driver_is_wanted(pool, &candidate) {
                    offered.health = Health::Unhealthy(Ailment::OtherDriver);
                }
                offered
            }
        };
        devices.insert(id.clone(), offered);
    }
    devices
}

/// Returns the first selector that takes a device as far as it can be told while a pod has it.
fn lasting_selector(pool: &Pool, candidate: &Candidate<'_>) -> Option<usize> {
    pool.selectors.iter().position(|selector| {
        let lasting = |filter: &&Filter| match filter {
            Filter::LinkTypes(_) | Filter::PKeys(_) | Filter::Rdma | Filter::Vdpa(_) => false,
            Filter::Vendors(_)
            | Filter::Devices(_)
            | Filter::Drivers(_)
            | Filter::PciAddresses(_)
            | Filter::AcpiIndexes(_)
            | Filter::PfNames(_)
            | Filter::RootDevices(_)
            | Filter::DdpProfiles(_) => true,
        };
        let mut filters = selector.filters.iter().filter(lasting);
        filters.all(|filter| filter::passes(filter, candidate))
    })
}

fn driver_is_wanted(pool: &Pool, candidate: &Candidate<'_>) -> bool {
    pool.selectors.iter().any(|selector| {
        let of_driver = |filter: &&Filter| matches!(filter, Filter::Drivers(_));
        let mut filters = selector.filters.iter().filter(of_driver);
        filters.all(|filter| filter::passes(filter, candidate))
    })
}

fn offered(pool: &Pool, candidate: &Candidate<'_>, selector: usize) -> Offered {
    let link_down = pool.health.pf_link && candidate.pf.is_some() && !pf_has_link(candidate);
    Offered {
        selector,
        health: if link_down {
            Health::Unhealthy(Ailment::PfLinkDown)
        } else {
            Health::Healthy
        },
        numa: candidate.function.numa.filter(|_| !pool.exclude_topology),
        pf: candidate.pf.map(|pf| pf.address),
    }
}

/// Has the PF a carrier? One whose driver does not say, or which has no netdev, is taken to have.
fn pf_has_link(candidate: &Candidate<'_>) -> bool {
    let netdev = candidate.pf.and_then(|pf| pf.netdev());
    netdev.is_none_or(|netdev| match netdev.oper {
        OperState::Up | OperState::Unknown => true,
        OperState::NotPresent
        | OperState::Down
        | OperState::LowerLayerDown
        | OperState::Testing
        | OperState::Dormant => false,
    })
}

#[cfg(test)]
mod tests;
