use fixtures::{inventory, mlx5, parsed};
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::super::tests::pool;
use super::super::{Held, offer};
use super::*;

fn preferred(preference: Preference, free: &[&str], required: &[&str], size: usize) -> Vec<String> {
    let seen = inventory([
        mlx5("0000:3b:00.0", "ens1").with_vfs(4),
        mlx5("0000:3c:00.0", "ens2").with_vfs(4),
        mlx5("0000:af:00.0", "ens3")
            .with_vfs(8)
            .function(|pf| pf.numa = Some(NumaNode(1))),
    ]);
    let mut pool = offer(&[pool("a", vec![])], &seen, &Held::default())
        .pools
        .remove(0);
    for (id, offered) in &mut pool.devices {
        let far = id.to_string().starts_with("0000:af");
        offered.numa = Some(NumaNode(u16::from(far)));
    }
    let ids = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| parsed(text))
            .collect::<Vec<DeviceId>>()
    };
    prefer(preference, &pool, &ids(free), &ids(required), size)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn packing_fills_the_pf_that_suffices_and_balancing_the_emptiest() {
    let free = [
        "0000:3b:00.2",
        "0000:3b:00.3",
        "0000:3b:00.4",
        "0000:3c:00.2",
        "0000:3c:00.3",
        "0000:af:00.2",
    ];
    let packed = |required: &[&str], size| preferred(Preference::Packed, &free, required, size);
    let balanced = |required: &[&str], size| preferred(Preference::Balanced, &free, required, size);
    assert_eq!(
        packed(&[], 1),
        ["0000:af:00.2"],
        "the node that suffices with the least left over"
    );
    assert_eq!(packed(&[], 2), ["0000:3c:00.2", "0000:3c:00.3"]);
    assert_eq!(
        packed(&["0000:3b:00.3"], 3),
        ["0000:3b:00.3", "0000:3b:00.2", "0000:3b:00.4"]
    );
    assert_eq!(balanced(&[], 2), ["0000:3b:00.2", "0000:3c:00.2"]);
    assert_eq!(
        balanced(&["0000:3c:00.2"], 2),
        ["0000:3c:00.2", "0000:3b:00.2"]
    );
    assert_eq!(packed(&[], 9).len(), free.len());
}

proptest! {
    #[test]
    fn a_preference_keeps_to_what_is_available_and_required(
        free in subsequence((2..16_u8).collect::<Vec<_>>(), 0..14),
        required in subsequence((2..6_u8).collect::<Vec<_>>(), 0..4),
        size in 0_usize..12, packed: bool,
    ) {
        let name = |n: &u8| match n % 3 {
            0 => format!("0000:3b:00.{}", n % 8),
            1 => format!("0000:3c:00.{}", n % 8),
            _ => format!("0000:af:00.{}", n % 8),
        };
        let free: Vec<String> = free.iter().map(name).collect();
        let required: Vec<String> = required.iter().map(name).collect();
        let texts = |names: &'_ [String]| names.iter().map(String::clone).collect::<Vec<_>>();
        let (free, required) = (texts(&free), texts(&required));
        let free_refs: Vec<&str> = free.iter().map(String::as_str).collect();
        let required_refs: Vec<&str> = required.iter().map(String::as_str).collect();
        let preference = if packed { Preference::Packed } else { Preference::Balanced };
        let chosen = preferred(preference, &free_refs, &required_refs, size);
        let set: BTreeSet<&String> = chosen.iter().collect();
        prop_assert_eq!(set.len(), chosen.len(), "twice the same");
        prop_assert!(required.iter().all(|id| set.contains(id)));
        prop_assert!(chosen.iter().all(|id| free.contains(id) || required.contains(id)));
        let all: BTreeSet<&String> = free.iter().chain(&required).collect();
        let needed: BTreeSet<&String> = required.iter().collect();
        prop_assert_eq!(chosen.len(), size.min(all.len()).max(needed.len()));
    }
}
