//! MACs of Ethernet VFs that are wanted with RDMA.
//!
//! An `mlx5` VF makes the GUID of its RDMA device of the MAC that its PF gave it, when its driver is
//! bound; without one the GUID is zero, and nobody can talk to it. Upstream gives it the MAC that its netdev
//! happens to have; here it is derived, so that it is the same after each re-configuration
//! ([`vf_mac`]).

use model::{Guid, LinkType, Step, VfAttr, VfDriver, VfGroup};

use super::Planner;
use super::number::is_held;
use super::vfs::Wanted;
use crate::drivers::pf_driver;
use crate::guid::vf_mac;

impl Planner<'_> {
    /// Does some VF need a MAC before its driver is bound?
    pub(super) fn wants_macs(&self) -> bool {
        let mut groups = self.wanted.groups.iter();
        groups.any(|group| self.needs_mac(group))
    }

    /// Plans the MAC of a VF, unless somebody holds it or it has one; and a new look at the one it has.
    pub(super) fn mac(&mut self, vf: &mut Wanted<'_>) {
        let is_kept = self
            .kept
            .get(&vf.index)
            .is_some_and(|kept| kept.mac.is_some());
        if !self.needs_mac(vf.group) || vf.seen.is_some_and(is_held) || is_kept {
            return;
        }
        let has = vf.seen.and_then(|seen| seen.vf()?.state?.mac);
        if has.is_some_and(|mac| !mac.is_zero()) {
            let devices = vf.seen.map_or(&[][..], |seen| &seen.rdma);
            vf.must_read |= devices
                .iter()
                .any(|device| device.node_guid.is_some_and(Guid::is_zero));
            return;
        }
        // What the PF does not report cannot be told to be there afterwards.
        if vf.seen.is_some() && has.is_none() {
            return;
        }
        let Some(mac) = vf_mac(self.pf, vf.index) else {
            return;
        };
        let (pf, index) = (self.pf.address, vf.index);
        let set = |mac| Step::SetVf {
            pf,
            vf: index,
            attr: VfAttr::Mac(mac),
        };
        let before = has.map(|mac| VfAttr::Mac(mac).to_string());
        self.step(set(mac), before, has.map(set));
        vf.must_read = true;
    }

    fn needs_mac(&self, group: &VfGroup) -> bool {
        let link = self.pf.netdev().map(|netdev| netdev.link_type);
        group.is_rdma
            && group.driver == VfDriver::Kernel
            && link == Some(LinkType::Ethernet)
            && pf_driver(self.pf.driver.as_ref()).has_guid_of_mac
    }
}
