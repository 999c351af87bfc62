//! Addresses on the real kernel.

use model::{IfIndex, InterfaceAddress};
use netlink::{DuplicateCheck, Protocol, Socket, add_address, addresses, remove_address};

use crate::{in_own_netns, loopback_index};

#[test]
fn addresses_are_added_and_removed_once_or_twice_alike() {
    in_own_netns(
        "address::addresses_are_added_and_removed_once_or_twice_alike",
        || {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            for text in ["192.0.2.1/24", "2001:db8::1/64", "198.51.100.7/32"] {
                let address: InterfaceAddress = text.parse().unwrap();
                for _twice in 0..2 {
                    add_address(&mut socket, loopback_index(), address, DuplicateCheck::Skip)
                        .unwrap();
                    let found = addresses(&mut socket, loopback_index()).unwrap();
                    let ours: Vec<_> = found.iter().filter(|a| a.address == address).collect();
                    assert_eq!(ours.len(), 1, "{text}: {found:?}");
                    assert!(!ours[0].tentative && !ours[0].duplicate);
                }
                for _twice in 0..2 {
                    remove_address(&mut socket, loopback_index(), address).unwrap();
                    let found = addresses(&mut socket, loopback_index()).unwrap();
                    assert!(
                        found.iter().all(|a| a.address != address),
                        "{text}: {found:?}"
                    );
                }
            }
        },
    );
}

#[test]
fn an_address_for_nobody_is_refused() {
    in_own_netns("address::an_address_for_nobody_is_refused", || {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let address = "192.0.2.1/24".parse().unwrap();
        let nobody = IfIndex::new(4711).unwrap();
        let error =
            add_address(&mut socket, nobody, address, DuplicateCheck::AsConfigured).unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert_eq!(
            error.to_string(),
            "add address 192.0.2.1/24 to interface 4711"
        );
    });
}

#[test]
fn a_list_longer_than_one_datagram_is_read_whole() {
    in_own_netns(
        "address::a_list_longer_than_one_datagram_is_read_whole",
        || {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            for number in 0..1000_u32 {
                let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
                let address = InterfaceAddress::new(address.into(), 32).unwrap();
                add_address(&mut socket, loopback_index(), address, DuplicateCheck::Skip).unwrap();
            }
            // Some 70 bytes each, in datagrams of at most 32 KiB.
            let found = addresses(&mut socket, loopback_index()).unwrap();
            let ours = found
                .iter()
                .filter(|found| found.address.address().is_ipv4());
            assert_eq!(ours.count(), 1000);
        },
    );
}
