//! From what a host has to what it should have: the steps, in order, each with undo and price.
//!
//! For each PF, and only what differs:
//!
//! 1. no VFs, when their number or the eswitch mode changes: the kernel refuses to go from one number
//!    to another;
//! 2. eswitch mode, PF MTU (only ever raised) and PF link, while no VF can suffer from the reset that
//!    they cause, and because some drivers refuse VFs on a PF that is down;
//! 3. the wanted number of VFs; when some of them are for another driver than the kernel's own, without
//!    a driver, because probing one only to take it away again costs more than all the rest;
//! 4. the VFs' drivers, then a wait for their netdevs, then their MTU: all of one kind before the
//!    next, because netdevs appear on their own time. New VFs get drivers by themselves again then.
//!
//! What would surprise:
//!
//! - VFs that do not exist yet are named by prediction (routing id of the PF, offset, stride). PCIe
//!   lets both change with the number of VFs, so whoever performs a plan observes again after
//!   `SetNumVfs` and plans anew; the prediction is for people. Where there is none the plan is cut.
//! - VFs that no policy is for are left alone, and so is the MTU of a VF that somebody holds.
//! - What VFs lose when they are destroyed is not in any undo: taking such a plan back makes as many
//!   VFs as there were, as they come.
//! - InfiniBand VFs get GUIDs that last ([`vf_guid`](crate::vf_guid)), before their drivers read them.
//! - A PF that nobody wants anything of is left alone, and so is one that is not seen any more.

mod guids;
mod vfs;

#[cfg(test)]
mod tests;

use model::{
    Desired, EswitchMode, Function, GuidRule, Holder, Inventory, NetnsTarget, PciAddress,
    PfDesired, PfFacts, PfPlan, Plan, PlannedStep, Price, Step, VfDriver, VfGroup, VfIndex,
};

pub(crate) use guids::guid_errors;

/// The administrator's file of GUIDs, `None` when there is none.
pub(crate) type Guids<'a> = Option<&'a [GuidRule]>;

/// Plans what leads from `seen` to `wanted`. Nothing to do is an empty plan.
#[must_use]
pub fn plan(seen: &Inventory, wanted: &Desired) -> Plan {
    plan_with(seen, wanted, None)
}

/// Plans with a file of GUIDs.
pub(crate) fn plan_with(seen: &Inventory, wanted: &Desired, guids: Guids<'_>) -> Plan {
    let pfs = wanted.pfs.values().filter_map(|wanted| {
        let pf = seen.get(wanted.pf)?;
        let mut planner = Planner::new(seen, pf, pf.pf()?, wanted, guids);
        if !wanted.externally_managed {
            planner.pf();
        }
        planner.vfs();
        if planner.by_hand {
            planner.autoprobe(true);
        }
        let plan = planner.plan;
        (!plan.steps.is_empty()).then_some(plan)
    });
    Plan { pfs: pfs.collect() }
}

/// The steps of one PF so far.
struct Planner<'a> {
    seen: &'a Inventory,
    pf: &'a Function,
    facts: &'a PfFacts,
    wanted: &'a PfDesired,
    guids: Guids<'a>,
    plan: PfPlan,
    /// Will the VFs that are seen be gone?
    are_new: bool,
    /// Are new VFs bound one by one, with autoprobe off meanwhile?
    by_hand: bool,
}

impl<'a> Planner<'a> {
    fn new(
        seen: &'a Inventory,
        pf: &'a Function,
        facts: &'a PfFacts,
        wanted: &'a PfDesired,
        guids: Guids<'a>,
    ) -> Self {
        Self {
            seen,
            pf,
            facts,
            wanted,
            guids,
            plan: PfPlan {
                pf: pf.address,
                name: pf.netdev_name().cloned(),
                steps: Vec::new(),
                vfs: std::collections::BTreeMap::new(),
                is_cut: false,
            },
            are_new: false,
            by_hand: false,
        }
    }

    fn pf(&mut self) {
        let pf = self.pf.address;
        let count = self.wanted.num_vfs;
        let had = self.facts.num_vfs;
        let mode = self.wanted.eswitch.unwrap_or(EswitchMode::Legacy);
        let former_mode = self.facts.eswitch.filter(|former| *former != mode);
        self.are_new = had != count || former_mode.is_some();
        if self.are_new && had > 0 {
            let price = Price {
                interrupts: self.holders(),
                destroys_vfs: true,
                reboot: None,
            };
            self.priced(
                Step::SetNumVfs { pf, count: 0 },
                Some(format!("{had} VFs")),
                Some(Step::SetNumVfs { pf, count: had }),
                price,
            );
        }
        if let Some(former) = former_mode {
            self.step(
                Step::SetEswitch { pf, mode },
                Some(former.to_string()),
                Some(Step::SetEswitch { pf, mode: former }),
            );
        }
        self.pf_netdev();
        if self.are_new && count > 0 {
            self.by_hand = self.facts.autoprobe == Some(true) && self.is_better_by_hand();
            if self.by_hand {
                self.autoprobe(false);
            }
            self.step(
                Step::SetNumVfs { pf, count },
                Some("0 VFs".to_owned()),
                Some(Step::SetNumVfs { pf, count: 0 }),
            );
        }
    }

    /// Is a driver wanted for some VF that autoprobe would not choose, or one that must not run yet? Only where all VFs can be named:
    /// each must be bound.
    fn is_better_by_hand(&self) -> bool {
        let count = self.wanted.num_vfs;
        let is_named = |group: &VfGroup| {
            matches!(group.driver, VfDriver::Named(_)) && group.range.first().0 < count
        };
        let last = VfIndex(count.saturating_sub(1));
        let is_some_named = self.wanted.groups.iter().any(is_named);
        (is_some_named || guids::is_infiniband(self.pf)) && self.predicted(last).is_some()
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

    fn pf_netdev(&mut self) {
        let function = self.pf.address;
        let netns = NetnsTarget::Host;
        let Some(netdev) = self
            .pf
            .netdev()
            .filter(|netdev| netdev.netns == netns.netns())
        else {
            return;
        };
        if let Some(mtu) = self.wanted.mtu.filter(|mtu| mtu.get() > netdev.mtu) {
            // The driver resets the port, and with it the VFs that are there.
            let price = Price {
                interrupts: if self.are_new {
                    Vec::new()
                } else {
                    self.holders()
                },
                ..Price::default()
            };
            let undo = model::Mtu::new(netdev.mtu).map(|mtu| Step::SetMtu {
                function,
                netns: netns.clone(),
                mtu,
            });
            let step = Step::SetMtu {
                function,
                netns: netns.clone(),
                mtu,
            };
            self.priced(step, Some(format!("mtu {}", netdev.mtu)), undo, price);
        }
        if !netdev.admin_up {
            let up = |up| Step::SetUp {
                function,
                netns: netns.clone(),
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
