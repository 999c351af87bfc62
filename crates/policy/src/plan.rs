//! From what a host has to what it should have: the steps, in order, each with undo and price.
//!
//! For each PF, and only what differs:
//!
//! 1. no VFs, when their number or the eswitch mode changes: the kernel refuses to go from one number
//!    to another;
//! 2. eswitch mode, PF MTU (only ever raised) and PF link, while no VF can suffer from the reset that
//!    they cause, and because some drivers refuse VFs on a PF that is down; most drivers want the VFs
//!    made before their eswitch is switched, and without a driver meanwhile ([`number`]);
//! 3. the wanted number of VFs; when some of them are for another driver than the kernel's own, without
//!    a driver, because probing one only to take it away again costs more than all the rest;
//! 4. the VFs' drivers, then a wait for their netdevs, then their MTU and their vDPA devices: all of one
//!    kind before the next, because netdevs appear on their own time. New VFs get drivers by
//!    themselves again then.
//!
//! What would surprise:
//!
//! - VFs that do not exist yet are named by prediction (routing id of the PF, offset, stride). PCIe
//!   lets both change with the number of VFs, so whoever performs a plan observes again after
//!   `SetNumVfs` and plans anew; the prediction is for people. Where there is none the plan is cut.
//! - VFs that no policy is for are left alone, and so is the MTU of a VF that somebody holds.
//! - What somebody gave VFs by hand is theirs again after they were made anew ([`kept`]). It is not in
//!   any undo: taking such a plan back makes as many VFs as there were, as they come.
//! - InfiniBand VFs get GUIDs that last ([`vf_guid`](crate::vf_guid)), and `mlx5` VFs for RDMA over Ethernet
//!   get MACs that last, before their drivers read them.
//! - A PF that nobody wants anything of is left alone, and so is one that is not seen any more.

mod guids;
mod kept;
mod macs;
mod number;
mod vdpa;
mod vfs;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::{
    Desired, Function, GuidRule, Holder, Inventory, Netdev, NetnsTarget, PciAddress, PfDesired,
    PfFacts, PfPlan, Plan, PlannedStep, Price, Step, VfIndex, VfState,
};

use crate::{Circumstances, KeptVfs};
pub(crate) use guids::guid_errors;

/// The administrator's file of GUIDs, `None` when there is none.
pub(crate) type Guids<'a> = Option<&'a [GuidRule]>;

/// Plans what leads from `seen` to `wanted`. Nothing to do is an empty plan.
#[must_use]
pub fn plan(seen: &Inventory, wanted: &Desired) -> Plan {
    plan_with(seen, wanted, &Circumstances::default()).0
}

/// Plans with all that is known, and tells what is to be on record before VFs are destroyed: what they
/// have by hand.
pub(crate) fn plan_with(
    seen: &Inventory,
    wanted: &Desired,
    known: &Circumstances,
) -> (Plan, KeptVfs) {
    let mut lost = KeptVfs::new();
    let pfs = wanted.pfs.values().filter_map(|wanted| {
        let pf = seen.get(wanted.pf)?;
        let mut planner = Planner::new(seen, pf, pf.pf()?, wanted, known);
        if !wanted.externally_managed {
            planner.pf();
        }
        if !planner.ends_early {
            planner.vfs();
        }
        if planner.by_hand {
            planner.autoprobe(true);
        }
        if planner.destroys_vfs() && !planner.kept.is_empty() {
            lost.insert(pf.address, planner.kept);
        }
        let plan = planner.plan;
        (!plan.steps.is_empty()).then_some(plan)
    });
    let pfs = pfs.collect();
    (Plan { pfs }, lost)
}

/// The steps of one PF so far.
struct Planner<'a> {
    seen: &'a Inventory,
    pf: &'a Function,
    facts: &'a PfFacts,
    wanted: &'a PfDesired,
    guids: Guids<'a>,
    /// What VFs should have that no policy says.
    kept: BTreeMap<VfIndex, VfState>,
    plan: PfPlan,
    /// Will the VFs that are seen be gone?
    are_new: bool,
    /// Did new VFs get drivers by themselves before the PF was configured? If they do not now, a process
    /// died while it bound VFs one by one.
    probed_at_first: bool,
    /// Are new VFs bound one by one, with autoprobe off meanwhile?
    by_hand: bool,
    /// Have the VFs that are seen lost their drivers, because the eswitch is switched around them?
    are_unbound: bool,
    /// Is the eswitch switched after the VFs are made, so that taking that back takes their drivers?
    is_switched_late: bool,
    /// Can nothing be planned before the VFs are seen?
    ends_early: bool,
}

