//! An inventory as the stable view.

use std::collections::BTreeMap;

use host::PciNames;
use model::{
    Function, Holder, Inventory, Netdev, Netns, PciAddress, PciClass, PciId, PfFacts, RdmaDevice,
    VfFacts, VfState, VlanTag,
};

use super::{
    GapView, HolderView, HostView, IdView, NetdevView, NetnsView, PfRefView, PfView, RdmaView,
    SCHEMA, VdpaView, VfView, VfioView,
};

/// Names of vendors and devices, by id.
pub type Names = BTreeMap<PciId, PciNames>;

/// Shows `inventory` with its VFs nested below their PFs.
///
/// VFs whose PF is not in the inventory, which is normal while a PF is being removed, are in
/// [`HostView::vfs`].
pub fn host_view(inventory: &Inventory, host: Option<String>, names: &Names) -> HostView {
    let pfs = inventory
        .pfs()
        .map(|(function, facts)| pf_view(inventory, names, function, facts))
        .collect();
    let orphans: Vec<VfView> = inventory
        .vfs()
        .filter(|(_, facts)| pf_of(inventory, facts.pf).is_none())
        .map(|(function, facts)| vf_view(inventory, names, function, facts))
        .collect();
    HostView {
        schema: SCHEMA.to_owned(),
        host,
        pfs: Some(pfs),
        vfs: (!orphans.is_empty()).then_some(orphans),
        pools: None,
        device_pools: None,
        gaps: inventory
            .gaps
            .iter()
            .map(|gap| GapView {
                object: gap.object.clone(),
                reason: gap.reason.clone(),
            })
            .collect(),
    }
}

fn pf_of(inventory: &Inventory, pf: PciAddress) -> Option<&Function> {
    inventory.get(pf).filter(|function| function.pf().is_some())
}

fn pf_view(inventory: &Inventory, names: &Names, function: &Function, facts: &PfFacts) -> PfView {
    let (vendor, device) = id_views(names, function.id);
    let mut vfs: Vec<VfView> = inventory
        .vfs()
        .filter(|(_, vf)| vf.pf == function.address)
        .map(|(vf, vf_facts)| vf_view(inventory, names, vf, vf_facts))
        .collect();
    vfs.sort_by_key(|vf| (vf.index.is_none(), vf.index, vf.address));
    PfView {
        address: function.address,
        vendor,
        device,
        class: class_view(function.class),
        driver: text(function.driver.as_ref()),
        netdev: function.netdev().map(netdev_view),
        numa_node: function.numa.map(|node| node.0),
        iommu_group: function.iommu_group.map(|group| group.0),
        iommu_group_members: group_members(inventory, function),
        total_vfs: facts.total_vfs,
        num_vfs: facts.num_vfs,
        eswitch_mode: text(facts.eswitch.as_ref()),
        firmware: facts.firmware.clone(),
        rdma: function.rdma.iter().map(rdma_view).collect(),
        vfs: Some(vfs),
    }
}

fn vf_view(inventory: &Inventory, names: &Names, function: &Function, facts: &VfFacts) -> VfView {
    let (vendor, device) = id_views(names, function.id);
    let state = facts.state.unwrap_or_default();
    let tag = state.vlan.flatten();
    VfView {
        address: function.address,
        index: facts.index.map(|index| index.0),
        pf: pf_ref(inventory, facts.pf),
        vendor,
        device,
        driver: text(function.driver.as_ref()),
        netdev: function.netdev().map(netdev_view),
        admin_mac: state.mac,
        vlan: vlan_number(&state),
        qos: tag.map(|tag| tag.pcp.get()),
        vlan_proto: tag.map(|tag: VlanTag| tag.proto.to_string()),
        spoof_check: state.spoof_check,
        trust: state.trust,
        link_state: text(state.link.as_ref()),
        min_tx_rate_mbps: state.min_rate_mbps,
        max_tx_rate_mbps: state.max_rate_mbps,
        rss_query: state.rss_query,
        node_guid: state.node_guid,
        port_guid: state.port_guid,
        representor: text(facts.representor.as_ref()),
        numa_node: function.numa.map(|node| node.0),
        iommu_group: function.iommu_group.map(|group| group.0),
        iommu_group_members: group_members(inventory, function),
        vfio: function.vfio.as_ref().map(|node| VfioView {
            group: node.group.clone(),
            cdev: node.cdev.clone(),
        }),
        rdma: function.rdma.iter().map(rdma_view).collect(),
        vdpa: function
            .vdpa
            .iter()
            .map(|device| VdpaView {
                name: device.name.clone(),
                kind: text(device.kind.as_ref()),
                device_node: device.device_node.clone(),
            })
            .collect(),
        holder: facts.holder.as_ref().map(holder_view),
    }
}

