//! Addresses and routes of an interface in its namespace, as an IPAM plugin gives them.
//!
//! These are no steps of a plan: they need no undo, because the kernel drops them when the
//! interface leaves the namespace. All of it is done in one visit of the namespace.
//!
//! What would surprise: an IPv6 gateway makes us wait until the addresses have passed their check
//! for a duplicate, a second or more, because routes are of no use before. And the neighbours are
//! told last, once the link has a carrier; what is sent before is lost. Of IPv6 addresses that are
//! still being checked the kernel tells them, after the check.

use std::net::IpAddr;
use std::time::Duration;

use model::{IfName, InterfaceAddress, MacAddr, NetnsTarget, PciAddress, StepError};
use netlink::{DuplicateCheck, Events, Link, NewRoute, Protocol, Socket, VfList};

use crate::netns::OpenNetns;
use crate::perform::{Fault, missing};
use crate::root::HostRoot;
use crate::wait;

/// How long IPv6 addresses may be checked: the kernel's own check takes a second, and up to one more
/// by chance before it begins.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a carrier is waited for before the neighbours are told. A VF of a port that is up has
/// it within milliseconds; with a port that is down nobody listens.
const CARRIER_PATIENCE: Duration = Duration::from_millis(200);

/// What an interface is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressing {
    /// Its addresses, in this order.
    pub addresses: Vec<InterfaceAddress>,
    /// Routes through it.
    pub routes: Vec<NewRoute>,
    /// Is one of the gateways an IPv6 one, so that somebody will need the addresses at once?
    pub awaits_ipv6: bool,
}

/// An interface as it is found in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundInterface {
    /// The function that it belongs to; `None` for software, and before kernel 5.14.
    pub function: Option<PciAddress>,
    /// Is it up?
    pub is_up: bool,
    /// Its hardware address.
    pub mac: Option<MacAddr>,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// Gives the interface of `vf` in a namespace its addresses and routes, and tells the neighbours.
pub fn address(
    root: &HostRoot,
    vf: PciAddress,
    netns: &NetnsTarget,
    name: &IfName,
    wanted: &Addressing,
) -> Result<(), StepError> {
    let visit = || -> Result<(), Fault> {
        let mut socket = Socket::open(Protocol::Route)?;
        let link = netlink::link_by_name(&mut socket, name, VfList::Omit)?;
        let link = link
            .filter(|link| link.parent_pci().is_none_or(|function| function == vf))
            .ok_or_else(|| missing(netns))?;
        let mut work = Work {
            root,
            socket,
            link,
            wanted,
        };
        work.prepare();
        work.give_addresses()?;
        work.give_routes()?;
        work.tell_neighbours();
        Ok(())
    };
    let outcome = inside(root, netns, visit).and_then(|outcome| outcome);
    outcome.map_err(|fault| {
        let attempt = format!("give interface {name} its addresses in namespace {netns}");
        fault.into_step_error(format!("VF {vf}"), attempt)
    })
}

/// Looks at an interface of a namespace; `None` when there is no such interface.
pub fn look_at_interface(
    root: &HostRoot,
    netns: &NetnsTarget,
    name: &IfName,
) -> Result<Option<FoundInterface>, StepError> {
    let visit = || -> Result<Option<FoundInterface>, Fault> {
        let mut socket = Socket::open(Protocol::Route)?;
        let Some(link) = netlink::link_by_name(&mut socket, name, VfList::Omit)? else {
            return Ok(None);
        };
        let addresses = netlink::addresses(&mut socket, link.index)?;
        Ok(Some(FoundInterface {
            function: link.parent_pci(),
            is_up: link.up,
            mac: link.address.as_ref().and_then(|text| text.parse().ok()),
            addresses: addresses.iter().map(|found| found.address).collect(),
        }))
    };
    let outcome = inside(root, netns, visit).and_then(|outcome| outcome);
    outcome.map_err(|fault| {
        let attempt = format!("look it up in namespace {netns}");
        fault.into_step_error(format!("interface {name}"), attempt)
    })
}

fn inside<T: Send>(
    root: &HostRoot,
    netns: &NetnsTarget,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Fault> {
    match netns {
        NetnsTarget::Host => Ok(work()),
        NetnsTarget::Path { path, inode } => {
            Ok(OpenNetns::open_same(root, path, *inode)?.run(work)?)
        }
    }
}

/// A visit of the namespace.
struct Work<'a> {
    root: &'a HostRoot,
    socket: Socket,
    link: Link,
    wanted: &'a Addressing,
}

