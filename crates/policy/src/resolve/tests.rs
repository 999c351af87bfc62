use std::collections::BTreeMap;
use std::fmt::Write;

use fixtures::{Pf, igb, inventory, mlx5, parsed};
use model::{EswitchMode, Explain, Inventory, LinkType, Mtu, VfDriver};

use super::*;
use crate::testing::{With, policy};

fn rack() -> Inventory {
    inventory([ens1(), mlx5("0000:02:00.0", "ens2")])
}

fn ens1() -> Pf {
    mlx5("0000:01:00.0", "ens1").netdev(|netdev| netdev.alt_names = vec!["enp1s0".to_owned()])
}

/// What policies mean, one line a PF, a group, a note and a problem.
fn text(seen: &Inventory, policies: &[NodePolicy]) -> String {
    let resolved = resolve(seen, policies, &BTreeMap::new());
    let mut text = String::new();
    for pf in resolved.desired.pfs.values() {
        let name = pf.name.as_ref().unwrap();
        write!(text, "{name}: {} VFs", pf.num_vfs).unwrap();
        if let Some(mtu) = pf.mtu {
            write!(text, ", mtu {mtu}").unwrap();
        }
        if let Some(mode) = pf.eswitch {
            write!(text, ", {mode}").unwrap();
        }
        if pf.externally_managed {
            text.push_str(", external");
        }
        text.push('\n');
        for group in &pf.groups {
            write!(
                text,
                "  {} {} {}",
                group.range, group.resource, group.driver
            )
            .unwrap();
            if let Some(mtu) = group.mtu {
                write!(text, " mtu {mtu}").unwrap();
            }
            text.push('\n');
        }
    }
    for note in &resolved.notes {
        writeln!(text, "note: {note}").unwrap();
    }
    for problem in &resolved.problems {
        writeln!(
            text,
            "error[{}]: {problem}\n  {}",
            problem.code(),
            problem.remedy().unwrap()
        )
        .unwrap();
    }
    text
}

fn mtu(bytes: u32) -> Option<Mtu> {
    Mtu::new(bytes)
}

