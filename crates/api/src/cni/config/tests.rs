//! Claims about what all plugins share of a configuration.

use super::*;

fn parse(text: &str) -> Result<NetworkConfig, ConfigError> {
    NetworkConfig::parse(text.as_bytes(), Command::Add)
}

#[track_caller]
fn check_refused(text: &str, number: u32, code: &str) {
    let error = parse(text).unwrap_err();
    assert_eq!(error.number(), ErrorNumber(number), "{error}");
    assert_eq!(error.code().as_str(), code, "{error}");
    assert!(error.remedy().is_some());
}

#[test]
fn bad_configurations_get_the_numbers_of_the_specification() {
    check_refused("", 6, "config-not-json");
    check_refused("[]", 6, "config-not-json");
    check_refused("null", 6, "config-not-json");
    check_refused("{", 6, "config-not-json");
    check_refused(r#"{"name":"n","cniVersion":1}"#, 6, "config-not-json");
    check_refused("{}", 7, "bad-network-name");
    check_refused(r#"{"name":"a/b"}"#, 7, "bad-network-name");
    check_refused(
        r#"{"name":"n","cniVersion":"1.2.0"}"#,
        1,
        "incompatible-cni-version",
    );
    let deep = format!(
        r#"{{"name":"n","x":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    check_refused(&deep, 6, "config-not-json");
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(STDIN_LIMIT));
    check_refused(&long, 7, "config-too-long");
}

#[test]
fn keys_have_no_case_and_the_last_wins() {
    let config = parse(
        r#"{"NAME":"old","Name":"blue","CniVersion":"0.4.0","IPAM":{"Type":"static"},"ipam":null}"#,
    );
    let config = config.unwrap();
    assert_eq!(config.name, "blue");
    assert_eq!(config.version, CniVersion::V0_4_0);
    assert_eq!(config.ipam().unwrap(), None);
}

#[test]
fn commands_need_their_version() {
    let at = |version: &str, command| {
        let text = format!(r#"{{"name":"n","cniVersion":"{version}"}}"#);
        NetworkConfig::parse(text.as_bytes(), command).is_ok()
    };
    assert!(at("0.3.1", Command::Del) && at("", Command::Add));
    assert!(!at("0.3.1", Command::Check) && at("0.4.0", Command::Check));
    assert!(!at("1.0.0", Command::Gc) && at("1.1.0", Command::Gc));
    assert!(!at("1.0.0", Command::Status) && at("1.1.0", Command::Status));
}

#[test]
fn an_ipam_plugin_is_one_file_name() {
    for bad in ["../host-local", "/bin/sh", ".", "..", "a\\u0000b"] {
        let config = parse(&format!(r#"{{"name":"n","ipam":{{"type":"{bad}"}}}}"#)).unwrap();
        assert!(config.ipam().is_err(), "{bad:?} was accepted");
    }
    let config = parse(r#"{"name":"n","ipam":{"type":"host-local","x":1}}"#).unwrap();
    assert_eq!(config.ipam().unwrap(), Some("host-local"));
    assert_eq!(
        parse(r#"{"name":"n","ipam":{}}"#).unwrap().ipam().unwrap(),
        None
    );
    assert!(parse(r#"{"name":"n","ipam":"x"}"#).unwrap().ipam().is_err());
}

#[test]
fn gc_without_a_list_collects_nothing() {
    let valid = |text: &str| parse(text).unwrap().valid_attachments();
    assert!(valid(r#"{"name":"n"}"#).is_err());
    assert!(valid(r#"{"name":"n","cni.dev/valid-attachments":[{"ifname":"x"}]}"#).is_err());
    assert!(valid(r#"{"name":"n","cni.dev/valid-attachments":{}}"#).is_err());
    assert_eq!(
        valid(r#"{"name":"n","cni.dev/valid-attachments":null}"#).unwrap(),
        []
    );
    let list = r#"{"name":"n","cni.dev/attachments":[{"containerID":"c1","ifname":"net1"}]}"#;
    let attachment = Attachment {
        container: "c1".parse().unwrap(),
        interface: "net1".parse().unwrap(),
    };
    assert_eq!(valid(list).unwrap(), [attachment]);
}
