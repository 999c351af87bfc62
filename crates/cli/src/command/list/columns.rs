//! A view as columns or names for people. Pure.

use crate::args::ListOutput;
use crate::table::{NOTHING, Table};
use crate::view::{
    DevicePoolView, HostView, NetdevView, OfferedView, PfRefView, PfView, PoolView, VfView,
    netns_title,
};

/// Writes a view for people; JSON and YAML are written by the caller.
#[must_use]
pub(crate) fn render(view: &HostView, output: ListOutput, unicode: bool) -> String {
    if output == ListOutput::Name {
        return names(view);
    }
    let wide = output == ListOutput::Wide;
    let table = |table: Table| {
        if table.is_empty() {
            String::new()
        } else {
            table.render()
        }
    };
    if let Some(pools) = &view.pools {
        return table(pool_table(pools));
    }
    if let Some(pools) = &view.device_pools {
        return table(if wide {
            device_table(pools)
        } else {
            device_pool_table(pools)
        });
    }
    match (&view.pfs, &view.vfs) {
        (Some(pfs), vfs) if pfs.iter().any(|pf| pf.vfs.is_some()) => table(tree_table(
            pfs,
            vfs.as_deref().unwrap_or_default(),
            wide,
            unicode,
        )),
        (Some(pfs), None) => table(pf_table(pfs, wide)),
        (_, Some(vfs)) => table(vf_table(vfs, wide)),
        (None, None) => String::new(),
    }
}

fn names(view: &HostView) -> String {
    let mut names = Vec::new();
    for pf in view.pfs.iter().flatten() {
        names.push(pf.title());
        names.extend(pf.vfs.iter().flatten().map(VfView::handle));
    }
    names.extend(view.vfs.iter().flatten().map(VfView::handle));
    names.extend(
        view.pools
            .iter()
            .flatten()
            .map(|pool| pool.resource.clone()),
    );
    let device_pools = view.device_pools.iter().flatten();
    names.extend(device_pools.map(|pool| pool.resource.clone()));
    names.iter().map(|name| format!("{name}\n")).collect()
}

fn tree_table(pfs: &[PfView], orphans: &[VfView], wide: bool, unicode: bool) -> Table {
    let mut table = Table::new([
        "DEVICE", "NETDEV", "DRIVER", "LINK", "MTU", "VFS", "MAC", "VLAN",
    ]);
    if wide {
        table = table.with([
            "SPOOF", "TRUST", "RATE", "NUMA", "IOMMU", "ESWITCH", "VFIO", "RDMA",
        ]);
    }
    table = table.with(["HELD BY", "MODEL"]);
    for pf in pfs {
        let mut cells = vec![
            pf.address.to_string(),
            own_netdev(pf.netdev.as_ref()),
            or_nothing(pf.driver.as_ref()),
            link_of(pf.netdev.as_ref()),
            mtu_of(pf.netdev.as_ref()),
            format!("{}/{}", pf.num_vfs, pf.total_vfs),
            or_nothing(hardware_address(pf.netdev.as_ref()).as_ref()),
            String::new(),
        ];
        if wide {
            cells.extend([
                String::new(),
                String::new(),
                String::new(),
                or_nothing(pf.numa_node.as_ref()),
                or_nothing(pf.iommu_group.as_ref()),
                or_nothing(pf.eswitch_mode.as_ref()),
                String::new(),
                joined(pf.rdma.iter().map(|device| &device.name)),
            ]);
        }
        cells.extend([String::new(), model_of(pf)]);
        table.row(cells);
        let vfs = pf.vfs.as_deref().unwrap_or_default();
        for (at, vf) in vfs.iter().enumerate() {
            let branch = match (unicode, at + 1 == vfs.len()) {
                (true, false) => "├─ ",
                (true, true) => "└─ ",
                (false, _) => "|- ",
            };
            table.row(tree_row(vf, branch, wide));
        }
    }
    for vf in orphans {
        table.row(tree_row(vf, "? ", wide));
    }
    table
}

