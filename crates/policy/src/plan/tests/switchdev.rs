use fixtures::{FakeHost, ice, inventory, mlx5, parsed};
use model::{EswitchMode, Explain, Inventory, NodePolicy, PfFacts, VdpaKind};

use super::{PF, held, planned, vfio};
use crate::testing::{With, desired, perform, policy};
use crate::{check, plan, render};

fn switchdev(policy: &mut NodePolicy) {
    policy.eswitch = Some(EswitchMode::Switchdev);
}

fn vhost(policy: &mut NodePolicy) {
    switchdev(policy);
    policy.vdpa = Some(VdpaKind::Vhost);
}

fn offloading(facts: &mut PfFacts) {
    facts.eswitch = Some(EswitchMode::Switchdev);
    facts.tc_offload = Some(true);
    facts.steering = Some(model::SteeringMode::Smfs);
}

/// A host whose VFs 0 to 2 have vDPA devices for VMs.
fn with_vhost() -> FakeHost {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1").facts(offloading)]));
    planned(&mut host, &[policy("a", &["ens1"], 3).with(vhost)]);
    host
}

fn kinds(seen: &Inventory) -> Vec<Option<VdpaKind>> {
    let vfs = seen.vfs().map(|(vf, _)| vf.own_vdpa()?.kind);
    vfs.collect()
}

#[test]
fn an_mlx5_is_switched_around_vfs_without_drivers() {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1")]));
    let policies = [
        policy("a", &["ens1#0-1"], 4).with(|p| {
            vhost(p);
            p.mtu = model::Mtu::new(9000);
            p.priority = 10;
        }),
        policy("b", &["ens1#2-2"], 4).with(vfio),
    ];
    insta::assert_snapshot!(planned(&mut host, &policies), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1      set hw-tc-offload on                  was off
      2      set flow_steering_mode smfs           was flow_steering_mode dmfs
      3      give no drivers to new VFs            was on
      4      have 4 VFs                            was 0 VFs
      5      set eswitch mode switchdev            was legacy
      6      set mtu 9000                          was mtu 1500
      7-8    vf 0-1: bind to the kernel's driver
      9      vf 2: bind to vfio-pci
      10     vf 3: bind to the kernel's driver
      11-12  vf 0-1: wait for the netdev
      13-14  vf 0-1: set mtu 9000
      15-16  vf 0-1: have a vhost vDPA device
      17     give drivers to new VFs               was off
    ");
    assert_eq!(
        kinds(&host.inventory()),
        [Some(VdpaKind::Vhost), Some(VdpaKind::Vhost), None, None]
    );
}

#[test]
fn vfs_that_are_there_in_the_right_number_stay() {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1").with_vfs(3)]));
    host.set_holder(parsed("0000:01:00.3"), Some(held()));
    let policies = [policy("a", &["ens1#0-1"], 3).with(switchdev)];
    insta::assert_snapshot!(planned(&mut host, &policies), @r"
    pf ens1 0000:01:00.0   interrupts 1 VF in use, drain first
      1      vf 0: bind to no driver               was mlx5_core
      2      vf 1: bind to no driver               was mlx5_core, interrupts vf 1 in use by attach blue as net1
      3      vf 2: bind to no driver               was mlx5_core
      4      set hw-tc-offload on                  was off
      5      set flow_steering_mode smfs           was flow_steering_mode dmfs
      6      set eswitch mode switchdev            was legacy
      7-9    vf 0-2: bind to the kernel's driver
      10-11  vf 0-1: wait for the netdev
    ");
    let legacy = planned(&mut host, &[policy("a", &["ens1"], 3)]);
    assert!(legacy.contains("set eswitch mode legacy"), "{legacy}");
}

#[test]
fn another_number_of_vfs_of_a_switch_goes_through_legacy_mode() {
    let pf = mlx5(PF, "ens1").facts(offloading).with_vfs(2);
    let mut host = FakeHost::new(inventory([pf]));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 3).with(switchdev)]), @r"
    pf ens1 0000:01:00.0   all its VFs are made anew, none is in use, no drain
      1     have 0 VFs                            was 2 VFs, destroys all its VFs
      2     set eswitch mode legacy               was switchdev
      3     give no drivers to new VFs            was on
      4     have 3 VFs                            was 0 VFs
      5     set eswitch mode switchdev            was legacy
      6-8   vf 0-2: bind to the kernel's driver
      9-11  vf 0-2: wait for the netdev
      12    give drivers to new VFs               was off
    ");
}

