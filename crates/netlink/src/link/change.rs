//! Changes to an interface.

use std::os::fd::{AsRawFd, BorrowedFd};

use model::{IfIndex, IfName, MacAddr, Mtu};

use super::{
    IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_NET_NS_FD, IFLA_NET_NS_PID, RTM_SETLINK,
    flags_header,
};
use crate::error::RequestError;
use crate::socket::Socket;
use crate::wire::Request;

/// `IFLA_AF_SPEC`, what it holds of IPv4, and `IPV4_DEVCONF_ARP_NOTIFY` (linux/if_link.h, linux/ip.h).
const IFLA_AF_SPEC: u16 = 26;
const AF_INET: u16 = 2;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;

/// What to change of an interface; `None` is "leave alone".
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'fd> {
    /// Move it to this namespace.
    pub netns: Option<NetnsRef<'fd>>,
    /// Name it so.
    pub name: Option<IfName>,
    /// Set its hardware address.
    pub mac: Option<MacAddr>,
    /// Set its MTU.
    pub mtu: Option<Mtu>,
    /// Set it up or down.
    pub up: Option<bool>,
    /// Let it tell its neighbours its IPv4 addresses whenever it comes up or gets another MAC (the
    /// setting `arp_notify`).
    pub announces: bool,
}

/// A network namespace as a request names it.
#[derive(Clone, Copy, Debug)]
pub enum NetnsRef<'fd> {
    /// An open namespace file, such as `/run/netns/blue`.
    Fd(BorrowedFd<'fd>),
    /// The namespace of this process, as this process sees its number.
    Pid(u32),
}

impl LinkChange<'_> {
    fn is_empty(&self) -> bool {
        self.netns.is_none()
            && self.name.is_none()
            && self.mac.is_none()
            && self.mtu.is_none()
            && self.up.is_none()
            && !self.announces
    }
}

/// Changes an interface in one message.
///
/// The kernel goes in this order: namespace, hardware address, MTU, name, up, settings. It is not atomic: an
/// interface that a later part failed for stays moved, down, and maybe under its old name, so look
/// for it in both namespaces after an error. The kernel sets a moving interface down first. An
/// index that is taken in the new namespace changes. Before kernel 6.2 an interface that is up
/// refuses a new name as busy.
pub fn change_link(
    socket: &mut Socket,
    index: IfIndex,
    change: &LinkChange<'_>,
) -> Result<(), RequestError> {
    if change.is_empty() {
        return Ok(());
    }
    let mut request = change_request(index, change);
    socket.change(
        format_args!("interface {index}: {}", Attempt(change)),
        &mut request,
    )
}

fn change_request(index: IfIndex, change: &LinkChange<'_>) -> Request {
    let (flags, mask) = match change.up {
        None => (0, 0),
        Some(false) => (0, IFF_UP),
        Some(true) => (IFF_UP, IFF_UP),
    };
    let mut request = Request::new(RTM_SETLINK, &flags_header(index.get(), flags, mask));
    match change.netns {
        None => {}
        Some(NetnsRef::Fd(fd)) => {
            request.attribute(IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes());
        }
        Some(NetnsRef::Pid(pid)) => {
            request.u32(IFLA_NET_NS_PID, pid);
        }
    }
    if let Some(mac) = change.mac {
        request.attribute(IFLA_ADDRESS, &mac.bytes());
    }
    if let Some(mtu) = change.mtu {
        request.u32(IFLA_MTU, mtu.get());
    }
    if let Some(name) = &change.name {
        request.text(IFLA_IFNAME, name.as_str());
    }
    if change.announces {
        request.nest(IFLA_AF_SPEC, |families| {
            families.nest(AF_INET, |family| {
                family.nest(IFLA_INET_CONF, |settings| {
                    settings.u32(IPV4_DEVCONF_ARP_NOTIFY, 1);
                });
            });
        });
    }
    request
}

/// Writes `move, rename to net1, set up`.
struct Attempt<'a>(&'a LinkChange<'a>);

impl std::fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(change) = self;
        let parts = [
            change.netns.map(|_| "move to a namespace".to_owned()),
            change.mac.map(|mac| format!("set mac {mac}")),
            change.mtu.map(|mtu| format!("set mtu {mtu}")),
            change.name.as_ref().map(|name| format!("rename to {name}")),
            change
                .up
                .map(|up| format!("set {}", if up { "up" } else { "down" })),
            change.announces.then(|| "announce addresses".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests;
