//! The kernel's own answers.
//!
//! Each socket is opened at the first question for its protocol and kept. A kernel without devlink
//! or RDMA answers "none" and is no error.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{
    EswitchMode, Function, IfIndex, IfName, NodeUse, PciAddress, RdmaNetnsMode, SteeringMode,
};
use netlink::devlink::{self, Handle};
use netlink::{IpVersion, Link, Protocol, RequestError, Socket, VfList, ethtool, rdma};

use super::namespaces;
use super::{Elsewhere, Firmware, Queries, QueryError};
use crate::discover::PCI_DEVICES;
use crate::perform::{STEERING, TC_OFFLOAD};
use crate::root::HostRoot;

/// Asks over netlink sockets of the network namespace that the first question was asked in.
#[derive(Debug, Default)]
pub(crate) struct Live {
    route: Option<Socket>,
    generic: Option<Socket>,
}

impl Live {
    fn route(&mut self) -> Result<&mut Socket, RequestError> {
        open(&mut self.route, Protocol::Route)
    }

    fn generic(&mut self) -> Result<&mut Socket, RequestError> {
        open(&mut self.generic, Protocol::Generic)
    }
}

fn open(slot: &mut Option<Socket>, protocol: Protocol) -> Result<&mut Socket, RequestError> {
    let socket = match slot.take() {
        Some(socket) => socket,
        None => Socket::open(protocol)?,
    };
    Ok(slot.insert(socket))
}

impl Queries for Live {
    fn links(&mut self) -> Result<Vec<Link>, QueryError> {
        Ok(netlink::links_with_vfs(self.route()?)?)
    }

    fn links_without_vfs(&mut self) -> Result<Vec<Link>, QueryError> {
        Ok(netlink::links(self.route()?)?)
    }

    fn link(&mut self, index: IfIndex) -> Result<Option<Link>, QueryError> {
        match netlink::link_by_index(self.route()?, index, VfList::Include) {
            // Some kernels cannot send the VFs of an InfiniBand PF from 16 on.
            Err(error) if error.is_answer_too_long() => {
                let link = netlink::link_by_index(self.route()?, index, VfList::Omit)?;
                Ok(link.map(|link| Link {
                    vfs_truncated: true,
                    ..link
                }))
            }
            link => Ok(link?),
        }
    }

    fn links_on(
        &mut self,
        root: &HostRoot,
        functions: &mut dyn Iterator<Item = &Function>,
    ) -> Result<Option<Vec<Link>>, QueryError> {
        let mut links = Vec::new();
        for function in functions {
            let Some(name) = only_netdev(root, function) else {
                return Ok(None);
            };
            let Some(name) = name else {
                continue;
            };
            let vfs = match function.pf() {
                Some(facts) if facts.num_vfs > 0 => VfList::Include,
                _ => VfList::Omit,
            };
            let asked = netlink::link_by_name(self.route()?, &name, vfs);
            match asked {
                Ok(Some(link)) if tells_all(&link, function) => links.push(link),
                // Just renamed, or with others that only the list tells.
                Ok(_) => return Ok(None),
                Err(error) if error.is_answer_too_long() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(links))
    }

    fn elsewhere(&mut self, root: &HostRoot) -> (Vec<Elsewhere>, Vec<QueryError>) {
        namespaces::links_of_all(root)
    }

    fn eswitch(&mut self, pf: PciAddress) -> Result<Option<EswitchMode>, QueryError> {
        Ok(devlink::eswitch(self.generic()?, &Handle::pci(pf))?)
    }

    fn steering(&mut self, pf: PciAddress) -> Result<Option<SteeringMode>, QueryError> {
        let device = Handle::pci(pf);
        let found = devlink::word_parameter(self.generic()?, &device, STEERING)?;
        // A word that virtfn does not know is none that it could give back.
        Ok(found.and_then(|found| found.word.parse().ok()))
    }

    fn tc_offload(&mut self, _pf: PciAddress, netdev: IfIndex) -> Result<Option<bool>, QueryError> {
        Ok(ethtool::feature(self.generic()?, netdev, TC_OFFLOAD)?)
    }

    fn firmware(
        &mut self,
        pf: PciAddress,
        netdev: Option<&IfName>,
    ) -> Result<Firmware, QueryError> {
        let info = devlink::info(self.generic()?, &Handle::pci(pf))?;
        let info = info.unwrap_or_default();
        let mut firmware = Firmware {
            version: info.firmware().map(str::to_owned),
            ddp: info.ddp().map(str::to_owned),
        };
        if let (None, Some(netdev)) = (&firmware.version, netdev) {
            let driver = ethtool::driver(self.route()?, netdev)?;
            firmware.version = driver.and_then(|driver| driver.firmware);
        }
        Ok(firmware)
    }

    fn node_uses(&mut self) -> Result<BTreeMap<IfIndex, NodeUse>, QueryError> {
        let socket = self.route()?;
        let mut uses: BTreeMap<IfIndex, NodeUse> = BTreeMap::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let routes = netlink::default_routes(socket, version)?;
            for index in routes.iter().flat_map(|route| &route.interfaces) {
                uses.entry(*index).or_default().default_route = true;
            }
        }
        for found in netlink::all_addresses(socket)? {
            if is_of_node(found.address.address()) {
                uses.entry(found.index).or_default().address = true;
            }
        }
        Ok(uses)
    }

    fn take_route(&mut self) -> Option<Socket> {
        self.route.take()
    }

    fn rdma_netns(&mut self) -> Result<Option<RdmaNetnsMode>, QueryError> {
        match Socket::open_if_supported(Protocol::Rdma)? {
            Some(mut socket) => Ok(rdma::netns_mode(&mut socket)?),
            None => Ok(None),
        }
    }
}

/// Returns the netdev of a function in this namespace, if it has one; `None` when that cannot be told
/// without the list of all: it has several, or something is above it, or (virtio) its netdev is on a
/// device in between.
fn only_netdev(root: &HostRoot, function: &Function) -> Option<Option<IfName>> {
    let dir = format!("{PCI_DEVICES}/{}/net", function.address);
    let names = match root.list(&dir) {
        Ok(names) => names,
        Err(error) if error.is_gone() => {
            let by_kernel = function.driver.as_ref().is_some_and(|d| !d.is_user_space());
            let is_hidden = function.class.is_network() && by_kernel;
            return (!is_hidden).then_some(None);
        }
        Err(_) => return None,
    };
    let [name] = names.as_slice() else {
        return names.is_empty().then_some(None);
    };
    let is_above = |entry: &[u8]| entry.starts_with(b"upper_");
    if function.vf().is_some() && root.has_entry(&format!("{dir}/{name}"), is_above) {
        return None;
    }
    name.parse().ok().map(Some)
}

/// Are there no other netdevs of interest: representors on the same device, or the bond that a VF is in?
/// Before Linux 5.14 a netdev does not name its device.
fn tells_all(link: &Link, function: &Function) -> bool {
    let has_master = link.master.is_some() && function.vf().is_some();
    link.parent_bus.is_some() && link.phys_switch_id.is_none() && !has_master
}

/// Can others reach the node at an address? Every interface that is up has a link-local one.
fn is_of_node(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}
