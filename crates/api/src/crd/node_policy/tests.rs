use model::NodePolicy;

use super::*;

fn object(edit: impl FnOnce(&mut SriovNetworkNodePolicySpec)) -> SriovNetworkNodePolicy {
    let mut object = SriovNetworkNodePolicy {
        metadata: Metadata {
            name: "a".to_owned(),
            namespace: None,
        },
        ..SriovNetworkNodePolicy::default()
    };
    object.spec.resource_name = "res".to_owned();
    object.spec.num_vfs = 8;
    edit(&mut object.spec);
    object
}

#[track_caller]
fn check_wrong(edit: impl FnOnce(&mut SriovNetworkNodePolicySpec), problem: &str, remedy: &str) {
    let invalid = NodePolicy::try_from(&object(edit)).unwrap_err();
    let [only] = invalid.problems.as_slice() else {
        panic!("{:?}", invalid.problems)
    };
    assert_eq!(
        (only.to_string().as_str(), only.remedy.as_str()),
        (problem, remedy)
    );
}

#[test]
fn the_schema_is_upstreams() {
    let text = include_str!("../../../testdata/node-policy-schema.yaml");
    let schema: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    compare("spec", &schema["properties"]["spec"], &Kind::Object(&SPEC));
    let root: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
    let ours: Vec<_> = SCHEMA.iter().map(|field| field.name).collect();
    assert_eq!(root, ours);
}

#[track_caller]
fn compare(path: &str, upstream: &serde_json::Value, ours: &Kind) {
    let kind = upstream["type"].as_str().unwrap();
    match ours {
        Kind::Text => assert!(kind == "string" && upstream.get("enum").is_none(), "{path}"),
        Kind::OneOf(words) => assert_eq!(upstream["enum"], serde_json::json!(words), "{path}"),
        Kind::Bool => assert_eq!(kind, "boolean", "{path}"),
        Kind::Integer { min, max } => {
            assert_eq!(kind, "integer", "{path}");
            assert_eq!(upstream["minimum"].as_i64(), *min, "{path}");
            assert_eq!(upstream["maximum"].as_i64(), *max, "{path}");
        }
        Kind::TextList => assert_eq!(upstream["items"]["type"], "string", "{path}"),
        Kind::TextMap => assert_eq!(upstream["additionalProperties"]["type"], "string", "{path}"),
        Kind::Any => assert_eq!(kind, "object", "{path}"),
        Kind::ObjectList(_) => panic!("{path}: a policy has no list of objects"),
        Kind::Object(fields) => {
            let theirs = upstream["properties"].as_object().unwrap();
            assert_eq!(theirs.len(), fields.len(), "{path}: {:?}", theirs.keys());
            for field in *fields {
                let path = format!("{path}.{}", field.name);
                let upstream_field = theirs.get(field.name).unwrap_or_else(|| panic!("{path}"));
                let required = upstream["required"]
                    .as_array()
                    .is_some_and(|names| names.iter().any(|name| name == field.name));
                assert_eq!(required, field.required, "{path}");
                compare(&path, upstream_field, &field.kind);
            }
        }
    }
}

#[test]
fn the_wire_form_keeps_every_field_of_the_schema() {
    let every = serde_json::json!({
        "resourceName": "r", "nodeSelector": {"a": "b"}, "priority": 1, "mtu": 2, "numVfs": 3,
        "nicSelector": {"vendor": "8086", "deviceID": "10c9", "rootDevices": ["x"],
            "pfNames": ["y"], "netFilter": "k:v"},
        "deviceType": "netdevice", "isRdma": true, "needVhostNet": true, "linkType": "eth",
        "eSwitchMode": "legacy", "vdpaType": "virtio", "externallyManaged": true,
        "excludeTopology": true,
        "bridge": {"ovs": {
            "bridge": {"datapathType": "netdev", "externalIDs": {"a": "b"},
                "otherConfig": {"a": "b"}, "failMode": "secure"},
            "uplink": {"interface": {"type": "dpdk", "options": {"a": "b"},
                "externalIDs": {"a": "b"}, "otherConfig": {"a": "b"}, "mtuRequest": 9000}}}},
    });
    let spec: SriovNetworkNodePolicySpec = serde_json::from_value(every.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), every);
    assert_eq!(every.as_object().unwrap().len(), SPEC.len());
    let bare =
        serde_json::json!({"resourceName": "", "nodeSelector": {}, "numVfs": 0, "nicSelector": {}});
    let spec: SriovNetworkNodePolicySpec = serde_json::from_value(bare.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), bare);
}