#[test]
fn a_policy_alone_takes_all_vfs() {
    let a = policy("a", &["ens1"], 8).with(|p| p.mtu = mtu(9000));
    insta::assert_snapshot!(text(&rack(), &[a]), @r"
    ens1: 8 VFs, mtu 9000
      0-7 res_a netdevice mtu 9000
    ");
}

#[test]
fn policies_for_different_pfs_stay_apart() {
    let (a, b) = (policy("a", &["ens1"], 8), policy("b", &["ens2"], 4));
    insta::assert_snapshot!(text(&rack(), &[a, b]), @r"
    ens1: 8 VFs
      0-7 res_a netdevice
    ens2: 4 VFs
      0-3 res_b netdevice
    ");
}

#[test]
fn the_more_important_policy_replaces_another_on_the_same_vfs() {
    let a = policy("a", &["ens1"], 16).with(|p| p.mtu = mtu(9000));
    let b = policy("b", &["ens1"], 8).with(|p| p.priority = 10);
    insta::assert_snapshot!(text(&rack(), &[b, a]), @r"
    ens1: 8 VFs
      0-7 res_b netdevice
    note: b.yaml:1: policy b: on PF ens1 (0000:01:00.0) it takes the place of VFs 0-15 of policy a, with which it shares VFs
    ");
}

#[test]
fn equal_priority_replaces_too_but_keeps_the_larger_numbers() {
    let a = policy("a", &["ens1"], 16).with(|p| p.mtu = mtu(9000));
    let b = policy("b", &["ens1"], 8).with(|p| p.mtu = mtu(1500));
    insta::assert_snapshot!(text(&rack(), &[b, a]), @r"
    ens1: 16 VFs, mtu 9000
      0-7 res_b netdevice mtu 1500
    note: b.yaml:1: policy b: on PF ens1 (0000:01:00.0) it takes the place of VFs 0-15 of policy a, with which it shares VFs
    ");
}

#[test]
fn parts_of_different_priority_stand_side_by_side() {
    let a = policy("a", &["ens1#0-3"], 8).with(|p| p.mtu = mtu(1500));
    let b = policy("b", &["ens1#4-7"], 8).with(|p| {
        p.priority = 50;
        p.mtu = mtu(9000);
        p.driver = model::VfDriver::Named(parsed("vfio-pci"));
    });
    insta::assert_snapshot!(text(&rack(), &[a, b]), @r"
    ens1: 8 VFs, mtu 9000
      4-7 res_b vfio-pci mtu 9000
      0-3 res_a netdevice mtu 1500
    ");
}

#[test]
fn parts_of_equal_priority_take_the_larger_count() {
    let a = policy("a", &["ens1#0-3"], 8);
    let b = policy("b", &["ens1#4-5"], 6);
    insta::assert_snapshot!(text(&rack(), &[a, b]), @r"
    ens1: 8 VFs
      4-5 res_b netdevice
      0-3 res_a netdevice
    ");
}

#[test]
fn priorities_are_numbers_and_names_are_text() {
    let [nine, ten] = [9, 10].map(|priority| {
        policy(&format!("p{priority}"), &["ens1"], priority.into()).with(|p| p.priority = priority)
    });
    insta::assert_snapshot!(text(&rack(), &[nine, ten]), @r"
    ens1: 9 VFs
      0-8 res_p9 netdevice
    note: p9.yaml:1: policy p9: on PF ens1 (0000:01:00.0) it takes the place of VFs 0-9 of policy p10, with which it shares VFs
    ");
    let [p9, p10] = ["p9", "p10"].map(|name| policy(name, &["ens1"], 2));
    insta::assert_snapshot!(text(&rack(), &[p9, p10]), @r"
    ens1: 2 VFs
      0-1 res_p9 netdevice
    note: p9.yaml:1: policy p9: on PF ens1 (0000:01:00.0) it takes the place of VFs 0-1 of policy p10, with which it shares VFs
    ");
}

/// The example of the operator's own documentation.
#[test]
fn two_parts_of_different_importance_share_the_larger_mtu() {
    let part = |name: &str, range: &str, priority, mtu| {
        policy(name, &[range], 8).with(|p| {
            p.priority = priority;
            p.mtu = Mtu::new(mtu);
        })
    };
    let a = part("a", "ens1#0-3", 99, 9000);
    let b =
        part("b", "ens1#4-7", 50, 1500).with(|p| p.driver = VfDriver::Named(parsed("vfio-pci")));
    insta::assert_snapshot!(text(&rack(), &[a, b]), @r"
    ens1: 8 VFs, mtu 9000
      4-7 res_b vfio-pci mtu 1500
      0-3 res_a netdevice mtu 9000
    ");
}

#[test]
fn a_name_that_is_not_on_this_host_is_an_error_only_when_none_is() {
    insta::assert_snapshot!(text(&rack(), &[policy("a", &["ens1", "ens9"], 1)]), @r"
    ens1: 1 VFs
      0-0 res_a netdevice
    note: a.yaml:1: policy a: it names PF ens9, which this host does not have
    ");
    let text = text(&rack(), &[policy("a", &["ens8", "ens9"], 1)]);
    assert_eq!(text.matches("error[no-such-pf]").count(), 2, "{text}");
}

#[test]
fn parts_that_overlap_leave_the_later_one() {
    let a = policy("a", &["ens1#0-4"], 10);
    let b = policy("b", &["ens1#4-7"], 8);
    insta::assert_snapshot!(text(&rack(), &[a, b]), @r"
    ens1: 10 VFs
      4-7 res_b netdevice
    note: b.yaml:1: policy b: on PF ens1 (0000:01:00.0) it takes the place of VFs 0-4 of policy a, with which it shares VFs
    ");
}

#[test]
fn one_that_overlaps_two_replaces_only_what_it_shares() {
    let a = policy("a", &["ens1#0-1"], 8);
    let b = policy("b", &["ens1#2-3"], 8);
    let c = policy("c", &["ens1#3-7"], 8).with(|p| p.priority = 1);
    insta::assert_snapshot!(text(&rack(), &[a, b, c]), @r"
    ens1: 8 VFs
      3-7 res_c netdevice
      0-1 res_a netdevice
    note: c.yaml:1: policy c: on PF ens1 (0000:01:00.0) it takes the place of VFs 2-3 of policy b, with which it shares VFs
    ");
}

#[test]
fn two_parts_with_one_resource_leave_the_later_one() {
    let a = policy("a", &["ens1#0-3"], 8);
    let b = policy("b", &["ens1#4-7"], 8).with(|p| p.resource = "res_a".to_owned());
    insta::assert_snapshot!(text(&rack(), &[a, b]), @r"
    ens1: 8 VFs
      4-7 res_a netdevice
    note: b.yaml:1: policy b: on PF ens1 (0000:01:00.0) it takes the place of VFs 0-3 of policy a, which offers resource res_a too
    ");
}

#[test]
fn no_vfs_and_no_selector_contribute_nothing() {
    let zero = policy("a", &["ens1"], 0).with(|p| p.mtu = mtu(9000));
    let nothing = policy("b", &[], 4);
    let default = policy("default", &["ens1"], 4);
    insta::assert_snapshot!(text(&rack(), &[zero, nothing, default]), @r"
    note: a.yaml:1: policy a: numVfs is 0, so it has no effect
    note: b.yaml:1: policy b: it selects no PF of this host
    ");
}

#[test]
fn pf_wide_settings_are_those_of_the_last_policy_even_when_absent() {
    let a = policy("a", &["ens1#0-3"], 8).with(|p| {
        p.eswitch = Some(model::EswitchMode::Switchdev);
        p.externally_managed = true;
    });
    let b = policy("b", &["ens1#4-7"], 8).with(|p| {
        p.priority = 1;
        p.link_type = Some(LinkType::Ethernet);
    });
    let desired = resolve(&rack(), &[a, b], &BTreeMap::new()).desired;
    let pf = desired.pfs.values().next().unwrap();
    assert_eq!((pf.eswitch, pf.link_type), (None, Some(LinkType::Ethernet)));
    assert!(!pf.externally_managed && pf.groups.len() == 2);
}

#[test]
fn an_absent_mtu_is_the_smallest() {
    let with_mtu = |name: &str, range: &str| policy(name, &[range], 8).with(|p| p.mtu = mtu(9000));
    let merged = |a, b| {
        let desired = resolve(&rack(), &[a, b], &BTreeMap::new()).desired;
        let pf = desired.pfs.into_values().next().unwrap();
        (pf.mtu, pf.groups.iter().map(|group| group.mtu).collect())
    };
    // Beside each other, and of equal priority in each other's place.
    let b = policy("b", &["ens1#4-7"], 8).with(|p| p.priority = 5);
    let beside = merged(with_mtu("a", "ens1#0-3"), b);
    assert_eq!(beside, (mtu(9000), vec![None, mtu(9000)]));
    let instead = merged(with_mtu("a", "ens1"), policy("b", &["ens1"], 8));
    assert_eq!(instead, (mtu(9000), vec![None]));
}

#[test]
fn a_policy_that_selects_nothing_still_separates_priorities() {
    // Upstream compares with the policy applied before on the node, not on the PF.
    let a = policy("a", &["ens1"], 16);
    let between = policy("b", &["ens2"], 1).with(|p| p.priority = 50);
    let c = policy("c", &["ens1"], 8).with(|p| p.priority = 50);
    let pfs = resolve(&rack(), &[a, between, c], &BTreeMap::new())
        .desired
        .pfs;
    assert_eq!(pfs[&parsed("0000:01:00.0")].num_vfs, 16);
}

#[test]
fn a_policy_without_vfs_separates_priorities_and_one_for_other_nodes_does_not() {
    let num_vfs = |between: NodePolicy| {
        let a = policy("a", &["ens1"], 16);
        let c = policy("c", &["ens1"], 8).with(|p| p.priority = 50);
        let pfs = resolve(&rack(), &[a, between, c], &BTreeMap::new())
            .desired
            .pfs;
        pfs[&parsed("0000:01:00.0")].num_vfs
    };
    let between = |num_vfs| policy("b", &["ens1"], num_vfs).with(|p| p.priority = 50);
    assert_eq!(
        num_vfs(between(0)),
        16,
        "c is as important as what was before it"
    );
    let elsewhere = between(4).with(|p| {
        p.node_selector.insert("rack".to_owned(), "7".to_owned());
    });
    assert_eq!(num_vfs(elsewhere), 8, "c is more important than a");
    let default = between(4).with(|p| p.name = "default".to_owned());
    assert_eq!(num_vfs(default), 8, "nobody looks at that one");
}

#[test]
fn a_range_behind_an_alternative_name_is_honoured() {
    let a = policy("a", &["enp1s0#2-5"], 8);
    insta::assert_snapshot!(text(&rack(), &[a]), @r"
    ens1: 8 VFs
      2-5 res_a netdevice
    ");
    let both = policy("a", &["enp1s0#2-5", "ens1#0-1"], 8);
    insta::assert_snapshot!(text(&rack(), &[both]), @r"
    ens1: 8 VFs
      0-1 res_a netdevice
    note: a.yaml:1: policy a: enp1s0#2-5 has no effect: an earlier entry is for PF ens1 (0000:01:00.0) too
    ");
}

#[test]
fn every_criterion_must_hold() {
    let by_id = |vendor, device| {
        policy("a", &[], 2).with(|p| {
            p.nic.vendor = Some(vendor);
            p.nic.device = device;
        })
    };
    let mixed = inventory([mlx5("0000:01:00.0", "ens1"), igb("0000:02:00.0", "ens2")]);
    assert!(text(&mixed, &[by_id(0x8086, None)]).starts_with("ens2: 2 VFs"));
    assert!(text(&mixed, &[by_id(0x15b3, Some(0x101d))]).starts_with("ens1: 2 VFs"));
    insta::assert_snapshot!(text(&mixed, &[by_id(0x15b3, Some(0x10c9))]), @"note: a.yaml:1: policy a: it selects no PF of this host");
    let named = by_id(0x15b3, None).with(|p| p.nic.root_devices = vec![parsed("0000:02:00.0")]);
    insta::assert_snapshot!(text(&mixed, &[named]), @r"
    error[pf-not-selected]: a.yaml:1: PF ens2 (0000:02:00.0): policy a names it, but asks for vendor 15b3, and it has 8086
      make the criteria of nicSelector fit one PF, or leave some out
    ");
    let filter = policy("a", &[], 1).with(|p| {
        p.nic.net_filter = Some(model::NetFilter {
            key: "aws/NetworkID".to_owned(),
            value: "x".to_owned(),
        });
    });
    assert!(text(&mixed, &[filter]).contains("selects no PF"));
}

#[test]
fn node_selectors_are_held_against_labels() {
    let a = policy("a", &["ens1"], 1).with(|p| {
        p.node_selector.insert("rack".to_owned(), "7".to_owned());
    });
    insta::assert_snapshot!(text(&rack(), std::slice::from_ref(&a)), @"note: a.yaml:1: policy a: it is for nodes with label rack=7, which this one does not have");
    let labels = BTreeMap::from([("rack".to_owned(), "7".to_owned())]);
    assert_eq!(resolve(&rack(), &[a], &labels).desired.pfs.len(), 1);
}

#[test]
fn what_cannot_be_is_an_error_that_names_the_pf_and_the_way_out() {
    let seen = inventory([
        igb("0000:01:00.0", "ens1").with_vfs(1),
        igb("0000:02:00.0", "ens2").facts(|facts| facts.total_vfs = 0),
        igb("0000:03:00.0", "ens3").function(|function| function.driver = Some(parsed("vfio-pci"))),
        igb("0000:05:00.0", "ens4"),
        igb("0000:06:00.0", "ens5").netdev(|netdev| netdev.max_mtu = Some(9216)),
        igb("0000:04:00.0", "eno1").function(|function| function.role = model::Role::Plain),
    ]);
    let policies = [
        policy("a", &["ens1"], 64),
        policy("b", &["ens2"], 1),
        policy("c", &["eth9", "ens1v0", "eno1", "ens3"], 1),
        policy("d", &[], 1).with(|p| p.nic.root_devices = vec![parsed("0000:09:00.0")]),
        policy("e", &["ens4"], 1).with(|p| p.eswitch = Some(model::EswitchMode::Switchdev)),
        policy("e", &["ens4"], 1),
        policy("f", &["ens5"], 1).with(|p| p.mtu = mtu(9217)),
    ];
    insta::assert_snapshot!(text(&seen, &policies), @r"
    error[policy-name-twice]: e.yaml:1: policy e: the name is that of the policy in e.yaml:1 too
      give each policy its own metadata.name
    error[no-such-pf]: c.yaml:1: PF eth9: policy c names it, and this host has no such PF
      name one of this host's PFs: ens1 (0000:01:00.0), ens2 (0000:02:00.0), ens4 (0000:05:00.0), ens5 (0000:06:00.0)
    error[pf-not-usable]: c.yaml:1: PF ens1v0 (0000:01:10.0): policy c names it, but it is a VF of ens1 (0000:01:00.0)
      name another PF (`virtfn list pf` shows them all)
    error[pf-not-usable]: c.yaml:1: PF eno1 (0000:04:00.0): policy c names it, but it cannot have VFs (no SR-IOV capability)
      name another PF (`virtfn list pf` shows them all)
    error[pf-not-usable]: c.yaml:1: PF ens3 (0000:03:00.0): policy c names it, but it is bound to vfio-pci, so the kernel has no netdev of it
      name another PF (`virtfn list pf` shows them all)
    error[no-such-pf]: d.yaml:1: PF 0000:09:00.0: policy d names it, and this host has no such PF
      name one of this host's PFs: ens1 (0000:01:00.0), ens2 (0000:02:00.0), ens4 (0000:05:00.0), ens5 (0000:06:00.0)
    error[too-many-vfs]: a.yaml:1: PF ens1 (0000:01:00.0): policy a asks for 64 VFs, the device offers 7
      set numVfs to 7 or less
    error[too-many-vfs]: b.yaml:1: PF ens2 (0000:02:00.0): policy b asks for 1 VFs, the device offers 0
      switch SR-IOV on in the device's firmware, then reboot
    error[no-switchdev]: e.yaml:1: PF ens4 (0000:05:00.0): policy e asks for eSwitchMode switchdev, which driver igb does not have
      leave out eSwitchMode, or set it to legacy
    error[mtu-too-large]: f.yaml:1: PF ens5 (0000:06:00.0): policy f asks for mtu 9217, and its driver takes at most 9216
      set mtu to 9216 or less
    ");
    let error = resolve(&seen, &policies[..1], &BTreeMap::new())
        .accept()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a.yaml:1: PF ens1 (0000:01:00.0): policy a asks for 64 VFs, the device offers 7"
    );
    assert_eq!(
        (error.code().as_str(), error.remedy().unwrap().as_str()),
        ("too-many-vfs", "set numVfs to 7 or less")
    );
}

#[test]
fn the_same_way_out_is_told_once() {
    let seen = inventory([igb("0000:01:00.0", "ens1"), igb("0000:02:00.0", "ens2")]);
    let resolved = resolve(
        &seen,
        &[policy("a", &["ens1", "ens2"], 8)],
        &BTreeMap::new(),
    );
    let error = resolved.accept().unwrap_err();
    assert_eq!(error.to_string().lines().count(), 2);
    assert_eq!(error.remedy().unwrap(), "policy a: set numVfs to 7 or less");
}

#[test]
fn the_policy_that_asks_for_too_many_is_named_although_a_later_one_wins() {
    let seen = inventory([igb("0000:01:00.0", "ens1")]);
    let a = policy("a", &["ens1#0-1"], 64);
    let b = policy("b", &["ens1#2-3"], 4);
    let resolved = resolve(&seen, &[a, b], &BTreeMap::new());
    assert!(resolved.desired.pfs.is_empty());
    assert_eq!(resolved.problems[0].policy, "a");
}

#[test]
fn a_pf_of_somebody_else_is_taken_as_it_is() {
    let seen = inventory([mlx5("0000:01:00.0", "ens1").with_vfs(4)]);
    let external = |num_vfs, bytes| {
        let a = policy("a", &["ens1"], num_vfs).with(|p| {
            p.externally_managed = true;
            p.mtu = mtu(bytes);
        });
        text(&seen, &[a])
    };
    assert!(external(4, 1500).starts_with("ens1: 4 VFs, mtu 1500, external"));
    insta::assert_snapshot!(external(5, 9000), @r"
    error[externally-managed]: a.yaml:1: PF ens1 (0000:01:00.0): policy a asks for 5 VFs made by somebody else, and there are 4
      make more VFs where the PF is managed, set numVfs to 4 or less, or leave out externallyManaged
    error[externally-managed]: a.yaml:1: PF ens1 (0000:01:00.0): policy a asks for mtu 9000 of a PF that somebody else looks after, and it has 1500
      raise the MTU where the PF is managed, set mtu to 1500 or less, or leave out externallyManaged
    ");
}

#[test]
fn vfio_without_an_iommu_and_vfs_that_will_not_be_are_noted() {
    let seen = inventory([igb("0000:01:00.0", "ens1").function(|f| f.iommu_group = None)]);
    let a = policy("a", &["ens1#0-3"], 3)
        .with(|p| p.driver = model::VfDriver::Named(parsed("vfio-pci")));
    insta::assert_snapshot!(text(&seen, &[a]), @r"
    ens1: 3 VFs
      0-3 res_a vfio-pci
    note: a.yaml:1: policy a: policy a asks for VFs 0-3 of PF ens1 (0000:01:00.0), which will have only 3
    note: a.yaml:1: policy a: PF ens1 (0000:01:00.0) has no IOMMU group, so no VF of it will bind to vfio-pci: switch the IOMMU on in the firmware, and on Intel start the kernel with intel_iommu=on
    ");
}

#[test]
fn vdpa_devices_need_a_switch_and_the_kernels_driver() {
    let seen = inventory([mlx5("0000:03:00.0", "ens3")]);
    let vhost = |name: &str, pf: &str| {
        policy(name, &[pf], 4).with(|p| {
            p.vdpa = Some(model::VdpaKind::Vhost);
            p.eswitch = Some(EswitchMode::Switchdev);
        })
    };
    let problems = |policies: &[NodePolicy]| {
        let resolved = resolve(&seen, policies, &BTreeMap::new());
        resolved.accept().map(drop).map_err(|error| {
            format!(
                "error[{}]: {error}\n  {}",
                error.code(),
                error.remedy().unwrap()
            )
        })
    };
    assert_eq!(problems(&[vhost("a", "ens3#0-1")]), Ok(()));
    // A later policy has the last word about the mode.
    let legacy = policy("b", &["ens3#2-3"], 4);
    insta::assert_snapshot!(problems(&[vhost("a", "ens3#0-1"), legacy]).unwrap_err(), @r"
    error[no-vdpa]: b.yaml:1: PF ens3 (0000:03:00.0): policy a asks for vDPA devices, and the PF is wanted in legacy mode as policy b decides
      set eSwitchMode to switchdev, or leave out vdpaType
    ");
    let vfio = vhost("a", "ens3").with(|p| {
        p.driver = VfDriver::Named("vfio-pci".parse().unwrap());
    });
    insta::assert_snapshot!(problems(&[vfio]).unwrap_err(), @r"
    error[no-vdpa]: a.yaml:1: PF ens3 (0000:03:00.0): policy a asks for vDPA devices, and their driver is not the kernel's own
      set deviceType to netdevice, or leave out vdpaType
    ");
}

#[test]
fn what_is_not_set_up_is_noted() {
    let a = policy("a", &["ens2"], 1).with(|p| {
        p.link_type = Some(LinkType::InfiniBand);
    });
    insta::assert_snapshot!(text(&rack(), &[a]), @r"
    ens2: 1 VFs
      0-0 res_a netdevice
    note: a.yaml:1: policy a: linkType has no effect: PF ens2 (0000:02:00.0) is ether, and only its firmware can make it infiniband
    ");
}
