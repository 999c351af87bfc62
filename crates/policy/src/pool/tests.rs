use std::fmt::Write as _;

use fixtures::{Pf, igb, inventory, mlx5, parsed};
use model::{
    ClassPrefix, Function, HealthChecks, HexId, Holder, HolderKind, IfIndex, LinkType, NodeUse,
    PciClass, PfItem, PoolKind, RdmaDevice, Role, Selector, SubFunction, VdpaDevice, VdpaKind,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

mod node_use;

pub(super) fn pool(name: &str, filters: Vec<Filter>) -> Pool {
    Pool {
        resource: parsed(&format!("intel.com/{name}")),
        kind: PoolKind::Net,
        classes: vec![ClassPrefix::ACCELERATORS],
        selectors: vec![Selector {
            filters,
            vhost_net: false,
        }],
        exclude_topology: false,
        extra: None,
        health: HealthChecks::default(),
        preference: None,
        iommufd: false,
        offer_used_by_node: false,
    }
}

fn pf_names(items: &[&str]) -> Filter {
    Filter::PfNames(items.iter().map(|text| PfItem::new(text)).collect())
}

fn two_pfs() -> Inventory {
    inventory([
        igb("0000:01:00.0", "ens1").with_vfs(3),
        mlx5("0000:3b:00.0", "ens2").with_vfs(2),
    ])
}

fn function<'a>(seen: &'a mut Inventory, address: &str) -> &'a mut Function {
    seen.functions.get_mut(&parsed(address)).unwrap()
}

fn hold(seen: &mut Inventory, address: &str, kind: HolderKind) {
    if let Role::Vf(facts) = &mut function(seen, address).role {
        facts.holder = Some(Holder {
            kind,
            id: "somebody".to_owned(),
            interface: None,
        });
    }
}

/// Adds a sub-function of the second PF.
fn add_part(seen: &mut Inventory) -> &mut SubFunction {
    let name: model::AuxName = parsed("mlx5_core.sf.4");
    let part = SubFunction {
        name: name.clone(),
        parent: parsed("0000:3b:00.0"),
        number: 88,
        netdevs: Vec::new(),
        rdma: Vec::new(),
    };
    seen.sub_functions.entry(name).or_insert(part)
}

/// Writes an offer, one line for a pool.
fn text(offer: &Offer) -> String {
    let mut text = String::new();
    for pool in &offer.pools {
        write!(text, "{}:", pool.resource).unwrap();
        for (id, offered) in &pool.devices {
            write!(text, " {id}").unwrap();
            if offered.health != Health::Healthy {
                write!(text, " ({})", offered.health).unwrap();
            }
        }
        text.push('\n');
    }
    text
}

fn offered(pools: &[Pool], seen: &Inventory) -> String {
    text(&offer(pools, seen, &Held::default()))
}

/// Returns the ids that a pool with one filter gets.
fn ids(seen: &Inventory, filter: Filter) -> Vec<String> {
    let offer = offer(&[pool("a", vec![filter])], seen, &Held::default());
    offer.pools[0]
        .devices
        .keys()
        .map(ToString::to_string)
        .collect()
}

const IGB_VFS: [&str; 3] = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4"];
const MLX5_VFS: [&str; 2] = ["0000:3b:00.2", "0000:3b:00.3"];

