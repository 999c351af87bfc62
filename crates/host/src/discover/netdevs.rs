//! Netdevs, from the one link dump, put on their functions.
//!
//! `IFLA_PARENT_DEV_NAME` (Linux 5.14) names the parent device. Before it, and for virtio, whose
//! parent is `virtio3` and not the PCI function, the link in `/sys/class/net` leads through the
//! function. Netdevs of sub-functions (`mlx5_core.sf.4` in between) are not those of the function.
//!
//! Only PFs and plain functions are asked for speed and `dev_port`, and of their netdevs not the
//! representors: sysfs asks the driver for each, and nobody chooses a VF by its speed. While others
//! change interfaces `speed` makes its reader try again and again, so the PF of a VF that is given away
//! is not asked either.

use std::collections::BTreeMap;

use model::{AuxName, IfName, Netdev, Netns, PciAddress, Role, VfIndex, VfState};
use netlink::Link;

use super::Aim;
use super::aux;
use super::device::{Notes, number};
use super::functions::Scan;
use super::rdma::nearest_function;
use crate::queries::Elsewhere;
use crate::root::HostRoot;

/// `ARPHRD_LOOPBACK`, which only `lo` has.
pub(crate) const LOOPBACK: u16 = 772;

/// What a PF's netdev reports of its VFs.
pub(super) type VfReports = BTreeMap<VfIndex, VfState>;

/// Puts the netdevs of this namespace on their functions and VF reports on the VFs.
pub(super) fn add(root: &HostRoot, scan: &mut Scan<'_>, links: Vec<Link>, aim: Aim<'_>) {
    let mut reports: BTreeMap<PciAddress, VfReports> = BTreeMap::new();
    let mut loose = Vec::new();
    for mut link in links {
        if link.parent_bus.as_deref() == Some("auxiliary") {
            add_to_part(root, scan, link);
            continue;
        }
        let Some(address) = function_of(root, &link) else {
            if link.phys_switch_id.is_some() {
                loose.push(link);
            }
            continue;
        };
        let Some(function) = scan.functions.get_mut(&address) else {
            continue;
        };
        if let Some(vfs) = link.vfs.take() {
            let report = vfs.into_iter().map(|vf| (vf.index, vf.state));
            reports.entry(address).or_default().extend(report);
        }
        let mut netdev = netdev(link, Netns::Host);
        let is_asked_for = aim.is_thorough() || aim.names(address);
        if is_asked_for && !matches!(function.role, Role::Vf(_)) {
            complete(root, &mut netdev, &mut scan.notes);
        }
        function.netdevs.push(netdev);
    }
    adopt_representors(scan, loose);
    for function in scan.functions.values_mut() {
        order(&mut function.netdevs);
    }
    report_vfs(scan, &reports);
    name_representors(scan);
}

/// Puts the netdev of a sub-function on it. Its parent is the sub-function itself, or the `eth` device
/// that its driver made of it.
fn add_to_part(root: &HostRoot, scan: &mut Scan<'_>, link: Link) {
    let direct = link
        .parent_dev
        .as_deref()
        .and_then(|name| name.parse().ok());
    let known = |name: &AuxName| scan.sub_functions.contains_key(name);
    let part = direct.filter(known).or_else(|| {
        let path = root.link_target(&format!("/sys/class/net/{}", link.name));
        aux::in_path(&path.ok()?)
    });
    if let Some(part) = part.and_then(|name| scan.sub_functions.get_mut(&name)) {
        part.netdevs.push(netdev(link, Netns::Host));
    }
}

/// Puts netdevs of other namespaces on the functions that have none here.
pub(super) fn add_elsewhere(scan: &mut Scan<'_>, namespaces: Vec<Elsewhere>) {
    for namespace in namespaces {
        let netns = Netns::Other {
            inode: namespace.inode,
            path: namespace.path,
        };
        for link in namespace.links {
            let address = link.parent_pci();
            let function = address.and_then(|at| scan.functions.get_mut(&at));
            if let Some(function) = function {
                function.netdevs.push(netdev(link, netns.clone()));
                order(&mut function.netdevs);
            }
        }
    }
}

/// Returns the PCI function that a netdev is directly on.
pub(super) fn function_of(root: &HostRoot, link: &Link) -> Option<PciAddress> {
    match link.parent_bus.as_deref() {
        Some("pci") => return link.parent_pci(),
        None | Some("virtio") => {}
        Some(_) => return None,
    }
    // Bridges, veths, tunnels: made by software, on no device.
    if link.kind.is_some() || link.arphrd == LOOPBACK {
        return None;
    }
    let target = root
        .link_target(&format!("/sys/class/net/{}", link.name))
        .ok()?;
    let device = target
        .strip_suffix(link.name.as_str())?
        .strip_suffix("/net/")?;
    let (rest, last) = device.rsplit_once('/')?;
    if last.starts_with("virtio") {
        nearest_function(rest.rsplit('/').next()?)
    } else {
        last.parse().ok()
    }
}

fn netdev(link: Link, netns: Netns) -> Netdev {
    Netdev {
        link_type: link.link_type(),
        name: link.name,
        index: link.index,
        netns,
        alt_names: link.alt_names,
        address: link.address,
        permanent_address: link.permanent_address,
        mtu: link.mtu,
        max_mtu: link.max_mtu,
        admin_up: link.up,
        oper: link.oper,
        speed_mbps: None,
        dev_port: None,
        phys_port_name: link.phys_port_name,
        phys_switch_id: link.phys_switch_id,
        master: link.master,
    }
}

