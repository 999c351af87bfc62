//! The CNI plugin and bad input: an error object with a number, a code and a remedy, and no change.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cni_support::*;
use crate::support::*;

const BLUE: &str = "/run/netns/blue";

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_changed() {
    let machine = Machine::with_vfs(2);
    let _blue = Namespace::new("blue");
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    for (more, number, code) in [
        (json!({"deviceID": Value::Null}), 7, "bad-config"),
        (json!({"deviceID": 5}), 7, "bad-config"),
        (json!({"deviceID": "0000:01:10.6x"}), 7, "bad-config"),
        (json!({"deviceID": "../../../etc"}), 7, "bad-config"),
        (json!({"deviceID": "0000:7f:10.0"}), 7, "no-such-vf"),
        (json!({"deviceID": PF0}), 7, "not-a-vf"),
        (json!({"deviceID": "0000:00:00.0"}), 7, "not-a-vf"),
        (json!({"vlan": 4095}), 7, "bad-config"),
        (json!({"vlan": -1}), 7, "bad-config"),
        (json!({"vlan": "100"}), 7, "bad-config"),
        (json!({"vlan": 5, "vlanQoS": 8}), 7, "bad-config"),
        (json!({"vlanQoS": 3}), 7, "bad-config"),
        (json!({"vlan": 0, "vlanQoS": 3}), 7, "bad-config"),
        (json!({"vlan": 5, "vlanProto": "802.1x"}), 7, "bad-config"),
        (
            json!({"vlan": 5, "vlanProto": "802.1ad"}),
            2,
            "not-supported",
        ),
        (json!({"mac": "nonsense"}), 7, "bad-config"),
        (json!({"mac": "01:00:5e:00:00:01"}), 7, "bad-config"),
        (json!({"mac": "00:00:00:00:00:00"}), 7, "bad-config"),
        (
            json!({"min_tx_rate": 300, "max_tx_rate": 200}),
            7,
            "bad-config",
        ),
        (
            json!({"min_tx_rate": 100, "max_tx_rate": 200}),
            2,
            "not-supported",
        ),
        (json!({"link_state": "sometimes"}), 7, "bad-config"),
        (json!({"link_state": "enable"}), 2, "not-supported"),
        (
            json!({"ipam": {"type": "no-such-plugin"}}),
            7,
            "ipam-missing",
        ),
        (
            json!({"ipam": {"type": "../../../bin/true"}}),
            7,
            "bad-config",
        ),
        (
            json!({"cniVersion": "9.9.9"}),
            1,
            "incompatible-cni-version",
        ),
        (json!({"cniVersion": 1}), 6, "config-not-json"),
        (json!({"cniVersion": "0.2.0"}), 7, "result-without-address"),
        (json!({"name": ""}), 7, "bad-network-name"),
        (json!({"name": "../blue"}), 7, "bad-network-name"),
    ] {
        let answer = call("ADD", "c1", BLUE, &sriov(&more)).make();
        let error = answer.refused(number, code);
        assert_eq!(machine.kernel_vfs(), kernel, "{more}: {error}");
    }
    for (name, value, code) in [
        ("CNI_CONTAINERID", "../../etc/passwd", "bad-environment"),
        ("CNI_IFNAME", "../net1", "bad-environment"),
        ("CNI_IFNAME", "longer-than-fifteen", "bad-environment"),
        ("CNI_COMMAND", "add", "bad-environment"),
        ("CNI_ARGS", "MAC", "bad-cni-args"),
        ("CNI_ARGS", "K8S_POD_NAME=x", "bad-cni-args"),
        ("CNI_PATH", "", "bad-environment"),
    ] {
        call("ADD", "c1", BLUE, &sriov(&json!({})))
            .env(name, value)
            .make()
            .refused(4, code);
    }
    for netns in ["/run/netns/none", "/etc/passwd", "/proc/self/ns/net"] {
        call("ADD", "c1", netns, &sriov(&json!({})))
            .make()
            .refused(8, "");
    }
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after all refusals");
}

#[test]
fn a_vf_on_a_driver_that_makes_no_interface_is_refused() {
    let machine = Machine::with_vfs(1);
    let _blue = Namespace::new("blue");
    std::fs::write(pci(VF0).join("driver/unbind"), VF0).expect("a driver can be unbound");
    let before = machine.settled();
    call("ADD", "c1", BLUE, &sriov(&json!({"vlan": 5})))
        .make()
        .refused(7, "no-netdev");
    assert_eq!(machine.settled(), before);
}

#[test]
fn a_hundred_megabytes_are_not_read() {
    let _machine = Machine::with_vfs(1);
    let mut child = call("ADD", "c1", BLUE, &json!({"type": "sriov"}))
        .env("X", "")
        .start_open();
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let junk = vec![b' '; 1024 * 1024];
    let mut written = 0;
    while written < 100 && stdin.write_all(&junk).is_ok() {
        written += 1;
    }
    drop(stdin);
    let output = child.wait_with_output().expect("the plugin ends");
    assert!(written < 100, "all of it was read");
    Answer { output }.refused(7, "config-too-long");
}

#[test]
fn an_answer_that_nobody_reads_changes_nothing() {
    let machine = Machine::with_vfs(1);
    let _blue = Namespace::new("blue");
    let before = machine.settled();
    let add = call(
        "ADD",
        "c1",
        BLUE,
        &with(&sriov(&json!({"vlan": 5})), &host_local()),
    );
    // stdout is a pipe without a reader.
    let mut child = add.start_open();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin
        .write_all(add.stdin().as_bytes())
        .expect("the plugin reads");
    drop(stdin);
    let status = child.wait().expect("the plugin ends");
    assert_eq!(status.code(), Some(1));
    assert_eq!(machine.settled(), before);
    // stdout is no open file at all.
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" >&-", &format!("{BIN}/sriov")]);
    let mut child = add.start_as(closed);
    assert_eq!(child.wait().expect("the plugin ends").code(), Some(1));
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("stderr is piped")
        .read_to_string(&mut said)
        .expect("stderr is text");
    assert!(said.contains("stdout"), "{said}");
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after both");
}

#[test]
fn versions_are_told_without_a_config() {
    let _machine = Machine::fresh();
    call("VERSION", "", "", &sriov(&json!({}))).make().ok();
    let output = Command::new(format!("{BIN}/sriov"))
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .output()
        .expect("the plugin starts");
    let versions: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(versions["cniVersion"], "1.1.0");
    assert_eq!(
        versions["supportedVersions"].as_array().map(Vec::len),
        Some(7)
    );
}
