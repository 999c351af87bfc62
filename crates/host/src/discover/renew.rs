//! What was seen of the whole host, with some functions seen anew.
//!
//! A function that changed is taken as it is now, and so is its PF, which reports of its VFs. Everything
//! else stays as it was seen before. That is the same as a look at the whole host only while functions
//! neither come nor go nor change their places, and while everything can be read: otherwise there is no
//! answer, and the caller looks at the whole.

use std::collections::BTreeSet;

use model::{DeviceId, Function, HolderKind, Inventory, Netdev, PciAddress, PfFacts, Role};

/// Puts what was seen of `changed` and around them into what was seen `before`.
pub(crate) fn renewed(
    before: &Inventory,
    part: Inventory,
    changed: &BTreeSet<PciAddress>,
) -> Option<Inventory> {
    let vfs = changed
        .iter()
        .filter_map(|address| part.get(*address)?.vf());
    let pfs: BTreeSet<PciAddress> = vfs.map(|facts| facts.pf).collect();
    let anew: BTreeSet<PciAddress> = changed.union(&pfs).copied().collect();
    if !is_enough(before, &part, changed, &anew) {
        return None;
    }
    let mut whole = before.clone();
    whole.rdma_netns = part.rdma_netns;
    for device in changed.iter().copied().map(DeviceId::Pci) {
        let now = part.users.get(&device).cloned();
        match now {
            Some(user) => whole.users.insert(device, user),
            None => whole.users.remove(&device),
        };
    }
    for (address, function) in part.functions {
        let Some(known) = whole.functions.get_mut(&address) else {
            continue;
        };
        if anew.contains(&address) {
            take(known, function, changed.contains(&address));
        } else if let (Role::Vf(then), Role::Vf(now)) = (&mut known.role, function.role)
            && anew.contains(&now.pf)
        {
            (then.state, then.representor) = (now.state, now.representor);
        }
    }
    Some(whole)
}

/// Is nothing else to be seen than what those functions are?
fn is_enough(
    before: &Inventory,
    part: &Inventory,
    changed: &BTreeSet<PciAddress>,
    anew: &BTreeSet<PciAddress>,
) -> bool {
    let is_here = |address: &PciAddress| part.functions.contains_key(address);
    let stays = |address: &PciAddress| {
        let both = before.get(*address).zip(part.get(*address));
        let is_same = both.is_some_and(|(then, now)| is_same_place(then, now));
        is_same && !seems_let_go(before, part, *address)
    };
    let of_vfs = anew.iter().filter_map(|address| part.get(*address)?.pf());
    let mut vfs = of_vfs.flat_map(|facts| facts.vfs.values());
    let mut parts = before.sub_functions.values();
    let mut gaps = before.gaps.iter();
    anew.iter().all(stays)
        && vfs.all(|vf| before.functions.contains_key(vf) == is_here(vf))
        // What is on sub-functions is not looked for.
        && parts.all(|sub_function| !changed.contains(&sub_function.parent))
        && part.gaps.is_empty()
        // A hole of another function stays; of any other one nobody knows whether it is still there.
        && gaps.all(|gap| gap.object.parse().is_ok_and(|address| !is_here(&address)))
}

/// Is a function where it was, among the same VFs and in the same group?
fn is_same_place(then: &Function, now: &Function) -> bool {
    let same_role = match (&then.role, &now.role) {
        (Role::Pf(then), Role::Pf(now)) => then.vfs == now.vfs,
        (Role::Vf(then), Role::Vf(now)) => (then.pf, then.index) == (now.pf, now.index),
        (Role::Plain, Role::Plain) => true,
        _ => false,
    };
    // The other namespaces are searched for the one interface of a VF, not for each of those of a PF.
    let is_searched_for = then.netdevs.len() <= 1 && now.pf().is_none();
    let stays = |netdev: &Netdev| {
        let same = |other: &Netdev| (other.index, &other.netns) == (netdev.index, &netdev.netns);
        now.netdevs.iter().any(same)
    };
    let has_interfaces = is_searched_for || then.netdevs.iter().all(stays);
    same_role && then.iommu_group == now.iommu_group && has_interfaces
}

/// Did the host use a device, and does nothing tell so now? What containers have on it is looked for only
/// when it, or another one, is up.
fn seems_let_go(then: &Inventory, now: &Inventory, device: PciAddress) -> bool {
    let by_host = |seen: &Inventory| {
        let holder = seen.holder_of(&DeviceId::Pci(device));
        holder.is_some_and(|holder| holder.kind == HolderKind::Host)
    };
    by_host(then) && !by_host(now)
}

/// Takes a function as it is now; of a PF that is only seen beside its VF devlink was not asked.
fn take(known: &mut Function, mut now: Function, asked: bool) {
    if let (false, Role::Pf(then), Role::Pf(facts)) = (asked, &mut known.role, &mut now.role) {
        *facts = PfFacts {
            eswitch: then.eswitch,
            tc_offload: then.tc_offload,
            steering: then.steering,
            firmware: then.firmware.take(),
            ddp: then.ddp.take(),
            ..std::mem::take(facts)
        };
    }
    *known = now;
}

#[cfg(test)]
mod tests;
