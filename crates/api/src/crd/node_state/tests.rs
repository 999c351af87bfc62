//! The shape against upstream's schema, specs both ways, and statuses of made-up hosts.

use fixtures::{igb, inventory, mlx5, parsed};
use model::{
    Desired, EswitchMode, Guid, Inventory, LinkType, Netns, PciAddress, RdmaDevice, RdmaNetnsMode,
    Role, VdpaDevice, VdpaKind, VfIndex,
};

use super::*;
use crate::crd::{read_documents, read_policies};
use crate::field::FieldProblem;

/// Fields of `spec` and `status` with their types, as in upstream's CRD of August 2026.
const UPSTREAM: &str = "\
spec object
spec.bridges object
spec.bridges.ovs []object
spec.bridges.ovs.bridge object
spec.bridges.ovs.bridge.datapathType string
spec.bridges.ovs.bridge.externalIDs map
spec.bridges.ovs.bridge.failMode secure|standalone
spec.bridges.ovs.bridge.otherConfig map
spec.bridges.ovs.name string required
spec.bridges.ovs.uplinks []object
spec.bridges.ovs.uplinks.interface object
spec.bridges.ovs.uplinks.interface.externalIDs map
spec.bridges.ovs.uplinks.interface.mtuRequest integer
spec.bridges.ovs.uplinks.interface.options map
spec.bridges.ovs.uplinks.interface.otherConfig map
spec.bridges.ovs.uplinks.interface.type string
spec.bridges.ovs.uplinks.name string
spec.bridges.ovs.uplinks.pciAddress string required
spec.interfaces []object
spec.interfaces.eSwitchMode string
spec.interfaces.externallyManaged boolean
spec.interfaces.linkType string
spec.interfaces.mtu integer
spec.interfaces.name string
spec.interfaces.numVfs integer
spec.interfaces.pciAddress string required
spec.interfaces.vfGroups []object
spec.interfaces.vfGroups.deviceType string
spec.interfaces.vfGroups.isRdma boolean
spec.interfaces.vfGroups.mtu integer
spec.interfaces.vfGroups.policyName string
spec.interfaces.vfGroups.resourceName string
spec.interfaces.vfGroups.vdpaType string
spec.interfaces.vfGroups.vfRange string
spec.system object
spec.system.rdmaMode shared|exclusive
status object
status.bridges object
status.bridges.ovs []object
status.bridges.ovs.bridge object
status.bridges.ovs.bridge.datapathType string
status.bridges.ovs.bridge.externalIDs map
status.bridges.ovs.bridge.failMode secure|standalone
status.bridges.ovs.bridge.otherConfig map
status.bridges.ovs.name string required
status.bridges.ovs.uplinks []object
status.bridges.ovs.uplinks.interface object
status.bridges.ovs.uplinks.interface.externalIDs map
status.bridges.ovs.uplinks.interface.mtuRequest integer
status.bridges.ovs.uplinks.interface.options map
status.bridges.ovs.uplinks.interface.otherConfig map
status.bridges.ovs.uplinks.interface.type string
status.bridges.ovs.uplinks.name string
status.bridges.ovs.uplinks.pciAddress string required
status.interfaces []object
status.interfaces.Vfs []object
status.interfaces.Vfs.Vlan integer
status.interfaces.Vfs.assigned string
status.interfaces.Vfs.deviceID string
status.interfaces.Vfs.driver string
status.interfaces.Vfs.guid string
status.interfaces.Vfs.mac string
status.interfaces.Vfs.mtu integer
status.interfaces.Vfs.name string
status.interfaces.Vfs.pciAddress string required
status.interfaces.Vfs.representorName string
status.interfaces.Vfs.vdpaType string
status.interfaces.Vfs.vendor string
status.interfaces.Vfs.vfID integer required
status.interfaces.altNames []string
status.interfaces.deviceID string
status.interfaces.driver string
status.interfaces.eSwitchMode string
status.interfaces.externallyManaged boolean
status.interfaces.linkAdminState string
status.interfaces.linkSpeed string
status.interfaces.linkType string
status.interfaces.mac string
status.interfaces.mtu integer
status.interfaces.name string
status.interfaces.netFilter string
status.interfaces.numVfs integer
status.interfaces.pciAddress string required
status.interfaces.totalvfs integer
status.interfaces.vendor string
status.lastSyncError string
status.syncStatus string
status.system object
status.system.rdmaMode shared|exclusive
";

