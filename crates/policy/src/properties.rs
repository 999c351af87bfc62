//! What holds for any host and any policies.

use std::collections::{BTreeMap, BTreeSet};

use fixtures::{FakeHost, ice, igb, inventory, mlx5, parsed};
use model::{
    AttachInterface, AttachRequest, BindTarget, Desired, EswitchMode, Holder, HolderKind, Host,
    Inventory, LinkPolicy, Mbps, Mtu, NodePolicy, PciAddress, Pcp, Plan, Step, VdpaKind, VfDriver,
    VfSettings, VlanId, VlanProto, VlanTag,
};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::testing::{With, policy};
use crate::{Circumstances, Original, Owned, attach, check, decide, drift, plan, render, resolve};

mod kept;

const NAMES: [&str; 3] = ["ens1", "ens2", "ens3"];

/// What befell a VF before.
#[derive(Clone, Copy, Debug)]
enum Past {
    Nothing,
    Vfio,
    Unbound,
    Overridden,
    Held,
    Vdpa,
}

/// What a PF is.
#[derive(Clone, Copy, Debug)]
enum Nic {
    Igb,
    Ice,
    Mlx5,
    Switch,
}

fn hosts() -> impl Strategy<Value = FakeHost> {
    let past = prop_oneof![
        4 => Just(Past::Nothing),
        1 => Just(Past::Vfio),
        1 => Just(Past::Unbound),
        1 => Just(Past::Overridden),
        1 => Just(Past::Held),
        1 => Just(Past::Vdpa),
    ];
    let pf = (
        select(vec![Nic::Igb, Nic::Ice, Nic::Mlx5, Nic::Switch]),
        proptest::collection::vec(past, 0..=7),
        any::<bool>(),
        select(vec![1500, 9000]),
        select(vec![None, Some(true), Some(false)]),
    );
    proptest::collection::vec(pf, 1..=NAMES.len()).prop_map(|pfs| {
        let built = pfs
            .iter()
            .enumerate()
            .map(|(at, (nic, vfs, up, mtu, autoprobe))| {
                let address = format!("0000:{:02x}:00.0", at + 1);
                let pf = match nic {
                    Nic::Igb => igb(&address, NAMES[at]),
                    Nic::Ice => ice(&address, NAMES[at]),
                    Nic::Mlx5 => mlx5(&address, NAMES[at]),
                    Nic::Switch => mlx5(&address, NAMES[at])
                        .facts(|facts| facts.eswitch = Some(EswitchMode::Switchdev)),
                };
                pf.with_vfs(u16::try_from(vfs.len()).unwrap())
                    .facts(|facts| facts.autoprobe = *autoprobe)
                    .netdev(|netdev| {
                        if !*up {
                            netdev.admin_up = false;
                            netdev.oper = model::OperState::Down;
                        }
                        netdev.mtu = *mtu;
                    })
            });
        let mut host = FakeHost::new(inventory(built));
        for (at, (_, vfs, ..)) in pfs.iter().enumerate() {
            let pf = parsed(&format!("0000:{:02x}:00.0", at + 1));
            for (index, past) in (0..).zip(vfs) {
                let vf = host
                    .inventory()
                    .vf_of(pf, model::VfIndex(index))
                    .unwrap()
                    .address;
                befall(&mut host, vf, *past);
            }
        }
        host
    })
}

fn befall(host: &mut FakeHost, vf: PciAddress, past: Past) {
    let bind = |to| Step::Bind { function: vf, to };
    match past {
        Past::Nothing => {}
        Past::Vfio => host
            .perform(&bind(BindTarget::Driver(parsed("vfio-pci"))))
            .unwrap(),
        Past::Unbound => host.perform(&bind(BindTarget::Nothing)).unwrap(),
        Past::Overridden => host.set_driver_override(vf, Some(parsed("vfio-pci"))),
        Past::Held => host.set_holder(vf, Some(holder())),
        Past::Vdpa => {
            let kind = Some(VdpaKind::Vhost);
            // Only a switch makes them.
            let _made = host.perform(&Step::SetVdpa { function: vf, kind });
        }
    }
}

fn holder() -> Holder {
    Holder {
        kind: HolderKind::Cni,
        id: "pod".to_owned(),
        interface: None,
    }
}

