use fixtures::{FakeHost, igb, inventory, parsed};
use model::{Explain, Holder, HolderKind, Mtu, NodePolicy, VfDriver};

use crate::testing::{With, desired, perform, policy};
use crate::{check, plan, render};

mod infiniband;
mod kept;
mod roce;
mod switchdev;

const PF: &str = "0000:01:00.0";

fn vfio(policy: &mut NodePolicy) {
    policy.driver = VfDriver::Named(parsed("vfio-pci"));
}

/// Plans, shows, performs and plans again: then nothing is left to do.
#[track_caller]
fn planned(host: &mut FakeHost, policies: &[NodePolicy]) -> String {
    let wanted = desired(&host.inventory(), policies);
    let first = plan(&host.inventory(), &wanted);
    perform(host, &first);
    let second = plan(&host.inventory(), &wanted);
    assert_eq!(render(&second), "nothing to do\n");
    render(&first)
}

fn held() -> Holder {
    Holder {
        kind: HolderKind::Attach,
        id: "blue".to_owned(),
        interface: Some(parsed("net1")),
    }
}

#[test]
fn first_vfs_cost_nobody_anything() {
    let mut host = FakeHost::new(inventory([
        igb(PF, "ens1").netdev(|netdev| netdev.admin_up = false)
    ]));
    let policies = [
        policy("a", &["ens1#0-3"], 6).with(|p| p.mtu = Mtu::new(9000)),
        policy("b", &["ens1#4-5"], 6).with(vfio),
    ];
    insta::assert_snapshot!(planned(&mut host, &policies), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1      set mtu 9000                          was mtu 1500
      2      set link up                           was down
      3      give no drivers to new VFs            was on
      4      have 6 VFs                            was 0 VFs
      5-8    vf 0-3: bind to the kernel's driver
      9-10   vf 4-5: bind to vfio-pci
      11-14  vf 0-3: wait for the netdev
      15-18  vf 0-3: set mtu 9000
      19     give drivers to new VFs               was off
    ");
}

#[test]
fn an_equal_host_needs_nothing() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(4)]));
    assert_eq!(
        planned(&mut host, &[policy("a", &["ens1"], 4)]),
        "nothing to do\n"
    );
}

#[test]
fn another_number_goes_through_none_and_destroys() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(2)]));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 3)]), @r"
    pf ens1 0000:01:00.0   all its VFs are made anew, none is in use, no drain
      1     have 0 VFs                            was 2 VFs, destroys all its VFs
      2     give no drivers to new VFs            was on
      3     have 3 VFs                            was 0 VFs
      4-5   vf 0-1: set their macs
      6-8   vf 0-2: bind to the kernel's driver
      9-11  vf 0-2: wait for the netdev
      12    give drivers to new VFs               was off
    ");
}

#[test]
fn vfs_in_use_are_never_reset_unasked() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(3)]));
    host.set_holder(parsed("0000:01:10.2"), Some(held()));
    let wanted = desired(
        &host.inventory(),
        &[policy("a", &["ens1"], 4).with(|p| p.mtu = Mtu::new(9000))],
    );
    let plan = plan(&host.inventory(), &wanted);
    insta::assert_snapshot!(render(&plan), @r"
    pf ens1 0000:01:00.0   interrupts 1 VF in use, drain first
      1      have 0 VFs                            was 3 VFs, destroys all its VFs, interrupts vf 1 in use by attach blue as net1
      2      set mtu 9000                          was mtu 1500
      3      give no drivers to new VFs            was on
      4      have 4 VFs                            was 0 VFs
      5      vf 0: set mac 02:fa:00:00:01:03
      6      vf 2: set mac 02:fa:00:00:01:05
      7-10   vf 0-3: bind to the kernel's driver
      11-14  vf 0-3: wait for the netdev
      15-18  vf 0-3: set mtu 9000
      19     give drivers to new VFs               was off
    ");
    let error = check(&plan, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "PF ens1 (0000:01:00.0): vf 1 (0000:01:10.2) is in use by attach blue as net1, and \"have 0 VFs\" would interrupt it"
    );
    assert_eq!(error.code().as_str(), "vf-in-use");
    assert!(
        error
            .remedy()
            .unwrap()
            .contains("virtfn detach 0000:01:10.2")
    );
    assert_eq!(check(&plan, true), Ok(()));
}

