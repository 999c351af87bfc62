//! Routes: which interfaces a host depends on.
//!
//! Only what answers that is read: the default routes, and the interface by which the kernel would
//! reach one address, with its rules and all. What would surprise: a default route can be in any
//! table and can go out by several interfaces at once.

use std::net::IpAddr;

use model::IfIndex;

use crate::error::RequestError;
use crate::socket::Socket;
use crate::wire::{Attribute, Attributes, Message, Request, align, array, u16_at, u32_at};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;

/// A route to hosts, not one that rejects, or that is local or broadcast.
const RTN_UNICAST: u8 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Size of `struct rtmsg`: family, destination and source prefix, TOS, table, protocol, scope and
/// type u8 each, flags u32.
const RTMSG: usize = 12;
/// Size of `struct rtnexthop`: length u16, flags u8, hops u8, interface i32.
const RTNEXTHOP: usize = 8;

/// Version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    fn family(self) -> u8 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Of which protocol.
    pub version: IpVersion,
    /// Interfaces by which it goes out.
    pub interfaces: Vec<IfIndex>,
    /// Table that it is in; 254 is the main one.
    pub table: u32,
    /// Metric; the lowest is used.
    pub metric: u32,
}

/// Lists the default routes of all tables.
///
/// All routes of the protocol are gone through: the kernel does not select by prefix.
pub fn default_routes(
    socket: &mut Socket,
    version: IpVersion,
) -> Result<Vec<DefaultRoute>, RequestError> {
    let mut header = [0; RTMSG];
    header[0] = version.family();
    let ip = match version {
        IpVersion::V4 => "IPv4",
        IpVersion::V6 => "IPv6",
    };
    socket.collect(
        format_args!("list the {ip} routes"),
        &mut Request::dump(RTM_GETROUTE, &header),
        |message| decode(route_payload(message)?).filter(|route| route.version == version),
    )
}

