//! Claims about results: each version has its form, and every form is read.

use super::*;

fn result() -> AddResult {
    let value = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "mac": "ca:fe:c0:00:00:07", "mtu": 9000,
            "sandbox": "/run/netns/blue", "pciID": "0000:3b:02.3"}],
        "ips": [
            {"interface": 0, "address": "10.9.0.17/24", "gateway": "10.9.0.1"},
            {"interface": 0, "address": "2001:db8::17/64"},
            {"interface": 0, "address": "10.9.0.18/24"},
        ],
        "routes": [
            {"dst": "10.0.0.0/8", "priority": 7, "table": 100, "scope": 253, "mtu": 1400, "advmss": 1200},
            {"dst": "::/0", "gw": "2001:db8::1"},
        ],
    });
    AddResult::from_value(value, CniVersion::V1_1_0).unwrap()
}

#[test]
fn each_version_has_its_form() {
    let all: Vec<String> = CniVersion::ALL
        .into_iter()
        .map(|version| result().to_json(version).unwrap().to_string())
        .collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    {"cniVersion":"0.1.0","dns":{},"ip4":{"gateway":"10.9.0.1","ip":"10.9.0.17/24","routes":[{"dst":"10.0.0.0/8"}]},"ip6":{"ip":"2001:db8::17/64","routes":[{"dst":"::/0","gw":"2001:db8::1"}]}}
    {"cniVersion":"0.2.0","dns":{},"ip4":{"gateway":"10.9.0.1","ip":"10.9.0.17/24","routes":[{"dst":"10.0.0.0/8"}]},"ip6":{"ip":"2001:db8::17/64","routes":[{"dst":"::/0","gw":"2001:db8::1"}]}}
    {"cniVersion":"0.3.0","dns":{},"interfaces":[{"mac":"ca:fe:c0:00:00:07","name":"net1","sandbox":"/run/netns/blue"}],"ips":[{"address":"10.9.0.17/24","gateway":"10.9.0.1","interface":0,"version":"4"},{"address":"2001:db8::17/64","interface":0,"version":"6"},{"address":"10.9.0.18/24","interface":0,"version":"4"}],"routes":[{"advmss":1200,"dst":"10.0.0.0/8","mtu":1400,"priority":7,"scope":253,"table":100},{"dst":"::/0","gw":"2001:db8::1"}]}
    {"cniVersion":"0.3.1","dns":{},"interfaces":[{"mac":"ca:fe:c0:00:00:07","name":"net1","sandbox":"/run/netns/blue"}],"ips":[{"address":"10.9.0.17/24","gateway":"10.9.0.1","interface":0,"version":"4"},{"address":"2001:db8::17/64","interface":0,"version":"6"},{"address":"10.9.0.18/24","interface":0,"version":"4"}],"routes":[{"advmss":1200,"dst":"10.0.0.0/8","mtu":1400,"priority":7,"scope":253,"table":100},{"dst":"::/0","gw":"2001:db8::1"}]}
    {"cniVersion":"0.4.0","dns":{},"interfaces":[{"mac":"ca:fe:c0:00:00:07","name":"net1","sandbox":"/run/netns/blue"}],"ips":[{"address":"10.9.0.17/24","gateway":"10.9.0.1","interface":0,"version":"4"},{"address":"2001:db8::17/64","interface":0,"version":"6"},{"address":"10.9.0.18/24","interface":0,"version":"4"}],"routes":[{"advmss":1200,"dst":"10.0.0.0/8","mtu":1400,"priority":7,"scope":253,"table":100},{"dst":"::/0","gw":"2001:db8::1"}]}
    {"cniVersion":"1.0.0","interfaces":[{"mac":"ca:fe:c0:00:00:07","mtu":9000,"name":"net1","pciID":"0000:3b:02.3","sandbox":"/run/netns/blue"}],"ips":[{"address":"10.9.0.17/24","gateway":"10.9.0.1","interface":0},{"address":"2001:db8::17/64","interface":0},{"address":"10.9.0.18/24","interface":0}],"routes":[{"advmss":1200,"dst":"10.0.0.0/8","mtu":1400,"priority":7,"scope":253,"table":100},{"dst":"::/0","gw":"2001:db8::1"}]}
    {"cniVersion":"1.1.0","interfaces":[{"mac":"ca:fe:c0:00:00:07","mtu":9000,"name":"net1","pciID":"0000:3b:02.3","sandbox":"/run/netns/blue"}],"ips":[{"address":"10.9.0.17/24","gateway":"10.9.0.1","interface":0},{"address":"2001:db8::17/64","interface":0},{"address":"10.9.0.18/24","interface":0}],"routes":[{"advmss":1200,"dst":"10.0.0.0/8","mtu":1400,"priority":7,"scope":253,"table":100},{"dst":"::/0","gw":"2001:db8::1"}]}
    "#);
}

