//! The steps of the VFs of one PF: driver, netdev, MTU, vDPA device.

use model::{
    BindTarget, Function, Mtu, NetnsTarget, PciAddress, Price, Step, VfDriver, VfFacts, VfGroup,
    VfIndex,
};

use super::Planner;
use super::number::driver_of;

/// One VF, and what is wanted of it.
pub(super) struct Wanted<'a> {
    pub(super) address: PciAddress,
    pub(super) index: VfIndex,
    pub(super) group: &'a VfGroup,
    /// The VF, unless it does not exist yet.
    pub(super) seen: Option<&'a Function>,
    /// Will its netdev be a new one?
    pub(super) is_new: bool,
    /// Must its driver read a GUID or a MAC that it does not know yet?
    pub(super) must_read: bool,
}

impl<'a> Planner<'a> {
    /// Plans the steps of all VFs, one kind after the other.
    pub(super) fn vfs(&mut self) {
        let mut wanted = self.wanted_vfs();
        for vf in &mut wanted {
            self.guid(vf);
            self.mac(vf);
            self.settings(vf);
        }
        self.settings_of_others();
        for vf in &wanted {
            self.unwanted_vdpa(vf);
        }
        for vf in &mut wanted {
            self.bind(vf);
        }
        if self.by_hand {
            self.bind_the_others();
        }
        if self.are_unbound {
            self.give_drivers_back();
        }
        for vf in &wanted {
            if vf.is_new && vf.group.driver == VfDriver::Kernel {
                let function = vf.address;
                self.step(Step::AwaitNetdev { function }, None, None);
            }
        }
        for vf in &wanted {
            self.mtu(vf);
        }
        for vf in &wanted {
            self.vdpa(vf);
        }
        self.rates();
    }

    /// Gives the new VFs that no policy is for the driver that autoprobe would have given them.
    fn bind_the_others(&mut self) {
        for index in (0..self.wanted.num_vfs).map(VfIndex) {
            let is_wanted = self.wanted.group_of(index).is_some();
            let Some(function) = self.predicted(index).filter(|_| !is_wanted) else {
                continue;
            };
            self.plan.vfs.insert(function, index);
            let to = BindTarget::Default;
            let undo = self.undo_of_first_bind(function);
            self.step(Step::Bind { function, to }, None, undo);
        }
    }

    /// Gives the VFs that no policy is for the drivers back that were taken for the eswitch.
    fn give_drivers_back(&mut self) {
        for (index, function) in &self.facts.vfs {
            let function = *function;
            let had = self.seen.get(function).map(driver_of);
            let had = had.filter(|had| *had != BindTarget::Nothing);
            let is_wanted = self.wanted.group_of(*index).is_some();
            if let Some(to) = had.filter(|_| !is_wanted) {
                let undo = self.undo_of_first_bind(function);
                self.step(Step::Bind { function, to }, None, undo);
            }
        }
    }

    /// Returns what takes the first driver of a VF again. VFs that come and go take it along; only when
    /// the eswitch is to be switched back do they stay without one.
    fn undo_of_first_bind(&self, function: PciAddress) -> Option<Step> {
        let to = BindTarget::Nothing;
        self.is_switched_late.then_some(Step::Bind { function, to })
    }

