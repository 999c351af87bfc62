//! What VFs had that no policy says (MAC, VLAN, rates, trust …), kept so that it is there again after
//! a reboot.
//!
//! A policy says how many VFs there are and on which driver; a person or a script may have given them
//! more through the PF, and the kernel draws a new MAC for each VF at each boot. [`keep`] takes down
//! what the VFs of policies have, [`restore`] puts it into a plan. What would surprise:
//!
//! - A VF without an admin MAC gets the one that its netdev has: that is what others know it by.
//! - A VF that somebody holds has its holder's settings. They are not kept; what was kept of it
//!   before is.
//! - While VFs are yet to be made their settings are not planned: the plan is cut behind their number,
//!   and goes on once they exist.

use std::collections::BTreeMap;

use model::{
    Desired, Function, Inventory, MacAddr, Mbps, Netns, NetnsTarget, PciAddress, PfDesired,
    PfFacts, PfPlan, Plan, PlannedStep, Price, Step, VfAttr, VfDriver, VfGroup, VfIndex, VfState,
};

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
fn host_mac(vf: &Function) -> Option<MacAddr> {
    let netdev = vf.netdev().filter(|netdev| netdev.netns == Netns::Host)?;
    netdev.mac().filter(|mac| !mac.is_zero() && !mac.is_group())
}

/// Adds to a plan what gives VFs back what was kept of them.
#[must_use]
pub fn restore(seen: &Inventory, wanted: &Desired, kept: &KeptVfs, mut plan: Plan) -> Plan {
    for wanted in wanted.pfs.values() {
        let Some(of_pf) = kept.get(&wanted.pf) else {
            continue;
        };
        let Some(pf) = seen.get(wanted.pf) else {
            continue;
        };
        let Some(facts) = pf.pf() else { continue };
        let at = plan.pfs.iter().position(|plan| plan.pf == wanted.pf);
        let mut of_plan = match at {
            Some(at) => plan.pfs.remove(at),
            None => PfPlan {
                pf: wanted.pf,
                name: pf.netdev_name().cloned(),
                steps: Vec::new(),
                vfs: BTreeMap::new(),
                is_cut: false,
            },
        };
        let is_count = |planned: &PlannedStep| matches!(planned.step, Step::SetNumVfs { .. });
        if let Some(last) = of_plan.steps.iter().rposition(is_count) {
            // What VFs of no policy get, and that new VFs get drivers by themselves again, stays.
            let vfs = &of_plan.vfs;
            let mut at = 0;
            of_plan.steps.retain(|planned| {
                let is_others = is_of_nobody(wanted, vfs, &planned.step);
                at += 1;
                at <= last + 1 || is_others
            });
            of_plan.is_cut |= wanted.num_vfs > 0;
        } else {
            insert(seen, wanted, facts, of_pf, &mut of_plan);
        }
        if !of_plan.steps.is_empty() {
            plan.pfs.push(of_plan);
        }
    }
    plan.pfs.sort_by_key(|plan| plan.pf);
    plan
}

/// Is a step about no VF that some policy is for?
fn is_of_nobody(wanted: &PfDesired, vfs: &BTreeMap<PciAddress, VfIndex>, step: &Step) -> bool {
    match vfs.get(&step.function()) {
        Some(index) => wanted.group_of(*index).is_none(),
        None => matches!(step, Step::SetAutoprobe { .. }),
    }
}