fn policies() -> impl Strategy<Value = Vec<NodePolicy>> {
    let range = proptest::option::of((0_u16..7, 0_u16..7));
    let one = (
        subsequence(NAMES.to_vec(), 1..=2),
        range,
        0_u16..=8,
        select(vec![None, Mtu::new(1400), Mtu::new(9000)]),
        any::<bool>(),
        select(vec![10_u8, 50, 99]),
        prop_oneof![
            4 => Just((None, None)),
            1 => Just((Some(EswitchMode::Switchdev), None)),
            1 => Just((Some(EswitchMode::Switchdev), Some(VdpaKind::Vhost))),
            1 => Just((Some(EswitchMode::Switchdev), Some(VdpaKind::Virtio))),
        ],
        any::<bool>(),
    );
    proptest::collection::vec(one, 0..=4).prop_map(|all| {
        let built = all.into_iter().enumerate().map(
            |(at, (names, range, num_vfs, mtu, vfio, priority, (eswitch, vdpa), shared))| {
                let names = names.iter().map(|name| match range {
                    Some((a, b)) => format!("{name}#{}-{}", a.min(b), a.max(b)),
                    None => (*name).to_owned(),
                });
                let names: Vec<String> = names.collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                policy(["a", "b", "c", "d"][at], &names, num_vfs).with(|p| {
                    p.mtu = mtu;
                    p.priority = priority;
                    p.eswitch = eswitch;
                    p.vdpa = vdpa.filter(|_| !vfio);
                    p.is_rdma = shared && !vfio;
                    if vfio {
                        p.driver = VfDriver::Named(parsed("vfio-pci"));
                    }
                    if shared {
                        p.resource = "shared".to_owned();
                    }
                })
            },
        );
        built.collect()
    })
}

fn wanted(seen: &Inventory, policies: &[NodePolicy]) -> Desired {
    resolve(seen, policies, &BTreeMap::new()).desired
}

fn perform<'a>(host: &mut FakeHost, steps: impl IntoIterator<Item = &'a Step>) {
    for step in steps {
        host.perform(step)
            .unwrap_or_else(|error| panic!("{step:?}: {error:?}"));
    }
}

/// Plans and performs until nothing is left, as often as a plan may be cut.
fn converge(host: &mut FakeHost, plan: impl Fn(&Inventory) -> Plan) -> Plan {
    for _cut in 0..3 {
        let all = plan(&host.inventory());
        perform(host, &steps(&all));
        if all.pfs.iter().all(|pf| !pf.is_cut) {
            break;
        }
    }
    plan(&host.inventory())
}

fn steps(plan: &Plan) -> Vec<Step> {
    plan.steps().map(|planned| planned.step.clone()).collect()
}

fn held(seen: &Inventory) -> BTreeSet<PciAddress> {
    let held = seen.vfs().filter(|(_, facts)| facts.holder.is_some());
    held.map(|(function, _)| function.address).collect()
}

/// Compares what an undo of a plan promises: all but what VFs lose with their driver.
fn is_restored(before: &Inventory, after: &Inventory, plan: &Plan) -> Result<(), TestCaseError> {
    for (pf, facts) in before.pfs() {
        let now = after.get(pf.address).unwrap();
        prop_assert_eq!(now.pf().unwrap().num_vfs, facts.num_vfs);
        prop_assert_eq!(now.pf().unwrap().eswitch, facts.eswitch);
        prop_assert_eq!(now.pf().unwrap().steering, facts.steering);
        prop_assert_eq!(now.pf().unwrap().tc_offload, facts.tc_offload);
        prop_assert_eq!(&now.netdevs, &pf.netdevs);
    }
    let destroyed: BTreeSet<PciAddress> = plan
        .steps()
        .filter(|planned| planned.price.destroys_vfs)
        .map(|planned| planned.step.function())
        .collect();
    let bound: BTreeSet<PciAddress> = plan
        .steps()
        .filter(|planned| matches!(planned.step, Step::Bind { .. } | Step::Rebind { .. }))
        .map(|planned| planned.step.function())
        .collect();
    for (vf, facts) in before
        .vfs()
        .filter(|(_, facts)| !destroyed.contains(&facts.pf))
    {
        let now = after.get(vf.address).unwrap();
        prop_assert_eq!(&now.driver, &vf.driver, "{}", vf.address);
        prop_assert_eq!(&now.vf().unwrap().holder, &facts.holder);
        if !bound.contains(&vf.address) {
            prop_assert_eq!(now, vf);
        }
    }
    Ok(())
}

