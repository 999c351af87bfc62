use fixtures::{FakeHost, igb, inventory, mlx5, parsed};
use model::{HolderKind, Host, Scope};
use proptest::prelude::*;

use super::*;
use crate::testing::wanted_pf;

fn ours() -> Owned {
    Owned::default()
}

fn owned<const N: usize>(pfs: [(&str, Owned); N]) -> BTreeMap<PciAddress, Owned> {
    pfs.into_iter()
        .map(|(pf, owned)| (parsed(pf), owned))
        .collect()
}

/// Writes what becomes of each PF: its steps with what was before, or that it is forgotten.
fn told(release: &Release) -> String {
    let mut lines = Vec::new();
    for plan in &release.plans {
        lines.push(format!("{} {}", plan.pf, plan.name.as_ref().unwrap()));
        for step in &plan.steps {
            let price = match (step.price.destroys_vfs, step.price.interrupts.len()) {
                (false, 0) => String::new(),
                (destroys, held) => format!(" (destroys VFs: {destroys}, holders: {held})"),
            };
            lines.push(format!(
                "  {} -> {}{price}",
                step.before.as_ref().unwrap(),
                step.step
            ));
        }
    }
    lines.extend(release.forget.iter().map(|pf| format!("{pf} forgotten")));
    lines.join("\n")
}

#[test]
fn what_was_configured_is_taken_back() {
    let seen = inventory([mlx5("0000:3b:00.0", "ens1")
        .with_vfs(4)
        .facts(|facts| facts.eswitch = Some(EswitchMode::Switchdev))
        .netdev(|netdev| netdev.mtu = 9000)]);
    let record = Owned {
        given_mtu: Mtu::new(9000),
        given_eswitch: Some(EswitchMode::Switchdev),
        ..ours()
    };
    let release = release(
        &seen,
        &Desired::default(),
        &owned([("0000:3b:00.0", record)]),
    );
    insta::assert_snapshot!(told(&release), @r"
    0000:3b:00.0 ens1
      4 VFs -> have 0 VFs (destroys VFs: true, holders: 0)
      switchdev -> set eswitch mode legacy
      mtu 9000 -> set mtu 1500
    ");
}

#[test]
fn what_the_pf_had_at_first_comes_back() {
    let seen = inventory([mlx5("0000:3b:00.0", "ens1")
        .facts(|facts| facts.autoprobe = Some(false))
        .netdev(|netdev| netdev.mtu = 9000)]);
    let record = Owned {
        original: Original {
            mtu: Mtu::new(4000),
            eswitch: Some(EswitchMode::Switchdev),
            autoprobe: Some(true),
            ..Original::default()
        },
        ..ours()
    };
    let release = release(
        &seen,
        &Desired::default(),
        &owned([("0000:3b:00.0", record)]),
    );
    insta::assert_snapshot!(told(&release), @r"
    0000:3b:00.0 ens1
      legacy -> set eswitch mode switchdev
      mtu 9000 -> set mtu 4000
      off -> give drivers to new VFs
    ");
}

#[test]
fn a_switch_that_was_none_at_first_is_none_again() {
    let seen = inventory([mlx5("0000:3b:00.0", "ens1").facts(|facts| {
        facts.eswitch = Some(EswitchMode::Switchdev);
        facts.tc_offload = Some(true);
        facts.steering = Some(SteeringMode::Smfs);
    })]);
    let had = |eswitch| {
        let original = Original {
            eswitch: Some(eswitch),
            tc_offload: Some(false),
            steering: Some(SteeringMode::Dmfs),
            ..Original::default()
        };
        let record = Owned { original, ..ours() };
        told(&release(
            &seen,
            &Desired::default(),
            &owned([("0000:3b:00.0", record)]),
        ))
    };
    insta::assert_snapshot!(had(EswitchMode::Legacy), @r"
    0000:3b:00.0 ens1
      switchdev -> set eswitch mode legacy
      flow_steering_mode smfs -> set flow_steering_mode dmfs
      on -> set hw-tc-offload off
    ");
    // A switch does not change how it steers.
    insta::assert_snapshot!(had(EswitchMode::Switchdev), @r"
    0000:3b:00.0 ens1
      on -> set hw-tc-offload off
    ");
}

#[test]
fn what_somebody_else_set_since_stays() {
    let seen = inventory([mlx5("0000:3b:00.0", "ens1").netdev(|netdev| netdev.mtu = 8000)]);
    let record = Owned {
        given_mtu: Mtu::new(9000),
        ..ours()
    };
    let none = release(
        &seen,
        &Desired::default(),
        &owned([("0000:3b:00.0", record)]),
    );
    insta::assert_snapshot!(told(&none), @"0000:3b:00.0 forgotten");
}

#[test]
fn a_pf_without_a_record_is_left_alone() {
    let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(7)]);
    assert_eq!(
        release(&seen, &Desired::default(), &BTreeMap::new()),
        Release::default()
    );
}

#[test]
fn a_pf_that_is_wanted_or_not_seen_keeps_its_record() {
    let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(7)]);
    let wanted = wanted_pf("0000:01:00.0", 7);
    let desired = Desired {
        pfs: [(wanted.pf, wanted)].into(),
        ..Desired::default()
    };
    let records = owned([("0000:01:00.0", ours()), ("0000:09:00.0", ours())]);
    assert_eq!(release(&seen, &desired, &records), Release::default());
}

