use fixtures::{igb, inventory};
use model::{Desired, Inventory, NodePolicy, VfDriver};

use super::*;
use crate::plan;
use crate::testing::{With, desired, policy, wanted_pf};

fn told(seen: &Inventory, wanted: &Desired) -> String {
    let lines = drift(seen, wanted, &plan(seen, wanted))
        .into_iter()
        .flat_map(|pf| {
            let title = pf.name.map_or_else(|| pf.pf.to_string(), |n| n.to_string());
            let line = move |d: Difference| {
                let whose = d.vf.map_or(String::new(), |vf| format!("{vf} "));
                format!(
                    "{title}: {whose}{}: wanted {}, is {}",
                    d.what, d.wanted, d.seen
                )
            };
            pf.differences.into_iter().map(line).collect::<Vec<_>>()
        });
    lines.collect::<Vec<_>>().join("\n")
}

fn vfio(policy: &mut NodePolicy) {
    policy.driver = VfDriver::Named("vfio-pci".parse().unwrap());
}

#[test]
fn each_vf_that_differs_is_named() {
    let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(3)]);
    let policies = [
        policy("a", &["ens1#0-1"], 3).with(|p| p.mtu = model::Mtu::new(9000)),
        policy("b", &["ens1#2-2"], 3).with(vfio),
    ];
    insta::assert_snapshot!(told(&seen, &desired(&seen, &policies)), @"
    ens1: mtu: wanted 9000, is 1500
    ens1: vf 0 mtu: wanted 9000, is 1500
    ens1: vf 1 mtu: wanted 9000, is 1500
    ens1: vf 2 driver: wanted vfio-pci, is igbvf
    ");
}

#[test]
fn new_vfs_are_one_difference_and_not_many() {
    let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(2)]);
    let wanted = desired(&seen, &[policy("a", &["ens1"], 5).with(vfio)]);
    insta::assert_snapshot!(told(&seen, &wanted), @"ens1: number of VFs: wanted 5, is 2");
}

#[test]
fn a_pf_that_is_not_there_is_not_as_wanted() {
    let wanted = Desired {
        pfs: [wanted_pf("0000:09:00.0", 2)].map(|pf| (pf.pf, pf)).into(),
        ..Desired::default()
    };
    let seen = inventory([igb("0000:01:00.0", "ens1")]);
    insta::assert_snapshot!(told(&seen, &wanted), @"0000:09:00.0: PF: wanted present, is not there");
}

#[test]
fn too_few_vfs_of_somebody_elses_pf_are_told_and_more_are_not() {
    let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(3)]);
    let wanted = |count| {
        let mut pf = wanted_pf("0000:01:00.0", count);
        pf.externally_managed = true;
        Desired {
            pfs: [(pf.pf, pf)].into(),
            ..Desired::default()
        }
    };
    insta::assert_snapshot!(told(&seen, &wanted(4)), @"ens1: number of VFs: wanted 4, is 3");
    assert_eq!(told(&seen, &wanted(2)), "");
}