/// Says that some PFs were configured, which had this MTU before.
fn circumstances(host: &FakeHost, owned: &[bool], mtu: u32) -> Circumstances {
    let seen = host.inventory();
    let pfs = seen.pfs().zip(owned).filter(|(_, is_owned)| **is_owned);
    let record = |autoprobe| Owned {
        original: Original {
            mtu: Mtu::new(mtu),
            autoprobe,
            ..Original::default()
        },
        ..Owned::default()
    };
    let owned = pfs.map(|((pf, facts), _)| (pf.address, record(facts.autoprobe)));
    Circumstances {
        owned: owned.collect(),
        ..Circumstances::default()
    }
}

fn settings() -> impl Strategy<Value = VfSettings> {
    let vlan = proptest::option::of(proptest::option::of((1_u16..=4094, 0_u8..=7)));
    let rate = || proptest::option::of(proptest::option::of(1_u32..100));
    let last = proptest::option::of(0_u8..4);
    (
        vlan,
        last,
        rate(),
        rate(),
        proptest::option::of(any::<bool>()),
        proptest::option::of(any::<bool>()),
        select(vec![None, Some(LinkPolicy::Auto), Some(LinkPolicy::Enable)]),
    )
        .prop_map(
            |(vlan, last, min, max, spoof_check, trust, link)| VfSettings {
                vlan: vlan.map(|vlan| {
                    vlan.map(|(id, pcp)| VlanTag {
                        id: VlanId::new(id).unwrap(),
                        pcp: Pcp::new(pcp).unwrap(),
                        proto: VlanProto::Dot1q,
                    })
                }),
                mac: last.map(|last| model::MacAddr::new([2, 0, 0, 0, 0, last])),
                min_rate: min.map(|min| min.and_then(Mbps::new)),
                max_rate: max.map(|max| max.and_then(Mbps::new)),
                spoof_check,
                trust,
                link,
                ..VfSettings::default()
            },
        )
}

