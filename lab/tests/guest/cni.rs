//! The CNI plugin on the real drivers: ADD, DEL, CHECK, STATUS, GC.

use std::fs;

use serde_json::{Value, json};

use crate::cni_support::*;
use crate::support::*;

const BLUE: &str = "/run/netns/blue";
const RED: &str = "/run/netns/red";

#[test]
fn a_container_gets_an_interface_and_gives_it_back() {
    let machine = Machine::with_vfs(2);
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    let blue = Namespace::new("blue");
    let config = with(
        &sriov(&json!({
            "vlan": 100, "vlanQoS": 3, "mac": "02:00:00:00:00:42",
            "trust": "on", "spoofchk": "off",
        })),
        &host_local(),
    );
    let result = call("ADD", "c1", BLUE, &config).make().ok();
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:42");
    assert_eq!(result["interfaces"][0]["sandbox"], BLUE);
    assert_eq!(result["interfaces"][0]["pciID"], VF0);
    assert_eq!(result["ips"][0]["address"], "192.0.2.2/24");
    let shown = blue.ip(&["address", "show", "dev", "net1"]);
    for text in ["192.0.2.2/24", "02:00:00:00:00:42", "mtu 1500", ",UP"] {
        assert!(shown.contains(text), "{text} is not in {shown}");
    }
    let routes = blue.ip(&["route"]);
    assert!(routes.contains("198.51.100.0/24 via 192.0.2.1"), "{routes}");
    let vf = &machine.kernel_vfs()[0];
    assert_eq!(
        (&vf["vlan_list"][0]["vlan"], &vf["vlan_list"][0]["qos"]),
        (&json!(100), &json!(3))
    );
    assert_eq!(
        (&vf["trust"], &vf["spoofchk"]),
        (&json!(true), &json!(false))
    );

    let checked = with(&config, &json!({"prevResult": result}));
    call("CHECK", "c1", BLUE, &checked).make().ok();
    assert_eq!(reserved(), ["192.0.2.2"]);
    call("DEL", "c1", BLUE, &checked).make().ok();
    assert_eq!(machine.settled(), before);
    assert_eq!(machine.kernel_vfs(), kernel);
    assert_nothing_is_kept("after DEL");
    call("DEL", "c1", BLUE, &checked).make().ok();
    assert_eq!(machine.settled(), before, "after a second DEL");
}

#[test]
fn a_container_gets_a_device() {
    let machine = Machine::with_vfs(2);
    bind(VF0, "vfio-pci");
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    let _blue = Namespace::new("blue");
    let config = with(
        &sriov(&json!({"vlan": 7, "mac": "02:00:00:00:00:07"})),
        &host_local(),
    );
    let result = call("ADD", "c1", BLUE, &config).make().ok();
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:07");
    assert_eq!(result["ips"][0]["interface"], 0);
    let vf = &machine.kernel_vfs()[0];
    assert_eq!(vf["address"], "02:00:00:00:00:07");
    assert_eq!(vf["vlan_list"][0]["vlan"], 7);
    let checked = with(&config, &json!({"prevResult": result}));
    call("CHECK", "c1", BLUE, &checked).make().ok();
    // Upstream's plugin fails here, with a namespace that lives.
    call("DEL", "c1", BLUE, &checked).make().ok();
    assert_eq!(machine.settled(), before);
    assert_eq!(machine.kernel_vfs(), kernel);
    assert_nothing_is_kept("after DEL");
}

#[test]
fn pods_on_one_vlan_talk_over_both_families_and_others_do_not() {
    let _machine = Machine::with_vfs(3);
    let pods = [("a", 0, 100), ("b", 1, 100), ("c", 2, 200)];
    let _namespaces = pods.map(|(name, ..)| Namespace::new(name));
    for (name, index, vlan) in pods {
        let vf = fs::canonicalize(pci(PF0).join(format!("virtfn{index}"))).expect("a VF");
        let vf = vf
            .file_name()
            .and_then(|name| name.to_str())
            .expect("an address");
        let config = sriov(&json!({
            "cniVersion": "1.0.0", "deviceID": vf, "vlan": vlan,
            "ipam": {"type": "static", "addresses": [
                {"address": format!("192.0.2.{}/24", index + 1)},
                {"address": format!("2001:db8::{}/64", index + 1)},
            ]},
        }));
        call("ADD", name, &format!("/run/netns/{name}"), &config)
            .make()
            .ok();
    }
    eventually("IPv4 on VLAN 100", || pings("a", "192.0.2.2"));
    // The kernel looks for duplicates first, for a second or two.
    eventually("IPv6 on VLAN 100", || pings("a", "2001:db8::2"));
    assert!(!pings("a", "192.0.2.3"), "from VLAN 100 to VLAN 200");
}

