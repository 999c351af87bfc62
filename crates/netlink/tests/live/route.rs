//! Routes on the real kernel.

use netlink::{
    DuplicateCheck, IpVersion, LinkChange, Protocol, Socket, add_address, change_link,
    default_routes, interface_towards,
};

use crate::{in_own_netns, loopback_index};

/// Reads only, so it may look at the namespace that the test runs in.
#[test]
fn default_routes_are_those_of_procfs() {
    let table = std::fs::read_to_string("/proc/net/route").unwrap();
    let listed = table
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some("00000000"))
        .filter(|line| line.split_whitespace().nth(7) == Some("00000000"))
        .count();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let main = default_routes(&mut socket, IpVersion::V4).unwrap();
    let main: usize = main
        .iter()
        .filter(|route| route.table == 254)
        .map(|route| route.interfaces.len())
        .sum();
    assert_eq!(main, listed);
    default_routes(&mut socket, IpVersion::V6).unwrap();
}

#[test]
fn an_address_of_this_host_is_reached_by_loopback_and_a_strange_one_not_at_all() {
    in_own_netns(
        "route::an_address_of_this_host_is_reached_by_loopback_and_a_strange_one_not_at_all",
        || {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let up = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            change_link(&mut socket, loopback_index(), &up).unwrap();
            for (ours, strange) in [
                ("192.0.2.1/24", "198.51.100.1"),
                ("2001:db8::1/64", "2001:db8:1::1"),
            ] {
                let address: model::InterfaceAddress = ours.parse().unwrap();
                add_address(&mut socket, loopback_index(), address, DuplicateCheck::Skip).unwrap();
                let found = interface_towards(&mut socket, address.address()).unwrap();
                assert_eq!(found, Some(loopback_index()), "{ours}");
                let found = interface_towards(&mut socket, strange.parse().unwrap()).unwrap();
                assert_eq!(found, None, "{strange}");
            }
            for version in [IpVersion::V4, IpVersion::V6] {
                assert_eq!(default_routes(&mut socket, version).unwrap(), []);
            }
        },
    );
}
