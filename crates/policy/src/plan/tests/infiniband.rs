use fixtures::{FakeHost, inventory, mlx5, parsed};
use model::{Guid, GuidPf, GuidPool, GuidRule, Inventory, LinkType, VfIndex};

use super::{PF, held, planned};
use crate::testing::{desired, perform, policy};
use crate::{Circumstances, decide, plan, render};

fn host(vfs: u16) -> FakeHost {
    let pf = mlx5(PF, "ib0").with_vfs(vfs).netdev(|netdev| {
        let address = "00:00:10:29:fe:80:00:00:00:00:00:00:b8:59:9f:03:00:a6:1b:10";
        netdev.link_type = LinkType::InfiniBand;
        netdev.address = Some(address.to_owned());
        netdev.permanent_address = Some(address.to_owned());
    });
    FakeHost::new(inventory([pf]))
}

fn guids(seen: &Inventory) -> Vec<Guid> {
    let vfs = seen.vfs().filter_map(|(_, facts)| facts.state?.node_guid);
    vfs.collect()
}

#[test]
fn new_vfs_get_their_guids_before_their_drivers() {
    let mut host = host(0);
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ib0"], 2)]), @r"
    pf ib0 0000:01:00.0   traffic kept, no drain
      1     give no drivers to new VFs                    was on
      2     have 2 VFs                                    was 0 VFs
      3     vf 0: set node_guid d2:c7:4d:38:98:57:10:46
      4     vf 0: set port_guid d2:c7:4d:38:98:57:10:46
      5     vf 1: set node_guid c6:0b:5e:30:d8:cc:48:bb
      6     vf 1: set port_guid c6:0b:5e:30:d8:cc:48:bb
      7-8   vf 0-1: bind to the kernel's driver
      9-10  vf 0-1: wait for the netdev
      11    give drivers to new VFs                       was off
    ");
    let first = guids(&host.inventory());
    planned(&mut host, &[policy("a", &["ib0"], 3)]);
    assert_eq!(guids(&host.inventory())[..2], first, "GUIDs changed");
}

#[test]
fn a_vf_that_is_there_reads_its_guid_when_its_driver_is_bound_again() {
    let mut host = host(2);
    let held_vf = host
        .inventory()
        .vf_of(parsed(PF), VfIndex(1))
        .unwrap()
        .address;
    host.set_holder(held_vf, Some(held()));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ib0"], 2)]), @r"
    pf ib0 0000:01:00.0   traffic kept, no drain
      1  vf 0: set node_guid d2:c7:4d:38:98:57:10:46   was node_guid 00:00:00:00:00:00:00:00
      2  vf 0: set port_guid d2:c7:4d:38:98:57:10:46   was port_guid 00:00:00:00:00:00:00:00
      3  vf 0: rebind the driver
      4  vf 0: wait for the netdev
    ");
}

#[test]
fn the_administrators_file_decides_and_must_have_enough() {
    let mut host = host(0);
    let wanted = desired(&host.inventory(), &[policy("a", &["ib0"], 2)]);
    let first: Guid = parsed("02:00:00:00:00:aa:00:00");
    let rule = |last: &str| GuidRule {
        pf: GuidPf::Address(parsed(PF)),
        pool: GuidPool::Range {
            first,
            last: parsed(last),
        },
    };
    let known = |rule| Circumstances {
        guids: Some(vec![rule]),
        ..Circumstances::default()
    };
    let enough = known(rule("02:00:00:00:00:aa:00:01"));
    let decision = decide(&host.inventory(), &wanted, &enough);
    assert_eq!(decision.guid_errors, []);
    perform(&mut host, &decision.plan);
    let given = guids(&host.inventory());
    assert_eq!(given, [first, parsed("02:00:00:00:00:aa:00:01")]);
    assert!(decide(&host.inventory(), &wanted, &enough).is_empty());
    // Without the file what was given stays.
    assert_eq!(render(&plan(&host.inventory(), &wanted)), "nothing to do\n");
    let few = decide(
        &host.inventory(),
        &wanted,
        &known(rule("02:00:00:00:00:aa:00:00")),
    );
    insta::assert_snapshot!(few.guid_errors[0], @"PF ib0 (0000:01:00.0): the file of GUIDs has 1 for its VFs, and none for vf 1");
}
