//! Bad input: a clear error that names file, object and remedy, and nothing changed.

use std::fs;

use crate::support::*;

/// Applies a policy that must be refused with these words, and checks that nothing changed.
#[track_caller]
fn check_refused(policy: &str, texts: &[&str]) {
    let machine = Machine::fresh();
    let before = machine.settled();
    machine.apply(policy).refused(2, texts);
    assert_eq!(machine.settled(), before);
    assert!(
        !fs::exists("/var/lib/virtfn/journal").unwrap_or(true),
        "a journal was begun"
    );
}

#[test]
fn more_vfs_than_the_device_offers() {
    check_refused(
        &policy("greedy", PF0, 8, "netdevice"),
        &["greedy", PF0, "8", "7", "numVfs"],
    );
}

#[test]
fn a_pf_that_does_not_exist() {
    let text = policy("lost", "0000:7f:00.0", 2, "netdevice");
    check_refused(&text, &["lost", "0000:7f:00.0", PF0]);
}

#[test]
fn ranges_that_are_none() {
    for range in ["5-2", "a-b", "3", "", "0-9"] {
        let text = policy("range", PF0, 4, "netdevice").replace(
            &format!("rootDevices: [\"{PF0}\"]"),
            &format!("pfNames: [\"{}#{range}\"]", netdev(PF0)),
        );
        check_refused(&text, &["error[", "range", "policy-", "help:"]);
    }
}

#[test]
fn policies_that_contradict_each_other_or_themselves() {
    let one = policy("rack", PF0, 2, "netdevice");
    let other = policy("rack", PF1, 3, "vfio-pci");
    check_refused(
        &format!("{one}---\n{other}"),
        &["error[policy-name-twice]", "rack", "help:"],
    );
    let nobody = one.replace("nicSelector:", "nicSelector:\n    vendor: \"15b3\"");
    check_refused(&nobody, &["error[pf-not-selected]", PF0, "15b3", "help:"]);
    // Of two that want the same VFs, one counts, and that is said.
    let machine = Machine::fresh();
    let pf = netdev(PF0);
    let part = |name: &str, range: &str, driver: &str| {
        policy(name, PF0, 4, driver).replace(
            &format!("rootDevices: [\"{PF0}\"]"),
            &format!("pfNames: [\"{pf}#{range}\"]"),
        )
    };
    let both = format!(
        "{}---\n{}",
        part("first", "0-2", "netdevice"),
        part("second", "1-3", "vfio-pci")
    );
    let told = machine.apply(&both).ok().stderr();
    assert!(told.contains("first") && told.contains("second"), "{told}");
    virtfn(&["plan", "--check", "-f", &write_policy(&both)]).ok();
}

#[test]
fn text_that_is_no_yaml() {
    check_refused("a: [1\nb: }", &["error[", "policy-"]);
}

#[test]
fn an_object_of_another_kind() {
    check_refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n",
        &["Pod", "SriovNetworkNodePolicy"],
    );
}

#[test]
fn a_file_that_is_huge() {
    check_refused(&"# padding\n".repeat(1 << 20), &["error[", "policy-"]);
}

#[test]
fn unknown_fields_are_warned_of_and_the_rest_is_applied() {
    let machine = Machine::fresh();
    let text = policy("typo", PF0, 1, "netdevice").replace("  priority", "  nmuVfs: 3\n  priority");
    let outcome = machine.apply(&text).ok();
    assert!(outcome.stderr().contains("nmuVfs"), "{}", outcome.stderr());
    assert_eq!(num_vfs(PF0), "1");
}