proptest! {
    #[test]
    fn after_a_plan_nothing_is_left_to_do(host in hosts(), policies in policies()) {
        let mut host = host;
        let seen = host.inventory();
        let wanted = wanted(&seen, &policies);
        let rest = converge(&mut host, |seen| plan(seen, &wanted));
        prop_assert_eq!(render(&rest), "nothing to do\n");
        for (pf, facts) in seen.pfs() {
            let now = host.inventory();
            prop_assert_eq!(now.get(pf.address).unwrap().pf().unwrap().autoprobe, facts.autoprobe);
        }
    }

    #[test]
    fn a_pf_is_as_wanted_when_nothing_is_left_to_do(host in hosts(), policies in policies()) {
        let seen = host.inventory();
        let wanted = wanted(&seen, &policies);
        let plan = plan(&seen, &wanted);
        for standing in drift(&seen, &wanted, &plan) {
            let has_steps = plan.pfs.iter().any(|pf| pf.pf == standing.pf);
            // Link type and too few VFs of somebody else's PF have no step.
            prop_assert!(!has_steps || !standing.differences.is_empty(), "{:?}", standing);
            if !wanted.pfs[&standing.pf].externally_managed {
                prop_assert_eq!(has_steps, !standing.differences.is_empty());
            }
        }
    }

    #[test]
    fn stopped_anywhere_it_converges(host in hosts(), policies in policies(), at: Index) {
        let mut host = host;
        let wanted = wanted(&host.inventory(), &policies);
        let all = steps(&plan(&host.inventory(), &wanted));
        perform(&mut host, &all[..at.index(all.len() + 1)]);
        let rest = converge(&mut host, |seen| plan(seen, &wanted));
        prop_assert_eq!(render(&rest), "nothing to do\n");
    }

    #[test]
    fn what_nobody_wants_is_given_back_once_and_only_if_it_was_configured(
        host in hosts(), policies in policies(), owned: [bool; 3], at: Index,
    ) {
        let mut host = host;
        let seen = host.inventory();
        let known = circumstances(&host, &owned, 1500);
        let wanted = wanted(&seen, &policies);
        let all = decide(&seen, &wanted, &known);
        for planned in all.plan.steps() {
            let function = planned.step.function();
            let pf = seen.get(function).and_then(|f| f.vf()).map_or(function, |vf| vf.pf);
            // A VF that does not exist yet is one of a PF that is wanted.
            let is_ours = wanted.pfs.contains_key(&pf) || known.owned.contains_key(&pf);
            prop_assert!(is_ours || seen.get(function).is_none(), "{:?}", planned.step);
        }
        let all = steps(&all.plan);
        perform(&mut host, &all[..at.index(all.len() + 1)]);
        converge(&mut host, |seen| decide(seen, &wanted, &known).plan);
        let end = decide(&host.inventory(), &wanted, &known);
        prop_assert!(end.is_empty(), "{}", render(&end.plan));
        let unwanted = known.owned.keys().filter(|pf| !wanted.pfs.contains_key(pf));
        prop_assert_eq!(&end.forget, &unwanted.copied().collect::<Vec<_>>());
        for pf in wanted.pfs.keys().filter(|pf| known.owned.contains_key(pf)) {
            // Also after a kill while VFs were bound one by one.
            let before = seen.get(*pf).unwrap().pf().unwrap().autoprobe;
            let now = host.inventory().get(*pf).unwrap().pf().unwrap().autoprobe;
            prop_assert_eq!(now, before.or(now), "{}", pf);
        }
        for pf in &end.forget {
            prop_assert_eq!(host.inventory().get(*pf).unwrap().pf().unwrap().num_vfs, 0);
        }
    }

    #[test]
    fn performed_twice_each_step_changes_nothing_more(host in hosts(), policies in policies()) {
        let mut host = host;
        let wanted = wanted(&host.inventory(), &policies);
        for step in steps(&plan(&host.inventory(), &wanted)) {
            perform(&mut host, [&step]);
            let once = host.inventory();
            if matches!(step, Step::Rebind { .. }) {
                // Its netdev is a new one each time.
                continue;
            }
            perform(&mut host, [&step]);
            prop_assert_eq!(host.inventory(), once, "{:?}", step);
        }
    }

    #[test]
    fn the_order_in_which_policies_are_read_does_not_matter(
        host in hosts(),
        (policies, shuffled) in policies().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        let seen = host.inventory();
        let resolved = resolve(&seen, &policies, &BTreeMap::new());
        prop_assert_eq!(&resolved, &resolve(&seen, &shuffled, &BTreeMap::new()));
        prop_assert_eq!(plan(&seen, &resolved.desired), plan(&seen, &resolved.desired));
    }

    #[test]
    fn what_is_desired_can_be_had(host in hosts(), policies in policies()) {
        let seen = host.inventory();
        for (pf, wanted) in wanted(&seen, &policies).pfs {
            prop_assert!(wanted.num_vfs <= seen.get(pf).unwrap().pf().unwrap().total_vfs);
            prop_assert!(!wanted.groups.is_empty());
            for (at, group) in wanted.groups.iter().enumerate() {
                for other in &wanted.groups[at + 1..] {
                    prop_assert!(!group.range.overlaps(other.range) && group.resource != other.resource);
                }
            }
        }
    }

    #[test]
    fn a_vf_in_use_is_touched_only_at_a_price(host in hosts(), policies in policies()) {
        let seen = host.inventory();
        let all = plan(&seen, &wanted(&seen, &policies));
        let mut in_use = held(&seen);
        for planned in all.steps() {
            let function = planned.step.function();
            let of_pf = |vf: &&PciAddress| seen.get(**vf).unwrap().vf().unwrap().pf == function;
            // Setting a PF up takes nothing from anybody, nor does letting it take rules.
            let is_harmless = matches!(
                planned.step,
                Step::SetUp { up: true, .. } | Step::SetTcOffload { on: true, .. }
            );
            let hit: BTreeSet<PciAddress> = if is_harmless {
                BTreeSet::new()
            } else if let Step::SetVf { pf, vf, .. } = &planned.step {
                let vf = seen.vf_of(*pf, *vf).map(|vf| vf.address);
                in_use.iter().filter(|used| vf == Some(**used)).copied().collect()
            } else {
                in_use.iter().filter(|vf| **vf == function || of_pf(vf)).copied().collect()
            };
            let priced: BTreeSet<PciAddress> =
                planned.price.interrupts.iter().map(|(vf, _)| *vf).collect();
            prop_assert!(priced.is_superset(&hit), "{:?}", &planned.step);
            prop_assert!(held(&seen).is_superset(&priced), "{:?}", &planned.step);
            // Who was interrupted once is so until the end of the plan.
            in_use = in_use.difference(&priced).copied().collect();
        }
    }

    #[test]
    fn a_plan_that_passes_the_check_leaves_vfs_in_use_as_they_are(host in hosts(), policies in policies()) {
        let mut host = host;
        let seen = host.inventory();
        let all = plan(&seen, &wanted(&seen, &policies));
        if check(&all, false).is_err() {
            return Ok(());
        }
        perform(&mut host, &steps(&all));
        let now = host.inventory();
        for vf in held(&seen) {
            prop_assert_eq!(seen.get(vf), now.get(vf));
        }
    }

    #[test]
    fn taken_back_a_host_is_as_it_was(host in hosts(), policies in policies(), at: Index) {
        let mut host = host;
        let seen = host.inventory();
        let all = plan(&seen, &wanted(&seen, &policies));
        let planned: Vec<_> = all.steps().collect();
        let made = &planned[..at.index(planned.len() + 1)];
        perform(&mut host, made.iter().map(|planned| &planned.step));
        perform(&mut host, made.iter().rev().filter_map(|planned| planned.undo.as_ref()));
        is_restored(&seen, &host.inventory(), &all)?;
    }

    #[test]
    fn an_attached_vf_is_as_asked_and_then_as_before(
        host in hosts(), settings in settings(), vf: Index, at: Index, as_interface: bool,
        mtu in select(vec![None, Mtu::new(1400)]),
    ) {
        let mut host = host;
        let blue = host.add_netns("blue");
        let seen = host.inventory();
        let vfs: Vec<PciAddress> = seen.vfs().map(|(function, _)| function.address).collect();
        prop_assume!(!vfs.is_empty());
        let vf = vfs[vf.index(vfs.len())];
        let request = AttachRequest {
            vf,
            holder: holder(),
            settings,
            interface: as_interface.then(|| AttachInterface {
                netns: blue,
                name: Some(parsed("net1")),
                mac: None,
                mtu,
                addresses: vec![parsed("192.0.2.1/24")],
            }),
            with_rdma: false,
            lives_in: None,
        };
        let Ok(planned) = attach(&seen, &request) else {
            return Ok(());
        };
        let made = at.index(planned.steps.len() + 1);
        for made in [made, planned.steps.len()] {
            let mut host = host.clone();
            perform(&mut host, planned.steps[..made].iter().map(|planned| &planned.step));
            let now = host.inventory();
            if made == planned.steps.len() {
                let function = now.get(vf).unwrap();
                let state = function.vf().unwrap().state.unwrap();
                let asked = &request.settings;
                prop_assert!(asked.vlan.is_none_or(|vlan| state.vlan == Some(vlan)));
                prop_assert!(asked.mac.is_none() || state.mac == asked.mac);
                prop_assert!(asked.trust.is_none() || state.trust == asked.trust);
                prop_assert!(asked.spoof_check.is_none() || state.spoof_check == asked.spoof_check);
                prop_assert!(asked.link.is_none() || state.link == asked.link);
                let rate = |rate: Option<Mbps>| Some(rate.map_or(0, Mbps::get));
                prop_assert!(asked.min_rate.is_none_or(|min| state.min_rate_mbps == rate(min)));
                prop_assert!(asked.max_rate.is_none_or(|max| state.max_rate_mbps == rate(max)));
                if as_interface {
                    let netdev = function.netdev().unwrap();
                    prop_assert!(netdev.admin_up && netdev.name.as_str() == "net1");
                    prop_assert!(asked.mac.is_none() || netdev.mac() == asked.mac);
                }
            }
            for (address, function) in &now.functions {
                prop_assert!(*address == vf || seen.get(*address) == Some(function));
            }
            let back = planned.steps[..made].iter().rev().filter_map(|planned| planned.undo.as_ref());
            perform(&mut host, back);
            prop_assert_eq!(host.inventory(), seen.clone());
        }
    }
}
