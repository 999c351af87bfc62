//! `SriovNetworkNodeState`: what one node should have, and what it was seen to have.
//!
//! The cluster side writes `spec`, the node writes `status`. Read here, a `spec` is another way to
//! say what a host should have ([`model::Desired`]); written here, a `status` is an inventory in
//! upstream's words ([`SriovNetworkNodeStateStatus::of`]). One entry of
//! `spec.interfaces` is also what upstream keeps of each PF that it configured
//! ([`PfRecord`](super::PfRecord)).
//!
//! What would surprise: the spelling (`Vfs` and `Vlan` begin with a capital, `totalvfs` has none),
//! and that Go leaves out what is zero, so that `numVfs: 0`, `mtu: 0` and `externallyManaged: false`
//! never appear, while `pciAddress` and `vfID` always do.

use serde::{Deserialize, Serialize};

use super::node_policy::{Metadata, OvsBridge, OvsInterface};
use super::schema::{Field, Kind, field, required};

mod spec;
mod status;
#[cfg(test)]
mod tests;

pub use spec::InvalidNodeState;
pub use status::{SyncResult, SyncStatus};

/// One object of the kind. Its name is that of the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovNetworkNodeState {
    /// Always [`super::API_VERSION`].
    pub api_version: String,
    /// Always `SriovNetworkNodeState`.
    pub kind: String,
    /// What names the object.
    pub metadata: Metadata,
    /// What the node should have.
    #[serde(default)]
    pub spec: SriovNetworkNodeStateSpec,
    /// What the node has.
    #[serde(default)]
    pub status: SriovNetworkNodeStateStatus,
}

/// What a node should have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SriovNetworkNodeStateSpec {
    /// PFs that somebody wants something of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Software bridges.
    #[serde(default)]
    pub bridges: Bridges,
    /// Settings of the whole node.
    #[serde(default)]
    pub system: System,
}

/// What one PF should have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Address of the PF.
    pub pci_address: String,
    /// VFs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_vfs: Option<i64>,
    /// MTU of the PF in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// Name of the PF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
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
    /// What is wanted of the VFs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vf_groups: Vec<VfGroup>,
    /// Does somebody else configure the PF?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub externally_managed: Option<bool>,
}

/// What is wanted of some VFs of a PF.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VfGroup {
    /// Resource that they are offered as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// `netdevice` or the name of a driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// First and last VF, both included: `0-3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf_range: Option<String>,
    /// Policy that wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
    /// MTU of the VFs in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// RDMA mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_rdma: Option<bool>,
    /// `virtio` or `vhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vdpa_type: Option<String>,
}

/// Software bridges of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bridges {
    /// Open vSwitch bridges, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ovs: Vec<NodeOvsBridge>,
}

/// One Open vSwitch bridge of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOvsBridge {
    /// Its name.
    pub name: String,
    /// Its settings.
    #[serde(default)]
    pub bridge: OvsBridge,
    /// Its uplink; one element.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<NodeOvsUplink>,
}

/// The uplink of an Open vSwitch bridge of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOvsUplink {
    /// Address of the PF.
    pub pci_address: String,
    /// Name of the PF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Settings of the PF in Open vSwitch.
    #[serde(default)]
    pub interface: OvsInterface,
}

/// Settings of a whole node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// `shared` or `exclusive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma_mode: Option<String>,
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovNetworkNodeStateStatus {
    /// NICs, by PCI address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceStatus>,
    /// Software bridges that are managed.
    #[serde(default)]
    pub bridges: Bridges,
    /// Settings of the whole node.
    #[serde(default)]
    pub system: System,
    /// How the last attempt to give the node its `spec` went; empty before the first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sync_status: String,
    /// What went wrong at the last attempt that failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_sync_error: String,
}

/// What one NIC has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStatus {
    /// Name of its netdev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Alternative names of its netdev.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alt_names: Vec<String>,
    /// Hardware address: 6 bytes on Ethernet, 20 on InfiniBand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Its address.
    pub pci_address: String,
    /// Vendor, four hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Device, four hexadecimal digits.
    #[serde(rename = "deviceID", default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Network of a virtual platform, `key:value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_filter: Option<String>,
    /// MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// VFs that it has; left out when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_vfs: Option<i64>,
    /// VFs that it can have; left out when it can have none.
    #[serde(rename = "totalvfs", default, skip_serializing_if = "Option::is_none")]
    pub total_vfs: Option<i64>,
    /// Speed such as `25000 Mb/s`; `-1 Mb/s` while there is no link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_speed: Option<String>,
    /// `ETH` or `IB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_type: Option<String>,
    /// `up` or `down`, as the administrator wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_admin_state: Option<String>,
    /// `legacy` or `switchdev`; left out when it cannot have VFs.
    #[serde(
        rename = "eSwitchMode",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub eswitch_mode: Option<String>,
    /// Does somebody else configure the PF?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub externally_managed: Option<bool>,
    /// Its VFs, in lexical order of the `virtfn*` names: 0, 1, 10, 11, 2.
    #[serde(rename = "Vfs", default, skip_serializing_if = "Vec::is_empty")]
    pub vfs: Vec<VfStatus>,
}

