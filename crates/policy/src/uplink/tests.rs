use fixtures::{igb, inventory, mlx5, parsed};
use model::{
    BindTarget, Desired, EswitchMode, Mtu, NetnsTarget, PfPlan, PlannedStep, Price, VfIndex,
};
use proptest::prelude::*;

use super::*;
use crate::testing::wanted_pf;

fn name(text: &str) -> IfName {
    parsed(text)
}

fn facts(used: &str, lower: &[(&str, &[&str])]) -> UplinkFacts {
    UplinkFacts {
        uses: vec![UplinkUse {
            purpose: Purpose::DefaultRouteV4,
            interface: name(used),
        }],
        lower: lower
            .iter()
            .map(|(above, below)| (name(above), below.iter().map(|n| name(n)).collect()))
            .collect(),
    }
}

fn seen() -> Inventory {
    inventory([
        igb("0000:01:00.0", "ens1").with_vfs(2),
        igb("0000:02:00.0", "ens2"),
        igb("0000:03:00.0", "ens3"),
    ])
}

fn wanting(pfs: &[(&str, u16)]) -> Desired {
    let pfs = pfs.iter().map(|(pf, count)| wanted_pf(pf, *count));
    Desired {
        pfs: pfs.map(|pf| (pf.pf, pf)).collect(),
        ..Desired::default()
    }
}

fn told(facts: &UplinkFacts, pfs: &[(&str, u16)]) -> String {
    let seen = seen();
    let plan = crate::plan(&seen, &wanting(pfs));
    check_uplinks(&seen, &plan, facts, false)
        .map_or_else(|error| error.to_string(), |()| "fine".to_owned())
}

fn one(step: Step) -> Plan {
    Plan {
        pfs: vec![PfPlan {
            pf: parsed("0000:01:00.0"),
            name: None,
            steps: vec![PlannedStep {
                step,
                before: None,
                undo: None,
                price: Price::default(),
            }],
            vfs: BTreeMap::new(),
            is_cut: false,
        }],
    }
}

#[test]
fn the_pf_with_the_default_route_is_not_reconfigured() {
    insta::assert_snapshot!(told(&facts("ens2", &[]), &[("0000:02:00.0", 4), ("0000:03:00.0", 4)]), @"PF ens2 (0000:02:00.0) carries the IPv4 default route; the plan would: have 4 VFs");
    assert_eq!(told(&facts("ens2", &[]), &[("0000:03:00.0", 4)]), "fine");
}

#[test]
fn it_may_be_allowed() {
    let plan = crate::plan(&seen(), &wanting(&[("0000:02:00.0", 4)]));
    assert!(check_uplinks(&seen(), &plan, &facts("ens2", &[]), true).is_ok());
    let error = check_uplinks(&seen(), &plan, &facts("ens2", &[]), false).unwrap_err();
    assert_eq!(error.code().as_str(), "pf-carries-route");
    assert!(error.remedy().unwrap().contains("--allow-default-route"));
}

