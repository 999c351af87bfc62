use fixtures::{FakeHost, igb, inventory, mlx5, parsed};
use model::{Guid, Inventory, MacAddr, NodePolicy, RdmaDevice};

use super::{PF, held, planned};
use crate::testing::{With, desired, policy};
use crate::{plan, render};

fn rdma(policy: &mut NodePolicy) {
    policy.is_rdma = true;
}

fn macs(seen: &Inventory) -> Vec<MacAddr> {
    let vfs = seen.vfs().filter_map(|(_, facts)| facts.state?.mac);
    vfs.collect()
}

#[test]
fn vfs_for_rdma_get_macs_that_last_before_their_drivers() {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1")]));
    insta::assert_snapshot!(planned(&mut host, &[policy("a", &["ens1"], 2).with(rdma)]), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1    give no drivers to new VFs            was on
      2    have 2 VFs                            was 0 VFs
      3-4  vf 0-1: set their macs
      5-6  vf 0-1: bind to the kernel's driver
      7-8  vf 0-1: wait for the netdev
      9    give drivers to new VFs               was off
    ");
    let first = macs(&host.inventory());
    assert!(first.iter().all(|mac| !mac.is_group() && !mac.is_zero()));
    // These are out in the world.
    let texts: Vec<_> = first.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["fe:ba:1c:90:ad:48", "86:08:46:0c:74:2f"]);
    planned(&mut host, &[policy("a", &["ens1"], 3).with(rdma)]);
    assert_eq!(macs(&host.inventory())[..2], first, "MACs changed");
    let mut igb = FakeHost::new(inventory([igb(PF, "ens1")]));
    let plan = planned(&mut igb, &[policy("a", &["ens1"], 2).with(rdma)]);
    assert!(!plan.contains("mac"), "{plan}");
}

#[test]
fn a_vf_whose_guid_is_zero_reads_its_mac_unless_somebody_holds_it() {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1").with_vfs(3)]));
    host.set_holder(parsed("0000:01:00.3"), Some(held()));
    let mut seen = host.inventory();
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    for vf in ["0000:01:00.2", "0000:01:00.3", "0000:01:00.4"] {
        let vf = seen.functions.get_mut(&parsed(vf)).unwrap();
        vf.rdma = vec![RdmaDevice {
            name: "mlx5_2".to_owned(),
            node_guid: Some(Guid::new(0)),
            char_devices: Vec::new(),
            partition_key: None,
        }];
        if let model::Role::Vf(facts) = &mut vf.role
            && facts.index == Some(model::VfIndex(2))
        {
            facts.state.as_mut().unwrap().mac = Some(mac);
        }
    }
    let wanted = desired(&seen, &[policy("a", &["ens1"], 3).with(rdma)]);
    insta::assert_snapshot!(render(&plan(&seen, &wanted)), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  vf 0: set mac fe:ba:1c:90:ad:48   was mac none
      2  vf 0: rebind the driver
      3  vf 2: rebind the driver
      4  vf 0: wait for the netdev
      5  vf 2: wait for the netdev
    ");
}
