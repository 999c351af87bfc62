//! Claims about the `rdma` plugin, on a machine that is played.

use fixtures::parsed;
use model::NetnsTarget;
use serde_json::{Value, json};

use crate::call::Answer;
use crate::sriov::tests::world::*;

const GUID: &str = "00:02:c9:03:00:2f:b1:10";

fn rdma(more: &Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "blue", "type": "rdma", "deviceID": VF,
        "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "net1"}], "x": 1},
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// The plugin before it.
fn first() -> Value {
    let mut config = config(&json!({"args": {"cni": {"guid": GUID}}}));
    config["type"] = "ib-sriov".into();
    config
}

fn device(world: &World) -> String {
    let seen = world.host.inventory();
    seen.get(parsed(VF)).unwrap().rdma[0].name.clone()
}

fn inode(world: &World, path: &str) -> Option<u64> {
    match world.netns_target(path) {
        NetnsTarget::Host => None,
        NetnsTarget::Path { inode, .. } => Some(inode),
    }
}

#[test]
fn the_device_follows_its_vf_and_the_result_is_passed_on() {
    let mut world = World::infiniband();
    let before = world.seen();
    let device = device(&world);
    world.add(&first());
    let result = world.add(&rdma(&json!({})));
    assert_eq!(result, rdma(&json!({}))["prevResult"]);
    assert_eq!(
        world.host.rdma_netns(&device),
        inode(&world, "/run/netns/blue")
    );
    let call = world.call("CHECK", "c1", "/run/netns/blue", &rdma(&json!({})));
    assert_eq!(world.serve(&call).unwrap(), Answer::Silent);
    world.del(&rdma(&json!({})));
    assert_eq!(world.host.rdma_netns(&device), None);
    let failure = world.serve(&call).unwrap_err();
    assert_eq!(failure.code().as_str(), "attachment-changed");
    world.del(&first());
    world.assert_free(&before, "after both");
    world.del(&rdma(&json!({})));
}

#[test]
fn whatever_takes_the_vf_back_takes_the_device_back() {
    let mut world = World::infiniband();
    let before = world.seen();
    let device = device(&world);
    world.add(&first());
    world.add(&rdma(&json!({})));
    // DEL of `rdma` never came, and its file was lost.
    world.del(&first());
    assert_eq!(world.host.rdma_netns(&device), None);
    world.assert_free(&before, "after DEL of the first");
}

#[test]
fn a_device_of_another_plugins_vf_is_moved_by_its_file_alone() {
    let mut world = World::infiniband();
    let before = world.seen();
    let device = device(&world);
    world.add(&rdma(&json!({})));
    assert_eq!(
        world.host.rdma_netns(&device),
        inode(&world, "/run/netns/blue")
    );
    let file = world.dir.path().join("cni/rdma/blue-c1-net1");
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["sandboxRdmaDevName"], device.as_str());
    world.del(&rdma(&json!({})));
    assert!(!file.exists());
    assert_eq!(world.seen(), before);
    // With a namespace that is gone: the kernel brings it home.
    world.add(&rdma(&json!({})));
    world.destroy("/run/netns/blue");
    world.del(&rdma(&json!({})));
    assert!(!file.exists());
    assert_eq!(world.seen(), before);
}

#[test]
fn a_late_del_leaves_the_device_to_its_new_holder() {
    let mut world = World::infiniband();
    let device = device(&world);
    world.add(&rdma(&json!({})));
    world.destroy("/run/netns/blue");
    // Another container gets the VF, and a namespace of the same path.
    world.revive("blue");
    let add = world.call("ADD", "c2", "/run/netns/blue", &rdma(&json!({})));
    world.serve(&add).unwrap();
    world.del(&rdma(&json!({})));
    assert_eq!(
        world.host.rdma_netns(&device),
        inode(&world, "/run/netns/blue")
    );
    let del = world.call("DEL", "c2", "/run/netns/blue", &rdma(&json!({})));
    world.serve(&del).unwrap();
    assert_eq!(world.host.rdma_netns(&device), None);
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_changed() {
    let mut world = World::infiniband();
    let before = world.seen();
    for (more, number, code) in [
        (json!({"prevResult": null}), 7, "not-chained"),
        (json!({"deviceID": "../x"}), 7, "bad-config"),
        (json!({"deviceID": "0000:7f:00.0"}), 7, "no-such-vf"),
        (json!({"deviceID": PF}), 7, "no-rdma"),
        (json!({"deviceID": "mlx5_core.sf.9"}), 7, "no-rdma"),
        (json!({"deviceID": null}), 7, "no-rdma"),
    ] {
        let error = world.refused("ADD", "c1", &rdma(&more));
        assert_eq!(error.code.0, number, "{more}: {error:?}");
        assert!(error.details.starts_with(code), "{more}: {error:?}");
        assert_eq!(world.seen(), before, "{more}");
    }
    assert!(!world.dir.path().join("cni/rdma/blue-c1-net1").exists());
    let mut seen = world.host.inventory();
    seen.rdma_netns = Some(model::RdmaNetnsMode::Shared);
    let mut shared = World::on(seen);
    let error = shared.refused("ADD", "c1", &rdma(&json!({})));
    assert!(error.details.starts_with("rdma-not-exclusive"), "{error:?}");
    let status = shared.call("STATUS", "c1", "", &rdma(&json!({})));
    assert_eq!(object(&shared.serve(&status).unwrap_err()).code.0, 50);
    let status = world.call("STATUS", "c1", "", &rdma(&json!({})));
    world.serve(&status).unwrap();
}

#[test]
fn gc_removes_the_files_of_devices_that_are_home() {
    let mut world = World::infiniband();
    world.add(&rdma(&json!({})));
    let file = world.dir.path().join("cni/rdma/blue-c1-net1");
    let gc = |valid: Value| rdma(&json!({"cni.dev/valid-attachments": valid}));
    let none = world.call("GC", "c1", "", &gc(json!([])));
    world.serve(&none).unwrap();
    assert!(file.exists(), "the device is with the container");
    world.destroy("/run/netns/blue");
    let valid = gc(json!([{"containerID": "c1", "ifname": "net1"}]));
    let valid = world.call("GC", "c1", "", &valid);
    world.serve(&valid).unwrap();
    assert!(file.exists(), "the runtime still has it");
    world.serve(&none).unwrap();
    assert!(!file.exists());
}
