//! `SriovNetworkNodePolicy`: how many VFs, of which PFs, on which nodes, as which resource.
//!
//! The fields that upstream leaves to Go's zero value (`mtu: 0`, `vendor: ""`) mean "not given"
//! here too. Two defaults are not in the CRD but in upstream's webhook, and are taken here, so that
//! a file means the same with and without a webhook: `priority` 99, and `isRdma` on for an
//! InfiniBand policy that is not for VFIO.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::schema::{Field, Kind, field, required};
use crate::field::FieldProblem;

mod convert;
#[cfg(test)]
mod tests;

/// One object of the kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovNetworkNodePolicy {
    /// Always [`super::API_VERSION`].
    pub api_version: String,
    /// Always `SriovNetworkNodePolicy`.
    pub kind: String,
    /// What names the object.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: SriovNetworkNodePolicySpec,
}

/// The part of an object's metadata that has a meaning here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace; upstream respects policies only in the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What a policy wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovNetworkNodePolicySpec {
    /// Resource that the VFs are offered as, without its prefix.
    pub resource_name: String,
    /// Labels that a node must have; none is every node.
    pub node_selector: BTreeMap<String, String>,
    /// 0 to 99; 0 is the most important.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// MTU of the PF and its VFs in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// VFs for each PF.
    pub num_vfs: i64,
    /// Which PFs.
    pub nic_selector: NicSelector,
    /// `netdevice` or `vfio-pci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// RDMA mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_rdma: Option<bool>,
    /// Mount `/dev/vhost-net` into pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need_vhost_net: Option<bool>,
    /// `eth`, `ETH`, `ib` or `IB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_type: Option<String>,
    /// `legacy` or `switchdev`.
    #[serde(
        rename = "eSwitchMode",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub eswitch_mode: Option<String>,
    /// `virtio` or `vhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vdpa_type: Option<String>,
    /// Use VFs that somebody else makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub externally_managed: Option<bool>,
    /// Leave out the NUMA node when the devices are advertised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_topology: Option<bool>,
    /// Software bridge; Go clients write `{}` on every update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
}

/// Which PFs; every criterion that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicSelector {
    /// Vendor, four hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Device of the PF, four hexadecimal digits.
    #[serde(rename = "deviceID", default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// PCI addresses of PFs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub root_devices: Vec<String>,
    /// Names of PFs, each perhaps with `#first-last`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pf_names: Vec<String>,
    /// Network of a virtual platform, `key:value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_filter: Option<String>,
}

/// Software bridges of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// Open vSwitch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ovs: Option<OvsConfig>,
}

/// An Open vSwitch bridge with the PF as its uplink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OvsConfig {
    /// The bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<OvsBridge>,
    /// The uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<OvsUplink>,
}

/// Columns of the table `Bridge` of OVSDB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OvsBridge {
    /// `datapath_type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath_type: Option<String>,
    /// `external_ids`.
    #[serde(
        rename = "externalIDs",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub external_ids: BTreeMap<String, String>,
    /// `other_config`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_config: BTreeMap<String, String>,
    /// `fail_mode`: `secure` or `standalone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_mode: Option<String>,
}

/// The uplink of an Open vSwitch bridge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OvsUplink {
    /// The PF's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<OvsInterface>,
}

/// Columns of the table `Interface` of OVSDB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OvsInterface {
    /// `type`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `options`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// `external_ids`.
    #[serde(
        rename = "externalIDs",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub external_ids: BTreeMap<String, String>,
    /// `other_config`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_config: BTreeMap<String, String>,
    /// `mtu_request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu_request: Option<i64>,
}

/// A policy with values that mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {name}: {} of its fields cannot be used", problems.len())]
pub struct InvalidNodePolicy {
    /// Name of the policy.
    pub name: String,
    /// Everything that is wrong, in the order of the fields.
    pub problems: Vec<FieldProblem>,
}

const TEXT_MAP: Kind = Kind::TextMap;

/// Fields of the kind, as in upstream's CRD.
pub(crate) static SCHEMA: [Field; 5] = [
    required("apiVersion", Kind::Text),
    required("kind", Kind::Text),
    required("metadata", Kind::Any),
    required("spec", Kind::Object(&SPEC)),
    field("status", Kind::Any),
];

static SPEC: [Field; 15] = [
    required("resourceName", Kind::Text),
    required("nodeSelector", TEXT_MAP),
    field(
        "priority",
        Kind::Integer {
            min: Some(0),
            max: Some(99),
        },
    ),
    field(
        "mtu",
        Kind::Integer {
            min: Some(1),
            max: None,
        },
    ),
    required(
        "numVfs",
        Kind::Integer {
            min: Some(0),
            max: None,
        },
    ),
    required(
        "nicSelector",
        Kind::Object(&[
            field("vendor", Kind::Text),
            field("deviceID", Kind::Text),
            field("rootDevices", Kind::TextList),
            field("pfNames", Kind::TextList),
            field("netFilter", Kind::Text),
        ]),
    ),
    field("deviceType", Kind::OneOf(&["netdevice", "vfio-pci"])),
    field("isRdma", Kind::Bool),
    field("needVhostNet", Kind::Bool),
    field("linkType", Kind::OneOf(&["eth", "ETH", "ib", "IB"])),
    field("eSwitchMode", Kind::OneOf(&["legacy", "switchdev"])),
    field("vdpaType", Kind::OneOf(&["virtio", "vhost"])),
    field("externallyManaged", Kind::Bool),
    field("excludeTopology", Kind::Bool),
    field("bridge", Kind::Object(&[field("ovs", Kind::Object(&OVS))])),
];

static OVS: [Field; 2] = [
    field(
        "bridge",
        Kind::Object(&[
            field("datapathType", Kind::Text),
            field("externalIDs", TEXT_MAP),
            field("otherConfig", TEXT_MAP),
            field("failMode", Kind::OneOf(&["secure", "standalone"])),
        ]),
    ),
    field(
        "uplink",
        Kind::Object(&[field(
            "interface",
            Kind::Object(&[
                field("type", Kind::Text),
                field("options", TEXT_MAP),
                field("externalIDs", TEXT_MAP),
                field("otherConfig", TEXT_MAP),
                field(
                    "mtuRequest",
                    Kind::Integer {
                        min: None,
                        max: None,
                    },
                ),
            ]),
        )]),
    ),
];