/// What one VF has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VfStatus {
    /// Its address.
    pub pci_address: String,
    /// Its number.
    #[serde(rename = "vfID")]
    pub vf_id: i64,
    /// Driver; left out when none is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Vendor, four hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Device, four hexadecimal digits.
    #[serde(rename = "deviceID", default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Name of its netdev; left out while that is not in the host's namespace, as the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Hardware address of its netdev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// MTU of its netdev in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// `virtio` or `vhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vdpa_type: Option<String>,
    /// Its representor, in switchdev mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representor_name: Option<String>,
    /// Node GUID of its RDMA device, in the form of sysfs; all zero means that none was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// In the schema; upstream never fills it, and nor does virtfn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<String>,
    /// In the schema; upstream never fills it, and nor does virtfn.
    #[serde(rename = "Vlan", default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i64>,
}

const INTEGER: Kind = Kind::Integer {
    min: None,
    max: None,
};

/// Fields of the kind, as in upstream's CRD.
pub(crate) static SCHEMA: [Field; 5] = [
    required("apiVersion", Kind::Text),
    required("kind", Kind::Text),
    required("metadata", Kind::Any),
    field("spec", Kind::Object(&SPEC)),
    field("status", Kind::Object(&STATUS)),
];

static SPEC: [Field; 3] = [
    field("bridges", Kind::Object(&BRIDGES)),
    field("interfaces", Kind::ObjectList(&INTERFACE)),
    field("system", Kind::Object(&SYSTEM)),
];

static INTERFACE: [Field; 8] = [
    field("eSwitchMode", Kind::Text),
    field("externallyManaged", Kind::Bool),
    field("linkType", Kind::Text),
    field("mtu", INTEGER),
    field("name", Kind::Text),
    field("numVfs", INTEGER),
    required("pciAddress", Kind::Text),
    field(
        "vfGroups",
        Kind::ObjectList(&[
            field("deviceType", Kind::Text),
            field("isRdma", Kind::Bool),
            field("mtu", INTEGER),
            field("policyName", Kind::Text),
            field("resourceName", Kind::Text),
            field("vdpaType", Kind::Text),
            field("vfRange", Kind::Text),
        ]),
    ),
];

static BRIDGES: [Field; 1] = [field(
    "ovs",
    Kind::ObjectList(&[
        field(
            "bridge",
            Kind::Object(&[
                field("datapathType", Kind::Text),
                field("externalIDs", Kind::TextMap),
                field("failMode", Kind::OneOf(&["secure", "standalone"])),
                field("otherConfig", Kind::TextMap),
            ]),
        ),
        required("name", Kind::Text),
        field(
            "uplinks",
            Kind::ObjectList(&[
                field(
                    "interface",
                    Kind::Object(&[
                        field("externalIDs", Kind::TextMap),
                        field("mtuRequest", INTEGER),
                        field("options", Kind::TextMap),
                        field("otherConfig", Kind::TextMap),
                        field("type", Kind::Text),
                    ]),
                ),
                field("name", Kind::Text),
                required("pciAddress", Kind::Text),
            ]),
        ),
    ]),
)];

static SYSTEM: [Field; 1] = [field("rdmaMode", Kind::OneOf(&["shared", "exclusive"]))];

static STATUS: [Field; 5] = [
    field("bridges", Kind::Object(&BRIDGES)),
    field("interfaces", Kind::ObjectList(&INTERFACE_STATUS)),
    field("lastSyncError", Kind::Text),
    field("syncStatus", Kind::Text),
    field("system", Kind::Object(&SYSTEM)),
];

static INTERFACE_STATUS: [Field; 17] = [
    field("Vfs", Kind::ObjectList(&VF_STATUS)),
    field("altNames", Kind::TextList),
    field("deviceID", Kind::Text),
    field("driver", Kind::Text),
    field("eSwitchMode", Kind::Text),
    field("externallyManaged", Kind::Bool),
    field("linkAdminState", Kind::Text),
    field("linkSpeed", Kind::Text),
    field("linkType", Kind::Text),
    field("mac", Kind::Text),
    field("mtu", INTEGER),
    field("name", Kind::Text),
    field("netFilter", Kind::Text),
    field("numVfs", INTEGER),
    required("pciAddress", Kind::Text),
    field("totalvfs", INTEGER),
    field("vendor", Kind::Text),
];

static VF_STATUS: [Field; 13] = [
    field("Vlan", INTEGER),
    field("assigned", Kind::Text),
    field("deviceID", Kind::Text),
    field("driver", Kind::Text),
    field("guid", Kind::Text),
    field("mac", Kind::Text),
    field("mtu", INTEGER),
    field("name", Kind::Text),
    required("pciAddress", Kind::Text),
    field("representorName", Kind::Text),
    field("vdpaType", Kind::Text),
    field("vendor", Kind::Text),
    required("vfID", INTEGER),
];