#[test]
fn each_filter_takes_the_devices_that_have_its_value() {
    let mut seen = two_pfs();
    function(&mut seen, MLX5_VFS[0]).rdma = vec![RdmaDevice {
        name: "mlx5_2".to_owned(),
        node_guid: None,
        char_devices: Vec::new(),
        partition_key: Some("0x8001".to_owned()),
    }];
    function(&mut seen, MLX5_VFS[1]).vdpa = vec![VdpaDevice {
        name: "vdpa0".to_owned(),
        kind: Some(VdpaKind::Vhost),
        device_node: None,
    }];
    function(&mut seen, "0000:3b:00.0").netdevs[0].alt_names = vec!["rail7".to_owned()];
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let table = [
        (Filter::Vendors(vec![HexId(0x8086)]), &IGB_VFS[..]),
        (Filter::Vendors(vec![]), &[]),
        (
            Filter::Devices(vec![HexId(0x101e), HexId(0xffff)]),
            &MLX5_VFS,
        ),
        (Filter::Drivers(texts(&["igbvf", "vfio-pci"])), &IGB_VFS),
        (
            Filter::PciAddresses(vec![parsed(IGB_VFS[1])]),
            &IGB_VFS[1..2],
        ),
        (Filter::AcpiIndexes(texts(&["1"])), &[]),
        (pf_names(&["ens1"]), &IGB_VFS),
        (pf_names(&["ENS1#1-2"]), &IGB_VFS[1..]),
        (
            pf_names(&["ens1#0", "ens1#2", "rail7#1"]),
            &[IGB_VFS[0], MLX5_VFS[1]],
        ),
        (pf_names(&["0000:01:00.0"]), &[]),
        (
            Filter::RootDevices(vec![PfItem::new("0000:01:00.0#0")]),
            &IGB_VFS[..1],
        ),
        (Filter::RootDevices(vec![PfItem::new("ens1")]), &[]),
        (Filter::LinkTypes(texts(&["infiniband"])), &[]),
        (
            Filter::LinkTypes(texts(&["ether", "infiniband"])),
            &[&IGB_VFS[..], &MLX5_VFS].concat(),
        ),
        (
            Filter::DdpProfiles(texts(&["GTPv1-C/U IPv4/IPv6 payload"])),
            &[],
        ),
        (Filter::PKeys(texts(&["0x8001"])), &[]),
        (Filter::Rdma, &MLX5_VFS[..1]),
        (Filter::Vdpa(Some(VdpaKind::Vhost)), &MLX5_VFS[1..]),
        (Filter::Vdpa(Some(VdpaKind::Virtio)), &[]),
        (Filter::Vdpa(None), &[]),
    ];
    for (filter, expected) in table {
        assert_eq!(ids(&seen, filter.clone()), expected, "{filter}");
    }
    for netdev in seen.functions.values_mut().flat_map(|f| &mut f.netdevs) {
        netdev.link_type = LinkType::InfiniBand;
    }
    assert_eq!(ids(&seen, Filter::PKeys(texts(&["0x8001"]))), MLX5_VFS[..1]);
}