#[test]
fn what_is_written_is_read_again() {
    for version in CniVersion::ALL {
        let written = result().to_json(version).unwrap();
        // The version is in the result, so that of the configuration does not count.
        let read = AddResult::from_value(written.clone(), CniVersion::V0_1_0).unwrap();
        assert_eq!(read.to_json(version).unwrap(), written, "{version}");
    }
}

#[test]
fn a_result_without_a_version_has_that_of_the_configuration() {
    let old =
        r#"{"ip4":{"ip":"10.0.0.2/24","gateway":"","routes":[{"dst":"0.0.0.0/0"}]},"dns":null}"#;
    let read = AddResult::parse(old.as_bytes(), CniVersion::V0_2_0).unwrap();
    assert_eq!((read.ips.len(), read.routes.len()), (1, 1));
    let read = AddResult::parse(old.as_bytes(), CniVersion::V1_0_0).unwrap();
    assert_eq!(read, AddResult::default());
    assert_eq!(
        AddResult::parse(b"null", CniVersion::V1_0_0).unwrap(),
        AddResult::default()
    );
}

#[test]
fn go_writes_empty_lists_as_null() {
    let text = r#"{"cniVersion":"1.0.0","ips":null,"interfaces":null,"routes":null,"dns":{"nameservers":null}}"#;
    assert_eq!(
        AddResult::parse(text.as_bytes(), CniVersion::V1_0_0).unwrap(),
        AddResult::default()
    );
}

#[test]
fn results_that_are_none_are_refused() {
    let number = |text: &str| {
        AddResult::parse(text.as_bytes(), CniVersion::V1_0_0)
            .unwrap_err()
            .number()
            .0
    };
    assert_eq!(number(""), 6);
    assert_eq!(number("[]"), 6);
    assert_eq!(number(r#"{"ips":[{"address":"10.0.0.2"}]}"#), 6);
    assert_eq!(number(r#"{"cniVersion":"9.0.0"}"#), 1);
}

#[test]
fn before_0_3_0_a_result_needs_an_address() {
    let none = AddResult::default();
    let error = none.to_json(CniVersion::V0_2_0).unwrap_err();
    assert_eq!(error.code().as_str(), "result-without-address");
    assert!(none.to_json(CniVersion::V0_3_0).is_ok());
}

#[test]
fn what_is_null_is_as_if_absent() {
    let text = r#"{"cniVersion": "1.0.0", "dns": null,
        "interfaces": [{"name": "net1", "mac": null, "mtu": null, "sandbox": null}],
        "ips": [{"interface": null, "address": "192.0.2.7/24", "gateway": null}],
        "routes": [{"dst": "0.0.0.0/0", "gw": null, "mtu": null, "priority": null, "table": null}]}"#;
    let result = AddResult::parse(text.as_bytes(), CniVersion::V1_0_0).unwrap();
    assert_eq!(result.interfaces[0].name, "net1");
    assert_eq!((result.routes[0].mtu, result.routes[0].table), (0, None));
}
