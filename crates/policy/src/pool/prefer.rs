//! Which devices a container should get, when the pool has an opinion.

use std::collections::{BTreeMap, BTreeSet};

use model::{DeviceId, NumaNode, PciAddress, Preference};

use super::PoolOffer;

/// Devices of one PF that can be chosen.
type Bin<'a> = (Option<NumaNode>, Option<PciAddress>, Vec<&'a DeviceId>);

/// Chooses `size` devices: all of `required`, the rest of `available`.
///
/// The kubelet keeps to it only if the devices are still free, and takes any others if not. Fewer
/// are returned when there are not enough; more, when more are required.
#[must_use]
pub fn prefer(
    preference: Preference,
    pool: &PoolOffer,
    available: &[DeviceId],
    required: &[DeviceId],
    size: usize,
) -> Vec<DeviceId> {
    let mut named = BTreeSet::new();
    let fresh = |device: &&DeviceId| named.insert((*device).clone());
    let mut chosen: Vec<DeviceId> = required.iter().filter(fresh).cloned().collect();
    let place = |device: &DeviceId| {
        let offered = pool.devices.get(device);
        offered.map_or((None, None), |offered| (offered.numa, offered.pf))
    };
    let mut bins: BTreeMap<(Option<NumaNode>, Option<PciAddress>), Vec<&DeviceId>> =
        BTreeMap::new();
    let free: BTreeSet<&DeviceId> = available.iter().filter(|id| !named.contains(id)).collect();
    for device in free {
        bins.entry(place(device)).or_default().push(device);
    }
    let mut bins: Vec<Bin<'_>> = bins
        .into_iter()
        .map(|((numa, pf), devices)| (numa, pf, devices))
        .collect();
    while chosen.len() < size {
        // Where the first device is, the others should be.
        let home = chosen.first().map(place);
        let wanted = size - chosen.len();
        let numa = best_node(preference, &bins, home.map(|(numa, _)| numa), wanted);
        let in_node = bins
            .iter_mut()
            .filter(|bin| bin.0 == numa && !bin.2.is_empty());
        let home_pf = home.map(|(_, pf)| pf);
        let best = match preference {
            // The PF of what the container has already; else the fullest one that suffices.
            Preference::Packed => in_node.min_by_key(|(_, pf, free)| {
                let short = free.len() < wanted;
                let waste = if short {
                    usize::MAX - free.len()
                } else {
                    free.len()
                };
                (home_pf != Some(*pf), short, waste, *pf)
            }),
            // The emptiest one; of equals, one that the container has nothing of yet.
            Preference::Balanced => in_node.min_by_key(|(_, pf, free)| {
                let has = chosen.iter().filter(|id| place(id).1 == *pf).count();
                (usize::MAX - free.len(), has, *pf)
            }),
        };
        let Some((_, _, free)) = best else {
            break;
        };
        chosen.push(free.remove(0).clone());
    }
    chosen
}

/// Returns the NUMA node to take the next device from: where the container is at home, or else one
/// that can give all that is wanted.
fn best_node(
    preference: Preference,
    bins: &[Bin<'_>],
    home: Option<Option<NumaNode>>,
    wanted: usize,
) -> Option<NumaNode> {
    let mut nodes: BTreeMap<Option<NumaNode>, usize> = BTreeMap::new();
    for (numa, _, free) in bins.iter().filter(|bin| !bin.2.is_empty()) {
        *nodes.entry(*numa).or_default() += free.len();
    }
    let best = nodes.into_iter().min_by_key(|(numa, free)| {
        let short = *free < wanted;
        let rank = match preference {
            Preference::Packed if !short => *free,
            Preference::Packed | Preference::Balanced => usize::MAX - free,
        };
        (home != Some(*numa), numa.is_none(), short, rank, *numa)
    });
    best.and_then(|(numa, _)| numa)
}

#[cfg(test)]
mod tests;
