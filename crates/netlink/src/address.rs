//! IP addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{IfIndex, InterfaceAddress};
use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::socket::Socket;
use crate::wire::{Attribute, Attributes, Message, Request, align, array, u32_at};

pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Size of `struct ifaddrmsg`: family u8, prefix u8, flags u8, scope u8, index u32.
const IFADDRMSG: usize = 8;

/// Longest prefix of a network that has a broadcast address (RFC 3021 takes it from /31).
const LONGEST_BROADCAST_PREFIX: u8 = 30;

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkAddress {
    /// The interface.
    pub index: IfIndex,
    /// The address and its prefix.
    pub address: InterfaceAddress,
    /// Is duplicate address detection still under way, so that it cannot be used yet (IPv6)?
    #[serde(default)]
    pub tentative: bool,
    /// Did somebody else turn out to have it (IPv6)?
    #[serde(default)]
    pub duplicate: bool,
}

/// Is an IPv6 address checked for a duplicate before it is used?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DuplicateCheck {
    /// As the interface is set; it takes a second or more until the address can be used.
    #[default]
    AsConfigured,
    /// No: the address can be used at once.
    Skip,
}

/// Gives an interface an address; one that it has already is no error.
///
/// An IPv4 address gets the broadcast address of its network, as container networks expect.
pub fn add_address(
    socket: &mut Socket,
    index: IfIndex,
    address: InterfaceAddress,
    check: DuplicateCheck,
) -> Result<(), RequestError> {
    socket.change(
        format_args!("add address {address} to interface {index}"),
        &mut add_request(index, address, check),
    )
}

/// Takes an address from an interface; one that it does not have is no error.
pub fn remove_address(
    socket: &mut Socket,
    index: IfIndex,
    address: InterfaceAddress,
) -> Result<(), RequestError> {
    let outcome = socket.change(
        format_args!("remove address {address} from interface {index}"),
        &mut address_request(RTM_DELADDR, 0, index, address),
    );
    match outcome {
        Err(error) if error.errno() == Some(rustix::io::Errno::ADDRNOTAVAIL) => Ok(()),
        outcome => outcome,
    }
}

/// Lists the addresses of an interface.
pub fn addresses(socket: &mut Socket, index: IfIndex) -> Result<Vec<LinkAddress>, RequestError> {
    let mut header = [0; IFADDRMSG];
    // Kernels before 4.20 do not filter.
    header[4..].copy_from_slice(&index.get().to_ne_bytes());
    socket.collect(
        format_args!("list the addresses of interface {index}"),
        &mut Request::dump(RTM_GETADDR, &header),
        |message| address_message(message).filter(|found| found.index == index),
    )
}

/// Lists the addresses of all interfaces.
pub fn all_addresses(socket: &mut Socket) -> Result<Vec<LinkAddress>, RequestError> {
    socket.collect(
        format_args!("list the addresses"),
        &mut Request::dump(RTM_GETADDR, &[0; IFADDRMSG]),
        address_message,
    )
}

fn add_request(index: IfIndex, address: InterfaceAddress, check: DuplicateCheck) -> Request {
    let modifiers = NLM_F_CREATE | NLM_F_REPLACE;
    let mut request = address_request(RTM_NEWADDR, modifiers, index, address);
    match address.address() {
        IpAddr::V4(v4) if address.prefix() <= LONGEST_BROADCAST_PREFIX => {
            let hosts = u32::MAX.checked_shr(address.prefix().into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from_bits(v4.to_bits() | hosts);
            request.attribute(IFA_BROADCAST, &broadcast.octets());
        }
        IpAddr::V6(_) if check == DuplicateCheck::Skip => {
            request.u32(IFA_FLAGS, IFA_F_NODAD);
        }
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    request
}

fn address_request(
    kind: u16,
    modifiers: u16,
    index: IfIndex,
    address: InterfaceAddress,
) -> Request {
    let family = match address.address() {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let mut header = [family, address.prefix(), 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.get().to_ne_bytes());
    let mut request = Request::with_modifiers(kind, modifiers, &header);
    match address.address() {
        IpAddr::V4(v4) => request
            .attribute(IFA_LOCAL, &v4.octets())
            .attribute(IFA_ADDRESS, &v4.octets()),
        IpAddr::V6(v6) => request
            .attribute(IFA_LOCAL, &v6.octets())
            .attribute(IFA_ADDRESS, &v6.octets()),
    };
    request
}

fn address_message(message: Message<'_>) -> Option<LinkAddress> {
    if message.kind == RTM_NEWADDR {
        decode(message.payload)
    } else {
        None
    }
}

fn decode(payload: &[u8]) -> Option<LinkAddress> {
    let [family, prefix, short_flags, _scope] = array(payload, 0)?;
    let attributes = Attributes::new(payload.get(align(IFADDRMSG)..)?);
    // Of a point-to-point address, the local end; IFA_ADDRESS is then the other end.
    let bytes = attributes
        .find(IFA_LOCAL)
        .or_else(|| attributes.find(IFA_ADDRESS))?
        .payload;
    let address = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::from(array::<4>(bytes, 0)?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(array::<16>(bytes, 0)?)),
        _ => return None,
    };
    let flags = attributes
        .find(IFA_FLAGS)
        .and_then(Attribute::u32)
        .unwrap_or(u32::from(short_flags));
    Some(LinkAddress {
        index: IfIndex::new(u32_at(payload, 4)?)?,
        address: InterfaceAddress::new(address, prefix)?,
        tentative: flags & IFA_F_TENTATIVE != 0,
        duplicate: flags & IFA_F_DADFAILED != 0,
    })
}

/// Decodes arbitrary bytes as the payload of an address message.
pub(crate) fn fuzz_address(data: &[u8]) {
    if let Some(found) = decode(data) {
        let text = found.address.to_string();
        assert_eq!(text.parse(), Ok(found.address));
    }
}

#[cfg(test)]
mod tests;