/// Returns the interface by which the kernel would send to `address` now; `None` when it would not.
pub fn interface_towards(
    socket: &mut Socket,
    address: IpAddr,
) -> Result<Option<IfIndex>, RequestError> {
    let found = socket.collect(
        format_args!("find the route to {address}"),
        &mut towards_request(address),
        |message| first_interface(route_payload(message)?),
    );
    match found {
        Ok(found) => Ok(found.first().copied()),
        // ENETUNREACH and such: there is no way, which is an answer.
        Err(error) if is_unreachable(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_unreachable(error: &RequestError) -> bool {
    use rustix::io::Errno;
    matches!(
        error.errno(),
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL | Errno::SRCH)
    )
}

fn towards_request(address: IpAddr) -> Request {
    let (family, bits) = match address {
        IpAddr::V4(_) => (AF_INET, 32),
        IpAddr::V6(_) => (AF_INET6, 128),
    };
    let mut header = [0; RTMSG];
    header[0] = family;
    header[1] = bits;
    let mut request = Request::new(RTM_GETROUTE, &header);
    match address {
        IpAddr::V4(v4) => request.attribute(RTA_DST, &v4.octets()),
        IpAddr::V6(v6) => request.attribute(RTA_DST, &v6.octets()),
    };
    request
}

fn route_payload(message: Message<'_>) -> Option<&[u8]> {
    (message.kind == RTM_NEWROUTE).then_some(message.payload)
}

/// Reads a default route; `None` for any other.
fn decode(payload: &[u8]) -> Option<DefaultRoute> {
    let [family, prefix, ..] = array::<RTMSG>(payload, 0)?;
    let [table, _protocol, _scope, kind] = array(payload, 4)?;
    let version = match family {
        AF_INET => IpVersion::V4,
        AF_INET6 => IpVersion::V6,
        _ => return None,
    };
    if prefix != 0 || kind != RTN_UNICAST {
        return None;
    }
    let attributes = Attributes::new(payload.get(align(RTMSG)..)?);
    let number = |kind| attributes.find(kind).and_then(Attribute::u32);
    let single = number(RTA_OIF).and_then(IfIndex::new);
    let several = attributes
        .find(RTA_MULTIPATH)
        .map(|found| next_hops(found.payload))
        .unwrap_or_default();
    Some(DefaultRoute {
        version,
        interfaces: single.into_iter().chain(several).collect(),
        table: number(RTA_TABLE).unwrap_or(u32::from(table)),
        metric: number(RTA_PRIORITY).unwrap_or(0),
    })
}

/// Reads the interfaces of `struct rtnexthop`s, up to the first that is cut short.
fn next_hops(mut bytes: &[u8]) -> Vec<IfIndex> {
    let mut interfaces = Vec::new();
    while let (Some(length), Some(index)) = (u16_at(bytes, 0), u32_at(bytes, 4)) {
        let length = usize::from(length);
        if length < RTNEXTHOP {
            break;
        }
        interfaces.extend(IfIndex::new(index));
        bytes = bytes.get(align(length)..).unwrap_or_default();
    }
    interfaces
}

fn first_interface(payload: &[u8]) -> Option<IfIndex> {
    let attributes = Attributes::new(payload.get(align(RTMSG)..)?);
    IfIndex::new(attributes.find(RTA_OIF)?.u32()?)
}

/// Decodes arbitrary bytes as the payload of a route message.
pub(crate) fn fuzz_route(data: &[u8]) {
    if let Some(route) = decode(data) {
        assert!(route.interfaces.len() <= data.len() / RTNEXTHOP + 1);
    }
    let _ = first_interface(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{attribute, words};

    fn payload(rtmsg: [u8; 8], attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = [&rtmsg[..], &words(&[0])].concat();
        bytes.extend(attributes.iter().flatten());
        bytes
    }

    /// `default via 192.0.2.1 dev 3 proto dhcp metric 100`, as `rt_fill_info` lays it out.
    fn single() -> Vec<u8> {
        payload(
            [2, 0, 0, 0, 254, 16, 0, 1],
            &[
                attribute(15, &words(&[254])),
                attribute(6, &words(&[100])),
                attribute(5, &[192, 0, 2, 1]),
                attribute(4, &words(&[3])),
            ],
        )
    }

    #[test]
    fn a_default_route_names_its_interface() {
        let route = decode(&single()).unwrap();
        assert_eq!(route.interfaces, [IfIndex::new(3).unwrap()]);
        assert_eq!((route.table, route.metric), (254, 100));
        assert_eq!(route.version, IpVersion::V4);
    }

    #[test]
    fn every_hop_of_a_multipath_route_counts() {
        let gateway = attribute(5, &[192, 0, 2, 1]);
        let hop = |index: u32| {
            let mut hop = 16_u16.to_ne_bytes().to_vec();
            hop.extend([0, 0]);
            hop.extend(words(&[index]));
            hop.extend(&gateway);
            hop
        };
        let hops = [hop(3), hop(5)].concat();
        let bytes = payload([2, 0, 0, 0, 254, 16, 0, 1], &[attribute(9, &hops)]);
        let indices: Vec<_> = decode(&bytes)
            .unwrap()
            .interfaces
            .iter()
            .map(|i| i.get())
            .collect();
        assert_eq!(indices, [3, 5]);
    }

    #[test]
    fn a_table_above_255_is_in_its_attribute() {
        let bytes = payload(
            [10, 0, 0, 0, 252, 16, 0, 1],
            &[attribute(15, &words(&[4096]))],
        );
        let route = decode(&bytes).unwrap();
        assert_eq!((route.version, route.table), (IpVersion::V6, 4096));
        assert_eq!(route.interfaces, []);
    }

    #[test]
    fn other_routes_are_not_default_routes() {
        let unreachable = payload([10, 0, 0, 0, 254, 2, 0, 7], &[attribute(4, &words(&[1]))]);
        assert_eq!(decode(&unreachable), None);
        let network = payload([2, 24, 0, 0, 254, 2, 253, 1], &[attribute(4, &words(&[3]))]);
        assert_eq!(decode(&network), None);
        assert_eq!(decode(&single()[..11]), None);
    }

    #[test]
    fn the_way_to_one_address_is_asked_with_its_full_prefix() {
        let request = towards_request("2001:db8::1".parse().unwrap());
        assert_eq!(request.payload()[..2], [10, 128]);
        let request = towards_request("192.0.2.7".parse().unwrap());
        let expected = [
            [2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec(),
            attribute(1, &[192, 0, 2, 7]),
        ];
        assert_eq!(request.payload(), expected.concat());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_route(&bytes);
        }
    }
}