#[test]
fn an_externally_managed_pf_keeps_its_vfs() {
    let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(7)]);
    let record = Owned {
        externally_managed: true,
        ..ours()
    };
    let release = release(
        &seen,
        &Desired::default(),
        &owned([("0000:01:00.0", record)]),
    );
    insta::assert_snapshot!(told(&release), @"0000:01:00.0 forgotten");
}

#[test]
fn vfs_that_somebody_holds_have_a_price() {
    let mut seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(2)]);
    let vf = seen
        .vf_of(parsed("0000:01:00.0"), model::VfIndex(1))
        .unwrap()
        .address;
    if let Some(model::Role::Vf(facts)) = seen.functions.get_mut(&vf).map(|f| &mut f.role) {
        facts.holder = Some(Holder {
            kind: HolderKind::Cni,
            id: "pod".to_owned(),
            interface: None,
        });
    }
    let release = release(
        &seen,
        &Desired::default(),
        &owned([("0000:01:00.0", ours())]),
    );
    insta::assert_snapshot!(told(&release), @r"
    0000:01:00.0 ens1
      2 VFs -> have 0 VFs (destroys VFs: true, holders: 1)
    ");
    assert_eq!(release.plans[0].vfs[&vf], model::VfIndex(1));
}

#[test]
fn an_infiniband_pf_gets_upstreams_mtu_back() {
    let seen = inventory([mlx5("0000:3b:00.0", "ib0").netdev(|netdev| {
        netdev.link_type = LinkType::InfiniBand;
        netdev.mtu = 4092;
    })]);
    let record = Owned {
        given_mtu: Mtu::new(4092),
        ..ours()
    };
    let release = release(
        &seen,
        &Desired::default(),
        &owned([("0000:3b:00.0", record)]),
    );
    insta::assert_snapshot!(told(&release), @r"
    0000:3b:00.0 ib0
      mtu 4092 -> set mtu 2048
    ");
}

proptest! {
    #[test]
    fn once_given_back_a_pf_is_only_forgotten(
        vfs in 0_u16..5, switchdev: bool, has in 68_u32..10_000, given in proptest::option::of(68_u32..10_000),
        original in proptest::option::of(68_u32..10_000), autoprobe in proptest::option::of(any::<bool>()),
    ) {
        let mode = if switchdev { EswitchMode::Switchdev } else { EswitchMode::Legacy };
        let seen = inventory([mlx5("0000:3b:00.0", "ens1")
            .with_vfs(vfs)
            .facts(|facts| facts.eswitch = Some(mode))
            .netdev(|netdev| netdev.mtu = has)]);
        let record = Owned {
            externally_managed: false,
            given_mtu: given.and_then(Mtu::new),
            given_eswitch: Some(mode),
            original: Original {
                mtu: original.and_then(Mtu::new),
                autoprobe,
                tc_offload: Some(true),
                steering: Some(SteeringMode::Smfs),
                ..Original::default()
            },
        };
        let records = owned([("0000:3b:00.0", record)]);
        let mut host = FakeHost::new(seen.clone());
        let first = release(&seen, &Desired::default(), &records);
        for step in first.plans.iter().flat_map(|plan| &plan.steps) {
            host.perform(&step.step).unwrap();
        }
        let after = host.observe(Scope::All).unwrap();
        let second = release(&after, &Desired::default(), &records);
        prop_assert_eq!(second.plans, vec![]);
        prop_assert_eq!(second.forget.len(), 1);
    }
}