fn tree_row(vf: &VfView, branch: &str, wide: bool) -> Vec<String> {
    let mut cells = vec![
        format!(
            "{branch}vf {:<2} {}",
            or_nothing(vf.index.as_ref()),
            vf.address
        ),
        netdev_in_netns(vf.netdev.as_ref()),
        or_nothing(vf.driver.as_ref()),
        or_nothing(vf.link_state.as_ref()),
        mtu_of(vf.netdev.as_ref()),
        String::new(),
        admin_mac(vf),
        vlan_of(vf),
    ];
    if wide {
        cells.extend([
            on_off(vf.spoof_check),
            on_off(vf.trust),
            rates(vf),
            or_nothing(vf.numa_node.as_ref()),
            group_of(vf),
            String::new(),
            vfio_of(vf),
            joined(vf.rdma.iter().map(|device| &device.name)),
        ]);
    }
    cells.push(holder_of(vf));
    cells
}

fn pf_table(pfs: &[PfView], wide: bool) -> Table {
    let mut table = Table::new([
        "ADDRESS", "NETDEV", "DRIVER", "STATE", "SPEED", "TYPE", "MTU", "NUMA", "VFS",
    ]);
    if wide {
        table = table.with(["ID", "MAC", "IOMMU", "ESWITCH", "FIRMWARE", "RDMA"]);
    }
    table = table.with(["MODEL"]);
    for pf in pfs {
        let netdev = pf.netdev.as_ref();
        let kind = netdev.map(|netdev| netdev.link_type.clone());
        let mut cells = vec![
            pf.address.to_string(),
            own_netdev(netdev),
            or_nothing(pf.driver.as_ref()),
            or_nothing(netdev.map(|netdev| &netdev.state)),
            speed_of(netdev),
            or_nothing(kind.as_ref().or(pf.class.name.as_ref())),
            mtu_of(netdev),
            or_nothing(pf.numa_node.as_ref()),
            format!("{}/{}", pf.num_vfs, pf.total_vfs),
        ];
        if wide {
            cells.extend([
                format!("{}:{}", pf.vendor.id, pf.device.id),
                or_nothing(hardware_address(netdev).as_ref()),
                or_nothing(pf.iommu_group.as_ref()),
                or_nothing(pf.eswitch_mode.as_ref()),
                or_nothing(pf.firmware.as_ref()),
                joined(pf.rdma.iter().map(|device| &device.name)),
            ]);
        }
        cells.push(model_of(pf));
        table.row(cells);
    }
    table
}

fn vf_table(vfs: &[VfView], wide: bool) -> Table {
    let mut table = Table::new([
        "ADDRESS", "PF", "VF", "DRIVER", "NETDEV", "NETNS", "MAC", "VLAN", "SPOOF", "TRUST", "LINK",
    ]);
    if wide {
        table = table.with([
            "MIN",
            "MAX",
            "RSS",
            "NODE GUID",
            "PORT GUID",
            "REP",
            "IOMMU",
            "VFIO",
            "RDMA",
            "VDPA",
        ]);
    }
    table = table.with(["HELD BY"]);
    for vf in vfs {
        let netdev = vf.netdev.as_ref();
        let netns = netdev.map(|netdev| {
            netdev
                .netns
                .as_ref()
                .map_or_else(|| "host".to_owned(), |netns| netns.title())
        });
        let mut cells = vec![
            vf.address.to_string(),
            vf.pf.title(),
            or_nothing(vf.index.as_ref()),
            or_nothing(vf.driver.as_ref()),
            or_nothing(netdev.map(|netdev| &netdev.name)),
            or_nothing(netns.as_ref()),
            admin_mac(vf),
            vlan_of(vf),
            on_off(vf.spoof_check),
            on_off(vf.trust),
            or_nothing(vf.link_state.as_ref()),
        ];
        if wide {
            cells.extend([
                rate(vf.min_tx_rate_mbps),
                rate(vf.max_tx_rate_mbps),
                on_off(vf.rss_query),
                or_nothing(vf.node_guid.as_ref()),
                or_nothing(vf.port_guid.as_ref()),
                or_nothing(vf.representor.as_ref()),
                group_of(vf),
                vfio_of(vf),
                joined(vf.rdma.iter().map(|device| &device.name)),
                joined(vf.vdpa.iter().map(|device| &device.name)),
            ]);
        }
        cells.push(holder_of(vf));
        table.row(cells);
    }
    table
}

