//! What VFs have that no policy says (MAC, VLAN, rates, trust …), kept over a reboot and over a new number
//! of VFs.
//!
//! A policy says how many VFs there are and on which driver; a person or a script may have given them
//! more through the PF. The kernel forgets that with the VF, and draws a new MAC for each. [`keep`] takes
//! down what the VFs of policies have for the next boot, [`by_hand`] what VFs have that are about to
//! go; [`plan`](crate::plan) sets it again. What would surprise:
//!
//! - For the next boot a VF without an admin MAC gets the one that its netdev has: that is what others
//!   know it by. Within a boot it is what the PF reports. Many PFs (`igb`, `ice`) report a MAC that the VF's
//!   driver made up as if somebody had set it. Nothing tells the two apart once the VF was reset, so
//!   both are kept: the operator's daemon as well gives each VF the MAC that it happens to have.
//! - A VF that was given away has its holder's settings. They are not kept; what was kept of it
//!   before is.

use std::collections::BTreeMap;

use model::{
    Desired, Function, HolderKind, Inventory, LinkPolicy, LinkType, MacAddr, Mbps, Netns,
    PciAddress, PfDesired, PfFacts, VfAttr, VfIndex, VfState,
};

use crate::drivers::pf_driver;

#[cfg(test)]
mod tests;

/// What is kept of VFs, by PF and number.
pub type KeptVfs = BTreeMap<PciAddress, BTreeMap<VfIndex, VfState>>;

/// Takes down what the VFs of policies have; `former` is what was kept before.
#[must_use]
pub fn keep(seen: &Inventory, wanted: &Desired, former: &KeptVfs) -> KeptVfs {
    let mut kept = KeptVfs::new();
    for wanted in wanted.pfs.values() {
        let Some(facts) = seen.get(wanted.pf).and_then(Function::pf) else {
            // A PF that is away for a moment keeps what it had.
            if let Some(former) = former.get(&wanted.pf) {
                kept.insert(wanted.pf, former.clone());
            }
            continue;
        };
        let mut of_pf = BTreeMap::new();
        for (index, vf) in members(wanted, facts) {
            let vf = seen.get(vf);
            let state = vf.and_then(state_of).or_else(|| {
                let former = former.get(&wanted.pf)?;
                former.get(&index).copied()
            });
            of_pf.extend(state.map(|state| (index, state)));
        }
        if !of_pf.is_empty() {
            kept.insert(wanted.pf, of_pf);
        }
    }
    kept
}

/// Returns the VFs that exist and that some policy is for.
fn members<'a>(
    wanted: &'a PfDesired,
    facts: &'a PfFacts,
) -> impl Iterator<Item = (VfIndex, PciAddress)> + 'a {
    let vfs = facts.vfs.iter().map(|(index, vf)| (*index, *vf));
    vfs.filter(|(index, _)| wanted.group_of(*index).is_some())
}

/// Returns what a VF has that is worth keeping; `None` when somebody holds it or nothing is reported.
fn state_of(vf: &Function) -> Option<VfState> {
    let facts = vf.vf()?;
    if facts.holder.is_some() {
        return None;
    }
    let mut state = facts.state?;
    let own = host_mac(vf);
    state.mac = state.mac.filter(|mac| !mac.is_zero()).or(own);
    (state != VfState::default()).then_some(state)
}

/// Returns the MAC of the VF's netdev on the host.
pub(crate) fn host_mac(vf: &Function) -> Option<MacAddr> {
    let netdev = vf.netdev().filter(|netdev| netdev.netns == Netns::Host)?;
    netdev.mac().filter(|mac| !mac.is_zero() && !mac.is_group())
}

/// Returns what somebody gave a VF through its PF; `None` for nothing, or when it was given away, so that
/// its settings are its holder's.
pub(crate) fn by_hand(pf: &Function, vf: &Function) -> Option<VfState> {
    let facts = vf.vf()?;
    let is_holders = match facts.holder.as_ref().map(|holder| holder.kind) {
        None | Some(HolderKind::Vfio | HolderKind::Device | HolderKind::Host) => false,
        Some(
            HolderKind::Attach
            | HolderKind::Cni
            | HolderKind::Docker
            | HolderKind::Claim
            | HolderKind::Namespace
            | HolderKind::Unknown,
        ) => true,
    };
    let state = notable(pf, &facts.state.filter(|_| !is_holders)?);
    (state != VfState::default()).then_some(state)
}

/// Leaves out what a new VF has by itself.
pub(crate) fn notable(pf: &Function, state: &VfState) -> VfState {
    let has_rate = [state.min_rate_mbps, state.max_rate_mbps]
        .iter()
        .any(|rate| rate.is_some_and(|rate| rate > 0));
    let link = pf.netdev().map(|netdev| netdev.link_type);
    let is_infiniband = link == Some(LinkType::InfiniBand);
    let guid = |guid: Option<model::Guid>| guid.filter(|guid| is_infiniband && !guid.is_zero());
    let by_itself = pf_driver(pf.driver.as_ref()).spoof_check;
    VfState {
        mac: state.mac.filter(|mac| !mac.is_zero()),
        vlan: state.vlan.filter(Option::is_some),
        min_rate_mbps: state.min_rate_mbps.filter(|_| has_rate),
        max_rate_mbps: state.max_rate_mbps.filter(|_| has_rate),
        spoof_check: state.spoof_check.filter(|on| by_itself != Some(*on)),
        link: state.link.filter(|link| *link != LinkPolicy::Auto),
        rss_query: state.rss_query.filter(|on| *on),
        trust: state.trust.filter(|on| *on),
        node_guid: guid(state.node_guid),
        port_guid: guid(state.port_guid),
    }
}

/// Returns the attributes that a state names, in the order in which they are set. GUIDs are not
/// among them: they have rules of their own.
pub(crate) fn attributes(state: &VfState) -> impl Iterator<Item = VfAttr> + use<> {
    let mbps = |rate: Option<u32>| rate.and_then(Mbps::new);
    let has_rate = state.min_rate_mbps.is_some() || state.max_rate_mbps.is_some();
    let rate = VfAttr::Rate {
        min: mbps(state.min_rate_mbps),
        max: mbps(state.max_rate_mbps),
    };
    [
        state.vlan.map(VfAttr::Vlan),
        state.mac.map(VfAttr::Mac),
        has_rate.then_some(rate),
        state.spoof_check.map(VfAttr::SpoofCheck),
        state.trust.map(VfAttr::Trust),
        state.rss_query.map(VfAttr::RssQuery),
        state.link.map(VfAttr::Link),
    ]
    .into_iter()
    .flatten()
}