/// Writes our table of fields the same way.
fn facts(path: &str, fields: &[Field], lines: &mut Vec<String>) {
    for field in fields {
        let at = format!("{path}{}", field.name);
        let kind = match &field.kind {
            Kind::Text => "string".to_owned(),
            Kind::OneOf(words) => words.join("|"),
            Kind::Bool => "boolean".to_owned(),
            Kind::Integer { min, max } => {
                assert_eq!((*min, *max), (None, None), "{at}");
                "integer".to_owned()
            }
            Kind::TextList => "[]string".to_owned(),
            Kind::TextMap => "map".to_owned(),
            Kind::Object(_) => "object".to_owned(),
            Kind::ObjectList(_) => "[]object".to_owned(),
            Kind::Any => continue,
        };
        let required = if field.required { " required" } else { "" };
        lines.push(format!("{at} {kind}{required}"));
        if let Kind::Object(below) | Kind::ObjectList(below) = &field.kind {
            facts(&format!("{at}."), below, lines);
        }
    }
}

#[test]
fn the_schema_is_upstreams() {
    let mut ours = Vec::new();
    let tail = SCHEMA
        .iter()
        .position(|field| field.name == "spec")
        .unwrap();
    facts("", &SCHEMA[tail..], &mut ours);
    let theirs: Vec<_> = UPSTREAM.lines().collect();
    assert_eq!(ours, theirs);
}

/// Makes an object that has every field of a table.
fn example(fields: &[Field]) -> serde_json::Value {
    let value = |field: &Field| match &field.kind {
        Kind::Text => serde_json::json!("t"),
        Kind::OneOf(words) => serde_json::json!(words[0]),
        Kind::Bool => serde_json::json!(true),
        Kind::Integer { .. } => serde_json::json!(7),
        Kind::TextList => serde_json::json!(["t"]),
        Kind::TextMap => serde_json::json!({"k": "v"}),
        Kind::Object(fields) => example(fields),
        Kind::ObjectList(fields) => serde_json::json!([example(fields)]),
        Kind::Any => serde_json::json!({"name": "n"}),
    };
    let fields = fields
        .iter()
        .map(|field| (field.name.to_owned(), value(field)));
    fields.collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn the_wire_form_keeps_every_field_of_the_schema() {
    let every = example(&SCHEMA);
    let object: SriovNetworkNodeState = serde_json::from_value(every.clone()).unwrap();
    assert_eq!(serde_json::to_value(&object).unwrap(), every);
}

#[test]
fn an_empty_object_has_what_go_writes_of_it() {
    let json = serde_json::to_value(SriovNetworkNodeState::default()).unwrap();
    let empty = serde_json::json!({"bridges": {}, "system": {}});
    assert_eq!((&json["spec"], &json["status"]), (&empty, &empty));
}

fn spec(text: &str) -> SriovNetworkNodeStateSpec {
    serde_saphyr::from_str(text).unwrap()
}

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    let invalid = Desired::try_from(&spec(text)).unwrap_err();
    invalid
        .problems
        .iter()
        .map(FieldProblem::to_string)
        .collect()
}

const TWO_GROUPS: &str = "
interfaces:
- pciAddress: 0000:3b:00.0
  name: ens1f0
  numVfs: 8
  mtu: 9000
  eSwitchMode: switchdev
  linkType: eth
  vfGroups:
  - {resourceName: res_b, deviceType: vfio-pci, vfRange: 4-7, policyName: b, mtu: 9000}
  - {resourceName: res_a, deviceType: netdevice, vfRange: 0-3, policyName: a, isRdma: true, vdpaType: vhost}
