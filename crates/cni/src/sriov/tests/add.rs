//! ADD and DEL when all goes well, and CHECK, STATUS and GC beside them.

use fixtures::parsed;
use model::{Netns, VfAttr};
use serde_json::json;

use super::world::*;
use crate::call::Answer;

#[test]
fn a_container_gets_a_vf_and_gives_it_back() {
    let mut world = World::new();
    let before = world.seen();
    let config = config(&json!({"vlan": 100, "mac": "02-00-00-00-00-42", "trust": "on"}));
    let result = world.add(&config);
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{
                "name": "net1", "mac": "02:00:00:00:00:42", "mtu": 1500,
                "sandbox": "/run/netns/blue", "pciID": VF,
            }],
            "ips": [{"interface": 0, "address": "192.0.2.7/24", "gateway": "192.0.2.1"}],
            "routes": [{"dst": "0.0.0.0/0"}],
        })
    );
    assert!(matches!(world.netns_of_vf(), Netns::Other { .. }));
    assert_eq!(
        world.files().owner(parsed(VF)).as_deref(),
        Some("/run/netns/blue")
    );
    let (name, given) = world.addressed.last().unwrap();
    assert_eq!(name.as_str(), "net1");
    assert_eq!(given.routes[0].via.unwrap().to_string(), "192.0.2.1");
    world.del(&config);
    world.assert_free(&before, "after DEL");
    assert_eq!(world.files().owner(parsed(VF)), None);
    assert!(world.files().of_vf(parsed(VF)).is_none());
    assert_eq!(
        world.ipam_calls(),
        ["ADD c1 net1 /run/netns/blue", "DEL c1 net1 /run/netns/blue"]
    );
    world.del(&config);
    world.assert_free(&before, "after a second DEL");
}

#[test]
fn a_device_of_user_space_is_set_but_not_moved() {
    let mut world = World::new();
    world.host.perform_all(&[model::Step::Bind {
        function: parsed(VF),
        to: model::BindTarget::Driver(parsed("vfio-pci")),
    }]);
    let before = world.seen();
    let config = config(&json!({"vlan": 7, "runtimeConfig": {"mac": "02:00:00:00:00:07"}}));
    let result = world.add(&config);
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:07");
    assert_eq!(result["interfaces"][0]["mtu"], 1500, "that of the PF");
    assert_eq!(result["ips"][0]["interface"], 0);
    assert!(world.addressed.is_empty());
    let check = json!({"prevResult": result});
    let mut checked = config.clone();
    checked["prevResult"] = check["prevResult"].clone();
    let call = world.call("CHECK", "c1", "/run/netns/blue", &checked);
    world.serve(&call).unwrap();
    world.del(&config);
    world.assert_free(&before, "after DEL");
}

#[test]
fn no_vlan_is_not_vlan_0() {
    let mut world = World::new();
    let tag = model::VlanTag {
        id: model::VlanId::new(7).unwrap(),
        pcp: model::Pcp::default(),
        proto: model::VlanProto::default(),
    };
    world.host.perform_all(&[model::Step::SetVf {
        pf: parsed(PF),
        vf: model::VfIndex(0),
        attr: VfAttr::Vlan(Some(tag)),
    }]);
    let vlan = |world: &World| {
        let seen = world.host.inventory();
        seen.get(parsed(VF))
            .unwrap()
            .vf()
            .unwrap()
            .state
            .unwrap()
            .vlan
            .flatten()
    };
    world.add(&config(&json!({})));
    assert_eq!(vlan(&world), Some(tag), "absent leaves it alone");
    world.del(&config(&json!({})));
    world.add(&config(&json!({"vlan": 0})));
    assert_eq!(vlan(&world), None, "0 clears it");
    world.del(&config(&json!({"vlan": 0})));
    assert_eq!(vlan(&world), Some(tag), "DEL brings it back");
}

