//! How many VFs a PF has, and the mode of its eswitch: which must be first depends on the driver.
//!
//! ```text
//! EswitchOrder::ModeFirst   0 VFs ─ mode ─ N VFs ─ drivers
//! EswitchOrder::VfsFirst    0 VFs ─ legacy ─ N VFs without drivers ─ switchdev ─ drivers
//!           (VFs are there)                     take their drivers ─ switchdev ─ drivers
//! ```
//!
//! The order is that of the operator's daemon, but for VFs that are there in the right number: they
//! lose their drivers for the moment, where upstream destroys them. That is also how a plan goes on
//! that was stopped, or cut, between making the VFs and switching.

use model::{
    BindTarget, EswitchMode, Function, Price, SteeringMode, Step, VfDriver, VfFacts, VfGroup,
    VfIndex,
};

use super::{Planner, guids};
use crate::drivers::{EswitchOrder, pf_driver};

/// How the VFs and the eswitch mode come to be as wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Number and mode are right.
    Stay,
    /// The mode is set while there are no VFs.
    ModeFirst,
    /// New VFs get no driver until the mode is set.
    VfsFirst,
    /// The VFs that are there have no driver while the mode is set.
    AroundVfs,
}

impl Planner<'_> {
    /// Plans the PF's own steps, up to its VFs.
    pub(super) fn pf(&mut self) {
        let target = self.wanted.eswitch.unwrap_or(EswitchMode::Legacy);
        let way = self.way(target);
        self.are_new = matches!(way, Way::ModeFirst | Way::VfsFirst);
        self.is_switched_late = matches!(way, Way::VfsFirst | Way::AroundVfs);
        if self.are_new {
            self.take_down(target);
            self.remove_vfs();
        }
        let mut price = Price::default();
        if way == Way::AroundVfs {
            self.take_drivers();
            price.interrupts = self.holders_without_driver();
        }
        if target == EswitchMode::Switchdev && way != Way::Stay {
            self.offload(way, &price);
        }
        match way {
            Way::Stay => {
                self.pf_mtu();
                self.pf_link();
            }
            Way::ModeFirst => {
                self.set_mode(self.facts.eswitch, target, Price::default());
                self.pf_mtu();
                self.pf_link();
                self.make_vfs();
            }
            Way::VfsFirst => {
                self.pf_link();
                self.make_vfs();
                if !self.ends_early {
                    self.set_mode(Some(EswitchMode::Legacy), target, Price::default());
                    // Switching may reset the netdev.
                    self.pf_mtu();
                }
            }
            Way::AroundVfs => {
                self.set_mode(self.facts.eswitch, target, price);
                self.pf_mtu();
                self.pf_link();
            }
        }
    }

    fn way(&self, target: EswitchMode) -> Way {
        let (had, count) = (self.facts.num_vfs, self.wanted.num_vfs);
        let differs = self.facts.eswitch.is_some_and(|mode| mode != target);
        let order = pf_driver(self.pf.driver.as_ref()).eswitch_order;
        let is_switch = target == EswitchMode::Switchdev && self.facts.eswitch.is_some();
        if had == count && !differs {
            Way::Stay
        } else if is_switch && order == EswitchOrder::VfsFirst && count > 0 {
            if had == count {
                Way::AroundVfs
            } else {
                Way::VfsFirst
            }
        } else {
            Way::ModeFirst
        }
    }

    /// Does the plan destroy VFs?
    pub(super) fn destroys_vfs(&self) -> bool {
        let mut steps = self.plan.steps.iter();
        steps.any(|planned| planned.price.destroys_vfs)
    }

    fn remove_vfs(&mut self) {
        let pf = self.pf.address;
        let had = self.facts.num_vfs;
        if had == 0 {
            return;
        }
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

    /// Prepares the switch for rules in hardware, while it is in legacy mode. A switch that is in use
    /// is left as it is.
    fn offload(&mut self, way: Way, price: &Price) {
        let pf = self.pf.address;
        if way == Way::VfsFirst {
            self.set_mode(self.facts.eswitch, EswitchMode::Legacy, Price::default());
        }
        if self.facts.tc_offload == Some(false) {
            let set = |on| Step::SetTcOffload { pf, on };
            self.step(set(true), Some("off".to_owned()), Some(set(false)));
        }
        let other = |mode: &SteeringMode| *mode != SteeringMode::Smfs;
        if let Some(former) = self.facts.steering.filter(other) {
            let set = |mode| Step::SetSteering { pf, mode };
            let before = format!("flow_steering_mode {former}");
            let undo = Some(set(former));
            self.priced(set(SteeringMode::Smfs), Some(before), undo, price.clone());
        }
    }

    /// Sets the mode, where it is known to be another one.
    fn set_mode(&mut self, former: Option<EswitchMode>, mode: EswitchMode, price: Price) {
        let pf = self.pf.address;
        if let Some(former) = former.filter(|former| *former != mode) {
            self.priced(
                Step::SetEswitch { pf, mode },
                Some(former.to_string()),
                Some(Step::SetEswitch { pf, mode: former }),
                price,
            );
        }
    }

    fn make_vfs(&mut self) {
        let pf = self.pf.address;
        let count = self.wanted.num_vfs;
        if count == 0 {
            return;
        }
        let is_on = self.facts.autoprobe == Some(true);
        let was_left_off = self.facts.autoprobe == Some(false) && self.probed_at_first;
        self.by_hand = (is_on || was_left_off) && self.is_better_by_hand();
        if self.by_hand && is_on {
            self.autoprobe(false);
        }
        if was_left_off && !self.by_hand && !self.is_switched_late {
            self.autoprobe(true);
        }
        self.step(
            Step::SetNumVfs { pf, count },
            Some("0 VFs".to_owned()),
            Some(Step::SetNumVfs { pf, count: 0 }),
        );
        let get_drivers = !self.by_hand && self.facts.autoprobe != Some(false);
        if self.is_switched_late && get_drivers {
            // Their drivers must be taken before the switch: once they are seen.
            self.ends_early = true;
            self.plan.is_cut = true;
        }
    }

    /// Is a driver wanted for some VF that autoprobe would not choose, or one that must not run yet?
    /// Only where all VFs can be named: each must be bound.
    fn is_better_by_hand(&self) -> bool {
        let count = self.wanted.num_vfs;
        let is_named = |group: &VfGroup| {
            matches!(group.driver, VfDriver::Named(_)) && group.range.first().0 < count
        };
        let last = VfIndex(count.saturating_sub(1));
        let is_some_named = self.wanted.groups.iter().any(is_named);
        let must_wait = self.is_switched_late
            || self.wants_macs()
            || !self.kept.is_empty()
            || guids::is_infiniband(self.pf);
        (is_some_named || must_wait) && self.predicted(last).is_some()
    }

    /// Takes the drivers of all VFs, so that none runs while the eswitch is switched.
    fn take_drivers(&mut self) {
        self.are_unbound = true;
        for function in self.facts.vfs.values().copied() {
            let Some(vf) = self.seen.get(function) else {
                continue;
            };
            let Some(driver) = &vf.driver else { continue };
            let holder = vf.vf().and_then(|facts| facts.holder.clone());
            let price = Price {
                interrupts: holder
                    .map(|holder| (function, holder))
                    .into_iter()
                    .collect(),
                ..Price::default()
            };
            let bind = |to| Step::Bind { function, to };
            self.priced(
                bind(BindTarget::Nothing),
                Some(driver.to_string()),
                Some(bind(driver_of(vf))),
                price,
            );
        }
    }

    fn holders_without_driver(&self) -> Vec<(model::PciAddress, model::Holder)> {
        let mut holders = self.holders();
        let has_none = |vf| self.seen.get(vf).is_some_and(|vf| vf.driver.is_none());
        holders.retain(|(vf, _)| has_none(*vf));
        holders
    }
}

/// Returns what gives a VF the driver back that it has.
pub(super) fn driver_of(vf: &Function) -> BindTarget {
    match &vf.driver {
        None => BindTarget::Nothing,
        Some(driver) if driver.is_user_space() => BindTarget::Driver(driver.clone()),
        Some(_) => BindTarget::Default,
    }
}

/// Is a VF somebody's?
pub(super) fn is_held(vf: &Function) -> bool {
    vf.vf()
        .is_some_and(|facts: &VfFacts| facts.holder.is_some())
}
