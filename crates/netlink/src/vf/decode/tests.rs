use proptest::prelude::*;

use super::*;
use crate::testing::{attribute, vf_entry, vf_list, words};

const ETHERNET: u16 = 1;

/// Decodes a list of one VF, numbered 3, with these attributes.
fn state_of(attributes: &[Vec<u8>]) -> VfState {
    state_on(attributes, ETHERNET)
}

fn state_on(attributes: &[Vec<u8>], arphrd: u16) -> VfState {
    let mut entry = attribute(1, &[&words(&[3])[..], &[0; 32]].concat());
    entry.extend(attributes.iter().flatten());
    let bytes = attribute(22, &attribute(1, &entry));
    let list = decode_list(&bytes, Some(1), arphrd);
    assert!(!list.truncated && list.rest.is_empty());
    assert_eq!(list.vfs.len(), 1);
    assert_eq!(list.vfs[0].index, VfIndex(3));
    list.vfs[0].state
}

fn tag(id: u16, pcp: u8, proto: VlanProto) -> Option<Option<VlanTag>> {
    Some(Some(VlanTag {
        id: VlanId::new(id).unwrap(),
        pcp: Pcp::new(pcp).unwrap(),
        proto,
    }))
}

fn vlan_list(id: u32, pcp: u32, ethertype: u16) -> Vec<u8> {
    let mut info = words(&[3, id, pcp]);
    info.extend_from_slice(&ethertype.to_be_bytes());
    info.extend_from_slice(&[0; 2]);
    attribute(12, &attribute(1, &info))
}

#[test]
fn a_whole_entry_is_read() {
    let bytes = vf_list(1);
    let list = decode_list(&bytes, Some(1), ETHERNET);
    assert_eq!(
        list.vfs[0].state,
        VfState {
            mac: Some("02:00:5e:10:00:01".parse().unwrap()),
            vlan: tag(100, 5, VlanProto::Dot1ad),
            min_rate_mbps: Some(10),
            max_rate_mbps: Some(2000),
            spoof_check: Some(true),
            link: Some(LinkPolicy::Disable),
            rss_query: None,
            trust: Some(false),
            node_guid: None,
            port_guid: None,
        }
    );
}

#[test]
fn minus_one_is_not_reported_and_zero_is_off() {
    for kind in [4_u16, 7, 9] {
        let read = |value: u32| {
            let state = state_of(&[attribute(kind, &words(&[3, value]))]);
            [
                (4, state.spoof_check),
                (7, state.rss_query),
                (9, state.trust),
            ]
            .into_iter()
            .find(|(known, _)| *known == kind)
            .unwrap()
            .1
        };
        assert_eq!(read(u32::MAX), None);
        assert_eq!(read(0), Some(false));
        assert_eq!(read(1), Some(true));
        assert_eq!(read(7), None);
    }
}

#[test]
fn vlan_zero_is_no_vlan_and_no_attribute_is_not_reported() {
    assert_eq!(state_of(&[]).vlan, None);
    assert_eq!(state_of(&[vlan_list(0, 0, 0x8100)]).vlan, Some(None));
    let old = attribute(2, &words(&[3, 0, 0]));
    assert_eq!(state_of(&[old]).vlan, Some(None));
}

#[test]
fn the_vlan_list_beats_the_old_attribute() {
    let old = attribute(2, &words(&[3, 100, 5]));
    let new = vlan_list(100, 5, 0x88a8);
    let dot1ad = tag(100, 5, VlanProto::Dot1ad);
    assert_eq!(state_of(&[old.clone(), new.clone()]).vlan, dot1ad);
    assert_eq!(state_of(&[new, old.clone()]).vlan, dot1ad);
    assert_eq!(state_of(&[old]).vlan, tag(100, 5, VlanProto::Dot1q));
}

#[test]
fn a_tag_without_words_is_not_taken_for_another() {
    // QinQ with the old ethertype 0x9100, an id out of range, a priority out of range.
    let old = attribute(2, &words(&[3, 100, 5]));
    assert_eq!(state_of(&[old, vlan_list(100, 5, 0x9100)]).vlan, None);
    assert_eq!(state_of(&[vlan_list(4095, 0, 0x8100)]).vlan, None);
    assert_eq!(state_of(&[vlan_list(70_000, 0, 0x8100)]).vlan, None);
    assert_eq!(state_of(&[vlan_list(100, 8, 0x8100)]).vlan, None);
}