#[test]
fn bad_values_of_attach() {
    let machine = Machine::with_vfs(1);
    let _blue = Namespace::new("blue");
    let before = machine.settled();
    for extra in [
        ["--mac", "ff:ff:ff:ff:ff:ff"],
        ["--mac", "00:00:00:00:00:00"],
        ["--mac", "nonsense"],
        ["--vlan", "4095"],
        ["--vlan", "x"],
        ["--address", "192.0.2.1"],
        ["--name", "a/b"],
        ["--name", "a-name-that-is-too-long"],
        ["--mtu", "1"],
        ["--netns", "../../etc/passwd"],
    ] {
        let mut arguments = vec!["attach", VF0];
        if extra[0] != "--netns" {
            arguments.extend(["--netns", "blue"]);
        }
        arguments.extend(extra);
        let outcome = virtfn(&arguments);
        assert!(
            matches!(outcome.code(), Some(1 | 2)),
            "{extra:?}: {:?}",
            outcome.code()
        );
        assert!(
            outcome.stderr().contains("error"),
            "{extra:?}: {}",
            outcome.stderr()
        );
        assert_eq!(machine.settled(), before, "{extra:?}");
    }
}

#[test]
fn things_that_are_no_vf_cannot_be_attached() {
    let machine = Machine::with_vfs(1);
    let _blue = Namespace::new("blue");
    let before = machine.settled();
    let beyond = format!("{}#9", netdev(PF0));
    for what in [PF0, "0000:7f:00.0", "lo", beyond.as_str(), "../x"] {
        let outcome = virtfn(&["attach", what, "--netns", "blue"]);
        assert!(
            matches!(outcome.code(), Some(1 | 2)),
            "{what}: {:?}",
            outcome.code()
        );
        assert!(
            outcome.stderr().contains(what),
            "{what}: {}",
            outcome.stderr()
        );
        assert_eq!(machine.settled(), before, "{what}");
    }
}

#[test]
fn what_the_host_itself_uses_is_not_removed_unasked() {
    let machine = Machine::with_vfs(4);
    let [bridged, tagged, addressed, idle] =
        [VF0, VF1, "0000:01:10.4", "0000:01:10.6"].map(|vf| (vf, netdev(vf)));
    run("ip", &["link", "add", "br7", "type", "bridge"]);
    run("ip", &["link", "set", &bridged.1, "master", "br7"]);
    run("ip", &["link", "set", &tagged.1, "up"]);
    make_above(&tagged.1, &["name", "tag40", "type", "vlan", "id", "40"]);
    run(
        "ip",
        &["address", "add", "192.0.2.9/24", "dev", &addressed.1],
    );
    run("ip", &["link", "set", &idle.1, "up"]);
    eventually("a link-local address", || {
        run("ip", &["-6", "address", "show", "dev", &idle.1]).contains("fe80:")
    });
    for ((vf, netdev), used) in [
        (&bridged, Some("br7")),
        (&tagged, Some("tag40")),
        (&addressed, Some("address")),
        (&idle, None),
    ] {
        let holder = &machine.vf(vf)["holder"];
        match used {
            None => assert!(holder.is_null(), "{holder}"),
            Some(id) => {
                assert_eq!(
                    (&holder["kind"], &holder["id"]),
                    (&"host".into(), &id.into())
                );
                assert_eq!(holder["interface"], netdev.as_str());
            }
        }
    }
    let fewer = policy("vfs", PF0, 2, "netdevice");
    machine.apply(&fewer).refused(
        4,
        &["error[vf-in-use]", "host br7", "host tag40", "host address"],
    );
    assert_eq!(num_vfs(PF0), "4");
    let blue = Namespace::new("blue");
    virtfn(&["attach", bridged.0, "--netns", blue.0]).refused(4, &["error[vf-in-use]", "br7"]);
    // A network manager may have given it, so whoever asks for this very VF gets it.
    virtfn(&["attach", addressed.0, "--netns", blue.0]).ok();
    virtfn(&["detach", addressed.0]).ok();
    virtfn(&["apply", "--disrupt", "-f", &write_policy(&fewer)]).ok();
    assert_eq!(num_vfs(PF0), "2");
    run("ip", &["link", "delete", "br7"]);
}