/// Adds what only sysfs tells.
///
/// `speed` answers `EINVAL` while the netdev is down and -1 without a link: both are "none now".
fn complete(root: &HostRoot, netdev: &mut Netdev, notes: &mut Notes) {
    let class = format!("/sys/class/net/{}", netdev.name);
    if netdev.is_representor() {
        return;
    }
    let dev_port = root.read_text(&format!("{class}/dev_port"));
    netdev.dev_port = dev_port.ok().and_then(|text| number(&text));
    if let Ok(text) = root.read_text(&format!("{class}/speed")) {
        match text.as_str() {
            // SPEED_UNKNOWN as a signed and as an unsigned number.
            "-1" | "4294967295" => {}
            text => match number(text) {
                Some(speed) => netdev.speed_mbps = Some(speed),
                None => notes.gap(&netdev.name, format!("speed holds {text:?}, not a number")),
            },
        }
    }
}

/// Sorts the uplink first, then by port and name.
fn order(netdevs: &mut [Netdev]) {
    netdevs.sort_by(|a, b| {
        let key = |netdev: &Netdev| (netdev.is_representor(), netdev.dev_port);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
}

/// Gives representors without a parent device (before Linux 5.8) to the PF on whose switch they
/// are; the PF's function number is the `pf` in their port name.
fn adopt_representors(scan: &mut Scan<'_>, loose: Vec<Link>) {
    for link in loose {
        let port = link.phys_port_name.as_deref().and_then(VfPort::parse);
        let Some(port) = port else {
            continue;
        };
        let home = scan.functions.values_mut().find(|function| {
            let on_switch = function
                .netdevs
                .iter()
                .any(|own| !own.is_representor() && own.phys_switch_id == link.phys_switch_id);
            let number = function.address.routing_id() & 7;
            function.pf().is_some() && on_switch && number == port.pf
        });
        if let Some(home) = home {
            home.netdevs.push(netdev(link, Netns::Host));
        }
    }
}

/// Copies what the PFs report to their VFs.
fn report_vfs(scan: &mut Scan<'_>, reports: &BTreeMap<PciAddress, VfReports>) {
    for function in scan.functions.values_mut() {
        if let Role::Vf(facts) = &mut function.role
            && let Some(index) = facts.index
        {
            let report = reports.get(&facts.pf);
            facts.state = report.and_then(|report| report.get(&index)).copied();
        }
    }
    for (pf, report) in reports {
        tell_unseen(scan, *pf, report);
        let Some(facts) = scan.functions.get(pf).and_then(|function| function.pf()) else {
            continue;
        };
        let missing = facts.vfs.keys().filter(|index| !report.contains_key(index));
        let missing = missing.count();
        if missing > 0 {
            let all = facts.vfs.len();
            let reason = format!("the PF reports nothing of {missing} of its {all} VFs");
            scan.notes.gap(pf, reason);
        }
    }
}

/// Keeps the MACs of VFs that were not looked at.
fn tell_unseen(scan: &mut Scan<'_>, pf: PciAddress, report: &VfReports) {
    let Some(facts) = scan.functions.get(&pf).and_then(|function| function.pf()) else {
        return;
    };
    let unseen = facts.vfs.iter().filter_map(|(index, vf)| {
        let is_seen = scan.functions.contains_key(vf);
        let mac = report.get(index)?.mac?;
        (!is_seen && !mac.is_zero()).then_some((*index, mac))
    });
    let unseen = unseen.collect();
    if let Some(Role::Pf(facts)) = scan.functions.get_mut(&pf).map(|f| &mut f.role) {
        facts.unseen_macs = unseen;
    }
}

/// Tells every VF its representor.
fn name_representors(scan: &mut Scan<'_>) {
    let mut names: Vec<(PciAddress, IfName)> = Vec::new();
    for (function, facts) in scan.functions.values().filter_map(|f| Some((f, f.pf()?))) {
        for netdev in function.netdevs.iter().filter(|n| n.is_representor()) {
            let port = netdev.phys_port_name.as_deref().and_then(VfPort::parse);
            if let Some(vf) = port.and_then(|port| facts.vfs.get(&port.vf)) {
                names.push((*vf, netdev.name.clone()));
            }
        }
    }
    for (vf, name) in names {
        if let Some(function) = scan.functions.get_mut(&vf)
            && let Role::Vf(facts) = &mut function.role
        {
            facts.representor = Some(name);
        }
    }
}

/// A port name of the form `pf0vf3`, as `devlink_port_phys_port_name_get` writes it. Ports of
/// another controller (`c1pf0vf3`, on a SmartNIC) stand for the other host's VFs.
#[derive(Debug, PartialEq, Eq)]
struct VfPort {
    pf: u16,
    vf: VfIndex,
}

impl VfPort {
    fn parse(name: &str) -> Option<Self> {
        let (pf, vf) = name.strip_prefix("pf")?.split_once("vf")?;
        Some(Self {
            pf: number(pf)?,
            vf: VfIndex(number(vf)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_of_this_host_name_a_vf() {
        let port = VfPort::parse("pf1vf12").unwrap();
        assert_eq!((port.pf, port.vf), (1, VfIndex(12)));
        for other in [
            "p0",
            "pf0",
            "pf0sf88",
            "c1pf0vf3",
            "pfvf",
            "pf0vf",
            "pf0vf70000",
            "",
        ] {
            assert_eq!(VfPort::parse(other), None, "{other}");
        }
    }
}
