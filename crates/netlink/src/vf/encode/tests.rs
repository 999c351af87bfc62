use model::{MacAddr, Pcp, VfState, VlanId, VlanProto};
use proptest::prelude::*;

use super::*;
use crate::testing::hex;
use crate::vf::decode::decode_list;
use crate::wire::ATTRIBUTE_HEADER;

const PF: u32 = 1;

fn payload(attributes: &[VfAttr]) -> Vec<u8> {
    let pf = IfIndex::new(PF).unwrap();
    set_request(pf, VfIndex(3), attributes).payload().to_vec()
}

fn vlan(id: u16, pcp: u8, proto: VlanProto) -> VfAttr {
    VfAttr::Vlan(Some(VlanTag {
        id: VlanId::new(id).unwrap(),
        pcp: Pcp::new(pcp).unwrap(),
        proto,
    }))
}

/// What `ip link set lo vf 3 …` of iproute2 6.1 sends inside its `IFLA_VF_INFO`.
#[cfg(target_endian = "little")]
#[test]
fn attributes_are_laid_out_as_iproute2_does() {
    let guid = |text: &str| text.parse::<Guid>().unwrap();
    let cases = [
        (
            VfAttr::Mac("02:00:5e:10:00:01".parse().unwrap()),
            "28000100 03000000 02005e100001 0000
             000000000000000000000000 000000000000000000000000",
        ),
        (VfAttr::SpoofCheck(true), "0c000400 03000000 01000000"),
        (VfAttr::Link(LinkPolicy::Auto), "0c000500 03000000 00000000"),
        (
            VfAttr::Link(LinkPolicy::Enable),
            "0c000500 03000000 01000000",
        ),
        (
            VfAttr::Link(LinkPolicy::Disable),
            "0c000500 03000000 02000000",
        ),
        (
            VfAttr::Rate {
                min: Mbps::new(100),
                max: Mbps::new(2000),
            },
            "10000600 03000000 64000000 d0070000",
        ),
        (
            VfAttr::Rate {
                min: None,
                max: None,
            },
            "10000600 03000000 00000000 00000000",
        ),
        (VfAttr::RssQuery(true), "0c000700 03000000 01000000"),
        (VfAttr::Trust(false), "0c000900 03000000 00000000"),
        (
            VfAttr::NodeGuid(guid("00:02:c9:03:00:2f:b1:10")),
            "14000a00 03000000 00000000 10b12f0003c90200",
        ),
        (
            VfAttr::PortGuid(guid("00:02:c9:03:00:2f:b1:11")),
            "14000b00 03000000 00000000 11b12f0003c90200",
        ),
        // iproute2 takes the list for 802.1ad only; sriov-cni, as we do, for each tag. The 80 says
        // that the attribute is a nest.
        (
            vlan(100, 5, VlanProto::Dot1ad),
            "18000c80 14000100 03000000 64000000 05000000 88a80000",
        ),
        (
            vlan(100, 0, VlanProto::Dot1q),
            "18000c80 14000100 03000000 64000000 00000000 81000000",
        ),
        (
            VfAttr::Vlan(None),
            "18000c80 14000100 03000000 00000000 00000000 81000000",
        ),
    ];
    for (attr, expected) in cases {
        let bytes = payload(&[attr]);
        assert_eq!(bytes[24..], hex(expected), "{attr}");
    }
}

#[cfg(target_endian = "little")]
#[test]
fn one_message_holds_them_all() {
    let mut request = set_request(
        IfIndex::new(7).unwrap(),
        VfIndex(3),
        &[VfAttr::SpoofCheck(false), VfAttr::Trust(true)],
    );
    let expected = "
        40000000 1300 0500 09000000 00000000
        00 00 0000 07000000 00000000 00000000
        2000 1680
        1c00 0180
        0c00 0400 03000000 00000000
        0c00 0900 03000000 01000000";
    assert_eq!(request.bytes(9).unwrap(), hex(expected));
}

#[test]
fn the_operation_lists_what_was_wanted() {
    let listed = [VfAttr::Mac(MacAddr::ZERO), VfAttr::Trust(true)];
    assert_eq!(Listed(&listed).to_string(), "mac none, trust on");
}

fn any_attribute() -> impl Strategy<Value = VfAttr> {
    let tag = (1_u16..=4094, 0_u8..=7, any::<bool>()).prop_map(|(id, pcp, ad)| VlanTag {
        id: VlanId::new(id).unwrap(),
        pcp: Pcp::new(pcp).unwrap(),
        proto: if ad {
            VlanProto::Dot1ad
        } else {
            VlanProto::Dot1q
        },
    });
    prop_oneof![
        any::<[u8; 6]>().prop_map(|mac| VfAttr::Mac(MacAddr::new(mac))),
        proptest::option::of(tag).prop_map(VfAttr::Vlan),
        (any::<u32>(), any::<u32>()).prop_map(|(min, max)| VfAttr::Rate {
            min: Mbps::new(min),
            max: Mbps::new(max),
        }),
        any::<bool>().prop_map(VfAttr::SpoofCheck),
        any::<bool>().prop_map(VfAttr::RssQuery),
        any::<bool>().prop_map(VfAttr::Trust),
        prop_oneof![
            Just(LinkPolicy::Auto),
            Just(LinkPolicy::Enable),
            Just(LinkPolicy::Disable)
        ]
        .prop_map(VfAttr::Link),
        any::<u64>().prop_map(|guid| VfAttr::NodeGuid(Guid::new(guid))),
        any::<u64>().prop_map(|guid| VfAttr::PortGuid(Guid::new(guid))),
    ]
}

/// The state of a VF of which nothing is known but what was set.
fn state_after(attributes: &[VfAttr]) -> VfState {
    let mut state = VfState::default();
    for attribute in attributes {
        match *attribute {
            VfAttr::Mac(mac) => state.mac = Some(mac),
            VfAttr::Vlan(tag) => state.vlan = Some(tag),
            VfAttr::Rate { min, max } => {
                state.min_rate_mbps = Some(min.map_or(0, Mbps::get));
                state.max_rate_mbps = Some(max.map_or(0, Mbps::get));
            }
            VfAttr::SpoofCheck(on) => state.spoof_check = Some(on),
            VfAttr::Link(policy) => state.link = Some(policy),
            VfAttr::RssQuery(on) => state.rss_query = Some(on),
            VfAttr::Trust(on) => state.trust = Some(on),
            VfAttr::NodeGuid(guid) => state.node_guid = Some(guid),
            VfAttr::PortGuid(guid) => state.port_guid = Some(guid),
        }
    }
    state
}

proptest! {
    /// The attributes of a request and those of a report have the same layout.
    #[test]
    fn what_is_set_is_what_is_read(
        attributes in proptest::collection::vec(any_attribute(), 1..12),
    ) {
        let numbered = attributes.iter().any(|attribute| {
            !matches!(
                attribute,
                VfAttr::Vlan(_) | VfAttr::NodeGuid(_) | VfAttr::PortGuid(_)
            )
        });
        prop_assume!(numbered);
        let bytes = payload(&attributes);
        let header = crate::link::IFINFOMSG;
        prop_assert!(bytes.len() > header + ATTRIBUTE_HEADER);
        let list = decode_list(&bytes[header..], Some(1), 1);
        prop_assert!(!list.truncated);
        prop_assert_eq!(list.vfs[0].index, VfIndex(3));
        prop_assert_eq!(list.vfs[0].state, state_after(&attributes));
    }
}