#[test]
fn defaults_are_those_of_upstreams_webhook() {
    let policy = NodePolicy::try_from(&object(|_| ())).unwrap();
    assert_eq!(policy.priority, 99);
    assert_eq!(policy.driver, model::VfDriver::Kernel);
    assert!(!policy.is_rdma);
    let ib = |device: &'static str| {
        NodePolicy::try_from(&object(|spec| {
            spec.link_type = Some("IB".to_owned());
            spec.device_type = Some(device.to_owned());
        }))
        .unwrap()
    };
    assert!(ib("netdevice").is_rdma);
    assert!(!ib("vfio-pci").is_rdma);
}

#[test]
fn zero_values_of_go_mean_not_given() {
    let policy = NodePolicy::try_from(&object(|spec| {
        spec.mtu = Some(0);
        spec.nic_selector.vendor = Some(String::new());
        spec.eswitch_mode = Some(String::new());
        spec.link_type = Some(String::new());
        spec.device_type = Some(String::new());
    }))
    .unwrap();
    assert!(policy.nic.is_empty());
    assert_eq!(
        (policy.mtu, policy.eswitch, policy.link_type),
        (None, None, None)
    );
}

#[test]
fn a_bad_range_is_named_with_what_to_write() {
    let path = "spec.nicSelector.pfNames[1]";
    for (entry, problem, remedy) in [
        (
            "eth0#5-2",
            r#""5-2" in "eth0#5-2" is not a range of VFs"#,
            "write the lower number first: eth0#2-5",
        ),
        (
            "eth0#a-b",
            r#""a-b" in "eth0#a-b" is not a range of VFs"#,
            "write first and last VF, both included, such as eth0#0-3",
        ),
        (
            "eth0#5",
            r#""5" in "eth0#5" is not a range of VFs"#,
            "for one VF write eth0#5-5",
        ),
        (
            "eth0#",
            r#""" in "eth0#" is not a range of VFs"#,
            "write eth0 for all VFs, or eth0#0-3 for the first four",
        ),
        (
            "#0-3",
            r##""#0-3" names no PF"##,
            "write the PF's name before the `#`, such as ens1f0#0-3",
        ),
        (
            "eth0#1-2#3",
            r#""1-2#3" in "eth0#1-2#3" is not a range of VFs"#,
            "write first and last VF, both included, such as eth0#0-3",
        ),
    ] {
        check_wrong(
            |spec| spec.nic_selector.pf_names = vec!["ok".to_owned(), entry.to_owned()],
            &format!("{path}: {problem}"),
            remedy,
        );
    }
}

#[test]
fn values_out_of_range_are_named() {
    check_wrong(
        |spec| spec.nic_selector.vendor = Some("0x8086".to_owned()),
        r#"spec.nicSelector.vendor: "0x8086" is not a PCI id of four hexadecimal digits"#,
        r#"leave out the 0x: "8086""#,
    );
    check_wrong(
        |spec| spec.mtu = Some(67),
        "spec.mtu: 67 is not an MTU from 68 to 65535 bytes",
        "write for example 1500 or 9000",
    );
    check_wrong(
        |spec| spec.num_vfs = 65536,
        "spec.numVfs: 65536 is not a number of VFs from 0 to 65535",
        "write at most what the device offers (`virtfn list pf`)",
    );
    check_wrong(
        |spec| spec.nic_selector.root_devices = vec!["3b:00.0".to_owned()],
        r#"spec.nicSelector.rootDevices[0]: "3b:00.0" is not a PCI address such as 0000:3b:00.1"#,
        "write the PF's full address, with its domain (`virtfn list pf`)",
    );
    check_wrong(
        |spec| spec.nic_selector.net_filter = Some("openstack".to_owned()),
        r#"spec.nicSelector.netFilter: "openstack" is not a network filter `key:value`"#,
        "write for example openstack/NetworkID:<uuid>",
    );
}