    fn wanted_vfs(&mut self) -> Vec<Wanted<'a>> {
        let mut all = Vec::new();
        for index in (0..self.wanted.num_vfs).map(VfIndex) {
            let Some(group) = self.wanted.group_of(index) else {
                continue;
            };
            let address = if self.are_new {
                self.predicted(index)
            } else {
                self.facts.vfs.get(&index).copied()
            };
            let Some(address) = address else {
                self.plan.is_cut |= self.are_new;
                continue;
            };
            if self.are_new {
                self.plan.vfs.insert(address, index);
            }
            let seen = self.seen.get(address).filter(|_| !self.are_new);
            all.push(Wanted {
                address,
                index,
                group,
                seen,
                is_new: seen.is_none(),
                must_read: false,
            });
        }
        all
    }

    /// Returns where VF `index` will be, as far as the PF says.
    pub(super) fn predicted(&self, index: VfIndex) -> Option<PciAddress> {
        let offset = self.facts.offset.filter(|offset| *offset > 0)?;
        let shift = match index.0 {
            0 => offset,
            index => {
                let stride = self.facts.stride.filter(|stride| *stride > 0)?;
                offset.checked_add(stride.checked_mul(index)?)?
            }
        };
        let pf = self.pf.address;
        Some(pf.with_routing_id(pf.routing_id().checked_add(shift)?))
    }

    fn bind(&mut self, vf: &mut Wanted<'_>) {
        let function = vf.address;
        let seen = vf.seen.filter(|_| !self.are_unbound);
        let driver = seen.and_then(|seen| seen.driver.as_ref());
        let to = match &vf.group.driver {
            VfDriver::Named(name) if driver == Some(name) => return,
            VfDriver::Named(name) => BindTarget::Driver(name.clone()),
            VfDriver::Kernel => {
                let gets_it = !self.by_hand && !self.are_unbound;
                let is_right = match seen {
                    Some(_) => driver.is_some_and(|driver| !driver.is_user_space()),
                    None => self.facts.autoprobe != Some(false) && gets_it,
                };
                if is_right {
                    self.clear_override(vf);
                    self.rebind(vf);
                    return;
                }
                BindTarget::Default
            }
        };
        vf.is_new = true;
        let Some(seen) = seen else {
            let undo = self.undo_of_first_bind(function);
            return self.step(Step::Bind { function, to }, None, undo);
        };
        let before = driver.map_or("no driver".to_owned(), ToString::to_string);
        let holder = seen.vf().and_then(|facts| facts.holder.clone());
        let price = Price {
            interrupts: holder
                .map(|holder| (function, holder))
                .into_iter()
                .collect(),
            ..Price::default()
        };
        let undo = Some(Step::Bind {
            function,
            to: driver_of(seen),
        });
        self.priced(Step::Bind { function, to }, Some(before), undo, price);
    }

    /// Lets the kernel choose a VF's driver again, where a process died after it had said otherwise. The
    /// right driver is bound, so that nothing but the next bind would notice; of a VF that somebody has
    /// it waits.
    fn clear_override(&mut self, vf: &Wanted<'_>) {
        let Some(seen) = vf.seen else { return };
        let is_held = seen.vf().is_some_and(|facts| facts.holder.is_some());
        let (Some(driver), Some(other)) = (&seen.driver, &seen.driver_override) else {
            return;
        };
        if driver != other && !is_held {
            let before = format!("{driver}, with an override for {other}");
            let function = vf.address;
            let to = BindTarget::Default;
            self.step(Step::Bind { function, to }, Some(before), None);
        }
    }

    /// Lets a driver that runs read what is new. It is nobody's: a VF that is held keeps what it has.
    fn rebind(&mut self, vf: &mut Wanted<'_>) {
        if vf.must_read {
            vf.is_new = true;
            let function = vf.address;
            let before = self.other_mac(vf).map(|mac| format!("interface mac {mac}"));
            self.step(Step::Rebind { function }, before, None);
        }
    }

    fn mtu(&mut self, vf: &Wanted<'_>) {
        let function = vf.address;
        let netns = NetnsTarget::Host;
        let (VfDriver::Kernel, Some(mtu)) = (&vf.group.driver, vf.group.mtu) else {
            return;
        };
        let set = |mtu| Step::SetMtu {
            function,
            netns: netns.clone(),
            mtu,
        };
        if vf.is_new {
            return self.step(set(mtu), None, None);
        }
        let Some(seen) = vf.seen else { return };
        let is_held = seen.vf().is_some_and(VfFacts::is_given_away);
        let netdev = seen.netdev().filter(|netdev| netdev.netns == netns.netns());
        if let Some(netdev) = netdev.filter(|netdev| !is_held && netdev.mtu != mtu.get()) {
            let undo = Mtu::new(netdev.mtu).map(set);
            self.step(set(mtu), Some(format!("mtu {}", netdev.mtu)), undo);
        }
    }
}