";

#[test]
fn a_spec_is_what_a_node_should_have() {
    let desired = Desired::try_from(&spec(TWO_GROUPS)).unwrap();
    let pf = &desired.pfs[&parsed::<PciAddress>("0000:3b:00.0")];
    assert_eq!((pf.num_vfs, pf.mtu.unwrap().get()), (8, 9000));
    assert_eq!(pf.eswitch, Some(EswitchMode::Switchdev));
    assert_eq!(pf.link_type, Some(LinkType::Ethernet));
    let group = |vf| pf.group_of(VfIndex(vf)).unwrap();
    assert_eq!(group(4).driver.to_string(), "vfio-pci");
    assert_eq!(
        (group(0).resource.as_str(), group(0).vdpa),
        ("res_a", Some(VdpaKind::Vhost))
    );
}

#[test]
fn a_spec_survives_its_meaning() {
    let mut wire = spec(TWO_GROUPS);
    let back = SriovNetworkNodeStateSpec::from(&Desired::try_from(&wire).unwrap());
    wire.interfaces[0].link_type = Some("ETH".to_owned());
    assert_eq!(back, wire);
}

#[test]
fn what_go_writes_for_nothing_is_not_given() {
    let text = "interfaces: [{pciAddress: '0000:3b:00.0', name: '', mtu: 0, linkType: '', eSwitchMode: ''}]";
    let desired = Desired::try_from(&spec(text)).unwrap();
    let pf = desired.pfs.values().next().unwrap();
    assert_eq!(
        (pf.mtu, pf.link_type, pf.eswitch, pf.num_vfs),
        (None, None, None, 0)
    );
    assert_eq!(pf.name, None);
}

#[test]
fn everything_wrong_with_a_spec_is_found_at_once() {
    let text = "
interfaces:
- {pciAddress: 3b:00.0, numVfs: -1, mtu: 70000, linkType: wifi, eSwitchMode: on, name: a b}
- pciAddress: 0000:3b:00.0
  vfGroups: [{vfRange: 0-3}, {vfRange: 3-4}, {}, {vfRange: 5-4}, {vfRange: 9-9, deviceType: a/b}]
- {pciAddress: 0000:3b:00.0}
";
    insta::assert_snapshot!(problems(text).join("\n"), @r#"
    spec.interfaces[0].pciAddress: "3b:00.0" is not a PCI address such as 0000:3b:00.1
    spec.interfaces[0].numVfs: -1 is not a number of VFs from 0 to 65535
    spec.interfaces[0].name: "a b" is not an interface name such as net1 (1 to 15 printable characters, no '/', ':' or space)
    spec.interfaces[0].mtu: 70000 is not an MTU from 68 to 65535 bytes
    spec.interfaces[0].linkType: "wifi" is not a link type
    spec.interfaces[0].eSwitchMode: "on" is not an eswitch mode: legacy or switchdev
    spec.interfaces[1].vfGroups[1].vfRange: 3-4 shares VFs with group 0
    spec.interfaces[1].vfGroups[2].vfRange: is required
    spec.interfaces[1].vfGroups[3].vfRange: "5-4" is not a range of VFs such as 0-3, first to last, both included
    spec.interfaces[1].vfGroups[4].deviceType: "a/b" is not a kernel driver name such as vfio-pci
    spec.interfaces[2].pciAddress: 0000:3b:00.0 is there twice
    "#);
}

#[test]
fn a_node_state_is_read_beside_policies() {
    let text = format!(
        "apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodeState
metadata: {{name: worker-0, uid: x}}
spec:
  system: {{rdmaMode: exclusive}}
  bridges: {{ovs: [{{name: br}}]}}
  dpConfigVersion: old{}
status: {{syncStatus: Succeeded}}
",
        TWO_GROUPS.replace('\n', "\n  ").trim_end()
    );
    let read = read_documents(&text, "node.yaml").unwrap();
    let [state] = read.node_states.as_slice() else {
        panic!()
    };
    assert_eq!((state.name.as_str(), state.origin.line), ("worker-0", 1));
    assert_eq!(state.desired.rdma_netns, Some(RdmaNetnsMode::Exclusive));
    assert_eq!(state.desired.pfs.len(), 1);
    let warnings: Vec<_> = read.warnings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r"
    node.yaml:7: node state worker-0: unknown field spec.dpConfigVersion is ignored
    node.yaml:6: node state worker-0: spec.bridges is ignored: software bridges are not managed
    ");

    let broken = text.replace("vfRange: 0-3", "vfRange: 3-0");
    let error = read_documents(&broken, "node.yaml").unwrap_err();
    insta::assert_snapshot!(error.to_string(), @r#"
    node.yaml:17: node state worker-0: spec.interfaces[0].vfGroups[1].vfRange: "3-0" is not a range of VFs such as 0-3, first to last, both included
    "#);

    let error = read_policies(&text, "node.yaml").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is not a SriovNetworkNodePolicy"),
        "{error}"
    );
}

fn status(seen: &Inventory) -> SriovNetworkNodeStateStatus {
    SriovNetworkNodeStateStatus::of(seen, |_| true, &SyncResult::default())
}

fn json(status: &SriovNetworkNodeStateStatus) -> String {
    serde_json::to_string_pretty(status).unwrap()
}

fn vf_mut<'a>(seen: &'a mut Inventory, pf: &str, index: u16) -> &'a mut model::Function {
    let address = seen.vf_of(parsed(pf), VfIndex(index)).unwrap().address;
    seen.functions.get_mut(&address).unwrap()
}