#[test]
fn a_namespace_that_went_first_is_no_reason_to_lose_the_vf() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let config = with(
        &sriov(&json!({"vlan": 9, "mac": "02:00:00:00:00:09"})),
        &host_local(),
    );
    // A runtime names the path that it knew, or none.
    for netns in [BLUE, ""] {
        let blue = Namespace::new("blue");
        call("ADD", "c1", BLUE, &config).make().ok();
        drop(blue);
        call("DEL", "c1", netns, &config).make().ok();
        assert_eq!(machine.settled(), before);
        assert_nothing_is_kept("after DEL");
    }
}

#[test]
fn a_late_del_leaves_the_vf_to_its_new_holder() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let config = with(&sriov(&json!({"vlan": 9})), &host_local());
    let blue = Namespace::new("blue");
    call("ADD", "c1", BLUE, &config).make().ok();
    drop(blue);
    let _red = Namespace::new("red");
    call("ADD", "c2", RED, &config).make().ok();
    let held = machine.settled();
    // The path of the first one leads to another namespace by now.
    let _blue = Namespace::new("blue");
    call("DEL", "c1", BLUE, &config).make().ok();
    assert_eq!(machine.settled(), held);
    assert_eq!(reserved().len(), 1);
    call("DEL", "c2", RED, &config).make().ok();
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after both");
}

#[test]
fn a_second_add_changes_nothing() {
    let machine = Machine::with_vfs(2);
    let _namespaces = [Namespace::new("blue"), Namespace::new("red")];
    let config = with(&sriov(&json!({"vlan": 9})), &host_local());
    call("ADD", "c1", BLUE, &config).make().ok();
    let held = machine.settled();
    call("ADD", "c1", BLUE, &config)
        .make()
        .refused(11, "vf-in-use");
    call("ADD", "c2", RED, &config)
        .make()
        .refused(11, "vf-in-use");
    assert_eq!(machine.settled(), held);
    assert_eq!(reserved().len(), 1);
}

#[test]
fn seven_adds_at_once_all_succeed() {
    let machine = Machine::with_vfs(7);
    let before = machine.settled();
    let names = ["p0", "p1", "p2", "p3", "p4", "p5", "p6"];
    let namespaces = names.map(Namespace::new);
    let calls = |command: &str| -> Vec<Value> {
        let children: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let vf = fs::canonicalize(pci(PF0).join(format!("virtfn{index}"))).expect("a VF");
                let vf = vf
                    .file_name()
                    .and_then(|name| name.to_str())
                    .expect("an address");
                let more = json!({
                    "deviceID": vf, "vlan": 100 + index,
                    "mac": format!("02:00:00:00:01:0{index}"),
                });
                let config = with(&sriov(&more), &host_local());
                call(command, name, &format!("/run/netns/{name}"), &config).start()
            })
            .collect();
        children
            .into_iter()
            .map(|child| {
                let output = child.wait_with_output().expect("the plugin ends");
                Answer { output }.ok()
            })
            .collect()
    };
    let results = calls("ADD");
    let mut addresses: Vec<_> = results
        .iter()
        .map(|r| r["ips"][0]["address"].to_string())
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 7);
    for (index, netns) in namespaces.iter().enumerate() {
        let shown = netns.ip(&["link", "show", "dev", "net1"]);
        assert!(
            shown.contains(&format!("02:00:00:00:01:0{index}")),
            "{shown}"
        );
        assert_eq!(
            machine.kernel_vfs()[index]["vlan_list"][0]["vlan"],
            100 + index
        );
    }
    calls("DEL");
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after seven DELs");
}

#[test]
fn a_foreign_interface_of_that_name_is_left_alone() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let blue = Namespace::new("blue");
    blue.ip(&["link", "add", "net1", "type", "dummy"]);
    call(
        "ADD",
        "c1",
        BLUE,
        &with(&sriov(&json!({"vlan": 9})), &host_local()),
    )
    .make()
    .refused(7, "interface-name-taken");
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after the refusal");
    assert!(
        blue.ip(&["-d", "link", "show", "dev", "net1"])
            .contains("dummy")
    );
}

#[test]
fn check_sees_what_was_changed_behind_its_back() {
    let _machine = Machine::with_vfs(1);
    let blue = Namespace::new("blue");
    let config = with(&sriov(&json!({"vlan": 9})), &host_local());
    let result = call("ADD", "c1", BLUE, &config).make().ok();
    let checked = with(&config, &json!({"prevResult": result}));
    call("CHECK", "c1", BLUE, &checked).make().ok();
    run("ip", &["link", "set", &netdev(PF0), "vf", "0", "vlan", "8"]);
    call("CHECK", "c1", BLUE, &checked)
        .make()
        .refused(999, "attachment-changed");
    run("ip", &["link", "set", &netdev(PF0), "vf", "0", "vlan", "9"]);
    blue.ip(&["address", "flush", "dev", "net1"]);
    call("CHECK", "c1", BLUE, &checked)
        .make()
        .refused(999, "attachment-changed");
}

