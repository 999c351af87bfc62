use std::os::fd::AsFd;

use super::*;
use crate::testing::{attribute, words};

#[test]
fn one_message_moves_names_and_sets_up() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let change = LinkChange {
        netns: Some(NetnsRef::Fd(file.as_fd())),
        name: Some("net1".parse().unwrap()),
        mac: Some("02:00:5e:10:00:01".parse().unwrap()),
        mtu: Mtu::new(1400),
        up: Some(true),
        announces: true,
    };
    let request = change_request(IfIndex::new(7).unwrap(), &change);
    let expected = [
        words(&[0, 7, 1, 1]),
        attribute(28, &file.as_raw_fd().to_ne_bytes()),
        attribute(1, &[0x02, 0, 0x5e, 0x10, 0, 1]),
        attribute(4, &words(&[1400])),
        attribute(3, b"net1\0"),
        attribute(
            26 | 0x8000,
            &attribute(
                2 | 0x8000,
                &attribute(1 | 0x8000, &attribute(22, &words(&[1]))),
            ),
        ),
    ]
    .concat();
    assert_eq!(request.payload(), expected);
    assert_eq!(
        Attempt(&change).to_string(),
        "move to a namespace, set mac 02:00:5e:10:00:01, set mtu 1400, rename to net1, set up, announce addresses"
    );
}

#[test]
fn down_is_asked_for_and_silence_changes_no_flag() {
    let index = IfIndex::new(7).unwrap();
    let down = LinkChange {
        up: Some(false),
        netns: Some(NetnsRef::Pid(42)),
        ..LinkChange::default()
    };
    let request = change_request(index, &down);
    let expected = [words(&[0, 7, 0, 1]), attribute(19, &words(&[42]))].concat();
    assert_eq!(request.payload(), expected);
    let nothing = LinkChange::default();
    assert!(nothing.is_empty() && !down.is_empty());
    assert_eq!(
        change_request(index, &nothing).payload(),
        words(&[0, 7, 0, 0])
    );
}