/// The example of the contract: every field that a legacy PF can have, and those it leaves out.
#[test]
fn a_status_has_upstreams_fields_and_omissions() {
    let mut seen = inventory(
        [mlx5("0000:3b:00.0", "ens1f0").with_vfs(2).netdev(|netdev| {
            netdev.alt_names = vec!["enp59s0f0".to_owned()];
            netdev.mtu = 9000;
            netdev.speed_mbps = Some(100_000);
        })],
    );
    seen.rdma_netns = Some(RdmaNetnsMode::Shared);
    vf_mut(&mut seen, "0000:3b:00.0", 0).rdma = vec![RdmaDevice {
        name: "mlx5_2".to_owned(),
        node_guid: Some(Guid::new(0x5a00_00ff_fe00_0001)),
        char_devices: Vec::new(),
        partition_key: None,
    }];
    let vfio = vf_mut(&mut seen, "0000:3b:00.0", 1);
    vfio.driver = Some(parsed("vfio-pci"));
    vfio.netdevs.clear();
    let result = SyncResult {
        status: SyncStatus::Succeeded,
        last_error: None,
    };
    let status = SriovNetworkNodeStateStatus::of(&seen, |_| true, &result);
    insta::assert_snapshot!(json(&status), @r#"
    {
      "interfaces": [
        {
          "name": "ens1f0",
          "altNames": [
            "enp59s0f0"
          ],
          "mac": "0c:42:a1:00:3b:00",
          "driver": "mlx5_core",
          "pciAddress": "0000:3b:00.0",
          "vendor": "15b3",
          "deviceID": "101d",
          "mtu": 9000,
          "numVfs": 2,
          "totalvfs": 127,
          "linkSpeed": "100000 Mb/s",
          "linkType": "ETH",
          "linkAdminState": "up",
          "eSwitchMode": "legacy",
          "Vfs": [
            {
              "pciAddress": "0000:3b:00.2",
              "vfID": 0,
              "driver": "mlx5_core",
              "vendor": "15b3",
              "deviceID": "101e",
              "name": "ens1f0v0",
              "mac": "02:fa:00:00:3b:03",
              "mtu": 1500,
              "guid": "5a00:00ff:fe00:0001"
            },
            {
              "pciAddress": "0000:3b:00.3",
              "vfID": 1,
              "driver": "vfio-pci",
              "vendor": "15b3",
              "deviceID": "101e"
            }
          ]
        }
      ],
      "bridges": {},
      "system": {
        "rdmaMode": "shared"
      },
      "syncStatus": "Succeeded"
    }
    "#);
}

#[test]
fn a_failure_is_told_with_its_error() {
    let result = SyncResult {
        status: SyncStatus::Failed,
        last_error: Some("PF ens1f0: set sriov_numvfs to 8: out of memory".to_owned()),
    };
    let status = SriovNetworkNodeStateStatus::of(&Inventory::default(), |_| true, &result);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["syncStatus"], "Failed");
    assert!(
        json["lastSyncError"]
            .as_str()
            .unwrap()
            .ends_with("out of memory")
    );
    assert!(json.get("interfaces").is_none());
}

