//! What VFs have by hand (MAC, VLAN, rates, trust …): set again on VFs that are made anew.
//!
//! ```text
//! 4 VFs, VF 1 with VLAN 100 ─▶ 0 VFs ─▶ 7 VFs without drivers ─▶ VF 1: VLAN 100 ─▶ drivers ─▶ rates
//! ```
//!
//! The kernel forgets it with the VF, and goes from one number of VFs to another through none. VF `n` is
//! the same before and after, as far as there still is one. What would surprise:
//!
//! - All but rates is set before a driver is bound: a driver reads its MAC then, and nobody may send
//!   without the VLAN. Some drivers take a rate only while the PF has link: last.
//! - When the eswitch changes its mode only MAC and GUID are set again: the other mode has
//!   other ways for the rest, and drivers refuse it (`mlx5`: VLAN in switchdev mode).
//! - VFs that no policy is for get theirs too.

use model::{EswitchMode, Function, MacAddr, PciAddress, Step, VfAttr, VfIndex, VfState};

use super::Planner;
use super::number::is_held;
use super::vfs::Wanted;
use crate::keep::{attributes, by_hand, host_mac, notable};

impl Planner<'_> {
    /// Takes down what the VFs have that go and come again. What is on record already counts more: an
    /// apply died before it had set that.
    pub(super) fn take_down(&mut self, target: EswitchMode) {
        let switches = self.facts.eswitch.is_some_and(|mode| mode != target);
        for (index, vf) in &self.facts.vfs {
            let seen = self.seen.get(*vf);
            let Some(mut state) = seen.and_then(|vf| by_hand(self.pf, vf)) else {
                continue;
            };
            if switches {
                state = VfState {
                    mac: state.mac,
                    node_guid: state.node_guid,
                    port_guid: state.port_guid,
                    ..VfState::default()
                };
            }
            if index.0 < self.wanted.num_vfs && state != VfState::default() {
                self.kept.entry(*index).or_insert(state);
            }
        }
    }

    /// Plans what a VF had, but for its rates.
    pub(super) fn settings(&mut self, vf: &mut Wanted<'_>) {
        let is_rate = |attr: &VfAttr| matches!(attr, VfAttr::Rate { .. });
        self.set_kept(vf.index, vf.address, vf.seen, |attr| !is_rate(attr));
        let kept = self.kept.get(&vf.index);
        let has_new_mac = vf.seen.is_none() && kept.is_some_and(|kept| kept.mac.is_some());
        vf.must_read |= has_new_mac || self.other_mac(vf).is_some();
    }

    /// Plans what the VFs had that no policy is for, but for their rates.
    pub(super) fn settings_of_others(&mut self) {
        self.each_kept(
            |planner, index| planner.wanted.group_of(index).is_none(),
            |attr| !matches!(attr, VfAttr::Rate { .. }),
        );
    }

    /// Plans the rates that VFs had.
    pub(super) fn rates(&mut self) {
        self.each_kept(|_, _| true, |attr| matches!(attr, VfAttr::Rate { .. }));
    }

    fn each_kept(&mut self, of: impl Fn(&Self, VfIndex) -> bool, which: impl Fn(&VfAttr) -> bool) {
        let indices = self.kept.keys().copied();
        let indices: Vec<VfIndex> = indices.filter(|index| of(self, *index)).collect();
        for index in indices {
            let there = self.facts.vfs.get(&index).copied();
            let address = if self.are_new {
                self.predicted(index)
            } else {
                there
            };
            let Some(address) = address else {
                self.plan.is_cut |= self.are_new;
                continue;
            };
            let seen = self.seen.get(address).filter(|_| !self.are_new);
            self.set_kept(index, address, seen, &which);
        }
    }

    /// Plans attributes of one VF that nobody has. Of a new one it is taken that it has what a driver
    /// gives it; of one that is there, what it is not reported to have differs.
    fn set_kept(
        &mut self,
        index: VfIndex,
        address: PciAddress,
        seen: Option<&Function>,
        which: impl Fn(&VfAttr) -> bool,
    ) {
        let Some(kept) = self.kept.get(&index).copied() else {
            return;
        };
        let pf = self.pf.address;
        let set = |attr| Step::SetVf {
            pf,
            vf: index,
            attr,
        };
        let steps: Vec<_> = match seen {
            None => {
                let new = attributes(&notable(self.pf, &kept));
                new.map(|attr| (attr, None)).collect()
            }
            Some(vf) if is_held(vf) => return,
            Some(vf) => {
                let Some(state) = vf.vf().and_then(|facts| facts.state) else {
                    return;
                };
                let differing = attributes(&kept).filter_map(|attr| {
                    let mut has = attributes(&state);
                    let has = has.find(|has| has.name() == attr.name())?;
                    let has_by_itself =
                        is_mac(&attr, host_mac(vf)) && is_mac(&has, Some(MacAddr::ZERO));
                    (has != attr && !has_by_itself).then_some((attr, Some(has)))
                });
                differing.collect()
            }
        };
        for (attr, former) in steps.into_iter().filter(|(attr, _)| which(attr)) {
            self.plan.vfs.insert(address, index);
            let before = former.map(|former| former.to_string());
            self.step(set(attr), before, former.map(set));
        }
    }

    /// Returns the MAC that the netdev of a VF has in place of the one that it should have, as its driver
    /// did not read that yet.
    pub(super) fn other_mac(&self, vf: &Wanted<'_>) -> Option<MacAddr> {
        let kept = self.kept.get(&vf.index)?.mac?;
        let seen = vf.seen.filter(|seen| !is_held(seen))?;
        seen.vf()?.state?;
        host_mac(seen).filter(|mac| *mac != kept)
    }
}

fn is_mac(attr: &VfAttr, mac: Option<MacAddr>) -> bool {
    matches!(attr, VfAttr::Mac(other) if Some(*other) == mac)
}