#[test]
fn only_what_differs_on_free_vfs_is_touched() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(3)]));
    host.set_holder(parsed("0000:01:10.0"), Some(held()));
    let policies = [policy("a", &["ens1"], 3).with(|p| p.mtu = Mtu::new(1400))];
    let wanted = desired(&host.inventory(), &policies);
    let first = plan(&host.inventory(), &wanted);
    insta::assert_snapshot!(render(&first), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1-2  vf 1-2: set mtu 1400   was mtu 1500
    ");
    assert_eq!(check(&first, false), Ok(()));
}

#[test]
fn another_driver_for_a_vf_in_use_is_priced() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(3)]));
    host.set_holder(parsed("0000:01:10.2"), Some(held()));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 3).with(vfio)]), @r"
    pf ens1 0000:01:00.0   interrupts 1 VF in use, drain first
      1  vf 0: bind to vfio-pci   was igbvf
      2  vf 1: bind to vfio-pci   was igbvf, interrupts vf 1 in use by attach blue as net1
      3  vf 2: bind to vfio-pci   was igbvf
    ");
    // And back, which brings netdevs that must be waited for.
    host.set_holder(parsed("0000:01:10.2"), None);
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1#1-2"], 3)]), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1-2  vf 1-2: bind to the kernel's driver   was vfio-pci
      3-4  vf 1-2: wait for the netdev
    ");
}

#[test]
fn raising_the_pf_mtu_is_a_price_for_those_who_hold_vfs() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(2)]));
    host.set_holder(parsed("0000:01:10.0"), Some(held()));
    let wanted = |bytes| {
        desired(
            &inventory([igb(PF, "ens1").with_vfs(2)]),
            &[policy("a", &["ens1#1-1"], 2).with(|p| p.mtu = Mtu::new(bytes))],
        )
    };
    insta::assert_snapshot!(render(&plan(&host.inventory(), &wanted(9000))), @r"
    pf ens1 0000:01:00.0   interrupts 1 VF in use, drain first
      1  set mtu 9000         was mtu 1500, interrupts vf 0 in use by attach blue as net1
      2  vf 1: set mtu 9000   was mtu 1500
    ");
    // It is never lowered.
    insta::assert_snapshot!(render(&plan(&host.inventory(), &wanted(1000))), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  vf 1: set mtu 1000   was mtu 1500
    ");
}

#[test]
fn without_autoprobe_vfs_are_bound_by_hand() {
    let mut host = FakeHost::new(inventory([
        igb(PF, "ens1").facts(|facts| facts.autoprobe = Some(false))
    ]));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 2)]), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1    have 2 VFs                            was 0 VFs
      2-3  vf 0-1: bind to the kernel's driver
      4-5  vf 0-1: wait for the netdev
    ");
}

#[test]
fn a_plan_is_cut_where_vfs_cannot_be_predicted() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1")]));
    let hidden = inventory([igb(PF, "ens1").facts(|facts| facts.offset = Some(0))]);
    let wanted = desired(&hidden, &[policy("a", &["ens1"], 2).with(vfio)]);
    let first = plan(&hidden, &wanted);
    insta::assert_snapshot!(render(&first), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  have 2 VFs   was 0 VFs
      …  then more, once the VFs exist
    ");
    perform(&mut host, &first);
    insta::assert_snapshot!(render(&plan(&host.inventory(), &wanted)), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1-2  vf 0-1: bind to vfio-pci   was igbvf
    ");
}

#[test]
fn a_pf_of_somebody_else_is_not_written_to() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1")
        .with_vfs(3)
        .netdev(|n| n.admin_up = false)]));
    let a = policy("a", &["ens1"], 2)
        .with(vfio)
        .with(|p| p.externally_managed = true);
    insta::assert_snapshot!(planned(&mut host, &[a]), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1-2  vf 0-1: bind to vfio-pci   was igbvf
    ");
}

#[test]
fn an_override_that_a_killed_process_left_is_cleared_unless_the_vf_is_held() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(2)]));
    for vf in ["0000:01:10.0", "0000:01:10.2"] {
        host.set_driver_override(parsed(vf), Some(parsed("vfio-pci")));
    }
    host.set_holder(parsed("0000:01:10.2"), Some(held()));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 2)]), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  vf 0: bind to the kernel's driver   was igbvf, with an override for vfio-pci
    ");
    let left = |vf| {
        host.inventory()
            .get(parsed(vf))
            .unwrap()
            .driver_override
            .clone()
    };
    assert_eq!(left("0000:01:10.0"), None);
    assert_eq!(left("0000:01:10.2"), Some(parsed("vfio-pci")));
}
