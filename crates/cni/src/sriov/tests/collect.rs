//! What GC may take, and what DEL gives back, when little can be told.

use fixtures::parsed;
use model::Netns;
use serde_json::{Value, json};

use super::world::*;
use crate::call::Answer;

fn gc(valid: &Value) -> Value {
    config(&json!({"cni.dev/valid-attachments": valid}))
}

#[test]
fn gc_leaves_a_container_alone_whose_interface_has_a_dash_in_its_name() {
    let mut world = World::new();
    let mut add = world.call("ADD", "c1", "/run/netns/blue", &config(&json!({})));
    add.environment.interface = Some(parsed("net-1"));
    world.serve(&add).unwrap();
    for valid in [json!([{"containerID": "c1", "ifname": "net-1"}]), json!([])] {
        world.make("GC", "c1", "", &gc(&valid));
        assert!(matches!(world.netns_of_vf(), Netns::Other { .. }));
        assert!(world.files().of_vf(parsed(VF)).is_some(), "{valid}");
    }
}

#[test]
fn gc_leaves_a_container_alone_whose_namespace_lives_without_its_path() {
    let mut world = World::new();
    world.add(&config(&json!({})));
    world.lose_path("/run/netns/blue");
    world.make("GC", "c1", "", &gc(&json!([])));
    assert!(matches!(world.netns_of_vf(), Netns::Other { .. }));
}

#[test]
fn gc_that_cannot_read_the_records_says_so_and_leaves_the_files() {
    let mut world = World::new();
    world.add(&config(&json!({})));
    let ledger = world.dir.path().join("lib/ledger");
    std::fs::rename(&ledger, world.dir.path().join("elsewhere")).unwrap();
    std::fs::write(&ledger, "").unwrap();
    let error = world.refused("GC", "c1", &gc(&json!([])));
    assert!(
        error.msg.contains("records of who has which VF"),
        "{error:?}"
    );
    assert!(world.files().of_vf(parsed(VF)).is_some());
}

#[test]
fn del_gives_back_the_addresses_of_a_network_that_was_changed_since() {
    let mut world = World::new();
    let before = world.seen();
    for now in [
        json!({"ipam": {}}),
        json!({"name": "red"}),
        json!({"ipam": {"type": "gone"}}),
    ] {
        world.add(&config(&json!({"vlan": 7})));
        world.ipam_calls();
        let call = world.call("DEL", "c1", "/run/netns/blue", &config(&now));
        let _an_ipam_plugin_may_be_missing = world.serve(&call);
        let calls = world.ipam_calls();
        assert!(
            calls.contains(&"DEL c1 net1 /run/netns/blue".to_owned()),
            "{now}: {calls:?}"
        );
        world.assert_free(&before, &now.to_string());
    }
}

#[test]
fn del_calls_the_ipam_plugin_once_when_the_network_is_as_it_was() {
    let mut world = World::new();
    world.add(&config(&json!({"vlan": 7})));
    world.ipam_calls();
    let later = config(&json!({"vlan": 8, "prevResult": {"cniVersion": "1.1.0"}}));
    assert_eq!(
        world.make("DEL", "c1", "/run/netns/blue", &later),
        Answer::Silent
    );
    assert_eq!(world.ipam_calls(), ["DEL c1 net1 /run/netns/blue"]);
}

#[test]
fn an_add_that_fails_leaves_the_file_of_another_device_of_the_same_name() {
    let mut world = World::new();
    let other = "0000:01:10.2";
    for device in [VF, other] {
        world.host.perform_all(&[model::Step::Bind {
            function: parsed(device),
            to: model::BindTarget::Driver(parsed("vfio-pci")),
        }]);
    }
    world.add(&config(&json!({})));
    world.install_ipam("{}", 1);
    let again = config(&json!({"deviceID": other}));
    let call = world.call("ADD", "c1", "/run/netns/blue", &again);
    world.serve(&call).unwrap_err();
    world.make("GC", "x", "", &gc(&json!([])));
    assert!(world.files().of_vf(parsed(VF)).is_some());
    let error = world.refused("ADD", "c2", &config(&json!({})));
    assert!(error.details.starts_with("vf-in-use: "), "{error:?}");
}

#[test]
fn check_knows_a_namespace_by_any_path() {
    let mut world = World::new();
    let mut config = config(&json!({}));
    config["prevResult"] = world.add(&config);
    world.also_at("/run/netns/blue", "/var/run/netns/blue");
    world.make("CHECK", "c1", "/var/run/netns/blue", &config);
}
