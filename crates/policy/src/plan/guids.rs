//! GUIDs of InfiniBand VFs, which a driver reads when it is bound: before the VFs get their drivers.

use model::{Function, Inventory, LinkType, PciAddress, PfDesired, Step, VfAttr, VfIndex};

use super::Planner;
use super::number::is_held;
use super::vfs::Wanted;
use crate::guid::{GuidError, vf_guid};
use crate::plan::Guids;

impl Planner<'_> {
    /// Plans the GUID of a VF, unless somebody holds it or it has the right one.
    pub(super) fn guid(&mut self, vf: &mut Wanted<'_>) {
        let state = vf.seen.and_then(|seen| seen.vf()?.state);
        let is_held = vf.seen.is_some_and(is_held);
        let node = state.and_then(|state| state.node_guid);
        let port = state.and_then(|state| state.port_guid);
        if is_held || !is_infiniband(self.pf) || vf.seen.is_some() && node.is_none() {
            return;
        }
        let kept = self.kept.get(&vf.index).and_then(|kept| kept.node_guid);
        // Who decides tells of those that have none, before anything is done.
        let Ok(guid) = vf_guid(self.pf, vf.index, kept.or(node), self.guids) else {
            return;
        };
        let (pf, index) = (self.pf.address, vf.index);
        let attrs = [VfAttr::NodeGuid, VfAttr::PortGuid];
        for (former, attr) in [node, port].into_iter().zip(attrs) {
            if former == Some(guid) {
                continue;
            }
            let set = |guid| Step::SetVf {
                pf,
                vf: index,
                attr: attr(guid),
            };
            let before = former.map(|former| attr(former).to_string());
            self.step(set(guid), before, former.map(set));
            vf.must_read = true;
        }
    }
}

/// Returns why VFs that are wanted cannot have a GUID.
pub(crate) fn guid_errors(
    seen: &Inventory,
    wanted: &PfDesired,
    guids: Guids<'_>,
) -> Vec<GuidError> {
    let Some((pf, facts)) = seen.get(wanted.pf).and_then(|pf| Some((pf, pf.pf()?))) else {
        return Vec::new();
    };
    if !is_infiniband(pf) {
        return Vec::new();
    }
    let in_group = |index: &VfIndex| wanted.group_of(*index).is_some();
    let guid_of = |vf: Option<&PciAddress>| seen.get(*vf?)?.vf()?.state?.node_guid;
    let errors = (0..wanted.num_vfs)
        .map(VfIndex)
        .filter(in_group)
        .filter_map(|index| vf_guid(pf, index, guid_of(facts.vfs.get(&index)), guids).err());
    // One is enough: the next VFs lack one for the same reason.
    errors.take(1).collect()
}

pub(super) fn is_infiniband(pf: &Function) -> bool {
    pf.netdev()
        .is_some_and(|netdev| netdev.link_type == LinkType::InfiniBand)
}