#[test]
fn vfs_are_in_lexical_order_of_their_links() {
    let seen = inventory([mlx5("0000:3b:00.0", "ens1f0").with_vfs(12)]);
    let ids: Vec<_> = status(&seen).interfaces[0]
        .vfs
        .iter()
        .map(|vf| vf.vf_id)
        .collect();
    assert_eq!(ids, [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn only_nics_that_can_be_used_are_shown() {
    let away = Netns::Other {
        inode: 7,
        path: None,
    };
    let storage = model::PciClass::new(0x01_0802);
    let seen = inventory([
        igb("0000:01:00.0", "shown"),
        igb("0000:02:00.0", "away").netdev(|netdev| netdev.netns = away),
        igb("0000:03:00.0", "undriven").function(|function| function.driver = None),
        igb("0000:04:00.0", "bare").function(|function| function.netdevs.clear()),
        igb("0000:05:00.0", "nvme").function(|function| function.class = storage),
        igb("0000:06:00.0", "plain").function(|function| function.role = Role::Plain),
        mlx5("0000:07:00.0", "unknown"),
    ]);
    let status =
        SriovNetworkNodeStateStatus::of(&seen, |id| id.vendor == 0x8086, &SyncResult::default());
    let names: Vec<_> = status
        .interfaces
        .iter()
        .map(|nic| nic.name.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["shown", "plain"]);
    let [_, plain] = status.interfaces.as_slice() else {
        panic!()
    };
    assert_eq!((&plain.eswitch_mode, plain.total_vfs), (&None, None));
}

#[test]
fn a_switchdev_pf_shows_representors_and_vdpa() {
    let mut seen = inventory([mlx5("0000:3b:00.0", "ens1f0")
        .with_vfs(1)
        .facts(|facts| facts.eswitch = Some(EswitchMode::Switchdev))]);
    let vf = vf_mut(&mut seen, "0000:3b:00.0", 0);
    let name = format!("vdpa:{}", vf.address);
    vf.vdpa = vec![VdpaDevice {
        name,
        kind: Some(VdpaKind::Vhost),
        device_node: None,
    }];
    if let Role::Vf(facts) = &mut vf.role {
        facts.representor = Some(parsed("ens1f0_0"));
    }
    let status = status(&seen);
    let nic = &status.interfaces[0];
    assert_eq!(nic.eswitch_mode.as_deref(), Some("switchdev"));
    assert_eq!(nic.vfs[0].vdpa_type.as_deref(), Some("vhost"));
    assert_eq!(nic.vfs[0].representor_name.as_deref(), Some("ens1f0_0"));
}

#[test]
fn a_link_that_is_down_has_no_speed_and_one_without_carrier_minus_one() {
    let speed = |up| {
        let seen = inventory([igb("0000:01:00.0", "a").netdev(|netdev| {
            netdev.admin_up = up;
            netdev.speed_mbps = None;
        })]);
        let nic = status(&seen).interfaces.remove(0);
        (nic.link_admin_state.unwrap(), nic.link_speed)
    };
    assert_eq!(speed(true), ("up".to_owned(), Some("-1 Mb/s".to_owned())));
    assert_eq!(speed(false), ("down".to_owned(), None));
}
