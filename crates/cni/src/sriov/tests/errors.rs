//! What is refused, how, and that nothing is changed by it.

use fixtures::parsed;
use serde_json::json;

use super::world::*;

#[test]
fn bad_networks_are_refused_before_anything_is_changed() {
    let mut world = World::new();
    let before = world.seen();
    for (more, number, code) in [
        (json!({"deviceID": ""}), 7, "bad-config"),
        (json!({"deviceID": "0000:01:10.9x"}), 7, "bad-config"),
        (json!({"deviceID": "0000:09:10.0"}), 7, "no-such-vf"),
        (json!({"deviceID": PF}), 7, "not-a-vf"),
        (json!({"vlan": 4095}), 7, "bad-config"),
        (json!({"vlanQoS": 3}), 7, "bad-config"),
        (json!({"mac": "01:00:5e:00:00:01"}), 7, "bad-config"),
        (json!({"mac": "00:00:00:00:00:00"}), 7, "bad-config"),
        (json!({"min_tx_rate": 9, "max_tx_rate": 3}), 7, "bad-config"),
        (json!({"link_state": "enable"}), 2, "not-supported"),
        (
            json!({"ipam": {"type": "no-such-plugin"}}),
            7,
            "ipam-missing",
        ),
        (json!({"ipam": {"type": "../../bin/sh"}}), 7, "bad-config"),
        (
            json!({"cniVersion": "0.2.0", "ipam": {}}),
            7,
            "result-without-address",
        ),
    ] {
        let error = world.refused("ADD", "c1", &config(&more));
        assert_eq!(error.code.0, number, "{more}: {error:?}");
        assert!(
            error.details.starts_with(&format!("{code}: ")),
            "{more}: {error:?}"
        );
        world.assert_free(&before, &more.to_string());
    }
    assert!(world.ipam_calls().is_empty());
}

#[test]
fn the_own_namespace_is_refused() {
    let mut world = World::new();
    let before = world.seen();
    for command in ["ADD", "DEL"] {
        let call = world.call(command, "c1", "/proc/self/ns/net", &config(&json!({})));
        let error = object(&world.serve(&call).unwrap_err());
        assert_eq!(error.code.0, 8, "{error:?}");
    }
    let call = world.call("ADD", "c1", "/run/netns/none", &config(&json!({})));
    let error = object(&world.serve(&call).unwrap_err());
    assert_eq!(error.code.0, 8, "{error:?}");
    world.assert_free(&before, "nothing was changed");
}

#[test]
fn a_vf_of_another_container_is_worth_another_try() {
    let mut world = World::new();
    world.add(&config(&json!({})));
    let held = world.seen();
    world.ipam_calls();
    let error = world.refused("ADD", "c2", &config(&json!({"vlan": 7})));
    assert_eq!(error.code.0, 11, "{error:?}");
    assert!(error.msg.contains("in use by cni c1"), "{error:?}");
    assert_eq!(world.seen(), held);
    assert!(world.ipam_calls().is_empty());
}

#[test]
fn who_gets_a_vf_whose_former_addresses_cannot_be_given_back_is_told_the_way_out() {
    let mut world = World::new();
    world.add(&config(&json!({})));
    world.destroy("/run/netns/blue");
    let ipam = "#!/bin/sh\necho '{\"code\": 100, \"msg\": \"no API server\"}'; exit 1\n";
    std::fs::write(world.dir.path().join("bin/test-ipam"), ipam).unwrap();
    let plain = config(&json!({"ipam": {}}));
    let error = world.refused("ADD", "c2", &plain);
    let attempt = "give back the addresses of cni c1 as net1, who had VF 0000:01:10.0: ";
    assert!(error.msg.starts_with(attempt), "{error:?}");
    assert!(error.msg.contains("no API server"), "{error:?}");
    let (_, rest) = error.details.split_once("remove ").unwrap();
    std::fs::remove_file(rest.split_once(": ").unwrap().0).unwrap();
    let add = world.call("ADD", "c2", "/run/netns/red", &plain);
    world.serve(&add).unwrap();
}

#[test]
fn a_second_add_is_refused_and_leaves_the_first_alone() {
    let mut world = World::new();
    let config = config(&json!({"vlan": 7}));
    world.add(&config);
    let held = world.seen();
    world.ipam_calls();
    let call = world.call("ADD", "c1", "/run/netns/blue", &config);
    let error = object(&world.serve(&call).unwrap_err());
    assert!(error.details.starts_with("vf-in-use: "), "{error:?}");
    assert_eq!(world.seen(), held);
    assert!(world.ipam_calls().is_empty());
}

#[test]
fn a_late_del_leaves_the_vf_to_its_new_holder() {
    let mut world = World::new();
    world.add(&config(&json!({})));
    world.destroy("/run/netns/blue");
    let red = world.call("ADD", "c2", "/run/netns/red", &config(&json!({"vlan": 9})));
    world.serve(&red).unwrap();
    let held = world.seen();
    world.ipam_calls();
    world.del(&config(&json!({})));
    assert_eq!(world.seen(), held);
    assert_eq!(world.ipam_calls(), ["DEL c1 net1 /run/netns/blue"]);
    assert_eq!(
        world.files().owner(parsed(VF)).as_deref(),
        Some("/run/netns/red")
    );
}

