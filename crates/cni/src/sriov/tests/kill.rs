//! Killed at every checkpoint: whoever comes next brings all back.
//!
//! Each way to give a VF is a chain of plugins, and its last plugin is the one that is killed: `sriov`
//! with an interface and with a device, `ib-sriov` with the RDMA device, and `rdma` behind `ib-sriov`.

use fixtures::parsed;
use model::Inventory;
use serde_json::{Value, json};

use super::world::*;

/// More checkpoints than a call has; reaching it means that the counting is broken.
const MOST: usize = 60;

const BLUE: &str = "/run/netns/blue";
const RED: &str = "/run/netns/red";
const GREEN: &str = "/run/netns/green";

/// Plugins that a runtime calls one after the other, and the machine for them.
struct Chain {
    name: &'static str,
    world: fn() -> World,
    /// Their configurations, in the order of ADD.
    plugins: Vec<Value>,
    /// So many checkpoints an ADD of the last one has at least.
    least: usize,
}

fn chains() -> [Chain; 4] {
    let of = |plugin: &str, more: Value| {
        let mut config = config(&more);
        config["type"] = plugin.into();
        config
    };
    let vlan = json!({"vlan": 100, "mac": "02:00:00:00:00:42", "trust": "on"});
    let guid = json!({"cni": {"guid": "00:02:c9:03:00:2f:b1:10"}});
    let result = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "net1"}]});
    [
        Chain {
            name: "sriov",
            world: World::new,
            plugins: vec![of("sriov", vlan.clone())],
            least: 8,
        },
        Chain {
            name: "sriov of a device",
            world: || {
                let mut world = World::new();
                world.host.perform_all(&[model::Step::Bind {
                    function: parsed(VF),
                    to: model::BindTarget::Driver(parsed("vfio-pci")),
                }]);
                world
            },
            plugins: vec![of("sriov", vlan)],
            least: 8,
        },
        Chain {
            name: "ib-sriov",
            world: World::infiniband,
            plugins: vec![of(
                "ib-sriov",
                json!({"args": guid, "rdmaIsolation": true, "link_state": "enable"}),
            )],
            least: 8,
        },
        Chain {
            name: "rdma",
            world: World::infiniband,
            plugins: vec![
                of("ib-sriov", json!({"args": guid})),
                of("rdma", json!({"prevResult": result, "ipam": {}})),
            ],
            least: 1,
        },
    ]
}

impl Chain {
    fn last(&self) -> &Value {
        self.plugins.last().unwrap()
    }

    fn add(&self, world: &mut World, container: &str, netns: &str) {
        for config in &self.plugins {
            world.make("ADD", container, netns, config);
        }
    }

    fn del(&self, world: &mut World, container: &str, netns: &str) {
        for config in self.plugins.iter().rev() {
            world.make("DEL", container, netns, config);
        }
    }

    fn collect(&self, world: &mut World) {
        for config in &self.plugins {
            let mut config = config.clone();
            config["cni.dev/valid-attachments"] = json!([]);
            world.make("GC", "c1", "", &config);
        }
    }

    /// Lets the host boot, and whoever makes VFs and binds them do so again.
    fn reboot(&self, world: &mut World) {
        world.boot = "boot-2";
        world.booted_at = u64::MAX;
        world.host = (self.world)().host;
        world.revive("green");
    }
}

/// Kills an ADD of each chain at each of its checkpoints, lets `next` come, and asserts that nothing is
/// left.
fn killed_add(next: impl Fn(&mut World, &Chain)) {
    for chain in chains() {
        killed_at_each(&chain, chain.least, |world, at| {
            let first = chain.plugins.split_last().unwrap().1;
            for config in first {
                world.make("ADD", "c1", BLUE, config);
            }
            let call = world.call("ADD", "c1", BLUE, chain.last());
            if world.serve_dying(&call, at).is_some() {
                return false;
            }
            next(world, &chain);
            true
        });
    }
}

/// Does the same with a DEL.
fn killed_del(next: impl Fn(&mut World, &Chain)) {
    for chain in chains() {
        killed_at_each(&chain, 1, |world, at| {
            chain.add(world, "c1", BLUE);
            let call = world.call("DEL", "c1", BLUE, chain.last());
            if world.serve_dying(&call, at).is_some() {
                return false;
            }
            next(world, &chain);
            true
        });
    }
}