impl Work<'_> {
    /// Sets what the kernel should know before the first address. `/proc/sys/net` is that of the
    /// thread's namespace; where it cannot be written, the interface works all the same.
    fn prepare(&self) {
        let name = self.link.name.as_str();
        if !self.has_ipv6() {
            return;
        }
        for interface in ["lo", name] {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            if self.root.read_text(&path).is_ok_and(|text| text != "0") {
                self.set_quietly("ipv6", interface, "disable_ipv6", "0");
            }
        }
        self.set_quietly("ipv6", name, "ndisc_notify", "1");
        self.set_quietly("ipv6", name, "optimistic_dad", "1");
        self.set_quietly("ipv6", name, "keep_addr_on_down", "1");
    }

    fn has_ipv6(&self) -> bool {
        let mut addresses = self.wanted.addresses.iter();
        addresses.any(|address| address.address().is_ipv6())
    }

    fn set_quietly(&self, family: &str, interface: &str, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
        if let Err(error) = self.root.write(&path, value) {
            tracing::debug!(%error, "setting of the namespace not made");
        }
    }

    fn give_addresses(&mut self) -> Result<(), Fault> {
        for address in &self.wanted.addresses {
            let check = DuplicateCheck::AsConfigured;
            netlink::add_address(&mut self.socket, self.link.index, *address, check)?;
        }
        if self.wanted.awaits_ipv6 && self.has_ipv6() {
            self.await_ipv6()?;
        }
        Ok(())
    }

    /// Waits until no IPv6 address is being checked any more.
    fn await_ipv6(&mut self) -> Result<(), Fault> {
        let mut events = Events::open()?;
        let index = self.link.index;
        let socket = &mut self.socket;
        let settled = wait::until(&mut events, SETTLE_PATIENCE, || {
            let addresses = match netlink::addresses(socket, index) {
                Ok(addresses) => addresses,
                Err(error) => return Some(Err(Fault::from(error))),
            };
            if let Some(other) = addresses.iter().find(|address| address.duplicate) {
                let what = format!("somebody else on the link has {}", other.address.address());
                return Some(Err(Fault::new("duplicate-address", what).remedy(
                    "give every pod an address of its own: see the ranges of the IPAM plugin",
                )));
            }
            let is_settled = !addresses.iter().any(|address| address.tentative);
            is_settled.then_some(Ok(()))
        })?;
        match settled {
            Some(outcome) => outcome,
            None => {
                // Without a carrier nothing is checked, and that is not the addresses' fault.
                tracing::warn!(ifname = %self.link.name, "ipv6 addresses are still being checked");
                Ok(())
            }
        }
    }

    fn give_routes(&mut self) -> Result<(), Fault> {
        for route in &self.wanted.routes {
            netlink::add_route(&mut self.socket, self.link.index, route).map_err(|error| {
                let unreachable = error.errno() == Some(rustix::io::Errno::NETUNREACH);
                let fault = Fault::from(error);
                if unreachable {
                    fault.code("gateway-unreachable").remedy(
                        "its gateway must be in the network of an address: see the IPAM configuration",
                    )
                } else {
                    fault
                }
            })?;
        }
        Ok(())
    }

    /// Announces all addresses. It is a courtesy: what fails here is logged.
    fn tell_neighbours(&mut self) {
        let Some(mac) = self
            .link
            .address
            .as_ref()
            .and_then(|text| text.parse().ok())
        else {
            return;
        };
        if self.wanted.addresses.is_empty() {
            return;
        }
        if let Err(error) = self.await_carrier() {
            tracing::warn!(%error, "carrier not awaited");
        }
        // An address that is still checked must not be announced: some NICs send our own frame back
        // to us, and then the check finds a duplicate. The kernel announces it afterwards
        // (`ndisc_notify`).
        let checked = if self.has_ipv6() {
            netlink::addresses(&mut self.socket, self.link.index).unwrap_or_default()
        } else {
            Vec::new()
        };
        for address in &self.wanted.addresses {
            let announced: IpAddr = address.address();
            let mut found = checked.iter().filter(|found| found.tentative);
            if found.any(|found| found.address == *address) {
                continue;
            }
            if let Err(error) = netlink::announce(self.link.index, mac, announced) {
                tracing::warn!(%error, "address not announced");
            }
        }
    }

    fn await_carrier(&mut self) -> Result<(), netlink::RequestError> {
        let index = self.link.index;
        let socket = &mut self.socket;
        let is_running = |socket: &mut Socket| {
            let link = netlink::link_by_index(socket, index, VfList::Omit);
            link.is_ok_and(|link| link.is_some_and(|link| link.running))
        };
        if is_running(socket) {
            return Ok(());
        }
        let mut events = Events::open()?;
        let look = || is_running(socket).then_some(());
        wait::until(&mut events, CARRIER_PATIENCE, look).map(|_| ())
    }
}
