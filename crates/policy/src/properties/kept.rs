//! What VFs have by hand outlives them, wherever a plan is stopped.

use model::{Inventory, VfAttr, VfIndex};

use super::*;
use crate::KeptVfs;
use crate::keep::attributes;

/// Gives VFs settings through their PF.
fn give(host: &mut FakeHost, vfs: &[(Index, VfAttr)]) {
    let seen = host.inventory();
    let all: Vec<(PciAddress, VfIndex)> = seen
        .vfs()
        .filter_map(|(_, facts)| Some((facts.pf, facts.index?)))
        .collect();
    if all.is_empty() {
        return;
    }
    for (at, attr) in vfs {
        let (pf, vf) = all[at.index(all.len())];
        let attr = *attr;
        // A switch refuses some.
        let _set = host.perform(&Step::SetVf { pf, vf, attr });
    }
}

fn attrs() -> impl Strategy<Value = VfAttr> {
    prop_oneof![
        (0_u8..4).prop_map(|last| VfAttr::Mac(model::MacAddr::new([2, 0, 0, 0, 0, last]))),
        (1_u16..4095).prop_map(|id| VfAttr::Vlan(Some(VlanTag {
            id: VlanId::new(id).unwrap(),
            pcp: Pcp::new(1).unwrap(),
            proto: VlanProto::Dot1q,
        }))),
        any::<bool>().prop_map(VfAttr::SpoofCheck),
        any::<bool>().prop_map(VfAttr::Trust),
        (1_u32..100).prop_map(|max| VfAttr::Rate {
            min: None,
            max: Mbps::new(max)
        }),
    ]
}

fn has_all(seen: &Inventory, kept: &KeptVfs) -> Result<(), TestCaseError> {
    for (pf, vfs) in kept {
        for (vf, kept) in vfs {
            let state = seen.vf_of(*pf, *vf).unwrap().vf().unwrap().state.unwrap();
            let has: Vec<_> = attributes(&state).collect();
            for attr in attributes(kept) {
                prop_assert!(has.contains(&attr), "{} of {} {}", attr, pf, vf);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_vfs_have_by_hand_they_have_again(
        host in hosts(), policies in policies(), at: Index,
        given in proptest::collection::vec((any::<Index>(), attrs()), 0..12),
    ) {
        let mut host = host;
        give(&mut host, &given);
        let wanted = wanted(&host.inventory(), &policies);
        let first = decide(&host.inventory(), &wanted, &Circumstances::default());
        let all = steps(&first.plan);
        perform(&mut host, &all[..at.index(all.len() + 1)]);
        // The process died: what it had taken down is all that is left of former VFs.
        let mut known = Circumstances {
            kept: first.lost.clone(),
            ..Circumstances::default()
        };
        let rest = converge(&mut host, |seen| decide(seen, &wanted, &known).plan);
        prop_assert_eq!(render(&rest), "nothing to do\n");
        has_all(&host.inventory(), &first.lost)?;
        // It may be forgotten then.
        known.kept.clear();
        prop_assert!(decide(&host.inventory(), &wanted, &known).is_empty());
    }
}
