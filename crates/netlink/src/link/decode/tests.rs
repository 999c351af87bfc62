use proptest::prelude::*;

use super::*;
use crate::testing::{attribute, link_payload, vf_list, words};

fn pf(vfs: u32) -> Vec<u8> {
    link_payload(
        4,
        &[
            attribute(3, b"ens1f0\0"),
            attribute(16, &[6]),
            attribute(4, &words(&[9000])),
            attribute(50, &words(&[68])),
            attribute(51, &words(&[9216])),
            attribute(10, &words(&[12])),
            attribute(1, &[0xb4, 0x96, 0x91, 0, 0x10, 0x01]),
            attribute(38, b"p0\0"),
            attribute(36, &[0x01, 0x10, 0, 0x91, 0x96, 0xb4]),
            attribute(21, &words(&[vfs])),
            vf_list(vfs),
            attribute(18, &attribute(1, b"bond_slave\0")),
            attribute(
                0x8000 | 52,
                &[attribute(53, b"enp59s0f0\0"), attribute(53, b"left\0")].concat(),
            ),
            attribute(54, &[0xb4, 0x96, 0x91, 0, 0x10, 0x01]),
            attribute(56, b"0000:3b:00.0\0"),
            attribute(57, b"pci\0"),
        ],
    )
}

#[test]
fn a_pf_is_read_whole_even_behind_a_list_that_wrapped() {
    // Lists of 259 and 260 VFs are just below and above 64 KiB.
    for count in [0, 2, 259, 260, 1024] {
        let link = link(&pf(count)).unwrap();
        assert_eq!(link.index.get(), 4);
        assert_eq!(link.name.as_str(), "ens1f0");
        assert!(link.up && link.running);
        assert_eq!(link.oper, OperState::Up);
        assert_eq!(
            (link.mtu, link.min_mtu, link.max_mtu),
            (9000, Some(68), Some(9216))
        );
        assert_eq!(link.address.as_deref(), Some("b4:96:91:00:10:01"));
        assert_eq!(link.permanent_address, link.address);
        assert_eq!(link.phys_port_name.as_deref(), Some("p0"));
        assert_eq!(link.phys_switch_id.as_deref(), Some("0110009196b4"));
        assert_eq!(link.alt_names, ["enp59s0f0", "left"]);
        assert_eq!(link.master, IfIndex::new(12));
        assert_eq!(link.kind.as_deref(), Some("bond_slave"));
        assert_eq!(link.parent_pci().unwrap().to_string(), "0000:3b:00.0");
        assert_eq!(link.num_vf, Some(count));
        assert_eq!(link.vfs.unwrap().len(), usize::try_from(count).unwrap());
        assert!(!link.vfs_truncated);
    }
}

#[test]
fn a_list_whose_length_wrapped_to_nothing_is_read() {
    // Find a number of VFs whose list has a length field below that of a header.
    let entry = crate::testing::vf_entry(0).len();
    let count = (1..0x1_0000)
        .find(|count| (count * entry + 4) & 0xffff < 4)
        .unwrap();
    let count = u32::try_from(count).unwrap();
    let link = link(&pf(count)).unwrap();
    assert_eq!(link.vfs.unwrap().len(), usize::try_from(count).unwrap());
    assert!(link.parent_dev.is_some() && !link.vfs_truncated);
}

#[test]
fn what_is_missing_is_none_and_no_name_is_no_link() {
    let bare = link(&link_payload(2, &[attribute(3, b"lo\0")])).unwrap();
    assert_eq!((bare.num_vf, &bare.vfs, bare.master), (None, &None, None));
    assert_eq!(
        (bare.address, bare.kind, bare.parent_dev),
        (None, None, None)
    );
    assert_eq!(bare.oper, OperState::Unknown);
    assert_eq!(link(&link_payload(2, &[])), None);
    assert_eq!(link(&link_payload(0, &[attribute(3, b"lo\0")])), None);
    assert_eq!(link(&[0; 15]), None);
}

