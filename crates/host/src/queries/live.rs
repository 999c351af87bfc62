//! The kernel's own answers.
//!
//! Each socket is opened at the first question for its protocol and kept. A kernel without devlink
//! or RDMA answers "none" and is no error.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{EswitchMode, IfIndex, IfName, NodeUse, PciAddress, RdmaNetnsMode, SteeringMode};
use netlink::devlink::{self, Handle};
use netlink::{IpVersion, Link, Protocol, RequestError, Socket, VfList, ethtool, rdma};

use super::namespaces;
use super::{Elsewhere, Firmware, Queries, QueryError};
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

    fn rdma_netns(&mut self) -> Result<Option<RdmaNetnsMode>, QueryError> {
        match Socket::open_if_supported(Protocol::Rdma)? {
            Some(mut socket) => Ok(rdma::netns_mode(&mut socket)?),
            None => Ok(None),
        }
    }
}

/// Can others reach the node at an address? Every interface that is up has a link-local one.
fn is_of_node(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}