#[test]
fn a_result_is_in_the_version_of_the_network() {
    for (version, mtu) in [
        ("0.3.1", false),
        ("0.4.0", false),
        ("1.0.0", true),
        ("1.1.0", true),
    ] {
        let mut world = World::new();
        let result = world.add(&config(&json!({"cniVersion": version})));
        assert_eq!(result["cniVersion"], version);
        assert_eq!(
            result["interfaces"][0].get("mtu").is_some(),
            mtu,
            "{version}"
        );
    }
    let mut world = World::new();
    let result = world.add(&config(&json!({"cniVersion": "0.2.0"})));
    assert_eq!(result["ip4"]["ip"], "192.0.2.7/24");
}

#[test]
fn check_passes_after_a_good_add_and_sees_what_changed() {
    let mut world = World::new();
    let mut config = config(&json!({"vlan": 100}));
    config["prevResult"] = world.add(&config);
    let call = world.call("CHECK", "c1", "/run/netns/blue", &config);
    assert_eq!(world.serve(&call).unwrap(), Answer::Silent);
    world.host.perform_all(&[model::Step::SetVf {
        pf: parsed(PF),
        vf: model::VfIndex(0),
        attr: VfAttr::Vlan(None),
    }]);
    let failure = world.serve(&call).unwrap_err();
    assert_eq!(failure.code().as_str(), "attachment-changed");
    assert!(failure.message().contains("vlan"), "{}", failure.message());
    config["vlan"] = json!(0);
    config["prevResult"] = json!({"ips": [{"address": "198.51.100.7/24"}]});
    world.make("CHECK", "c1", "/run/netns/blue", &config);
    config["prevResult"] = json!([]);
    let error = world.refused("CHECK", "c1", &config);
    assert!(error.msg.starts_with("prevResult of CHECK: "), "{error:?}");
    assert!(error.details.contains("what ADD returned"), "{error:?}");
    let other = json!({"vlan": 0, "prevResult": {}});
    let other = self::config(&other);
    let other = world.call("CHECK", "c2", "/run/netns/blue", &other);
    assert!(
        world
            .serve(&other)
            .unwrap_err()
            .message()
            .contains("belongs to")
    );
}

#[test]
fn status_tells_when_no_add_could_be_served() {
    let mut world = World::new();
    let mut config = config(&json!({}));
    config.as_object_mut().unwrap().remove("deviceID");
    let call = world.call("STATUS", "c1", "", &config);
    world.serve(&call).unwrap();
    assert_eq!(world.ipam_calls(), ["STATUS"]);
    world.host.perform_all(&[model::Step::SetUp {
        function: parsed(PF),
        netns: model::NetnsTarget::Host,
        up: false,
    }]);
    let failure = world.serve(&call).unwrap_err();
    assert_eq!(object(&failure).code.0, 50);
    assert_eq!(failure.code().as_str(), "pf-down");
}

#[test]
fn gc_takes_back_what_is_deserted_and_nothing_else() {
    let mut world = World::new();
    let before = world.seen();
    let gc = |valid: serde_json::Value| config(&json!({"cni.dev/valid-attachments": valid}));
    world.add(&config(&json!({"vlan": 100})));
    world.ipam_calls();
    // It lives, whatever the runtime says.
    let call = world.call("GC", "c1", "", &gc(json!([])));
    world.serve(&call).unwrap();
    assert!(matches!(world.netns_of_vf(), Netns::Other { .. }));
    world.destroy("/run/netns/blue");
    // The runtime still has it.
    let valid = world.call(
        "GC",
        "c1",
        "",
        &gc(json!([{"containerID": "c1", "ifname": "net1"}])),
    );
    world.serve(&valid).unwrap();
    assert_ne!(world.seen(), before);
    world.ipam_calls();
    world.serve(&call).unwrap();
    world.assert_free(&before, "after GC");
    assert_eq!(world.ipam_calls(), ["DEL c1 net1 /run/netns/blue", "GC"]);
}