fn pool_table(pools: &[PoolView]) -> Table {
    let mut table = Table::new([
        "RESOURCE", "PF", "VFS", "DRIVER", "PRESENT", "FREE", "HELD", "POLICY",
    ]);
    for pool in pools {
        for member in &pool.members {
            table.row(vec![
                pool.resource.clone(),
                member.pf.title(),
                format!("{}-{}", member.first, member.last),
                member.driver.clone(),
                member.present.to_string(),
                member.free.to_string(),
                member.held.to_string(),
                member.policy.clone(),
            ]);
        }
    }
    table
}

/// One line a pool of the device plugin.
fn device_pool_table(pools: &[DevicePoolView]) -> Table {
    let mut table = Table::new(["RESOURCE", "TYPE", "DEVICES", "HEALTHY", "IN PODS", "ON"]);
    for pool in pools {
        let count = |is: fn(&OfferedView) -> bool| {
            let devices = pool.devices.iter();
            devices.filter(|device| is(device)).count().to_string()
        };
        let mut places: Vec<String> = Vec::new();
        for pf in pool.devices.iter().filter_map(|device| device.pf.as_ref()) {
            let title = pf.title();
            if !places.contains(&title) {
                places.push(title);
            }
        }
        table.row(vec![
            pool.resource.clone(),
            pool.kind.clone(),
            pool.devices.len().to_string(),
            count(|device| device.health == "healthy"),
            count(|device| device.container.is_some()),
            joined(places.iter()),
        ]);
    }
    table
}

/// One line a device of a pool of the device plugin.
fn device_table(pools: &[DevicePoolView]) -> Table {
    let mut table = Table::new([
        "RESOURCE", "DEVICE", "HEALTH", "NUMA", "ON", "SELECTOR", "POD",
    ]);
    for (pool, device) in pools
        .iter()
        .flat_map(|pool| pool.devices.iter().map(move |device| (pool, device)))
    {
        let pod = device.container.as_ref().map(|container| &container.pod);
        table.row(vec![
            pool.resource.clone(),
            device.device.clone(),
            device.health.clone(),
            or_nothing(device.numa_node.as_ref()),
            or_nothing(device.pf.as_ref().map(PfRefView::title).as_ref()),
            device.selector.to_string(),
            or_nothing(pod),
        ]);
    }
    table
}

fn or_nothing<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), T::to_string)
}

fn joined<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() {
        NOTHING.to_owned()
    } else {
        names.join(",")
    }
}

fn on_off(value: Option<bool>) -> String {
    match value {
        Some(true) => "on",
        Some(false) => "off",
        None => NOTHING,
    }
    .to_owned()
}

/// The kernel's 0 is "no limit", and no report is no number.
fn rate(mbps: Option<u32>) -> String {
    match mbps {
        Some(0) => "none".to_owned(),
        other => or_nothing(other.as_ref()),
    }
}

/// `none`, or the guaranteed rate and the ceiling, `100..500`.
fn rates(vf: &VfView) -> String {
    match (vf.min_tx_rate_mbps, vf.max_tx_rate_mbps) {
        (None, None) => NOTHING.to_owned(),
        (Some(0) | None, Some(0) | None) => "none".to_owned(),
        (min, max) => format!("{}..{}", rate(min), rate(max)),
    }
}

fn own_netdev(netdev: Option<&NetdevView>) -> String {
    or_nothing(netdev.map(|netdev| &netdev.name))
}

/// `net1@blue` is a netdev in a namespace, as `ip link` writes a link to elsewhere.
fn netdev_in_netns(netdev: Option<&NetdevView>) -> String {
    netdev.map_or_else(
        || NOTHING.to_owned(),
        |netdev| match &netdev.netns {
            None => netdev.name.clone(),
            Some(netns) => format!("{}@{}", netdev.name, netns.title()),
        },
    )
}

fn link_of(netdev: Option<&NetdevView>) -> String {
    match netdev {
        None => NOTHING.to_owned(),
        Some(netdev) => match netdev.speed_mbps {
            Some(_) => format!("{} {}", netdev.state, speed_of(Some(netdev))),
            None => netdev.state.clone(),
        },
    }
}

fn speed_of(netdev: Option<&NetdevView>) -> String {
    match netdev.and_then(|netdev| netdev.speed_mbps) {
        None => NOTHING.to_owned(),
        Some(mbps) if mbps >= 1000 && mbps % 1000 == 0 => format!("{}G", mbps / 1000),
        Some(2500) => "2.5G".to_owned(),
        Some(mbps) => format!("{mbps}M"),
    }
}

