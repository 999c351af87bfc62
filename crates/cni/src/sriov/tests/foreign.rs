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
    give_as_upstream(&mut world, "c1", "/run/netns/blue");
    world
}

fn give_as_upstream(world: &mut World, container: &str, path: &str) {
    let netns = world.netns_target(path);
    let tag = VlanTag {
        id: VlanId::new(100).unwrap(),
        pcp: model::Pcp::default(),
        proto: model::VlanProto::default(),
    };
    let own = world.vf_netdev();
    let vlan_before = vlan(world).map_or(0, |tag| tag.id.get());
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
            "Vlan": vlan_before, "VlanQoS": 0, "VlanProto": 33024, "MinTxRate": 0, "MaxTxRate": 0,
            "LinkState": 0, "MTU": 1500},
    });
    let cache = SriovCache::parse(cache.to_string().as_bytes()).unwrap();
    let files = world.files();
    let holder = holder(&container.parse().unwrap(), &parsed("net1"));
    files.keep(&holder, &Kept::Sriov(cache)).unwrap();
    files.set_owner(parsed(VF), path).unwrap();
}

fn vlan(world: &World) -> Option<VlanTag> {
    let seen = world.host.inventory();
    let facts = seen.get(parsed(VF)).unwrap().vf().unwrap();
    facts.state.unwrap().vlan.flatten()
}

/// A VF that virtfn gave to `c1`, whose namespace went without a DEL, and upstream then to `c2`.
fn given_by_upstream_after_virtfn() -> World {
    let mut world = World::new();
    world.revive("green");
    world.add(&config(&json!({"vlan": 5})));
    world.destroy("/run/netns/blue");
    give_as_upstream(&mut world, "c2", "/run/netns/red");
    world
}

#[test]
fn what_virtfn_had_left_comes_home_with_upstreams_pod() {
    let before = World::new().seen();
    let mut world = given_by_upstream_after_virtfn();
    let now = json!({"vlan": 100, "prevResult": {"interfaces": [{"name": "net1"}]}});
    world.make("CHECK", "c2", "/run/netns/red", &config(&now));
    world.make("DEL", "c2", "/run/netns/red", &config(&json!({})));
    world.make("DEL", "c1", "", &config(&json!({})));
    world.assert_free(&before, "after both");
}

#[test]
fn what_virtfn_had_left_comes_home_when_upstreams_pod_is_gone_too() {
    let before = World::new().seen();
    let mut world = given_by_upstream_after_virtfn();
    world.destroy("/run/netns/red");
    for command in ["ADD", "DEL"] {
        world.make(command, "c3", "/run/netns/green", &config(&json!({})));
    }
    world.make("DEL", "c1", "", &config(&json!({})));
    world.assert_free(&before, "after the next container");
}

#[test]
fn a_file_that_virtfn_left_does_not_free_what_upstream_gave_since() {
    let mut world = World::new();
    world.host.perform_all(&[Step::Bind {
        function: parsed(VF),
        to: model::BindTarget::Driver(parsed("vfio-pci")),
    }]);
    world.revive("green");
    world.add(&config(&json!({})));
    world.destroy("/run/netns/blue");
    let files = world.files();
    let mut given = files.of_vf(parsed(VF)).unwrap();
    let Kept::Sriov(cache) = &mut given.kept else {
        panic!("{given:?}");
    };
    cache.virtfn_boot = None;
    let holder = holder(&"c2".parse().unwrap(), &parsed("net1"));
    files.keep(&holder, &given.kept).unwrap();
    files.set_owner(parsed(VF), "/run/netns/red").unwrap();
    let call = world.call("ADD", "c3", "/run/netns/green", &config(&json!({})));
    let error = object(&world.serve(&call).unwrap_err());
    assert!(error.msg.contains("already allocated: cni c2"), "{error:?}");
    assert!(files.owner(parsed(VF)).is_some());
}

#[test]
fn gc_takes_back_what_upstream_gave_to_a_container_that_is_gone() {
    let before = World::new().seen();
    let mut world = given_by_upstream();
    let gc = |valid| config(&json!({"cni.dev/valid-attachments": valid}));
    let held = world.seen();
    world.make("GC", "x", "", &gc(json!([])));
    assert_eq!(world.seen(), held, "it lives");
    world.destroy("/run/netns/blue");
    world.make(
        "GC",
        "x",
        "",
        &gc(json!([{"containerID": "c1", "ifname": "net1"}])),
    );
    assert_ne!(world.seen(), before, "the runtime has it still");
    world.make("GC", "x", "", &gc(json!([])));
    world.assert_free(&before, "after GC");
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

/// A VF that virtfn gave to `c1`, and whose record somebody removed.
fn given_and_lost() -> World {
    let mut world = World::new();
    world.add(&config(&json!({"vlan": 7, "mac": "02:00:00:00:00:42"})));
    std::fs::remove_dir_all(world.dir.path().join("lib")).unwrap();
    world
}

#[test]
fn a_vf_whose_record_is_lost_comes_home_with_del() {
    let before = World::new().seen();
    let mut world = given_and_lost();
    world.del(&config(&json!({})));
    world.assert_free(&before, "after DEL");
}

#[test]
fn a_vf_whose_record_and_container_are_lost_comes_home() {
    let before = World::new().seen();
    for command in ["DEL", "ADD"] {
        let mut world = given_and_lost();
        world.destroy("/run/netns/blue");
        if command == "ADD" {
            world.make("ADD", "c2", "/run/netns/red", &config(&json!({})));
            world.make("DEL", "c2", "/run/netns/red", &config(&json!({})));
        }
        world.make("DEL", "c1", "", &config(&json!({})));
        world.assert_free(&before, command);
    }
}

#[test]
fn what_virtfn_gave_before_a_reboot_is_void_without_its_record() {
    let mut world = given_and_lost();
    world.boot = "boot-2";
    world.host = World::new().host;
    world.destroy("/run/netns/blue");
    let before = world.seen();
    world.make("DEL", "c1", "/run/netns/blue", &config(&json!({})));
    world.assert_free(&before, "after DEL");
}

#[test]
fn a_clock_that_was_set_since_does_not_lose_a_vf() {
    let before = World::new().seen();
    let mut world = given_by_upstream();
    world.booted_at = u64::MAX;
    world.del(&config(&json!({})));
    world.assert_free(&before, "given by upstream");
    let mut world = given_and_lost();
    world.booted_at = u64::MAX;
    world.del(&config(&json!({})));
    world.assert_free(&before, "given by virtfn");
}