#[test]
fn a_rate_of_the_old_attribute_is_the_ceiling() {
    let old = attribute(3, &words(&[3, 500]));
    let state = state_of(std::slice::from_ref(&old));
    assert_eq!(
        (state.min_rate_mbps, state.max_rate_mbps),
        (None, Some(500))
    );
    let new = attribute(6, &words(&[3, 0, 2000]));
    for order in [[old.clone(), new.clone()], [new, old]] {
        let state = state_of(&order);
        assert_eq!(
            (state.min_rate_mbps, state.max_rate_mbps),
            (Some(0), Some(2000))
        );
    }
}

#[test]
fn guids_are_padded_and_the_mac_of_infiniband_means_nothing() {
    let guid = |kind, value: u64| {
        let mut payload = words(&[3, 0xdead_beef]);
        payload.extend_from_slice(&value.to_ne_bytes());
        attribute(kind, &payload)
    };
    let attributes = [
        guid(10, 0x0002_c903_002f_b110),
        guid(11, 0x0002_c903_002f_b111),
    ];
    let state = state_on(&attributes, INFINIBAND);
    assert_eq!(
        state.node_guid.unwrap().to_string(),
        "00:02:c9:03:00:2f:b1:10"
    );
    assert_eq!(
        state.port_guid.unwrap().to_string(),
        "00:02:c9:03:00:2f:b1:11"
    );
    assert_eq!(state.mac, None);
    assert_eq!(state_of(&[]).mac, Some(MacAddr::ZERO));
}

#[test]
fn lists_whose_length_wrapped_around_are_read_whole() {
    // 260 VFs of 252 bytes are the first above 64 KiB, 520 the first above 128.
    for count in [1, 64, 259, 260, 261, 300, 520, 521, 1024] {
        let mut bytes = vf_list(count);
        let behind = attribute(56, b"0000:3b:00.0\0");
        bytes.extend_from_slice(&behind);
        let list = decode_list(&bytes, Some(count), ETHERNET);
        assert_eq!(list.vfs.len(), usize::try_from(count).unwrap(), "{count}");
        assert!(!list.truncated, "{count}");
        assert_eq!(list.rest, behind, "{count}");
    }
}

#[test]
fn a_list_that_ends_early_is_marked() {
    let bytes = vf_list(300);
    for cut in [bytes.len() - 1, bytes.len() / 2, 70_000, 260, 6] {
        let list = decode_list(&bytes[..cut], Some(300), ETHERNET);
        assert!(list.truncated, "cut at {cut}");
        assert_eq!(
            list.vfs.len(),
            (cut - 4) / vf_entry(0).len(),
            "cut at {cut}"
        );
    }
}

#[test]
fn vfs_that_the_driver_leaves_out_are_no_truncation() {
    let entries = [vf_entry(0), vf_entry(2)].concat();
    let mut bytes = attribute(22, &entries);
    bytes.extend_from_slice(&attribute(43, &[]));
    let list = decode_list(&bytes, Some(4), ETHERNET);
    let indices: Vec<u16> = list.vfs.iter().map(|vf| vf.index.0).collect();
    assert_eq!(indices, [0, 2]);
    assert!(!list.truncated);
    assert_eq!(list.rest, attribute(43, &[]));
}

#[test]
fn nonsense_between_vfs_is_skipped_and_marked() {
    let entries = [vf_entry(0), attribute(9, b"what"), vf_entry(0), vf_entry(1)].concat();
    let bytes = attribute(22, &entries);
    let list = decode_list(&bytes, None, ETHERNET);
    assert_eq!(list.vfs.len(), 2);
    assert!(list.truncated);
}

proptest! {
    #[test]
    fn mutated_lists_never_panic_and_never_invent(
        count in 0_u32..40,
        announced in proptest::option::of(0_u32..80),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..16),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = vf_list(count);
        for (place, value) in edits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let list = decode_list(&bytes, announced, ETHERNET);
        prop_assert!(list.vfs.len() <= bytes.len() / 16);
        prop_assert!(list.vfs.is_sorted_by(|a, b| a.index < b.index));
        prop_assert!(bytes.ends_with(list.rest));
    }
}