fn mtu_of(netdev: Option<&NetdevView>) -> String {
    or_nothing(netdev.map(|netdev| &netdev.mtu))
}

/// An InfiniBand address is 20 bytes, of which people know the last 8: the port GUID.
fn hardware_address(netdev: Option<&NetdevView>) -> Option<String> {
    let mac = netdev?.mac.as_ref()?;
    let guid = (mac.len() == 59).then(|| mac.get(36..)).flatten();
    Some(guid.map_or_else(|| mac.clone(), |guid| format!("…{guid}")))
}

fn admin_mac(vf: &VfView) -> String {
    match vf.admin_mac {
        Some(mac) if mac.is_zero() => "none".to_owned(),
        Some(mac) => mac.to_string(),
        None => or_nothing(vf.port_guid.as_ref().filter(|guid| !guid.is_zero())),
    }
}

/// `100`, `100 qos 3`, `100 802.1ad`; `none` is reported, `-` is not.
pub(crate) fn vlan_of(vf: &VfView) -> String {
    match vf.vlan {
        None => NOTHING.to_owned(),
        Some(0) => "none".to_owned(),
        Some(id) => {
            let mut text = id.to_string();
            if let Some(qos) = vf.qos.filter(|&qos| qos != 0) {
                text.push_str(&format!(" qos {qos}"));
            }
            if let Some(proto) = vf.vlan_proto.as_ref().filter(|proto| *proto != "802.1q") {
                text.push_str(&format!(" {proto}"));
            }
            text
        }
    }
}

/// `14`, or `14+2` when two other functions share the group and would have to go with the VF.
fn group_of(vf: &VfView) -> String {
    match (vf.iommu_group, vf.iommu_group_members.len()) {
        (Some(group), 0) => group.to_string(),
        (Some(group), others) => format!("{group}+{others}"),
        (None, _) => NOTHING.to_owned(),
    }
}

fn vfio_of(vf: &VfView) -> String {
    let node = vf.vfio.as_ref();
    or_nothing(node.and_then(|node| node.group.as_ref().or(node.cdev.as_ref())))
}

fn holder_of(vf: &VfView) -> String {
    vf.holder.as_ref().map_or_else(
        || NOTHING.to_owned(),
        |holder| {
            let (kind, id) = (&holder.kind, short_id(&holder.id));
            match &holder.interface {
                Some(interface) => format!("{kind} {id} as {interface}"),
                None => format!("{kind} {id}"),
            }
        },
    )
}

/// Container ids are cut to the 12 digits that every container tool shows; JSON has all of it.
pub(crate) fn short_id(id: &str) -> String {
    if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        id.chars().take(12).collect()
    } else {
        netns_title(id)
    }
}

fn model_of(pf: &PfView) -> String {
    let ids = format!("{}:{}", pf.vendor.id, pf.device.id);
    let vendor = pf.vendor.name.as_deref().map(short_vendor);
    match (vendor, &pf.device.name) {
        (Some(vendor), Some(device)) => format!("{vendor} {device}"),
        (Some(vendor), None) => format!("{vendor} {ids}"),
        (None, _) => ids,
    }
}

/// `Intel Corporation` is `Intel` for people who read columns.
fn short_vendor(name: &str) -> &str {
    let cut = [
        " Corporation",
        " Technologies",
        " Inc",
        ", Inc",
        " Limited",
        " Ltd",
        " Co.",
    ]
    .iter()
    .filter_map(|suffix| name.find(suffix))
    .min();
    cut.and_then(|at| name.get(..at))
        .unwrap_or(name)
        .trim_end_matches(',')
}

#[cfg(test)]
mod tests {
    use super::short_vendor;

    #[test]
    fn vendors_are_shortened() {
        assert_eq!(short_vendor("Mellanox Technologies"), "Mellanox");
        assert_eq!(short_vendor("Broadcom Inc. and subsidiaries"), "Broadcom");
        assert_eq!(short_vendor("Red Hat, Inc."), "Red Hat");
        assert_eq!(short_vendor("Chelsio"), "Chelsio");
    }
}
