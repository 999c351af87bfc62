//! What policies offer, over what a host has.

use std::collections::BTreeMap;

use model::{Desired, Inventory, VfIndex};

use super::build::pf_ref;
use super::{PoolMemberView, PoolView};

/// Shows the resources that `desired` offers, by name, and how many of their VFs are there and free.
pub fn pool_views(inventory: &Inventory, desired: &Desired) -> Vec<PoolView> {
    let mut pools: BTreeMap<&str, Vec<PoolMemberView>> = BTreeMap::new();
    for pf in desired.pfs.values() {
        for group in &pf.groups {
            let (first, last) = (group.range.first(), group.range.last());
            let mut member = PoolMemberView {
                pf: pf_ref(inventory, pf.pf),
                policy: group.policy.clone(),
                first: first.0,
                last: last.0,
                driver: group.driver.to_string(),
                present: 0,
                free: 0,
                held: 0,
            };
            for index in first.0..=last.0 {
                let vf = inventory.vf_of(pf.pf, VfIndex(index));
                if let Some(facts) = vf.and_then(|function| function.vf()) {
                    member.present += 1;
                    if facts.holder.is_some() {
                        member.held += 1;
                    } else {
                        member.free += 1;
                    }
                }
            }
            pools.entry(&group.resource).or_default().push(member);
        }
    }
    pools
        .into_iter()
        .map(|(resource, members)| PoolView {
            resource: resource.to_owned(),
            members,
        })
        .collect()
}