/// Names a PF for one of its VFs.
pub(super) fn pf_ref(inventory: &Inventory, pf: PciAddress) -> PfRefView {
    PfRefView {
        address: pf,
        name: text(pf_of(inventory, pf).and_then(Function::netdev_name)),
    }
}

fn vlan_number(state: &VfState) -> Option<u16> {
    state.vlan.map(|vlan| vlan.map_or(0, |tag| tag.id.get()))
}

fn id_views(names: &Names, id: PciId) -> (IdView, IdView) {
    let known = names.get(&id).cloned().unwrap_or_default();
    let vendor = IdView {
        id: format!("{:04x}", id.vendor),
        name: known.vendor,
    };
    let device = IdView {
        id: format!("{:04x}", id.device),
        name: known.device,
    };
    (vendor, device)
}

/// Names the classes that devices with SR-IOV have (PCI Code and ID Assignment, revision 1.16).
fn class_view(class: PciClass) -> IdView {
    let name = match (class.base(), class.sub()) {
        (0x01, 0x08) => Some("nvme"),
        (0x01, _) => Some("storage"),
        (0x02, 0x00) => Some("ethernet"),
        (0x02, 0x07) => Some("infiniband"),
        (0x02, _) => Some("network"),
        (0x03, _) => Some("display"),
        (0x0b, 0x40) => Some("co-processor"),
        (0x0c, 0x06) => Some("infiniband"),
        (0x10, _) => Some("encryption"),
        (0x12, _) => Some("accelerator"),
        _ => None,
    };
    IdView {
        id: class.to_string(),
        name: name.map(str::to_owned),
    }
}

fn group_members(inventory: &Inventory, function: &Function) -> Vec<PciAddress> {
    let Some(group) = function.iommu_group else {
        return Vec::new();
    };
    inventory
        .group_members(group)
        .map(|member| member.address)
        .filter(|&address| address != function.address)
        .collect()
}

fn netdev_view(netdev: &Netdev) -> NetdevView {
    NetdevView {
        name: netdev.name.to_string(),
        alt_names: netdev.alt_names.clone(),
        netns: match &netdev.netns {
            Netns::Host => None,
            Netns::Other { inode, path } => Some(NetnsView {
                inode: *inode,
                path: path.clone(),
            }),
        },
        link_type: netdev.link_type.to_string(),
        mac: netdev.address.clone(),
        permanent_mac: netdev.permanent_address.clone(),
        mtu: netdev.mtu,
        admin_up: netdev.admin_up,
        state: netdev.oper.to_string(),
        speed_mbps: netdev.speed_mbps,
        phys_switch_id: netdev.phys_switch_id.clone(),
        phys_port_name: netdev.phys_port_name.clone(),
    }
}

fn rdma_view(device: &RdmaDevice) -> RdmaView {
    RdmaView {
        name: device.name.clone(),
        node_guid: device.node_guid,
        char_devices: device.char_devices.clone(),
    }
}

/// Shows a holder.
pub(super) fn holder_view(holder: &Holder) -> HolderView {
    HolderView {
        kind: holder.kind.to_string(),
        id: holder.id.clone(),
        interface: text(holder.interface.as_ref()),
    }
}

fn text<T: ToString>(value: Option<&T>) -> Option<String> {
    value.map(T::to_string)
}