/// Counts up to the checkpoint that is not reached any more: `was_killed` tells so.
fn killed_at_each(chain: &Chain, least: usize, was_killed: impl Fn(&mut World, usize) -> bool) {
    for at in 1..MOST {
        let mut world = (chain.world)();
        let before: Inventory = world.seen();
        if !was_killed(&mut world, at) {
            assert!(at > least, "{}: only {} checkpoints", chain.name, at - 1);
            return;
        }
        let why = format!("{} killed at {at}", chain.name);
        world.assert_free(&before, &why);
        let calls = world.ipam_calls();
        let of = |command: &str| {
            calls
                .iter()
                .filter(|call| call.starts_with(command))
                .count()
        };
        let (reserved, released) = (of("ADD c1"), of("DEL c1"));
        assert!(released >= reserved, "{why}: {calls:?}");
    }
    panic!("{} passed {MOST} checkpoints", chain.name);
}

#[test]
fn a_killed_add_is_undone_by_del() {
    killed_add(|world, chain| chain.del(world, "c1", BLUE));
}

#[test]
fn a_killed_add_is_undone_by_del_after_its_namespace_went() {
    killed_add(|world, chain| {
        world.destroy(BLUE);
        chain.del(world, "c1", "");
    });
}

#[test]
fn a_killed_add_is_collected_by_gc() {
    killed_add(|world, chain| {
        world.destroy(BLUE);
        chain.collect(world);
    });
}

#[test]
fn a_killed_add_does_not_hinder_the_next() {
    killed_add(|world, chain| {
        world.destroy(BLUE);
        chain.add(world, "c2", RED);
        chain.del(world, "c2", RED);
    });
}

#[test]
fn a_killed_add_may_be_called_again() {
    killed_add(|world, chain| {
        for config in &chain.plugins {
            let call = world.call("ADD", "c1", BLUE, config);
            if let Err(failure) = world.serve(&call) {
                // It had come to its end, and only nobody heard of it.
                let code = failure.code();
                assert!(["vf-in-use", "no-rdma"].contains(&code.as_str()), "{code}");
            }
        }
        chain.del(world, "c1", BLUE);
    });
}

#[test]
fn a_killed_add_is_void_after_a_reboot() {
    killed_add(|world, chain| {
        chain.reboot(world);
        chain.add(world, "c2", GREEN);
        chain.del(world, "c2", GREEN);
    });
}

#[test]
fn a_killed_del_is_finished_by_the_next() {
    killed_del(|world, chain| chain.del(world, "c1", BLUE));
}

#[test]
fn a_killed_del_is_finished_by_gc() {
    killed_del(|world, chain| {
        world.destroy(BLUE);
        chain.collect(world);
    });
}

#[test]
fn a_killed_del_is_finished_by_the_next_add() {
    killed_del(|world, chain| {
        world.destroy(BLUE);
        chain.add(world, "c2", RED);
        chain.del(world, "c2", RED);
    });
}

#[test]
fn a_killed_del_is_void_after_a_reboot() {
    killed_del(|world, chain| {
        chain.reboot(world);
        chain.add(world, "c2", GREEN);
        chain.del(world, "c2", GREEN);
    });
}

/// Upstream's files are written in place, after the VF was given, and so a kill can cut each of them short.
#[test]
fn an_add_killed_while_it_wrote_upstreams_files_is_mended_by_whoever_comes_next() {
    type Next = fn(&mut World, &Value);
    let nexts: [(&str, Next); 3] = [
        ("DEL", |world, config| world.del(config)),
        ("ADD again", |world, config| {
            world.add(config);
            world.del(config);
        }),
        ("GC", |world, config| {
            let mut none = config.clone();
            none["cni.dev/valid-attachments"] = json!([]);
            let call = world.call("GC", "", "", &none);
            world.serve(&call).unwrap();
        }),
    ];
    // The owner is written first, and the configuration after it.
    for (owner, cache) in [
        ("", None),
        (BLUE, Some("")),
        (BLUE, Some("{\"cniVersion\":")),
    ] {
        for (next, do_next) in nexts {
            let mut world = World::new();
            let before = world.seen();
            let config = config(&json!({"vlan": 100}));
            world.add(&config);
            let dir = world.dir.path().join("cni/sriov");
            std::fs::write(dir.join("pci").join(VF), owner).unwrap();
            match cache {
                Some(text) => std::fs::write(dir.join("c1-net1"), text).unwrap(),
                None => std::fs::remove_file(dir.join("c1-net1")).unwrap(),
            }
            do_next(&mut world, &config);
            let why = format!("{next} after owner {owner:?} and configuration {cache:?}");
            world.assert_free(&before, &why);
        }
    }
}