#[test]
fn the_first_pool_that_takes_a_device_has_it() {
    let seen = two_pfs();
    let mut both = pool("b", vec![pf_names(&["ens1#0-1"])]);
    both.selectors.push(Selector::default());
    let pools = [
        pool("a", vec![pf_names(&["ens1#0"])]),
        both,
        pool("c", vec![]),
    ];
    insta::assert_snapshot!(offered(&pools, &seen), @r"
    intel.com/a: 0000:01:10.0
    intel.com/b: 0000:01:10.2 0000:01:10.4 0000:3b:00.2 0000:3b:00.3
    intel.com/c:
    ");
    let offer = offer(&pools, &seen, &Held::default());
    let selector = |id: &str| offer.pools[1].devices[&parsed::<DeviceId>(id)].selector;
    assert_eq!((selector(IGB_VFS[1]), selector(IGB_VFS[2])), (0, 1));
}

#[test]
fn pools_that_claim_the_same_devices_are_told() {
    let seen = two_pfs();
    let held = Held::default();
    let pools = [
        pool("first", vec![pf_names(&["ens1#0-1"])]),
        pool("all", vec![]),
        pool("ens1", vec![pf_names(&["ens1"])]),
        pool("none", vec![pf_names(&["ens9"])]),
    ];
    let offer = offer(&pools, &seen, &held);
    let told: Vec<String> = overlaps(&pools, &seen, &held, &offer)
        .into_iter()
        .map(|overlap| {
            let devices: Vec<String> = overlap.devices.iter().map(ToString::to_string).collect();
            format!(
                "{} < {}: {}",
                overlap.loser.name(),
                overlap.owner.name(),
                devices.join(" ")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "all < first: 0000:01:10.0 0000:01:10.2",
            "ens1 < first: 0000:01:10.0 0000:01:10.2",
            "ens1 < all: 0000:01:10.4",
        ]
    );
}

#[test]
fn a_vf_without_a_driver_waits_until_it_has_one() {
    let mut seen = two_pfs();
    function(&mut seen, IGB_VFS[0]).driver = None;
    let all = pool("a", vec![pf_names(&["ens1"])]);
    assert_eq!(
        offered(std::slice::from_ref(&all), &seen),
        "intel.com/a: 0000:01:10.2 0000:01:10.4\n"
    );
    function(&mut seen, IGB_VFS[0]).driver = Some(parsed("vfio-pci"));
    assert!(offered(&[all], &seen).contains(IGB_VFS[0]));
}

fn held_by_pods(resource: &str, devices: &[&str]) -> Held {
    Held {
        by_pods: BTreeMap::from([(
            parsed(resource),
            devices.iter().map(|device| parsed(device)).collect(),
        )]),
        complete: true,
    }
}

#[test]
fn a_device_that_a_pod_has_stays_in_its_pool_whatever_happens() {
    let mut seen = two_pfs();
    let wanted = Filter::Drivers(vec!["igbvf".to_owned()]);
    let pools = [
        pool("first", vec![pf_names(&["ens1"])]),
        pool("a", vec![pf_names(&["ens1"]), wanted, Filter::Rdma]),
    ];
    let held = held_by_pods(
        "intel.com/a",
        &[IGB_VFS[0], IGB_VFS[1], IGB_VFS[2], "0000:77:00.1"],
    );
    function(&mut seen, IGB_VFS[0]).netdevs.clear();
    function(&mut seen, IGB_VFS[1]).driver = None;
    function(&mut seen, IGB_VFS[2]).driver = Some(parsed("vfio-pci"));
    insta::assert_snapshot!(text(&offer(&pools, &seen, &held)), @r"
    intel.com/first:
    intel.com/a: 0000:01:10.0 0000:01:10.2 (unhealthy: no driver is bound) 0000:01:10.4 (unhealthy: another driver is bound) 0000:77:00.1 (unhealthy: it is gone)
    ");
    // The pool that it was got from is gone from the configuration.
    let held = held_by_pods("intel.com/removed", &[IGB_VFS[0]]);
    assert!(text(&offer(&pools, &seen, &held)).starts_with("intel.com/first: 0000:01:10.0"));
}

#[test]
fn a_vf_that_is_held_outside_kubernetes_is_not_offered() {
    let mut seen = two_pfs();
    hold(&mut seen, IGB_VFS[0], HolderKind::Attach);
    hold(&mut seen, IGB_VFS[1], HolderKind::Namespace);
    hold(&mut seen, IGB_VFS[2], HolderKind::Cni);
    let all = [pool("a", vec![pf_names(&["ens1"])])];
    // As long as it is not known what pods have, a VF in a namespace may be one of theirs.
    assert_eq!(
        offered(&all, &seen),
        "intel.com/a: 0000:01:10.2 0000:01:10.4\n"
    );
    let held = Held {
        complete: true,
        ..Held::default()
    };
    assert_eq!(text(&offer(&all, &seen, &held)), "intel.com/a:\n");
    let held = held_by_pods("intel.com/a", &IGB_VFS[1..]);
    assert_eq!(
        text(&offer(&all, &seen, &held)),
        "intel.com/a: 0000:01:10.2 0000:01:10.4\n"
    );
}

#[test]
fn health_follows_the_link_of_the_pf_only_when_asked() {
    let down = igb("0000:01:00.0", "ens1").netdev(|netdev| netdev.oper = OperState::Down);
    let seen = inventory([down.with_vfs(1)]);
    let plain = pool("a", vec![]);
    let checked = Pool {
        health: HealthChecks { pf_link: true },
        ..plain.clone()
    };
    assert_eq!(offered(&[plain], &seen), "intel.com/a: 0000:01:10.0\n");
    assert_eq!(
        offered(&[checked], &seen),
        "intel.com/a: 0000:01:10.0 (unhealthy: the PF has no link)\n"
    );
}

#[test]
fn topology_is_told_unless_the_pool_keeps_it() {
    let seen = two_pfs();
    let told = |pool: Pool| {
        let offer = offer(&[pool], &seen, &Held::default());
        offer.pools[0].devices.values().next().unwrap().numa
    };
    assert_eq!(told(pool("a", vec![])), Some(NumaNode(0)));
    assert_eq!(
        told(Pool {
            exclude_topology: true,
            ..pool("a", vec![])
        }),
        None
    );
}

#[test]
fn kinds_of_pools_have_kinds_of_devices() {
    let mut seen = two_pfs();
    for address in ["0000:01:00.0", "0000:01:10.0"] {
        function(&mut seen, address).class = PciClass::new(0x12_0000);
    }
    add_part(&mut seen);
    let of = |kind| Pool {
        kind,
        ..pool("a", vec![])
    };
    // Accelerators are offered with and without VFs; network PFs with VFs are not.
    assert_eq!(
        offered(&[of(PoolKind::Accelerator)], &seen),
        "intel.com/a: 0000:01:00.0 0000:01:10.0\n"
    );
    // Of other classes only when the pool names them, and then no PF that has VFs.
    for address in ["0000:01:00.0", "0000:01:10.2"] {
        function(&mut seen, address).class = PciClass::new(0x01_0802);
    }
    assert_eq!(
        offered(&[of(PoolKind::Accelerator)], &seen),
        "intel.com/a: 0000:01:10.0\n"
    );
    let nvme = Pool {
        classes: vec![parsed("0108")],
        ..of(PoolKind::Accelerator)
    };
    assert_eq!(offered(&[nvme], &seen), "intel.com/a: 0000:01:10.2\n");
    assert_eq!(
        offered(&[of(PoolKind::SubFunction)], &seen),
        "intel.com/a: mlx5_core.sf.4\n"
    );
    let parts = |items: &[&str]| Pool {
        kind: PoolKind::SubFunction,
        ..pool("a", vec![pf_names(items)])
    };
    assert_eq!(
        offered(&[parts(&["ens2#88"])], &seen),
        "intel.com/a: mlx5_core.sf.4\n"
    );
    assert_eq!(offered(&[parts(&["ens2#4"])], &seen), "intel.com/a:\n");
}

#[test]
fn an_explanation_names_the_selector_line() {
    let mut seen = two_pfs();
    hold(&mut seen, IGB_VFS[2], HolderKind::Docker);
    let driver = Filter::Drivers(vec!["vfio-pci".to_owned()]);
    let pools = [
        pool("vfio", vec![pf_names(&["ens1"]), driver]),
        pool("a", vec![pf_names(&["ens1#0-1"])]),
        pool("b", vec![]),
        Pool {
            kind: PoolKind::Accelerator,
            ..pool("acc", vec![])
        },
    ];
    let mut told = String::new();
    for id in [IGB_VFS[0], IGB_VFS[2], "0000:01:00.0", "0000:77:00.0"] {
        let story = explain_device(&pools, &seen, &Held::default(), &parsed(id));
        let owner = story
            .offered
            .map_or("no pool".to_owned(), |(name, _)| name.to_string());
        writeln!(told, "{id}: {owner}").unwrap();
        for said in story.pools {
            let taken = said
                .taken_by
                .map(|by| format!(", but {by} has it"))
                .unwrap_or_default();
            writeln!(told, "  {}: {}{taken}", said.resource, said.verdict).unwrap();
        }
    }
    insta::assert_snapshot!(told);
    let story = explain_pool(&pools, &seen, &Held::default(), &pools[1].resource).unwrap();
    let lines: Vec<String> = story
        .others
        .iter()
        .map(|(id, said)| format!("{id}: {}", said.verdict))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// Any host of three PFs, and anything that can befall its VFs.
fn hosts() -> impl Strategy<Value = Inventory> {
    let pf = (0_u16..=7, select(vec![OperState::Up, OperState::Down]));
    let past = proptest::collection::vec(0_u8..6, 24);
    (proptest::collection::vec(pf, 3), past).prop_map(|(pfs, past)| {
        let places = ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"];
        let names = ["ens1", "ens2", "ens3"];
        let pfs = pfs
            .into_iter()
            .zip(places.iter().zip(names))
            .map(|((vfs, oper), (at, name))| {
                igb(at, name)
                    .with_vfs(vfs)
                    .netdev(|netdev| netdev.oper = oper)
            });
        let mut seen = inventory(pfs.collect::<Vec<_>>());
        for (function, past) in seen.functions.values_mut().zip(past) {
            match past {
                1 => function.driver = None,
                2 => function.driver = Some(parsed("vfio-pci")),
                3 => function.netdevs.clear(),
                4 => function.class = PciClass::new(0x12_0000),
                _ => {}
            }
        }
        seen
    })
}

fn pools() -> impl Strategy<Value = Vec<Pool>> {
    let filters = vec![
        pf_names(&["ens1#0-3", "ens2"]),
        pf_names(&["ens3"]),
        Filter::Drivers(vec!["vfio-pci".to_owned()]),
        Filter::Drivers(vec!["igbvf".to_owned()]),
        Filter::LinkTypes(vec!["ether".to_owned()]),
        Filter::Vendors(vec![]),
    ];
    let kind = prop_oneof![3 => Just(PoolKind::Net), 1 => Just(PoolKind::Accelerator)];
    let one = (subsequence(filters, 0..=2), kind);
    proptest::collection::vec(one, 0..5).prop_map(|pools| {
        let named = pools.into_iter().enumerate();
        let named = named.map(|(at, (filters, kind))| Pool {
            kind,
            ..pool(&format!("p{at}"), filters)
        });
        named.collect()
    })
}

proptest! {
    #[test]
    fn a_device_is_in_one_pool_and_explained_as_it_is_offered(seen in hosts(), pools in pools()) {
        let held = Held::default();
        let offer = offer(&pools, &seen, &held);
        let mut owners: BTreeMap<DeviceId, usize> = BTreeMap::new();
        for (at, pool) in offer.pools.iter().enumerate() {
            for id in pool.devices.keys() {
                prop_assert_eq!(owners.insert(id.clone(), at), None, "{} is in two pools", id);
            }
        }
        for address in seen.functions.keys() {
            let id = DeviceId::Pci(*address);
            let story = explain_device(&pools, &seen, &held, &id);
            let takes = story.pools.iter().position(|said| matches!(said.verdict, Verdict::Selected { .. }));
            prop_assert_eq!(takes, owners.get(&id).copied(), "{}", id);
        }
    }

    #[test]
    fn what_pods_have_is_never_dropped(
        mut seen in hosts(), pools in pools(), lost in proptest::collection::vec(any::<bool>(), 24),
    ) {
        let before = offer(&pools, &seen, &Held::default());
        let held = Held {
            by_pods: before.pools.iter().map(|pool| {
                (pool.resource.clone(), pool.devices.keys().cloned().collect())
            }).collect(),
            complete: true,
        };
        let mut lost = lost.into_iter();
        seen.functions.retain(|_, function| function.vf().is_none() || !lost.next().unwrap_or(false));
        let after = offer(&pools, &seen, &held);
        for (before, after) in before.pools.iter().zip(&after.pools) {
            for id in before.devices.keys() {
                prop_assert!(after.devices.contains_key(id), "{} lost {}", before.resource, id);
            }
        }
    }
}
