use fixtures::{FakeHost, igb, inventory};
use model::{Host, Plan, PlannedStep, Scope, Step, VfDriver};

use super::*;
use crate::testing::{With, desired, perform, policy};
use crate::{Circumstances, decide, drift, plan, render};

fn set(host: &mut FakeHost, vf: u16, attr: VfAttr) {
    let step = Step::SetVf {
        pf: "0000:01:00.0".parse().unwrap(),
        vf: VfIndex(vf),
        attr,
    };
    host.perform(&step).unwrap();
}

fn tag(id: &str) -> VfAttr {
    VfAttr::Vlan(Some(model::VlanTag {
        id: id.parse().unwrap(),
        pcp: model::Pcp::default(),
        proto: model::VlanProto::Dot1q,
    }))
}

/// A host whose VF 1 has a VLAN and a MAC, and whose VFs 2 and 3 are for DPDK.
fn configured() -> (FakeHost, Desired) {
    let mut host = FakeHost::new(inventory([igb("0000:01:00.0", "ens1")]));
    let seen = host.observe(Scope::All).unwrap();
    let policies = [
        policy("net", &["ens1#0-1"], 4).with(|p| p.mtu = model::Mtu::new(9000)),
        policy("dpdk", &["ens1#2-3"], 4)
            .with(|p| p.driver = VfDriver::Named("vfio-pci".parse().unwrap())),
    ];
    let wanted = desired(&seen, &policies);
    perform(&mut host, &plan(&seen, &wanted));
    set(&mut host, 1, tag("100"));
    set(
        &mut host,
        1,
        VfAttr::Mac("02:00:00:00:00:51".parse().unwrap()),
    );
    set(
        &mut host,
        3,
        VfAttr::Mac("02:00:00:00:00:53".parse().unwrap()),
    );
    (host, wanted)
}

fn planned(seen: &Inventory, wanted: &Desired, kept: &KeptVfs) -> Plan {
    let known = Circumstances {
        kept: kept.clone(),
        ..Circumstances::default()
    };
    decide(seen, wanted, &known).plan
}

/// Makes a plan true as `apply` does: it plans again where a plan was cut.
fn converge(host: &mut FakeHost, wanted: &Desired, kept: &KeptVfs) -> Vec<String> {
    let mut shown = Vec::new();
    for _round in 0..4 {
        let seen = host.observe(Scope::All).unwrap();
        let plan = planned(&seen, wanted, kept);
        if plan.is_empty() {
            return shown;
        }
        shown.push(render(&plan));
        perform(host, &plan);
    }
    panic!("still something to do: {shown:#?}");
}

#[test]
fn new_vfs_get_what_the_former_ones_had() {
    let (mut host, wanted) = configured();
    let before = host.observe(Scope::All).unwrap();
    let kept = keep(&before, &wanted, &KeptVfs::new());
    // The VFs of a boot later, with other MACs.
    let pf = "0000:01:00.0".parse().unwrap();
    host.perform(&Step::SetNumVfs { pf, count: 0 }).unwrap();
    let rounds = converge(&mut host, &wanted, &kept);
    let after = host.observe(Scope::All).unwrap();
    assert_eq!(keep(&after, &wanted, &KeptVfs::new()), kept);
    insta::assert_snapshot!(rounds.join("--\n"), @"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1      give no drivers to new VFs            was on
      2      have 4 VFs                            was 0 VFs
      3      vf 0: set mac 02:fa:00:00:01:03
      4      vf 1: set vlan 100
      5      vf 1: set mac 02:00:00:00:00:51
      6      vf 3: set mac 02:00:00:00:00:53
      7-8    vf 0-1: bind to the kernel's driver
      9-10   vf 2-3: bind to vfio-pci
      11-12  vf 0-1: wait for the netdev
      13-14  vf 0-1: set mtu 9000
      15     give drivers to new VFs               was off
    ");
}

#[test]
fn what_is_kept_is_not_planned_again() {
    let (mut host, wanted) = configured();
    let seen = host.observe(Scope::All).unwrap();
    let kept = keep(&seen, &wanted, &KeptVfs::new());
    // The driver of VF 1 did not read its MAC yet, and nothing else is left to do.
    let rounds = converge(&mut host, &wanted, &kept);
    insta::assert_snapshot!(rounds.join("--\n"), @"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  vf 1: rebind the driver     was interface mac 02:fa:00:00:01:04
      2  vf 1: wait for the netdev
      3  vf 1: set mtu 9000
    ");
    let seen = host.observe(Scope::All).unwrap();
    assert_eq!(keep(&seen, &wanted, &kept), kept);
    assert!(planned(&seen, &wanted, &kept).is_empty());
}

#[test]
fn a_vf_in_use_keeps_what_was_kept_of_it_before() {
    let (mut host, wanted) = configured();
    let mut seen = host.observe(Scope::All).unwrap();
    let kept = keep(&seen, &wanted, &KeptVfs::new());
    let pf: PciAddress = "0000:01:00.0".parse().unwrap();
    let vf = seen.get(pf).unwrap().pf().unwrap().vfs[&VfIndex(1)];
    if let model::Role::Vf(facts) = &mut seen.functions.get_mut(&vf).unwrap().role {
        facts.holder = Some(model::Holder {
            kind: model::HolderKind::Attach,
            id: "/run/netns/blue".to_owned(),
            interface: None,
        });
        facts.state.as_mut().unwrap().vlan = Some(None);
    }
    assert_eq!(keep(&seen, &wanted, &kept), kept);
    assert!(!keep(&seen, &wanted, &KeptVfs::new())[&pf].contains_key(&VfIndex(1)));
    let plan = planned(&seen, &wanted, &kept);
    let touches = |step: &PlannedStep| {
        step.step.function() == vf || matches!(step.step, Step::SetVf { vf, .. } if vf.0 == 1)
    };
    assert!(!plan.steps().any(touches), "{}", render(&plan));
}

#[test]
fn a_setting_that_was_changed_since_is_a_difference() {
    let (mut host, wanted) = configured();
    let seen = host.observe(Scope::All).unwrap();
    let kept = keep(&seen, &wanted, &KeptVfs::new());
    converge(&mut host, &wanted, &kept);
    set(&mut host, 1, VfAttr::Vlan(None));
    let seen = host.observe(Scope::All).unwrap();
    let plan = planned(&seen, &wanted, &kept);
    let standing = drift(&seen, &wanted, &plan).remove(0);
    let told: Vec<String> = standing
        .differences
        .iter()
        .map(|d| {
            format!(
                "{}: {} is {}, wanted {}",
                d.vf.unwrap(),
                d.what,
                d.seen,
                d.wanted
            )
        })
        .collect();
    assert_eq!(told, ["vf 1: vlan is none, wanted 100"]);
}