#[test]
fn what_ipam_refuses_is_taken_back_and_said() {
    let mut world = World::new();
    let before = world.seen();
    world.install_ipam(
        r#"{"code": 11, "msg": "no addresses left", "details": "range is full"}"#,
        1,
    );
    let error = world.refused("ADD", "c1", &config(&json!({"vlan": 7})));
    assert_eq!(error.code.0, 11);
    assert!(error.msg.contains("no addresses left"), "{error:?}");
    world.assert_free(&before, "after the refusal");
    assert_eq!(
        world.ipam_calls(),
        ["ADD c1 net1 /run/netns/red", "DEL c1 net1 /run/netns/red"]
    );
    world.install_ipam(r#"{"cniVersion": "1.0.0", "ips": []}"#, 0);
    let error = world.refused("ADD", "c1", &config(&json!({})));
    assert!(error.msg.contains("missing IP config"), "{error:?}");
    world.assert_free(&before, "after no address");
}

#[test]
fn an_address_that_is_taken_undoes_the_add() {
    let mut world = World::new();
    let before = world.seen();
    world.fails_to_address = true;
    let error = world.refused("ADD", "c1", &config(&json!({"vlan": 7})));
    assert!(error.details.starts_with("duplicate-address"), "{error:?}");
    world.assert_free(&before, "after the refusal");
}

#[test]
fn a_del_without_its_ipam_plugin_still_frees_the_vf() {
    let mut world = World::new();
    let before = world.seen();
    world.add(&config(&json!({"vlan": 7})));
    std::fs::remove_file(world.dir.path().join("bin/test-ipam")).unwrap();
    let call = world.call("DEL", "c1", "/run/netns/blue", &config(&json!({})));
    let error = object(&world.serve(&call).unwrap_err());
    assert!(error.details.starts_with("ipam-missing"), "{error:?}");
    assert_eq!(world.seen(), before);
}

#[test]
fn a_vf_can_be_given_back_without_naming_it() {
    let mut world = World::new();
    let before = world.seen();
    world.add(&config(&json!({"vlan": 7})));
    let holder = world.files().of_vf(parsed(VF)).unwrap().holder;
    world.files().forget(&holder).unwrap();
    let mut config = config(&json!({}));
    config.as_object_mut().unwrap().remove("deviceID");
    let call = world.call("DEL", "c1", "", &config);
    world.serve(&call).unwrap();
    world.assert_free(&before, "found in the ledger");
}

#[test]
fn a_plugin_that_gives_vfs_is_not_called_for_addresses() {
    let mut world = World::new();
    let before = world.seen();
    let itself = json!({"ipam": {"type": "sriov"}, "cni.dev/valid-attachments": []});
    for command in ["ADD", "CHECK", "GC", "STATUS"] {
        let mut config = config(&itself);
        config["prevResult"] = json!({});
        let error = world.refused(command, "c1", &config);
        assert!(error.msg.contains("no IPAM plugin"), "{error:?}");
    }
    // Nothing was ever reserved.
    world.del(&config(&itself));
    world.assert_free(&before, "after all");
}

#[test]
fn what_an_ipam_plugin_printed_is_told_of_it_by_name() {
    let mut world = World::new();
    let before = world.seen();
    for answer in [
        "garbage",
        r#"{"cniVersion": "9.9.9"}"#,
        r#"{"ips": [{"address": "x"}]}"#,
    ] {
        world.install_ipam(answer, 0);
        let error = world.refused("ADD", "c1", &config(&json!({})));
        assert!(
            error.msg.starts_with("answer of IPAM plugin test-ipam: "),
            "{error:?}"
        );
        assert!(
            error.details.contains("see what the IPAM plugin prints"),
            "{error:?}"
        );
        world.assert_free(&before, answer);
    }
}

#[test]
fn gc_goes_without_an_ipam_plugin_that_is_older_than_gc() {
    let mut world = World::new();
    let gc = config(&json!({"cni.dev/valid-attachments": []}));
    let path = world.dir.path().join("bin/test-ipam");
    for (number, is_old) in [(1, true), (4, true), (100, false)] {
        let answer = format!(r#"{{"code": {number}, "msg": "unknown CNI_COMMAND: GC"}}"#);
        std::fs::write(&path, format!("#!/bin/sh\necho '{answer}'; exit 1\n")).unwrap();
        let call = world.call("GC", "x", "", &gc);
        assert_eq!(world.serve(&call).is_ok(), is_old, "{number}");
    }
}

#[test]
fn status_tells_when_upstreams_files_cannot_be_written() {
    let mut world = World::new();
    std::fs::create_dir(world.dir.path().join("cni")).unwrap();
    std::fs::write(world.dir.path().join("cni/sriov"), "").unwrap();
    let error = world.refused("STATUS", "c1", &config(&json!({})));
    assert_eq!(error.code.0, 50, "{error:?}");
    assert!(
        error.details.starts_with("state-not-accessible: "),
        "{error:?}"
    );
}

#[test]
fn an_ipam_plugin_that_is_just_being_copied_is_waited_for() {
    let mut world = World::new();
    let path = world.dir.path().join("bin/test-ipam");
    let writer = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let copying = std::thread::spawn(move || {
        std::thread::park_timeout(std::time::Duration::from_millis(300));
        drop(writer);
    });
    world.add(&config(&json!({})));
    copying.join().unwrap();
}