#[test]
fn an_e810_is_switched_before_it_has_vfs() {
    let mut host = FakeHost::new(inventory([ice(PF, "ens1").with_vfs(2)]));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 2).with(switchdev)]), @r"
    pf ens1 0000:01:00.0   all its VFs are made anew, none is in use, no drain
      1      have 0 VFs                            was 2 VFs, destroys all its VFs
      2      set hw-tc-offload on                  was off
      3      set eswitch mode switchdev            was legacy
      4      give no drivers to new VFs            was on
      5      have 2 VFs                            was 0 VFs
      6-7    vf 0-1: set their macs
      8-9    vf 0-1: bind to the kernel's driver
      10-11  vf 0-1: wait for the netdev
      12     give drivers to new VFs               was off
    ");
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 2)]), @r"
    pf ens1 0000:01:00.0   all its VFs are made anew, none is in use, no drain
      1     have 0 VFs                            was 2 VFs, destroys all its VFs
      2     set eswitch mode legacy               was switchdev
      3     give no drivers to new VFs            was on
      4     have 2 VFs                            was 0 VFs
      5-6   vf 0-1: set their macs
      7-8   vf 0-1: bind to the kernel's driver
      9-10  vf 0-1: wait for the netdev
      11    give drivers to new VFs               was off
    ");
}

#[test]
fn where_autoprobe_cannot_be_off_the_plan_is_cut_and_goes_on() {
    let pf = mlx5(PF, "ens1").facts(|facts| facts.autoprobe = None);
    let mut host = FakeHost::new(inventory([pf]));
    let wanted = desired(
        &host.inventory(),
        &[policy("a", &["ens1"], 2).with(switchdev)],
    );
    let first = plan(&host.inventory(), &wanted);
    insta::assert_snapshot!(render(&first), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  set hw-tc-offload on          was off
      2  set flow_steering_mode smfs   was flow_steering_mode dmfs
      3  have 2 VFs                    was 0 VFs
      …  then more, once the VFs exist
    ");
    perform(&mut host, &first);
    let second = plan(&host.inventory(), &wanted);
    insta::assert_snapshot!(render(&second), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1-2  vf 0-1: bind to no driver             was mlx5_core
      3    set eswitch mode switchdev            was legacy
      4-5  vf 0-1: bind to the kernel's driver
      6-7  vf 0-1: wait for the netdev
    ");
    perform(&mut host, &second);
    assert!(plan(&host.inventory(), &wanted).is_empty());
}

#[test]
fn a_vdpa_device_is_offered_otherwise_or_goes() {
    let mut host = with_vhost();
    assert_eq!(kinds(&host.inventory()), [Some(VdpaKind::Vhost); 3]);
    let policies = [
        policy("a", &["ens1#0-0"], 3).with(|p| {
            switchdev(p);
            p.vdpa = Some(VdpaKind::Virtio);
        }),
        policy("b", &["ens1#1-1"], 3).with(switchdev),
        policy("c", &["ens1#2-2"], 3).with(|p| {
            switchdev(p);
            vfio(p);
        }),
    ];
    insta::assert_snapshot!(planned(&mut host, &policies), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1-2  vf 1-2: remove the vDPA device    was a vhost vDPA device
      3    vf 2: bind to vfio-pci            was mlx5_core
      4    vf 0: have a virtio vDPA device   was a vhost vDPA device
    ");
    assert_eq!(
        kinds(&host.inventory()),
        [Some(VdpaKind::Virtio), None, None]
    );
}

#[test]
fn a_vdpa_device_that_a_vm_has_goes_only_at_a_price() {
    let mut host = with_vhost();
    host.set_holder(parsed("0000:01:00.3"), Some(held()));
    let wanted = desired(
        &host.inventory(),
        &[policy("a", &["ens1"], 3).with(switchdev)],
    );
    let plan = plan(&host.inventory(), &wanted);
    insta::assert_snapshot!(render(&plan), @r"
    pf ens1 0000:01:00.0   interrupts 1 VF in use, drain first
      1  vf 0: remove the vDPA device   was a vhost vDPA device
      2  vf 1: remove the vDPA device   was a vhost vDPA device, interrupts vf 1 in use by attach blue as net1
      3  vf 2: remove the vDPA device   was a vhost vDPA device
    ");
    assert_eq!(
        check(&plan, false).unwrap_err().code().as_str(),
        "vf-in-use"
    );
}

#[test]
fn somebody_elses_vdpa_device_is_left_alone() {
    let mut seen = with_vhost().inventory();
    let vf = seen.functions.get_mut(&parsed("0000:01:00.2")).unwrap();
    vf.vdpa[0].name = "theirs".to_owned();
    let wanted = desired(&seen, &[policy("a", &["ens1"], 3).with(switchdev)]);
    let plan = plan(&seen, &wanted);
    let touched = plan
        .steps()
        .filter(|planned| planned.step.function() == parsed("0000:01:00.2"));
    assert_eq!(touched.count(), 0);
}
