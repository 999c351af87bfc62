//! What `-o json` and `-o yaml` write: the stable view of a host.
//!
//! Every field is described in `docs/json.md`. The view is append-only: a field is never renamed,
//! removed or given another meaning; that takes a new [`SCHEMA`]. A field is always there, and
//! `null` when the host does not report it, so that "not reported" is never taken for "off".
//! It is also read back, by `virtfn topology --from`: there a missing field is `null`, and a field
//! that this version does not know is skipped.

mod build;
mod offered;
mod plan;
mod pools;

use model::{Guid, MacAddr, PciAddress};
use serde::{Deserialize, Serialize};

pub use build::{Names, host_view};
pub use offered::{
    ContainerView, Containers, DevicePoolView, DeviceVerdictView, NotOfferedView, OfferedView,
    PoolStoryView, VerdictView, device_pool_view, device_verdict_views, pool_story_view,
};
pub use plan::{
    FirmwareView, InterruptView, KernelArgumentView, ObstacleView, PLAN_SCHEMA, PfPlanView,
    PlanView, RdmaNeedView, RefusalView, StepView, plan_view,
};
pub use pools::pool_views;

/// Name and version of the format of [`HostView`].
pub const SCHEMA: &str = "virtfn.host/v1";

/// A host, or the part of it that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// [`SCHEMA`].
    pub schema: String,
    /// Name of the host.
    #[serde(default)]
    pub host: Option<String>,
    /// The PFs, by address; absent when only VFs or pools were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pfs: Option<Vec<PfView>>,
    /// The VFs, by PF and index, with `list vf`; otherwise the VFs whose PF could not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfs: Option<Vec<VfView>>,
    /// The pools, by resource, with `list pool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<PoolView>>,
    /// The pools of the device plugin, in the order of its configuration, with `list pool` for one.
    #[serde(
        default,
        rename = "devicePools",
        skip_serializing_if = "Option::is_none"
    )]
    pub device_pools: Option<Vec<DevicePoolView>>,
    /// What could not be read.
    #[serde(default)]
    pub gaps: Vec<GapView>,
}

/// A physical function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PfView {
    /// PCI address.
    pub address: PciAddress,
    /// Vendor.
    #[serde(default)]
    pub vendor: IdView,
    /// Device.
    #[serde(default)]
    pub device: IdView,
    /// Class code and its name.
    #[serde(default)]
    pub class: IdView,
    /// Bound driver.
    #[serde(default)]
    pub driver: Option<String>,
    /// Its own netdev.
    #[serde(default)]
    pub netdev: Option<NetdevView>,
    /// NUMA node.
    #[serde(default)]
    pub numa_node: Option<u16>,
    /// IOMMU group.
    #[serde(default)]
    pub iommu_group: Option<u32>,
    /// Other functions in the IOMMU group.
    #[serde(default)]
    pub iommu_group_members: Vec<PciAddress>,
    /// Most VFs that it offers.
    #[serde(default)]
    pub total_vfs: u16,
    /// VFs that it has.
    #[serde(default)]
    pub num_vfs: u16,
    /// `legacy` or `switchdev`.
    #[serde(default)]
    pub eswitch_mode: Option<String>,
    /// Running firmware.
    #[serde(default)]
    pub firmware: Option<String>,
    /// RDMA devices.
    #[serde(default)]
    pub rdma: Vec<RdmaView>,
    /// Its VFs, by index; absent with `list pf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfs: Option<Vec<VfView>>,
}

/// A virtual function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VfView {
    /// PCI address.
    pub address: PciAddress,
    /// Its number on the PF; `null` while it is being removed.
    #[serde(default)]
    pub index: Option<u16>,
    /// Its PF.
    pub pf: PfRefView,
    /// Vendor.
    #[serde(default)]
    pub vendor: IdView,
    /// Device.
    #[serde(default)]
    pub device: IdView,
    /// Bound driver.
    #[serde(default)]
    pub driver: Option<String>,
    /// Its netdev.
    #[serde(default)]
    pub netdev: Option<NetdevView>,
    /// MAC that the PF gave it; all zero when none was given.
    #[serde(default)]
    pub admin_mac: Option<MacAddr>,
    /// VLAN id; 0 is "no VLAN".
    #[serde(default)]
    pub vlan: Option<u16>,
    /// VLAN priority; `null` without a VLAN.
    #[serde(default)]
    pub qos: Option<u8>,
    /// `802.1q` or `802.1ad`; `null` without a VLAN.
    #[serde(default)]
    pub vlan_proto: Option<String>,
    /// Spoof checking.
    #[serde(default)]
    pub spoof_check: Option<bool>,
    /// Trust.
    #[serde(default)]
    pub trust: Option<bool>,
    /// `auto`, `enable` or `disable`.
    #[serde(default)]
    pub link_state: Option<String>,
    /// Guaranteed rate in Mbit/s; 0 is "none".
    #[serde(default)]
    pub min_tx_rate_mbps: Option<u32>,
    /// Highest rate in Mbit/s; 0 is "unlimited".
    #[serde(default)]
    pub max_tx_rate_mbps: Option<u32>,
    /// May it query the RSS table?
    #[serde(default)]
    pub rss_query: Option<bool>,
    /// InfiniBand node GUID.
    #[serde(default)]
    pub node_guid: Option<Guid>,
    /// InfiniBand port GUID.
    #[serde(default)]
    pub port_guid: Option<Guid>,
    /// Its representor on the PF.
    #[serde(default)]
    pub representor: Option<String>,
    /// NUMA node.
    #[serde(default)]
    pub numa_node: Option<u16>,
    /// IOMMU group.
    #[serde(default)]
    pub iommu_group: Option<u32>,
    /// Other functions in the IOMMU group.
    #[serde(default)]
    pub iommu_group_members: Vec<PciAddress>,
    /// Device nodes of VFIO.
    #[serde(default)]
    pub vfio: Option<VfioView>,
    /// RDMA devices.
    #[serde(default)]
    pub rdma: Vec<RdmaView>,
    /// vDPA devices.
    #[serde(default)]
    pub vdpa: Vec<VdpaView>,
    /// Who was given it.
    #[serde(default)]
    pub holder: Option<HolderView>,
}