#[test]
fn status_says_whether_a_vf_could_be_given() {
    let _machine = Machine::with_vfs(1);
    let status = json!({"cniVersion": "1.1.0", "name": "blue", "type": "sriov"});
    call("STATUS", "", "", &status).make().ok();
    run("ip", &["link", "set", &netdev(PF0), "down"]);
    call("STATUS", "", "", &status)
        .make()
        .refused(50, "pf-down");
    set_num_vfs(PF0, 0);
    call("STATUS", "", "", &status).make().refused(50, "no-vfs");
}

#[test]
fn gc_takes_back_what_its_namespace_left() {
    let machine = Machine::with_vfs(2);
    let before = machine.settled();
    let config = with(&sriov(&json!({"vlan": 9})), &host_local());
    let blue = Namespace::new("blue");
    call("ADD", "c1", BLUE, &config).make().ok();
    let gc = gc();
    call("GC", "", "", &gc).make().ok();
    assert_eq!(machine.vf(VF0)["netdev"]["netns"]["path"], BLUE, "it lives");
    drop(blue);
    eventually("the kernel to bring the VF back", || {
        netdev_or_none(VF0).is_some()
    });
    call("GC", "", "", &gc).make().ok();
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after GC");
}

#[test]
fn fifty_rounds_leave_the_vf_as_it_was() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    let _blue = Namespace::new("blue");
    let name = netdev(VF0);
    for round in 0..50 {
        // udev adds the former name as an alternative one on many hosts.
        let config = sriov(&json!({"mac": format!("02:00:00:00:02:{round:02x}")}));
        run(
            "ip",
            &["link", "property", "add", "dev", &name, "altname", "net1"],
        );
        call("ADD", "c1", BLUE, &config).make().ok();
        call("DEL", "c1", BLUE, &config).make().ok();
        assert_eq!(netdev(VF0), name, "round {round}");
    }
    assert_eq!(machine.settled(), before);
    assert_eq!(machine.kernel_vfs(), kernel);
}

#[test]
fn a_pod_that_upstreams_plugin_started_is_ended() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    let blue = Namespace::new("blue");
    let own = machine.vf(VF0);
    // What upstream's ADD does, and what it writes.
    let name = netdev(VF0);
    run(
        "ip",
        &["link", "set", &netdev(PF0), "vf", "0", "vlan", "100"],
    );
    run("ip", &["link", "set", &name, "netns", "blue"]);
    blue.ip(&["link", "set", &name, "name", "net1", "up"]);
    let cache = json!({
        "cniVersion": "1.1.0", "name": "blue", "type": "sriov", "deviceID": VF0,
        "Master": netdev(PF0), "VFID": 0, "MAC": "", "MTU": 1500, "vlan": 100, "vlanQoS": 0,
        "vlanProto": "802.1q", "min_tx_rate": null, "max_tx_rate": null, "runtimeConfig": {},
        "OrigVfState": {"HostIFName": name, "SpoofChk": true, "Trust": false,
            "AdminMAC": "00:00:00:00:00:00", "EffectiveMAC": own["netdev"]["mac"], "Vlan": 0,
            "VlanQoS": 0, "VlanProto": 33024, "MinTxRate": 0, "MaxTxRate": 0, "LinkState": 0,
            "MTU": 1500},
    });
    fs::create_dir_all("/var/lib/cni/sriov/pci").expect("/var/lib/cni is writable");
    fs::write("/var/lib/cni/sriov/c1-net1", cache.to_string()).expect("it is writable");
    fs::write(format!("/var/lib/cni/sriov/pci/{VF0}"), BLUE).expect("it is writable");

    let _red = Namespace::new("red");
    call("ADD", "c2", RED, &sriov(&json!({})))
        .make()
        .refused(11, "vf-in-use");
    call("DEL", "c1", BLUE, &sriov(&json!({}))).make().ok();
    assert_eq!(machine.settled(), before);
    assert_eq!(machine.kernel_vfs(), kernel);
    assert_nothing_is_kept("after DEL");
}

#[test]
fn the_journal_of_a_vf_tells_who_had_it_and_what_was_changed() {
    let _machine = Machine::with_vfs(1);
    let _blue = Namespace::new("blue");
    let config = sriov(&json!({"vlan": 9}));
    call("ADD", "c1", BLUE, &config).make().ok();
    let told = virtfn(&["explain", VF0]).ok().stdout();
    for text in [
        "held by cni c1 as net1",
        "set vlan 9 (before: vlan none",
        "given to",
    ] {
        assert!(told.contains(text), "{text} is not in {told}");
    }
    call("DEL", "c1", BLUE, &config).make().ok();
    let told = virtfn(&["explain", VF0, "-o", "json"]).ok().json();
    assert_eq!(told["held"], Value::Null);
    let events: Vec<_> = told["history"].as_array().expect("a list").iter().collect();
    let last = events.iter().rev().take(2).map(|event| &event["event"]);
    assert_eq!(last.collect::<Vec<_>>(), ["detached", "attached"]);
}
