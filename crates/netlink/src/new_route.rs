//! Adding routes through an interface.

use std::net::IpAddr;

use model::{IfIndex, InterfaceAddress};

use crate::error::RequestError;
use crate::socket::Socket;
use crate::wire::Request;

const RTM_NEWROUTE: u16 = 24;

const NLM_F_CREATE: u16 = 0x400;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;

const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Table `main`.
const RT_TABLE_MAIN: u8 = 254;
/// The table's number is in `RTA_TABLE`.
const RT_TABLE_UNSPEC: u8 = 0;
/// As `ip route` marks routes that an administrator adds.
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// A route to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRoute {
    /// Destination; bits beyond its prefix do not count.
    pub to: InterfaceAddress,
    /// Next hop; `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// Metric; `None` for the kernel's own.
    pub priority: Option<u32>,
    /// Table; `None` for `main`.
    pub table: Option<u32>,
    /// Scope (`rt_scope`): 0 global, 253 link, 254 host.
    pub scope: u8,
    /// MTU of the path in bytes.
    pub mtu: Option<u32>,
    /// Advertised TCP segment size in bytes.
    pub advmss: Option<u32>,
}

/// Adds a route through an interface; one that is there already is no error.
///
/// A second IPv6 route to the same destination becomes another path of the first.
pub fn add_route(
    socket: &mut Socket,
    index: IfIndex,
    route: &NewRoute,
) -> Result<(), RequestError> {
    let outcome = socket.change(
        format_args!("add route to {} through interface {index}", route.to),
        &mut request(index, route),
    );
    match outcome {
        Err(error) if error.is_already_there() => Ok(()),
        outcome => outcome,
    }
}

fn request(index: IfIndex, route: &NewRoute) -> Request {
    let family = match route.to.address() {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let table = match route.table {
        None => RT_TABLE_MAIN,
        Some(table) => u8::try_from(table).unwrap_or(RT_TABLE_UNSPEC),
    };
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags u32.
    let header = [
        family,
        route.to.prefix(),
        0,
        0,
        table,
        RTPROT_BOOT,
        route.scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let mut request = Request::with_modifiers(RTM_NEWROUTE, NLM_F_CREATE, &header);
    if route.to.prefix() > 0 {
        address(&mut request, RTA_DST, network(route.to));
    }
    if let Some(via) = route.via {
        address(&mut request, RTA_GATEWAY, via);
    }
    request.u32(RTA_OIF, index.get());
    if let Some(priority) = route.priority {
        request.u32(RTA_PRIORITY, priority);
    }
    if let Some(table) = route.table {
        request.u32(RTA_TABLE, table);
    }
    if route.mtu.is_some() || route.advmss.is_some() {
        request.nest(RTA_METRICS, |metrics| {
            if let Some(mtu) = route.mtu {
                metrics.u32(RTAX_MTU, mtu);
            }
            if let Some(advmss) = route.advmss {
                metrics.u32(RTAX_ADVMSS, advmss);
            }
        });
    }
    request
}

fn address(request: &mut Request, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => request.attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => request.attribute(kind, &v6.octets()),
    };
}

/// Clears the bits beyond the prefix, which the kernel refuses in a destination.
fn network(to: InterfaceAddress) -> IpAddr {
    let prefix = u32::from(to.prefix());
    match to.address() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix));
            IpAddr::V4((v4.to_bits() & mask.unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix));
            IpAddr::V6((v6.to_bits() & mask.unwrap_or(0)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attribute, words};

    fn route(to: &str) -> NewRoute {
        NewRoute {
            to: to.parse().unwrap(),
            via: None,
            priority: None,
            table: None,
            scope: 0,
            mtu: None,
            advmss: None,
        }
    }

    #[test]
    fn a_destination_has_no_bits_beyond_its_prefix() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("10.9.8.7/8"), "10.0.0.0");
        assert_eq!(network("10.9.8.7/32"), "10.9.8.7");
        assert_eq!(network("10.9.8.7/0"), "0.0.0.0");
        assert_eq!(network("2001:db8::7/64"), "2001:db8::");
        assert_eq!(network("2001:db8::7/128"), "2001:db8::7");
    }

    #[test]
    fn a_route_is_one_message() {
        let index = IfIndex::new(7).unwrap();
        let full = NewRoute {
            via: Some("192.0.2.1".parse().unwrap()),
            priority: Some(5),
            table: Some(1000),
            scope: 253,
            mtu: Some(1400),
            ..route("198.51.100.0/24")
        };
        let expected = [
            vec![2, 24, 0, 0, 0, 3, 253, 1, 0, 0, 0, 0],
            attribute(1, &[198, 51, 100, 0]),
            attribute(5, &[192, 0, 2, 1]),
            attribute(4, &words(&[7])),
            attribute(6, &words(&[5])),
            attribute(15, &words(&[1000])),
            attribute(8 | 0x8000, &attribute(2, &words(&[1400]))),
        ]
        .concat();
        assert_eq!(request(index, &full).payload(), expected);
        let default = [
            vec![10, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0],
            attribute(4, &words(&[7])),
        ]
        .concat();
        assert_eq!(request(index, &route("::/0")).payload(), default);
    }
}
