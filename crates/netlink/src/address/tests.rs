use proptest::prelude::*;

use super::*;
use crate::testing::{attribute, words};

fn index() -> IfIndex {
    IfIndex::new(7).unwrap()
}

#[test]
fn ipv4_has_a_local_end_and_a_broadcast_address() {
    let request = add_request(
        index(),
        "192.0.2.130/25".parse().unwrap(),
        DuplicateCheck::Skip,
    );
    let expected = [
        [&[2, 25, 0, 0][..], &words(&[7])].concat(),
        attribute(2, &[192, 0, 2, 130]),
        attribute(1, &[192, 0, 2, 130]),
        attribute(4, &[192, 0, 2, 255]),
    ]
    .concat();
    assert_eq!(request.payload(), expected);
}

#[test]
fn the_smallest_and_the_largest_networks_are_no_special_case() {
    let broadcast = |text: &str| {
        let request = add_request(index(), text.parse().unwrap(), DuplicateCheck::Skip);
        let attributes = Attributes::new(&request.payload()[IFADDRMSG..]);
        attributes
            .find(IFA_BROADCAST)
            .map(|found| found.payload.to_vec())
    };
    assert_eq!(broadcast("192.0.2.1/32"), None);
    assert_eq!(broadcast("192.0.2.0/31"), None);
    assert_eq!(broadcast("192.0.2.1/30"), Some(vec![192, 0, 2, 3]));
    assert_eq!(broadcast("10.0.0.1/0"), Some(vec![255; 4]));
}

#[test]
fn ipv6_can_skip_the_duplicate_check() {
    let address: InterfaceAddress = "2001:db8::1/64".parse().unwrap();
    let flags = |check| {
        let request = add_request(index(), address, check);
        let attributes = Attributes::new(&request.payload()[IFADDRMSG..]);
        attributes.find(IFA_FLAGS).and_then(Attribute::u32)
    };
    assert_eq!(flags(DuplicateCheck::Skip), Some(IFA_F_NODAD));
    assert_eq!(flags(DuplicateCheck::AsConfigured), None);
}

#[test]
fn the_flags_attribute_beats_the_short_flags() {
    let payload = |attributes: &[Vec<u8>]| {
        let mut bytes = [&[10, 64, 0x40, 0][..], &words(&[7])].concat();
        bytes.extend(attributes.iter().flatten());
        bytes
    };
    let address = attribute(1, &[0xfe; 16]);
    let old = decode(&payload(std::slice::from_ref(&address))).unwrap();
    assert!(old.tentative && !old.duplicate);
    let new = decode(&payload(&[address, attribute(8, &words(&[0x8 | 0x100]))])).unwrap();
    assert!(!new.tentative && new.duplicate);
    assert_eq!(decode(&payload(&[])), None);
    assert_eq!(decode(&payload(&[attribute(1, &[1; 4])])), None, "short");
}

proptest! {
    #[test]
    fn what_is_added_is_what_is_read(bytes: [u8; 16], is_v4: bool, prefix in 0_u8..=128) {
        let address = if is_v4 {
            IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
        } else {
            IpAddr::from(bytes)
        };
        prop_assume!(!is_v4 || prefix <= 32);
        let address = InterfaceAddress::new(address, prefix).unwrap();
        let request = add_request(index(), address, DuplicateCheck::Skip);
        let read = decode(request.payload()).unwrap();
        prop_assert_eq!((read.index, read.address), (index(), address));
    }
}
