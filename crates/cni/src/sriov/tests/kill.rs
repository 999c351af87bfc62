//! Killed at every checkpoint: whoever comes next brings all back.

use fixtures::parsed;
use model::Inventory;
use serde_json::json;

use super::world::*;

/// More checkpoints than an ADD has; reaching it means that the counting is broken.
const MOST: usize = 60;

fn bind_to_vfio(world: &mut World) {
    world.host.perform_all(&[model::Step::Bind {
        function: parsed(VF),
        to: model::BindTarget::Driver(parsed("vfio-pci")),
    }]);
}

/// Kills an ADD at each of its checkpoints, lets `next` come, and asserts that nothing is left.
fn killed_at_each(is_device: bool, next: impl Fn(&mut World)) {
    let config = config(&json!({"vlan": 100, "mac": "02:00:00:00:00:42", "trust": "on"}));
    for at in 1..MOST {
        let mut world = World::new();
        if is_device {
            bind_to_vfio(&mut world);
        }
        let before: Inventory = world.seen();
        let call = world.call("ADD", "c1", "/run/netns/blue", &config);
        if world.serve_dying(&call, at).is_some() {
            assert!(at > 8, "only {} checkpoints were passed", at - 1);
            return;
        }
        let reserved = world.ipam_calls().len();
        next(&mut world);
        world.assert_free(&before, &format!("killed at {at}"));
        let released = world
            .ipam_calls()
            .iter()
            .filter(|call| call.starts_with("DEL c1"))
            .count();
        assert!(
            released >= reserved,
            "killed at {at}: {reserved} addresses, {released} released"
        );
    }
    panic!("an ADD passed {MOST} checkpoints");
}

fn killed(next: impl Fn(&mut World)) {
    killed_at_each(false, &next);
    killed_at_each(true, &next);
}

#[test]
fn a_killed_add_is_undone_by_del() {
    killed(|world| world.del(&config(&json!({}))));
}

#[test]
fn a_killed_add_is_undone_by_del_after_its_namespace_went() {
    killed(|world| {
        world.destroy("/run/netns/blue");
        let call = world.call("DEL", "c1", "", &config(&json!({})));
        world.serve(&call).unwrap();
    });
}

#[test]
fn a_killed_add_is_collected_by_gc() {
    killed(|world| {
        world.destroy("/run/netns/blue");
        let gc = config(&json!({"cni.dev/valid-attachments": []}));
        let call = world.call("GC", "c1", "", &gc);
        world.serve(&call).unwrap();
    });
}

#[test]
fn a_killed_add_does_not_hinder_the_next() {
    killed(|world| {
        world.destroy("/run/netns/blue");
        let config = config(&json!({"vlan": 5}));
        for command in ["ADD", "DEL"] {
            let call = world.call(command, "c2", "/run/netns/red", &config);
            world.serve(&call).unwrap();
        }
    });
}

#[test]
fn a_killed_add_may_be_called_again() {
    killed(|world| {
        let config = config(&json!({"vlan": 5}));
        let call = world.call("ADD", "c1", "/run/netns/blue", &config);
        if let Err(failure) = world.serve(&call) {
            // It had come to its end, and only nobody heard of it.
            assert_eq!(failure.code().as_str(), "vf-in-use");
        }
        world.del(&config);
    });
}

#[test]
fn a_killed_add_is_void_after_a_reboot() {
    let config = config(&json!({"vlan": 100}));
    for at in 1..MOST {
        let mut world = World::new();
        let call = world.call("ADD", "c1", "/run/netns/blue", &config);
        if world.serve_dying(&call, at).is_some() {
            return;
        }
        let fresh = World::new();
        world.boot = "boot-2";
        world.booted_at = u64::MAX;
        world.host = fresh.host.clone();
        world.revive("green");
        let before = world.seen();
        let reserved = world.ipam_calls().len();
        for command in ["ADD", "DEL"] {
            let call = world.call(command, "c2", "/run/netns/green", &config);
            world.serve(&call).unwrap();
        }
        world.assert_free(&before, &format!("killed at {at}"));
        let released = world
            .ipam_calls()
            .iter()
            .filter(|call| call.starts_with("DEL c1"))
            .count();
        assert!(released >= reserved, "killed at {at}");
    }
    panic!("an ADD passed {MOST} checkpoints");
}

/// Kills a DEL at each of its checkpoints, lets `next` come, and asserts that nothing is left.
fn killed_del_at_each(is_device: bool, next: impl Fn(&mut World)) {
    let config = config(&json!({"vlan": 100, "mac": "02:00:00:00:00:42"}));
    for at in 1..MOST {
        let mut world = World::new();
        if is_device {
            bind_to_vfio(&mut world);
        }
        let before = world.seen();
        world.add(&config);
        let call = world.call("DEL", "c1", "/run/netns/blue", &config);
        if world.serve_dying(&call, at).is_some() {
            assert!(at > 3);
            return;
        }
        next(&mut world);
        world.assert_free(&before, &format!("killed at {at}"));
        let released = world.ipam_calls();
        assert!(
            released.iter().any(|call| call.starts_with("DEL c1")),
            "killed at {at}: the address is still reserved"
        );
    }
    panic!("a DEL passed {MOST} checkpoints");
}

fn killed_del(next: impl Fn(&mut World)) {
    killed_del_at_each(false, &next);
    killed_del_at_each(true, &next);
}

#[test]
fn a_killed_del_is_finished_by_the_next() {
    killed_del(|world| world.del(&config(&json!({}))));
}

#[test]
fn a_killed_del_is_finished_by_gc() {
    killed_del(|world| {
        world.destroy("/run/netns/blue");
        let gc = config(&json!({"cni.dev/valid-attachments": []}));
        let call = world.call("GC", "c1", "", &gc);
        world.serve(&call).unwrap();
    });
}

#[test]
fn a_killed_del_is_finished_by_the_next_add() {
    killed_del(|world| {
        world.destroy("/run/netns/blue");
        for command in ["ADD", "DEL"] {
            let config = config(&json!({"vlan": 5}));
            let call = world.call(command, "c2", "/run/netns/red", &config);
            world.serve(&call).unwrap();
        }
    });
}

#[test]
fn a_killed_del_is_void_after_a_reboot() {
    // VFs are made anew, on their kernel driver: for a device that is not how it was before.
    killed_del_at_each(false, |world| {
        world.boot = "boot-2";
        world.booted_at = u64::MAX;
        world.host = World::new().host;
        world.revive("green");
        for command in ["ADD", "DEL"] {
            let config = config(&json!({"vlan": 5}));
            let call = world.call(command, "c2", "/run/netns/green", &config);
            world.serve(&call).unwrap();
        }
    });
}
