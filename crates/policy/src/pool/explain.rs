//! Why a device is in a pool, or in none; and what a pool makes of each device.

use model::{DeviceId, Holder, Inventory, Pool, ResourceName};

use super::candidate::{Candidate, candidates};
use super::verdict::{Verdict, judge_candidate};
use super::{Held, Offered, offer};

/// What all pools say about one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStory {
    /// The device.
    pub device: DeviceId,
    /// Is it on the host?
    pub present: bool,
    /// Who has it, as far as the host tells.
    pub holder: Option<Holder>,
    /// The resource under which a pod got it.
    pub pod_resource: Option<ResourceName>,
    /// The pool that offers it.
    pub offered: Option<(ResourceName, Offered)>,
    /// What each pool says, in order.
    pub pools: Vec<PoolVerdict>,
}

/// What one pool says about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolVerdict {
    /// The pool.
    pub resource: ResourceName,
    /// What it would say if it were alone.
    pub verdict: Verdict,
    /// The pool that has the device although this one would take it.
    pub taken_by: Option<ResourceName>,
}

/// What one pool says about each device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStory {
    /// The devices that it offers.
    pub offered: Vec<(DeviceId, Offered)>,
    /// The devices of its kind that it does not offer, each with its reason, in order.
    pub others: Vec<(DeviceId, PoolVerdict)>,
}

/// Explains one device.
#[must_use]
pub fn explain_device(
    pools: &[Pool],
    seen: &Inventory,
    held: &Held,
    device: &DeviceId,
) -> DeviceStory {
    let candidate = Candidate::find(seen, device);
    let offered = offer(pools, seen, held);
    let offered = offered.pools.into_iter().find_map(|mut pool| {
        let offered = pool.devices.remove(device)?;
        Some((pool.resource, offered))
    });
    let verdicts = pools.iter().map(|pool| {
        let verdict = match &candidate {
            Some(candidate) => judge_candidate(pool, candidate, held),
            None => Verdict::Absent,
        };
        with_taker(
            pool,
            verdict,
            offered.as_ref().map(|(resource, _)| resource),
        )
    });
    DeviceStory {
        device: device.clone(),
        present: candidate.is_some(),
        holder: seen.holder_of(device).cloned(),
        pod_resource: held.resource_of(device).cloned(),
        pools: verdicts.collect(),
        offered,
    }
}

/// Explains one pool: every device of its kind. `None` when there is no such pool.
#[must_use]
pub fn explain_pool(
    pools: &[Pool],
    seen: &Inventory,
    held: &Held,
    resource: &ResourceName,
) -> Option<PoolStory> {
    let pool = pools.iter().find(|pool| pool.resource == *resource)?;
    let offer = offer(pools, seen, held);
    let mut story = PoolStory {
        offered: Vec::new(),
        others: Vec::new(),
    };
    for candidate in candidates(seen).filter(|candidate| candidate.is_for(pool)) {
        let has = |id| {
            offer
                .pools
                .iter()
                .find(|pool| pool.devices.contains_key(id))
        };
        let owner = has(&candidate.id);
        if owner.is_some_and(|owner| owner.resource == *resource) {
            continue;
        }
        let verdict = judge_candidate(pool, &candidate, held);
        let owner = owner.map(|owner| &owner.resource);
        let verdict = with_taker(pool, verdict, owner);
        story.others.push((candidate.id, verdict));
    }
    let own = offer
        .pools
        .into_iter()
        .find(|own| own.resource == *resource);
    story.offered = own.into_iter().flat_map(|own| own.devices).collect();
    Some(story)
}

fn with_taker(pool: &Pool, verdict: Verdict, owner: Option<&ResourceName>) -> PoolVerdict {
    let would_take = matches!(verdict, Verdict::Selected { .. });
    PoolVerdict {
        resource: pool.resource.clone(),
        taken_by: owner
            .filter(|owner| would_take && **owner != pool.resource)
            .cloned(),
        verdict,
    }
}
