use proptest::prelude::*;

use super::*;
use crate::testing::{attribute, hex, message, words};

#[test]
fn attributes_end_where_the_bytes_stop_making_sense() {
    let good = [attribute(1, b"a"), attribute(0x8002, b"bcd")].concat();
    let kinds: Vec<u16> = Attributes::new(&good).map(|a| a.kind).collect();
    assert_eq!(kinds, [1, 2], "the nested bit is no part of the type");
    for bad in [
        &words(&[3])[..],
        &words(&[0]),
        &words(&[0x0001_ffff]),
        &[5, 0, 1],
    ] {
        let mut attributes = Attributes::new(bad);
        assert_eq!(attributes.next(), None, "{bad:?}");
        assert_eq!(attributes.rest(), bad);
    }
}

#[test]
fn the_last_attribute_may_lack_its_padding() {
    let bytes = attribute(3, b"lo\0");
    let mut attributes = Attributes::new(&bytes[..7]);
    assert_eq!(attributes.next().unwrap().text(), Some("lo"));
    assert_eq!((attributes.next(), attributes.rest()), (None, &[][..]));
}

#[test]
fn text_ends_at_its_nul_and_is_utf8() {
    let read = |payload: &[u8]| Attribute { kind: 1, payload }.string();
    assert_eq!(read(b"eth0\0junk"), Some("eth0".to_owned()));
    assert_eq!(read(b"eth0"), Some("eth0".to_owned()));
    assert_eq!(read(b"\0"), None);
    assert_eq!(read(b"\xff\xfe"), None);
    assert_eq!(read(b""), None);
}

#[test]
fn messages_are_told_apart_by_their_lengths() {
    let datagram = [message(16, 2, 5, b"odd"), message(3, 2, 5, &words(&[0]))].concat();
    let mut messages = Messages::new(&datagram);
    let first = messages.next().unwrap();
    assert_eq!(
        (first.kind, first.sequence, first.payload),
        (16, 5, &b"odd"[..])
    );
    assert_eq!(messages.next().unwrap().status(), Some(0));
    assert_eq!((messages.next(), messages.rest()), (None, &[][..]));
    let cut = &datagram[..datagram.len() - 1];
    assert_eq!(Messages::new(cut).count(), 1);
    assert_eq!(
        Messages::new(&words(&[8, 0, 0, 0])).count(),
        0,
        "below a header"
    );
}

#[cfg(target_endian = "little")]
#[test]
fn a_request_is_laid_out_as_the_kernel_reads_it() {
    let mut request = Request::dump(18, &[0; 16]);
    request.u32(29, 9).text(3, "lo");
    request.nest(52, |list| {
        list.text(53, "other");
    });
    let expected = "
        40000000 1200 0103 07000000 00000000
        00000000 00000000 00000000 00000000
        0800 1d00 09000000
        0700 0300 6c6f 00 00
        1000 3480 0a00 3500 6f74686572 00 0000";
    assert_eq!(request.bytes(7).unwrap(), hex(expected));
}

#[test]
fn the_kernels_offsets_name_attributes() {
    let mut request = Request::new(19, &[0; 16]);
    request.u32(29, 9);
    request.nest(22, |list| {
        list.nest(1, |vf| {
            vf.u32(4, 1).u32(9, 1);
        });
    });
    // Header 16, ifinfomsg 16, mask 8, two nests of 4 each, then two attributes of 8.
    for (offset, path) in [
        (32, &[29][..]),
        (40, &[22]),
        (44, &[22, 1]),
        (48, &[22, 1, 4]),
        (56, &[22, 1, 9]),
        (60, &[22, 1, 9]),
        (64, &[]),
        (0, &[]),
        (usize::MAX, &[]),
    ] {
        assert_eq!(request.path_of(offset), path, "offset {offset}");
    }
}

#[test]
fn an_attribute_that_is_too_long_spoils_the_request() {
    let mut request = Request::new(19, &[]);
    request.attribute(1, &vec![0; 65_531]);
    assert!(request.bytes(1).is_some());
    request.attribute(1, &vec![0; 65_532]);
    assert_eq!(request.bytes(1), None);
    let mut nest = Request::new(19, &[]);
    nest.nest(1, |inner| {
        for _half in 0..2 {
            inner.attribute(2, &vec![0; 40_000]);
        }
    });
    assert_eq!(nest.bytes(1), None);
}

proptest! {
    #[test]
    fn what_is_built_is_what_is_read(
        attributes in proptest::collection::vec(
            (0_u16..0x3fff, proptest::collection::vec(any::<u8>(), 0..64)),
            0..20,
        ),
    ) {
        let mut request = Request::new(1, &[]);
        request.nest(7, |nest| {
            for (kind, payload) in &attributes {
                nest.attribute(*kind, payload);
            }
        });
        let bytes = request.bytes(1).unwrap();
        let read = Messages::new(bytes).next().unwrap();
        let nest = read.attributes(0).find(7).unwrap();
        let found: Vec<(u16, Vec<u8>)> =
            nest.nested().map(|a| (a.kind, a.payload.to_vec())).collect();
        prop_assert_eq!(found, attributes);
    }

    #[test]
    fn arbitrary_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let attributes = Attributes::new(&bytes);
        prop_assert!(attributes.count() <= bytes.len() / ATTRIBUTE_HEADER);
        for message in Messages::new(&bytes) {
            prop_assert!(message.payload.len() <= bytes.len() - MESSAGE_HEADER);
            prop_assert!(message.attributes(usize::MAX).next().is_none());
        }
    }

    #[test]
    fn any_offset_can_be_named(offset: usize, kinds in proptest::collection::vec(any::<u16>(), 0..8)) {
        let mut request = Request::new(1, &[0; 4]);
        for kind in kinds {
            request.attribute(kind, &[0xff; 3]);
        }
        prop_assert!(request.path_of(offset).len() <= 8);
    }
}