/// A number with its name from `pci.ids`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdView {
    /// Hexadecimal digits.
    pub id: String,
    /// Name; `null` when `pci.ids` is absent or does not know it.
    #[serde(default)]
    pub name: Option<String>,
}

/// A PF as its VF names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PfRefView {
    /// PCI address.
    pub address: PciAddress,
    /// Name of its netdev.
    #[serde(default)]
    pub name: Option<String>,
}

/// A netdev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetdevView {
    /// Name in its namespace.
    pub name: String,
    /// Alternative names.
    #[serde(default)]
    pub alt_names: Vec<String>,
    /// Its namespace; `null` for the host's.
    #[serde(default)]
    pub netns: Option<NetnsView>,
    /// `ether`, `infiniband`, or the kernel's number in brackets.
    pub link_type: String,
    /// Hardware address.
    #[serde(default)]
    pub mac: Option<String>,
    /// Permanent hardware address.
    #[serde(default)]
    pub permanent_mac: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Did the administrator set it up?
    pub admin_up: bool,
    /// Operational state: `up`, `down`, `unknown` …
    pub state: String,
    /// Speed in Mbit/s; `null` without a link.
    #[serde(default)]
    pub speed_mbps: Option<u32>,
    /// Id of its switch in switchdev mode.
    #[serde(default)]
    pub phys_switch_id: Option<String>,
    /// Name of its port on the switch.
    #[serde(default)]
    pub phys_port_name: Option<String>,
}

/// A network namespace other than the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsView {
    /// Inode on nsfs.
    pub inode: u64,
    /// A path by which it can be entered.
    #[serde(default)]
    pub path: Option<String>,
}

/// An RDMA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RdmaView {
    /// Name.
    pub name: String,
    /// Node GUID.
    #[serde(default)]
    pub node_guid: Option<Guid>,
    /// Character devices that a container needs.
    #[serde(default)]
    pub char_devices: Vec<String>,
}

/// A vDPA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VdpaView {
    /// Name on the vDPA bus.
    pub name: String,
    /// `virtio` or `vhost`; `null` without a driver.
    #[serde(default)]
    pub kind: Option<String>,
    /// `/dev/vhost-vdpa-N`.
    #[serde(default)]
    pub device_node: Option<String>,
}

/// Device nodes of VFIO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfioView {
    /// `/dev/vfio/<group>`.
    #[serde(default)]
    pub group: Option<String>,
    /// `/dev/vfio/devices/vfio<n>`.
    #[serde(default)]
    pub cdev: Option<String>,
}

/// Who was given a VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    /// `attach`, `cni`, `docker`, `claim`, `namespace` or `vfio`.
    pub kind: String,
    /// Identity at that door.
    pub id: String,
    /// Name of the interface that was asked for.
    #[serde(default)]
    pub interface: Option<String>,
}

/// VFs that policies offer under one resource name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Resource name.
    pub resource: String,
    /// Which VFs of which PFs, and how many of them are there and free.
    pub members: Vec<PoolMemberView>,
}

/// The part of a pool that is on one PF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMemberView {
    /// The PF.
    pub pf: PfRefView,
    /// Policy that asks for it.
    pub policy: String,
    /// First index.
    pub first: u16,
    /// Last index.
    pub last: u16,
    /// Driver that the policy wants: `netdevice` or a driver's name.
    pub driver: String,
    /// VFs of the range that exist.
    pub present: u16,
    /// Of these, how many nobody holds.
    pub free: u16,
    /// Of these, how many somebody holds.
    pub held: u16,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapView {
    /// The object.
    pub object: String,
    /// What was tried and what came back.
    pub reason: String,
}

impl PfView {
    /// Returns the name that people use: that of the netdev, else the address.
    #[must_use]
    pub fn title(&self) -> String {
        self.netdev
            .as_ref()
            .map_or_else(|| self.address.to_string(), |netdev| netdev.name.clone())
    }
}

impl PfRefView {
    /// Returns the name that people use: that of the netdev, else the address.
    #[must_use]
    pub fn title(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.address.to_string())
    }
}

impl VfView {
    /// Returns the name that `virtfn attach` takes: `ens1f0#3`, else the address.
    #[must_use]
    pub fn handle(&self) -> String {
        match (&self.pf.name, self.index) {
            (Some(pf), Some(index)) => format!("{pf}#{index}"),
            _ => self.address.to_string(),
        }
    }
}

impl NetnsView {
    /// Returns the short name that people use.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.path {
            Some(path) => netns_title(path),
            None => format!("net:[{}]", self.inode),
        }
    }
}

/// Returns the short name of a namespace: `blue`, `pid 4711`, or the path.
pub(crate) fn netns_title(path: &str) -> String {
    let process = || {
        let pid = path.strip_prefix("/proc/")?.strip_suffix("/ns/net")?;
        Some(format!("pid {pid}"))
    };
    process().unwrap_or_else(|| path.strip_prefix("/run/netns/").unwrap_or(path).to_owned())
}

#[cfg(test)]
mod tests;
