//! Interfaces of the real kernel.

use std::os::fd::AsFd;

use model::{IfIndex, LinkType, Mtu};
use netlink::{
    Link, LinkChange, NetnsRef, Protocol, Socket, VfList, add_alt_name, change_link, link_by_index,
    link_by_name, links, links_with_vfs, remove_alt_name,
};

use crate::{in_own_netns, loopback_index};

fn socket() -> Socket {
    Socket::open(Protocol::Route).unwrap()
}

fn loopback(socket: &mut Socket) -> Link {
    link_by_index(socket, loopback_index(), VfList::Include)
        .unwrap()
        .unwrap()
}

#[test]
fn a_new_namespace_has_a_loopback_that_is_down() {
    in_own_netns("link::a_new_namespace_has_a_loopback_that_is_down", || {
        let mut socket = socket();
        let all = links_with_vfs(&mut socket).unwrap();
        let lo = all
            .iter()
            .find(|link| link.index == loopback_index())
            .unwrap();
        assert_eq!(lo.name.as_str(), "lo");
        assert_eq!(lo.link_type(), LinkType::Other(772));
        assert!(!lo.up && !lo.running);
        assert_eq!(lo.mtu, 65536);
        assert_eq!(lo.address.as_deref(), Some("00:00:00:00:00:00"));
        assert_eq!((lo.num_vf, &lo.vfs), (None, &None));
        assert_eq!(links(&mut socket).unwrap(), all);
        assert_eq!(loopback(&mut socket), *lo);
    });
}

#[test]
fn an_interface_that_is_not_there_is_none() {
    in_own_netns("link::an_interface_that_is_not_there_is_none", || {
        let mut socket = socket();
        let nobody = "nobody0".parse().unwrap();
        assert_eq!(
            link_by_name(&mut socket, &nobody, VfList::Omit).unwrap(),
            None
        );
        let index = IfIndex::new(4711).unwrap();
        assert_eq!(
            link_by_index(&mut socket, index, VfList::Omit).unwrap(),
            None
        );
    });
}

#[test]
fn changes_are_seen() {
    in_own_netns("link::changes_are_seen", || {
        let mut socket = socket();
        let change = LinkChange {
            up: Some(true),
            mtu: Mtu::new(1400),
            name: Some("loop7".parse().unwrap()),
            ..LinkChange::default()
        };
        change_link(&mut socket, loopback_index(), &change).unwrap();
        let lo = loopback(&mut socket);
        assert!(lo.up && lo.running);
        assert_eq!((lo.mtu, lo.name.as_str()), (1400, "loop7"));
        let down = LinkChange {
            up: Some(false),
            ..LinkChange::default()
        };
        change_link(&mut socket, loopback_index(), &down).unwrap();
        assert!(!loopback(&mut socket).up);
    });
}

#[test]
fn alternative_names_come_and_go() {
    in_own_netns("link::alternative_names_come_and_go", || {
        let mut socket = socket();
        add_alt_name(&mut socket, loopback_index(), "one").unwrap();
        add_alt_name(&mut socket, loopback_index(), "a-name-longer-than-fifteen").unwrap();
        let error = add_alt_name(&mut socket, loopback_index(), "one").unwrap_err();
        assert!(error.is_already_there(), "{error:?}");
        let lo = loopback(&mut socket);
        assert_eq!(lo.alt_names, ["one", "a-name-longer-than-fifteen"]);
        let one = "one".parse().unwrap();
        let found = link_by_name(&mut socket, &one, VfList::Omit)
            .unwrap()
            .unwrap();
        assert_eq!(found.name.as_str(), "lo");
        remove_alt_name(&mut socket, loopback_index(), "one").unwrap();
        let error = remove_alt_name(&mut socket, loopback_index(), "one").unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert_eq!(loopback(&mut socket).alt_names.len(), 1);
    });
}

#[test]
fn a_refusal_carries_the_kernels_words_and_the_attribute() {
    in_own_netns(
        "link::a_refusal_carries_the_kernels_words_and_the_attribute",
        || {
            let mut socket = socket();
            // An alternative name may have 127 bytes: the kernel's policy check points at it.
            let error = add_alt_name(&mut socket, loopback_index(), &"x".repeat(200)).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(
                error.to_string(),
                format!("add alternative name {:?} to interface 1", "x".repeat(200))
            );
            assert!(error.kernel_message().is_some(), "{source}");
            assert!(source.ends_with("at attribute 52.53"), "{source}");
        },
    );
}

#[test]
fn a_set_vf_without_vfs_is_not_supported() {
    in_own_netns("link::a_set_vf_without_vfs_is_not_supported", || {
        let trust = [model::VfAttr::Trust(true)];
        let error = netlink::set_vf(&mut socket(), loopback_index(), model::VfIndex(3), &trust)
            .unwrap_err();
        assert!(error.is_not_supported(), "{error:?}");
        assert_eq!(error.to_string(), "set trust on of vf 3 on interface 1");
    });
}

#[test]
fn a_namespace_that_is_gone_is_refused() {
    in_own_netns("link::a_namespace_that_is_gone_is_refused", || {
        let file = std::fs::File::open("/dev/null").unwrap();
        let change = LinkChange {
            netns: Some(NetnsRef::Fd(file.as_fd())),
            ..LinkChange::default()
        };
        let error = change_link(&mut socket(), loopback_index(), &change).unwrap_err();
        assert!(error.is_invalid(), "{error:?}");
        assert_eq!(error.to_string(), "interface 1: move to a namespace");
    });
}

#[test]
fn a_link_with_a_message_of_30_kib_is_read_whole() {
    in_own_netns(
        "link::a_link_with_a_message_of_30_kib_is_read_whole",
        || {
            let mut socket = socket();
            let names: Vec<String> = (0..240).map(|n| format!("{n:0>120}")).collect();
            for name in &names {
                add_alt_name(&mut socket, loopback_index(), name).unwrap();
            }
            assert_eq!(loopback(&mut socket).alt_names, names);
            let all = links(&mut socket).unwrap();
            let lo = all.iter().find(|link| link.index == loopback_index());
            assert_eq!(lo.unwrap().alt_names, names);
        },
    );
}