#[test]
fn what_is_below_a_bridge_a_bond_or_a_vlan_counts() {
    let stack = facts(
        "br-ex",
        &[
            ("br-ex", &["veth0", "bond0.100"]),
            ("bond0.100", &["bond0"]),
            ("bond0", &["ens2", "ens3"]),
        ],
    );
    insta::assert_snapshot!(told(&stack, &[("0000:02:00.0", 4), ("0000:03:00.0", 4)]), @r"
    PF ens2 (0000:02:00.0) carries the IPv4 default route below br-ex and bond0.100 and bond0; the plan would: have 4 VFs
    PF ens3 (0000:03:00.0) carries the IPv4 default route below br-ex and bond0.100 and bond0; the plan would: have 4 VFs
    ");
    assert_eq!(told(&stack, &[("0000:01:00.0", 4)]), "fine");
}

#[test]
fn a_pf_with_several_burdens_is_told_once() {
    let mut facts = facts("ens2", &[]);
    facts.uses.push(UplinkUse {
        purpose: Purpose::ApiServer("10.0.0.1".parse().unwrap()),
        interface: name("ens2"),
    });
    facts.uses.push(UplinkUse {
        purpose: Purpose::NfsMount {
            server: "fd00::5".parse().unwrap(),
            mount: "/".to_owned(),
        },
        interface: name("ens2"),
    });
    facts.uses.push(UplinkUse {
        purpose: Purpose::Iscsi("10.0.0.9".parse().unwrap()),
        interface: name("ens2"),
    });
    insta::assert_snapshot!(told(&facts, &[("0000:02:00.0", 4)]), @"PF ens2 (0000:02:00.0) carries the IPv4 default route, the way to the API server 10.0.0.1, the NFS file system of fd00::5 on /, the iSCSI disk of 10.0.0.9; the plan would: have 4 VFs");
}

#[test]
fn a_vf_that_the_host_itself_uses_keeps_its_pf() {
    let used = facts("ens1v1", &[]);
    insta::assert_snapshot!(told(&used, &[("0000:01:00.0", 1)]), @"VF ens1v1 (0000:01:10.2) carries the IPv4 default route; the plan would: have 0 VFs");
    let seen = seen();
    let vf = |index| {
        seen.vf_of(parsed("0000:01:00.0"), VfIndex(index))
            .unwrap()
            .address
    };
    let bind = |index| {
        one(Step::Bind {
            function: vf(index),
            to: BindTarget::Driver(parsed("vfio-pci")),
        })
    };
    assert!(check_uplinks(&seen, &bind(0), &used, false).is_ok());
    assert!(check_uplinks(&seen, &bind(1), &used, false).is_err());
}

#[test]
fn steps_on_vfs_of_the_uplink_are_fine() {
    let used = facts("ens1", &[]);
    let seen = seen();
    let pf: PciAddress = parsed("0000:01:00.0");
    let vf = seen.vf_of(pf, VfIndex(0)).unwrap().address;
    let netns = NetnsTarget::Host;
    let fine = [
        Step::Bind {
            function: vf,
            to: BindTarget::Default,
        },
        Step::SetAutoprobe { pf, on: true },
        Step::SetVf {
            pf,
            vf: VfIndex(0),
            attr: model::VfAttr::Trust(true),
        },
        Step::SetUp {
            function: pf,
            netns: netns.clone(),
            up: true,
        },
    ];
    for step in fine {
        assert!(
            check_uplinks(&seen, &one(step.clone()), &used, false).is_ok(),
            "{step}"
        );
    }
    let refused = [
        Step::SetNumVfs { pf, count: 0 },
        Step::SetEswitch {
            pf,
            mode: EswitchMode::Switchdev,
        },
        Step::SetMtu {
            function: pf,
            netns: netns.clone(),
            mtu: Mtu::new(9000).unwrap(),
        },
        Step::SetUp {
            function: pf,
            netns,
            up: false,
        },
        Step::Rebind { function: pf },
    ];
    for step in refused {
        assert!(
            check_uplinks(&seen, &one(step.clone()), &used, false).is_err(),
            "{step}"
        );
    }
}

#[test]
fn a_pf_in_another_namespace_is_not_the_hosts_uplink() {
    let away = Netns::Other {
        inode: 7,
        path: None,
    };
    let seen = inventory([mlx5("0000:3b:00.0", "ens2").netdev(|netdev| netdev.netns = away)]);
    assert_eq!(uplinks(&seen, &facts("ens2", &[])), BTreeMap::new());
}

proptest! {
    /// Whatever the relations are, circles included, it ends, and each function has a path that
    /// begins at the use and follows the relations.
    #[test]
    fn paths_follow_the_relations(
        edges in proptest::collection::vec((0_u8..8, 0_u8..8), 0..30),
        start in 0_u8..8,
    ) {
        let nth = |n: u8| name(&if n < 3 { format!("ens{}", n + 1) } else { format!("br{n}") });
        let mut lower: BTreeMap<IfName, Vec<IfName>> = BTreeMap::new();
        for (above, below) in edges {
            lower.entry(nth(above)).or_default().push(nth(below));
        }
        let facts = UplinkFacts {
            uses: vec![UplinkUse { purpose: Purpose::DefaultRouteV6, interface: nth(start) }],
            lower,
        };
        for burden in uplinks(&seen(), &facts).into_values().flatten() {
            prop_assert_eq!(&burden.path[0], &nth(start));
            for pair in burden.path.windows(2) {
                prop_assert!(facts.lower[&pair[0]].contains(&pair[1]));
            }
        }
    }
}