impl<'a> Planner<'a> {
    fn new(
        seen: &'a Inventory,
        pf: &'a Function,
        facts: &'a PfFacts,
        wanted: &'a PfDesired,
        known: &'a Circumstances,
    ) -> Self {
        let mut kept = known.kept.get(&pf.address).cloned().unwrap_or_default();
        kept.retain(|index, _| index.0 < wanted.num_vfs);
        let original = known.owned.get(&pf.address).map(|owned| owned.original);
        Self {
            seen,
            pf,
            facts,
            wanted,
            guids: known.guids.as_deref(),
            kept,
            plan: PfPlan {
                pf: pf.address,
                name: pf.netdev_name().cloned(),
                steps: Vec::new(),
                vfs: BTreeMap::new(),
                is_cut: false,
            },
            are_new: false,
            probed_at_first: original.is_some_and(|had| had.autoprobe == Some(true)),
            by_hand: false,
            are_unbound: false,
            is_switched_late: false,
            ends_early: false,
        }
    }

    fn autoprobe(&mut self, on: bool) {
        let pf = self.pf.address;
        let before = if on { "off" } else { "on" };
        self.step(
            Step::SetAutoprobe { pf, on },
            Some(before.to_owned()),
            Some(Step::SetAutoprobe { pf, on: !on }),
        );
    }

    /// Returns the PF's netdev, where its link and MTU can be set.
    fn netdev(&self) -> Option<&'a Netdev> {
        let netdev = self.pf.netdev();
        netdev.filter(|netdev| netdev.netns == NetnsTarget::Host.netns())
    }

    fn pf_mtu(&mut self) {
        let function = self.pf.address;
        let Some(netdev) = self.netdev() else { return };
        let Some(mtu) = self.wanted.mtu.filter(|mtu| mtu.get() > netdev.mtu) else {
            return;
        };
        // The driver resets the port, and with it the VFs that are there.
        let price = Price {
            interrupts: if self.are_new || self.are_unbound {
                Vec::new()
            } else {
                self.holders()
            },
            ..Price::default()
        };
        let set = |mtu| Step::SetMtu {
            function,
            netns: NetnsTarget::Host,
            mtu,
        };
        let undo = model::Mtu::new(netdev.mtu).map(set);
        self.priced(set(mtu), Some(format!("mtu {}", netdev.mtu)), undo, price);
    }

    fn pf_link(&mut self) {
        let function = self.pf.address;
        if self.netdev().is_some_and(|netdev| !netdev.admin_up) {
            let up = |up| Step::SetUp {
                function,
                netns: NetnsTarget::Host,
                up,
            };
            self.step(up(true), Some("down".to_owned()), Some(up(false)));
        }
    }

    fn step(&mut self, step: Step, before: Option<String>, undo: Option<Step>) {
        self.priced(step, before, undo, Price::default());
    }

    fn priced(&mut self, step: Step, before: Option<String>, undo: Option<Step>, price: Price) {
        let named = price.interrupts.iter().map(|(vf, _)| *vf);
        for address in named.chain([step.function()]) {
            let index = self
                .seen
                .get(address)
                .and_then(|function| function.vf()?.index);
            if let Some(index) = index {
                self.plan.vfs.insert(address, index);
            }
        }
        self.plan.steps.push(PlannedStep {
            step,
            before,
            undo,
            price,
        });
    }

    /// Returns who holds VFs of this PF.
    fn holders(&self) -> Vec<(PciAddress, Holder)> {
        let held = self.facts.vfs.values().filter_map(|vf| {
            let holder = self.seen.get(*vf)?.vf()?.holder.clone()?;
            Some((*vf, holder))
        });
        held.collect()
    }
}