#[test]
fn what_an_interface_is_on_counts_in_its_own_namespace_only() {
    let on = |more: &[Vec<u8>]| {
        let own = [attribute(3, b"ens1f0v0.40\0"), attribute(5, &words(&[9]))];
        let link = link(&link_payload(7, &[&own, more].concat())).unwrap();
        let far = link.far_lower.map(|far| (far.index.get(), far.netns));
        (link.lower.map(IfIndex::get), far)
    };
    assert_eq!(on(&[]), (Some(9), None));
    let elsewhere = attribute(37, &words(&[3]));
    assert_eq!(on(&[elsewhere]), (None, Some((9, 3))));
}

#[test]
fn no_name_hides_an_interface() {
    for name in [
        &b"\xff\xfe\0"[..],
        "été\0".as_bytes(),
        b"a/b\0",
        b"a-name-that-is-far-too-long\0",
        b"\0",
    ] {
        let named = link(&link_payload(7, &[attribute(3, name)])).unwrap();
        assert_eq!(named.name.as_str(), "?7");
    }
}

#[test]
fn an_infiniband_address_has_twenty_bytes() {
    let bytes = link_payload(2, &[attribute(3, b"ib0\0"), attribute(1, &[0xab; 20])]);
    let address = link(&bytes).unwrap().address.unwrap();
    assert_eq!(address.len(), 20 * 3 - 1);
    let long = link_payload(2, &[attribute(3, b"ib0\0"), attribute(1, &[0xab; 33])]);
    assert_eq!(link(&long).unwrap().address, None);
}

#[test]
fn a_link_survives_being_written_down() {
    let link = link(&pf(2)).unwrap();
    let text = serde_json::to_string(&link).unwrap();
    assert!(!text.contains("null"), "{text}");
    assert_eq!(serde_json::from_str::<Link>(&text).unwrap(), link);
    let least = r#"{"index":1,"name":"lo","arphrd":772,"oper":"unknown","mtu":65536}"#;
    let read: Link = serde_json::from_str(least).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), least);
}

/// As Linux 6.12 sent it for an 82576 with three VFs: VF 1 with a MAC and VLAN 100 of priority 3,
/// VF 2 trusted and without spoof check.
#[cfg(target_endian = "little")]
#[test]
fn a_captured_pf_is_read() {
    let link = link(include_bytes!("../../../corpus/link/igb-with-3-vfs")).unwrap();
    assert_eq!((link.name.as_str(), link.index.get()), ("eth0", 2));
    assert_eq!(link.alt_names, ["enp1s0"]);
    assert!(link.up && link.running);
    assert_eq!(link.address.as_deref(), Some("52:54:00:1a:00:00"));
    assert_eq!(link.permanent_address, link.address);
    assert_eq!(link.parent_pci().unwrap().to_string(), "0000:01:00.0");
    assert_eq!((link.min_mtu, link.max_mtu), (Some(68), Some(9216)));
    assert_eq!((link.num_vf, link.vfs_truncated), (Some(3), false));
    let states = serde_json::to_string_pretty(&link.vfs.unwrap()[1..]).unwrap();
    let rates = r#"
      "min_rate_mbps": 0,
      "max_rate_mbps": 0,"#;
    let tag = r#"{
        "id": "100",
        "pcp": "3",
        "proto": "802.1q"
      }"#;
    let vf_1 = format!(
        r#"[
  {{
    "index": 1,
    "state": {{
      "mac": "02:00:5e:10:00:01",
      "vlan": {tag},{rates}
      "spoof_check": true,
      "link": "auto",
      "trust": false
    }}
  }},"#
    );
    assert!(states.starts_with(&vf_1), "{states}");
    assert!(states.contains(r#""vlan": "none""#), "{states}");
    assert!(states.contains(r#""spoof_check": false"#), "{states}");
    assert!(states.contains(r#""trust": true"#), "{states}");
}

/// As Linux 6.12 sent it for a VF of that PF.
#[cfg(target_endian = "little")]
#[test]
fn a_captured_vf_is_read() {
    let link = link(include_bytes!("../../../corpus/link/igbvf")).unwrap();
    assert_eq!((link.name.as_str(), link.up), ("eth1", false));
    assert_eq!(link.parent_pci().unwrap().to_string(), "0000:01:10.0");
    assert_eq!((link.num_vf, link.vfs), (Some(0), None));
}

proptest! {
    #[test]
    fn mutated_messages_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = pf(3);
        for (place, value) in edits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        fuzz_link(&bytes);
    }
}