/// Inserts the steps of VFs that exist, before the first step on a VF: a driver reads its MAC when it
/// is bound.
fn insert(
    seen: &Inventory,
    wanted: &PfDesired,
    facts: &PfFacts,
    kept: &BTreeMap<VfIndex, VfState>,
    plan: &mut PfPlan,
) {
    let mut settings = Vec::new();
    let mut afresh = Vec::new();
    let mut waits = Vec::new();
    let mut mtus = Vec::new();
    for (index, address) in members(wanted, facts) {
        let (Some(kept), Some(vf), Some(group)) =
            (kept.get(&index), seen.get(address), wanted.group_of(index))
        else {
            continue;
        };
        let Some(state) = vf
            .vf()
            .filter(|vf| vf.holder.is_none())
            .and_then(|vf| vf.state)
        else {
            continue;
        };
        let mut of_vf = settings_of(wanted.pf, index, kept, &state);
        if host_mac(vf).is_some_and(|mac| kept.mac == Some(mac))
            && state.mac.is_some_and(|mac| mac.is_zero())
        {
            // It has its MAC by itself, as on the day when that was taken down.
            of_vf.retain(|planned| !is_mac(planned));
        }
        if !of_vf.is_empty() {
            plan.vfs.insert(address, index);
        }
        settings.extend(of_vf);
        if must_read_afresh(vf, group, kept) {
            plan.vfs.insert(address, index);
            let had = host_mac(vf).map(|mac| format!("interface mac {mac}"));
            afresh.push(planned(Step::Rebind { function: address }, had, None));
            let planned = |step| planned(step, None, None);
            waits.push(planned(Step::AwaitNetdev { function: address }));
            let is_planned = |step: &PlannedStep| matches!(step.step, Step::SetMtu { function, .. } if function == address);
            // The new netdev begins with the driver's own MTU.
            if let Some(mtu) = group.mtu.filter(|_| !plan.steps.iter().any(is_planned)) {
                mtus.push(planned(Step::SetMtu {
                    function: address,
                    netns: NetnsTarget::Host,
                    mtu,
                }));
            }
        }
    }
    // What the settings of a kept VF are is decided here, and by nobody else.
    let is_ours = |planned: &PlannedStep| {
        matches!(&planned.step, Step::SetVf { vf, attr: VfAttr::Mac(_), .. }
            if kept.get(vf).is_some_and(|kept| kept.mac.is_some()))
    };
    plan.steps.retain(|step| !is_ours(step));
    let is_of_vf = |planned: &PlannedStep| {
        planned.step.function() != wanted.pf || matches!(planned.step, Step::SetVf { .. })
    };
    let at = plan.steps.iter().position(is_of_vf);
    let at = at.unwrap_or(plan.steps.len());
    plan.steps.splice(
        at..at,
        settings.into_iter().chain(afresh).chain(waits).chain(mtus),
    );
}

fn is_mac(planned: &PlannedStep) -> bool {
    matches!(
        planned.step,
        Step::SetVf {
            attr: VfAttr::Mac(_),
            ..
        }
    )
}

/// Must a VF's driver read the MAC that the PF has for it, because its netdev has another one?
fn must_read_afresh(vf: &Function, group: &VfGroup, kept: &VfState) -> bool {
    let is_kernels = vf
        .driver
        .as_ref()
        .is_some_and(|driver| !driver.is_user_space());
    let stays = group.driver == VfDriver::Kernel && is_kernels;
    stays && kept.mac.is_some() && host_mac(vf).is_some_and(|mac| kept.mac != Some(mac))
}

/// Returns the steps that set what differs; what the driver does not report is left alone.
fn settings_of(pf: PciAddress, vf: VfIndex, kept: &VfState, seen: &VfState) -> Vec<PlannedStep> {
    let mut steps = Vec::new();
    let mut set = |attr: VfAttr, former: VfAttr| {
        let step = |attr| Step::SetVf { pf, vf, attr };
        steps.push(planned(
            step(attr),
            Some(former.to_string()),
            Some(step(former)),
        ));
    };
    if let (Some(kept), Some(seen)) = (kept.vlan, seen.vlan)
        && kept != seen
    {
        set(VfAttr::Vlan(kept), VfAttr::Vlan(seen));
    }
    if let (Some(kept), Some(seen)) = (kept.mac, seen.mac)
        && kept != seen
    {
        set(VfAttr::Mac(kept), VfAttr::Mac(seen));
    }
    let rate = |state: &VfState| {
        let mbps = |rate: Option<u32>| rate.and_then(Mbps::new);
        (state.min_rate_mbps.is_some() || state.max_rate_mbps.is_some()).then(|| VfAttr::Rate {
            min: mbps(state.min_rate_mbps),
            max: mbps(state.max_rate_mbps),
        })
    };
    let pairs = [
        (rate(kept), rate(seen)),
        (
            kept.spoof_check.map(VfAttr::SpoofCheck),
            seen.spoof_check.map(VfAttr::SpoofCheck),
        ),
        (kept.trust.map(VfAttr::Trust), seen.trust.map(VfAttr::Trust)),
        (
            kept.rss_query.map(VfAttr::RssQuery),
            seen.rss_query.map(VfAttr::RssQuery),
        ),
        (kept.link.map(VfAttr::Link), seen.link.map(VfAttr::Link)),
        (
            kept.node_guid.map(VfAttr::NodeGuid),
            seen.node_guid.map(VfAttr::NodeGuid),
        ),
        (
            kept.port_guid.map(VfAttr::PortGuid),
            seen.port_guid.map(VfAttr::PortGuid),
        ),
    ];
    for (kept, seen) in pairs {
        if let (Some(kept), Some(seen)) = (kept, seen)
            && kept != seen
        {
            set(kept, seen);
        }
    }
    steps
}

fn planned(step: Step, before: Option<String>, undo: Option<Step>) -> PlannedStep {
    PlannedStep {
        step,
        before,
        undo,
        price: Price::default(),
    }
}
