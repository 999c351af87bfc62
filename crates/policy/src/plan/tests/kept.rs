use fixtures::{FakeHost, igb, inventory, mlx5, parsed};
use model::{
    EswitchMode, Guid, HolderKind, Host, Inventory, LinkPolicy, LinkType, Mbps, NodePolicy, Step,
    VfAttr, VfIndex, VfState,
};

use super::{PF, held, planned};
use crate::testing::{With, desired, perform, policy};
use crate::{Circumstances, Decision, KeptVfs, decide, render};

const MAC: &str = "02:00:00:00:00:51";

fn vlan() -> VfAttr {
    VfAttr::Vlan(Some(model::VlanTag {
        id: parsed("100"),
        pcp: parsed("3"),
        proto: model::VlanProto::Dot1q,
    }))
}

fn set(host: &mut FakeHost, vf: u16, attrs: &[VfAttr]) {
    for attr in attrs {
        let step = Step::SetVf {
            pf: parsed(PF),
            vf: VfIndex(vf),
            attr: *attr,
        };
        host.perform(&step).unwrap();
    }
}

/// Two VFs, of which VF 1 has been given all that an igb lets a VF have.
fn configured() -> FakeHost {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(2)]));
    let rate = VfAttr::Rate {
        min: None,
        max: Mbps::new(500),
    };
    let given = [
        vlan(),
        VfAttr::Mac(parsed(MAC)),
        VfAttr::SpoofCheck(false),
        VfAttr::Trust(true),
        rate,
    ];
    set(&mut host, 1, &given);
    host
}

fn state(host: &FakeHost, vf: u16) -> VfState {
    let seen = host.inventory();
    let vf = seen.vf_of(parsed(PF), VfIndex(vf)).unwrap();
    vf.vf().unwrap().state.unwrap()
}

fn decided(seen: &Inventory, policies: &[NodePolicy], kept: &KeptVfs) -> Decision {
    let known = Circumstances {
        kept: kept.clone(),
        ..Circumstances::default()
    };
    decide(seen, &desired(seen, policies), &known)
}

#[test]
fn what_a_vf_was_given_it_has_again_after_it_was_made_anew() {
    let mut host = configured();
    let before = state(&host, 1);
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 4)]), @r"
    pf ens1 0000:01:00.0   all its VFs are made anew, none is in use, no drain
      1      have 0 VFs                                    was 2 VFs, destroys all its VFs
      2      give no drivers to new VFs                    was on
      3      have 4 VFs                                    was 0 VFs
      4      vf 0: set mac 02:fa:00:00:01:03
      5      vf 1: set vlan 100 qos 3
      6      vf 1: set mac 02:00:00:00:00:51
      7      vf 1: set spoofchk off
      8      vf 1: set trust on
      9-12   vf 0-3: bind to the kernel's driver
      13-16  vf 0-3: wait for the netdev
      17     vf 1: set rate min unlimited max 500 Mbit/s
      18     give drivers to new VFs                       was off
    ");
    assert_eq!(state(&host, 1), before);
    let netdev = host.inventory();
    let netdev = netdev
        .vf_of(parsed(PF), VfIndex(1))
        .unwrap()
        .netdev()
        .unwrap();
    assert_eq!(
        netdev.mac(),
        Some(parsed(MAC)),
        "its driver read another MAC"
    );
    // And again, now that a driver has read the MAC; VFs that no policy is for are no exception.
    planned(&mut host, &[policy("a", &["ens1#2-3"], 7)]);
    assert_eq!(state(&host, 1), before);
    // As far as there still is a VF 1.
    planned(&mut host, &[policy("a", &["ens1"], 1)]);
    planned(&mut host, &[policy("a", &["ens1"], 2)]);
    assert_eq!(state(&host, 1).vlan, Some(None));
}

#[test]
fn a_plan_that_died_is_ended_with_what_was_taken_down() {
    let policies = [policy("a", &["ens1"], 4)];
    let seen = configured().inventory();
    let first = decided(&seen, &policies, &KeptVfs::new());
    let kept = &first.lost;
    for made in 0..=first.plan.steps().count() {
        let mut host = configured();
        for planned in first.plan.steps().take(made) {
            host.perform(&planned.step).unwrap();
        }
        let next = decided(&host.inventory(), &policies, kept);
        perform(&mut host, &next.plan);
        assert_eq!(
            state(&host, 1).vlan,
            state(&configured(), 1).vlan,
            "after {made} steps"
        );
        assert_eq!(state(&host, 1).mac, Some(parsed(MAC)), "after {made} steps");
        let last = decided(&host.inventory(), &policies, kept);
        assert!(
            last.plan
                .steps()
                .all(|step| matches!(step.step, Step::SetAutoprobe { .. })),
            "after {made} steps: {}",
            render(&last.plan)
        );
    }
}

#[test]
fn nothing_is_taken_down_while_the_vfs_stay() {
    let host = configured();
    let decision = decided(
        &host.inventory(),
        &[policy("a", &["ens1"], 2)],
        &KeptVfs::new(),
    );
    assert!(decision.lost.is_empty());
    assert!(
        !decision
            .plan
            .steps()
            .any(|step| matches!(step.step, Step::SetVf { .. }))
    );
}

#[test]
fn what_a_holder_gave_is_its_own_but_a_virtual_machine_uses_what_it_found() {
    for (kind, is_kept) in [
        (HolderKind::Cni, false),
        (HolderKind::Vfio, true),
        (HolderKind::Host, true),
    ] {
        let mut host = configured();
        let vf = host
            .inventory()
            .vf_of(parsed(PF), VfIndex(1))
            .unwrap()
            .address;
        host.set_holder(vf, Some(model::Holder { kind, ..held() }));
        let decision = decided(
            &host.inventory(),
            &[policy("a", &["ens1"], 4)],
            &KeptVfs::new(),
        );
        let kept = &decision.lost[&parsed(PF)];
        assert_eq!(kept.contains_key(&VfIndex(1)), is_kept, "{kind}");
    }
}

#[test]
fn in_another_eswitch_mode_a_vf_has_its_mac_again_and_nothing_else() {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1").with_vfs(2)]));
    set(
        &mut host,
        1,
        &[
            vlan(),
            VfAttr::Mac(parsed(MAC)),
            VfAttr::Link(LinkPolicy::Disable),
        ],
    );
    let switch = policy("a", &["ens1"], 4).with(|p| p.eswitch = Some(EswitchMode::Switchdev));
    planned(&mut host, &[switch]);
    assert_eq!(state(&host, 1).mac, Some(parsed(MAC)));
    assert_eq!(state(&host, 1).vlan, Some(None));
    assert_eq!(state(&host, 1).link, Some(LinkPolicy::Auto));
}

#[test]
fn a_guid_that_was_set_by_hand_stays() {
    let pf = mlx5(PF, "ib0").with_vfs(2).netdev(|netdev| {
        netdev.link_type = LinkType::InfiniBand;
        let address = "00:00:10:29:fe:80:00:00:00:00:00:00:b8:59:9f:03:00:a6:1b:10";
        netdev.address = Some(address.to_owned());
    });
    let mut host = FakeHost::new(inventory([pf]));
    let guid = Guid::new(0x0200_0000_0000_0007);
    set(
        &mut host,
        1,
        &[VfAttr::NodeGuid(guid), VfAttr::PortGuid(guid)],
    );
    planned(&mut host, &[policy("a", &["ib0"], 4)]);
    assert_eq!(state(&host, 1).node_guid, Some(guid));
    assert_eq!(state(&host, 1).port_guid, Some(guid));
}
