//! VFs that upstream's plugin gave away.

use api::cni::{CacheFile as _, SriovCache};
use fixtures::parsed;
use model::{Step, VfAttr, VfIndex, VlanId, VlanTag};
use serde_json::json;

use super::world::*;
use crate::call::holder;
use crate::upstream::Kept;

/// Does what upstream's ADD of container `c1` does.
fn given_by_upstream() -> World {
    let mut world = World::new();
    let netns = world.netns_target("/run/netns/blue");
    let tag = VlanTag {
        id: VlanId::new(100).unwrap(),
        pcp: model::Pcp::default(),
        proto: model::VlanProto::default(),
    };
    let own = world.vf_netdev();
    let (pf, vf) = (parsed(PF), VfIndex(0));
    world.host.perform_all(&[Step::SetVf {
        pf,
        vf,
        attr: VfAttr::Vlan(Some(tag)),
    }]);
    world.hand_over(netns);
    let cache = json!({
        "cniVersion": "1.0.0", "name": "blue", "type": "sriov", "ipam": {"type": "test-ipam"},
        "deviceID": VF, "Master": "ens1f0", "VFID": 0, "MAC": "", "MTU": 1500, "vlan": 100,
        "vlanQoS": 0, "vlanProto": "802.1q", "min_tx_rate": null, "max_tx_rate": null,
        "runtimeConfig": {},
        "OrigVfState": {"HostIFName": own.name.to_string(), "SpoofChk": true, "Trust": false,
            "AdminMAC": "00:00:00:00:00:00", "EffectiveMAC": own.mac().unwrap().to_string(),
            "Vlan": 0, "VlanQoS": 0, "VlanProto": 33024, "MinTxRate": 0, "MaxTxRate": 0,
            "LinkState": 0, "MTU": 1500},
    });
    let cache = SriovCache::parse(cache.to_string().as_bytes()).unwrap();
    let files = world.files();
    let holder = holder(&"c1".parse().unwrap(), &parsed("net1"));
    files.keep(&holder, &Kept::Sriov(cache)).unwrap();
    files.set_owner(parsed(VF), "/run/netns/blue").unwrap();
    world
}

#[test]
fn a_pod_that_upstream_started_is_ended_by_virtfn() {
    let before = World::new().seen();
    let mut world = given_by_upstream();
    world.del(&config(&json!({})));
    world.assert_free(&before, "after DEL");
    assert_eq!(world.files().owner(parsed(VF)), None);
    assert!(world.files().of_vf(parsed(VF)).is_none());
}

#[test]
fn a_pod_that_upstream_started_and_whose_namespace_went_is_ended_too() {
    let before = World::new().seen();
    let mut world = given_by_upstream();
    world.destroy("/run/netns/blue");
    let call = world.call("DEL", "c1", "", &config(&json!({})));
    world.serve(&call).unwrap();
    world.assert_free(&before, "after DEL");
}

#[test]
fn a_vf_that_upstream_gave_away_is_in_use() {
    let mut world = given_by_upstream();
    let held = world.seen();
    let error = world.refused("ADD", "c2", &config(&json!({})));
    assert_eq!(error.code.0, 11, "{error:?}");
    assert!(error.msg.contains("already allocated: cni c1"), "{error:?}");
    assert_eq!(world.seen(), held);
}

#[test]
fn a_vf_that_upstream_left_is_restored_before_it_is_given_again() {
    let before = World::new().seen();
    let mut world = given_by_upstream();
    world.destroy("/run/netns/blue");
    for command in ["ADD", "DEL"] {
        let call = world.call(
            command,
            "c2",
            "/run/netns/red",
            &config(&json!({"vlan": 9})),
        );
        world.serve(&call).unwrap();
    }
    world.assert_free(&before, "after the next container");
}

#[test]
fn what_upstream_left_before_a_reboot_is_void() {
    let mut world = given_by_upstream();
    world.booted_at = u64::MAX;
    world.host = World::new().host;
    world.destroy("/run/netns/blue");
    let before = world.seen();
    let call = world.call("DEL", "c1", "/run/netns/blue", &config(&json!({})));
    world.serve(&call).unwrap();
    world.assert_free(&before, "after DEL");
}

#[test]
fn a_late_del_of_upstreams_pod_leaves_the_vf_to_its_new_holder() {
    let mut world = given_by_upstream();
    world
        .files()
        .set_owner(parsed(VF), "/run/netns/red")
        .unwrap();
    let held = world.seen();
    world.del(&config(&json!({})));
    assert_eq!(world.seen(), held);
    assert_eq!(
        world.files().owner(parsed(VF)).as_deref(),
        Some("/run/netns/red")
    );
}

#[test]
fn check_passes_for_a_pod_that_upstream_started() {
    let mut world = given_by_upstream();
    let config = config(&json!({"vlan": 100, "prevResult": {
        "cniVersion": "1.1.0", "interfaces": [{"name": "net1"}], "ips": [],
    }}));
    let call = world.call("CHECK", "c1", "/run/netns/blue", &config);
    world.serve(&call).unwrap();
}
