//! What the node uses itself is offered only when it is meant.

use super::*;

#[test]
fn what_the_node_uses_is_offered_only_when_it_is_meant() {
    let uplink = |pf: Pf| pf.netdev(|netdev| netdev.index = IfIndex::new(5).unwrap());
    let mut seen = inventory([
        uplink(igb("0000:01:00.0", "ens1")),
        igb("0000:02:00.0", "ens2"),
    ]);
    let used = NodeUse {
        default_route: true,
        address: true,
    };
    seen.node_uses.insert(IfIndex::new(5).unwrap(), used);
    let all = pool("a", vec![]);
    assert_eq!(
        offered(std::slice::from_ref(&all), &seen),
        "intel.com/a: 0000:02:00.0\n"
    );
    let named = pool(
        "a",
        vec![Filter::PciAddresses(vec![parsed("0000:01:00.0")])],
    );
    assert_eq!(offered(&[named], &seen), "intel.com/a: 0000:01:00.0\n");
    let meant = Pool {
        offer_used_by_node: true,
        ..all.clone()
    };
    assert_eq!(
        offered(&[meant], &seen),
        "intel.com/a: 0000:01:00.0 0000:02:00.0\n"
    );
    function(&mut seen, "0000:02:00.0").netdevs[0].master = IfIndex::new(9);
    let verdict =
        |address: &str| judge(&all, &parsed(address), &seen, &Held::default()).to_string();
    assert_eq!(
        verdict("0000:01:00.0"),
        "excluded: a default route of the node leads out of ens1"
    );
    assert_eq!(
        verdict("0000:02:00.0"),
        "excluded: ens2 is a port of interface 9"
    );
}

#[test]
fn a_vf_that_carries_something_of_somebodys_is_offered_only_when_it_is_meant() {
    let mut seen = two_pfs();
    hold(&mut seen, IGB_VFS[0], HolderKind::Host);
    let (free, all) = ("0000:01:10.2 0000:01:10.4", IGB_VFS.join(" "));
    let complete = held_by_pods("intel.com/other", &[]);
    let broad = pool("a", vec![pf_names(&["ens1"])]);
    let meant = Pool {
        offer_used_by_node: true,
        ..broad.clone()
    };
    let vfs = IGB_VFS.map(|vf| parsed(vf)).to_vec();
    let named = pool("a", vec![Filter::PciAddresses(vfs)]);
    let of_a_pod = held_by_pods("intel.com/a", &IGB_VFS[..1]);
    let table = [
        (&broad, &complete, free),
        // What is on it may be of the pod that has it.
        (&broad, &Held::default(), &all),
        (&broad, &of_a_pod, &all),
        (&meant, &complete, &all),
        (&named, &complete, &all),
    ];
    for (pool, held, expected) in table {
        let offer = offer(std::slice::from_ref(pool), &seen, held);
        assert_eq!(text(&offer), format!("intel.com/a: {expected}\n"));
    }
}

/// Says that the host uses a device for something that is above its netdev.
fn use_for(seen: &mut Inventory, device: &str, what: &str) {
    let holder = Holder {
        kind: HolderKind::Host,
        id: what.to_owned(),
        interface: None,
    };
    seen.users.insert(parsed(device), holder);
}

/// Checks that a broad pool of a kind does not offer what the host uses, and one that means it does.
#[track_caller]
fn check_meant(seen: &Inventory, kind: PoolKind, free: &str, all: &str) {
    let broad = Pool {
        kind,
        ..pool("a", vec![])
    };
    let meant = Pool {
        offer_used_by_node: true,
        ..broad.clone()
    };
    // Nobody asked the kubelet, or it knows of no pod.
    for held in [Held::default(), held_by_pods("intel.com/other", &[])] {
        let of = |pool: &Pool| text(&offer(std::slice::from_ref(pool), seen, &held));
        assert_eq!(of(&broad), format!("intel.com/a:{free}\n"));
        assert_eq!(of(&meant), format!("intel.com/a:{all}\n"));
    }
}

#[test]
fn a_nic_below_a_vlan_of_the_node_is_offered_only_when_it_is_meant() {
    let nics = [igb("0000:01:00.0", "ens1"), igb("0000:02:00.0", "ens2")];
    let mut seen = inventory(nics);
    use_for(&mut seen, "0000:01:00.0", "vlan5");
    check_meant(
        &seen,
        PoolKind::Net,
        " 0000:02:00.0",
        " 0000:01:00.0 0000:02:00.0",
    );
    let named = Filter::PciAddresses(vec![parsed("0000:01:00.0")]);
    assert_eq!(ids(&seen, named), ["0000:01:00.0"]);
    let verdict = judge(
        &pool("a", vec![]),
        &parsed("0000:01:00.0"),
        &seen,
        &Held::default(),
    );
    assert_eq!(
        verdict.to_string(),
        "excluded: held outside Kubernetes by host vlan5"
    );
}

#[test]
fn a_sub_function_that_the_node_uses_is_offered_only_when_it_is_meant() {
    let mut seen = two_pfs();
    let netdev = function(&mut seen, "0000:3b:00.0").netdevs[0].clone();
    let index = IfIndex::new(77).unwrap();
    add_part(&mut seen)
        .netdevs
        .push(model::Netdev { index, ..netdev });
    let part = " mlx5_core.sf.4";
    check_meant(&seen, PoolKind::SubFunction, part, part);
    use_for(&mut seen, "mlx5_core.sf.4", "br0");
    check_meant(&seen, PoolKind::SubFunction, "", part);
    seen.users.clear();
    let used = NodeUse {
        address: true,
        ..NodeUse::default()
    };
    seen.node_uses.insert(index, used);
    check_meant(&seen, PoolKind::SubFunction, "", part);
    // Its parent's address is not its own.
    let parent = Pool {
        kind: PoolKind::SubFunction,
        ..pool(
            "a",
            vec![Filter::PciAddresses(vec![parsed("0000:3b:00.0")])],
        )
    };
    assert_eq!(offered(&[parent], &seen), "intel.com/a:\n");
}

#[test]
fn an_accelerator_that_the_node_uses_is_offered_only_when_it_is_meant() {
    let mut seen = two_pfs();
    for address in ["0000:01:00.0", IGB_VFS[0], IGB_VFS[1]] {
        function(&mut seen, address).class = PciClass::new(0x12_0000);
    }
    use_for(&mut seen, "0000:01:00.0", "vlan5");
    let (free, all) = (
        " 0000:01:10.0 0000:01:10.2",
        " 0000:01:00.0 0000:01:10.0 0000:01:10.2",
    );
    check_meant(&seen, PoolKind::Accelerator, free, all);
    hold(&mut seen, IGB_VFS[0], HolderKind::Host);
    let pool = Pool {
        kind: PoolKind::Accelerator,
        ..pool("a", vec![])
    };
    let held = held_by_pods("intel.com/other", &[]);
    assert_eq!(
        text(&offer(&[pool], &seen, &held)),
        "intel.com/a: 0000:01:10.2\n"
    );
}
