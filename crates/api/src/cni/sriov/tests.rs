//! Claims about the fields of the `sriov` plugin.

use super::*;
use crate::cni::{Command, ErrorNumber};

fn read_with(fields: &str, args: &str) -> Result<SriovConfig, ConfigError> {
    let text = format!(r#"{{"name":"n","type":"sriov","deviceID":"0000:3b:02.3"{fields}}}"#);
    let config = NetworkConfig::parse(text.as_bytes(), Command::Add).unwrap();
    SriovConfig::read(&config, &Arguments::parse(args).unwrap())
}

fn read(fields: &str) -> Result<SriovConfig, ConfigError> {
    read_with(fields, "")
}

#[track_caller]
fn check_refused(fields: &str, says: &str) {
    let error = read(fields).unwrap_err();
    assert_eq!(error.number(), ErrorNumber::BAD_CONFIG);
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn what_is_not_written_is_left_alone() {
    let config = read("").unwrap();
    assert_eq!(config.settings, VfSettings::default());
    assert_eq!((config.mac, config.log_level), (None, LogLevel::Info));
    // `mtu` is no option, and what upstream keeps in its cache is not one either.
    let odd = r#","mtu":"x","MTU":9000,"VFID":"a","Master":7,"vf":3,"vlan":null,"spoofchk":"""#;
    assert_eq!(read(odd).unwrap().settings, VfSettings::default());
}

#[test]
fn no_vlan_is_kept_apart_from_vlan_zero() {
    assert_eq!(read("").unwrap().settings.vlan, None);
    assert_eq!(read(r#","vlan":0"#).unwrap().settings.vlan, Some(None));
    assert_eq!(
        read(r#","vlan":0,"vlanQoS":0,"vlanProto":"802.1Q""#)
            .unwrap()
            .settings
            .vlan,
        Some(None)
    );
    let tag = read(r#","vlan":100,"vlanQoS":5,"vlanProto":"802.1AD""#)
        .unwrap()
        .settings
        .vlan
        .unwrap()
        .unwrap();
    assert_eq!(
        (tag.id.get(), tag.pcp.get(), tag.proto),
        (100, 5, VlanProto::Dot1ad)
    );
}

#[test]
fn vlans_that_cannot_be_are_refused() {
    check_refused(
        r#","vlan":4095"#,
        "vlan id 4095 invalid: value must be in the range 0-4094",
    );
    check_refused(r#","vlan":-1"#, "vlan id -1 invalid");
    check_refused(r#","vlan":"100""#, "vlan: it is a text");
    check_refused(r#","vlan":1.5"#, "vlan: it is a number");
    check_refused(r#","vlanQoS":1"#, "without a vlan");
    check_refused(r#","vlanQoS":0"#, "without a vlan");
    check_refused(r#","vlan":0,"vlanQoS":1"#, "without a vlan");
    check_refused(r#","vlan":1,"vlanQoS":8"#, "vlan QoS PCP 8 invalid");
    check_refused(r#","vlanProto":"802.1q""#, "without a vlan");
    check_refused(r#","vlan":0,"vlanProto":"802.1ad""#, "without a vlan");
    check_refused(
        r#","vlan":1,"vlanProto":"802.1x""#,
        "value must be '802.1Q' or '802.1ad'",
    );
}

#[test]
fn rates_and_link_states_are_checked() {
    let settings = read(r#","min_tx_rate":0,"max_tx_rate":200,"link_state":"auto""#)
        .unwrap()
        .settings;
    assert_eq!(
        (settings.min_rate, settings.max_rate),
        (Some(None), Some(Mbps::new(200)))
    );
    assert_eq!(settings.link, Some(LinkPolicy::Auto));
    check_refused(r#","min_tx_rate":-1"#, "-1 is no rate");
    check_refused(r#","max_tx_rate":4294967296"#, "no rate");
    check_refused(
        r#","min_tx_rate":200,"max_tx_rate":100"#,
        "is above max_tx_rate",
    );
    check_refused(r#","link_state":"Auto""#, "invalid link_state value: Auto");
}

#[test]
fn a_switch_that_is_not_on_is_off() {
    let settings = |text: &str| read(&format!(r#","spoofchk":"{text}","trust":"{text}""#)).unwrap();
    assert_eq!(settings("on").settings.trust, Some(true));
    for off in ["off", "ON", "true"] {
        assert_eq!(settings(off).settings.spoof_check, Some(false));
        assert_eq!(settings(off).spoof_check.is_odd(), off != "off");
    }
    check_refused(r#","trust":true"#, "trust: it is a boolean");
}

#[test]
fn the_runtimes_mac_beats_that_of_the_arguments_which_beats_the_configurations() {
    let mac = |fields: &str, args: &str| read_with(fields, args).unwrap().mac.unwrap().to_string();
    let config = r#","mac":"02:00:00:00:00:0A""#;
    let runtime = r#","mac":"junk","runtimeConfig":{"mac":"02-00-00-00-00-0c"}"#;
    assert_eq!(mac(config, ""), "02:00:00:00:00:0a");
    assert_eq!(mac(config, "MAC=0200.0000.000B"), "02:00:00:00:00:0b");
    assert_eq!(mac(runtime, "MAC=junk"), "02:00:00:00:00:0c");
}

#[test]
fn macs_that_no_interface_can_have_are_refused() {
    for bad in [
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00:01",
        "02-00:00-00:00-01",
        "é2:00:00:00:00:1",
    ] {
        check_refused(&format!(r#","mac":"{bad}""#), "mac: ");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = r#"{"name":"n","deviceID":"3b:02.3","vlan":5000,"link_state":"x","trust":1}"#;
    let config = NetworkConfig::parse(text.as_bytes(), Command::Add).unwrap();
    let error = SriovConfig::read(&config, &Arguments::default()).unwrap_err();
    let ConfigError::Fields(problems) = &error else {
        panic!("{error}");
    };
    assert_eq!(problems.len(), 4, "{error}");
    let none = NetworkConfig::parse(br#"{"name":"n"}"#, Command::Add).unwrap();
    let error = SriovConfig::read(&none, &Arguments::default()).unwrap_err();
    assert!(
        error.to_string().contains("VF pci addr is required"),
        "{error}"
    );
}
