//! Package `v1beta1`: the device plugin (served by us) and its registration (served by the kubelet).

use std::collections::HashMap;

use prost::Message;

/// Version of the interface.
pub const VERSION: &str = "v1beta1";

/// Where the kubelet looks for device plugins, whatever its own root directory is.
pub const DIRECTORY: &str = "/var/lib/kubelet/device-plugins";

/// The kubelet's own socket in [`DIRECTORY`].
pub const KUBELET_SOCKET: &str = "kubelet.sock";

/// Method by which a plugin announces itself to the kubelet.
pub const REGISTER: &str = "/v1beta1.Registration/Register";
/// Method that asks what else a plugin offers.
pub const OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
/// Method whose stream tells all devices, anew with each change.
pub const LIST_AND_WATCH: &str = "/v1beta1.DevicePlugin/ListAndWatch";
/// Method that asks which devices a container should get.
pub const PREFERRED_ALLOCATION: &str = "/v1beta1.DevicePlugin/GetPreferredAllocation";
/// Method that asks what a container needs to use its devices.
pub const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";
/// Method before each start of a container, when a plugin wants it.
pub const PRE_START: &str = "/v1beta1.DevicePlugin/PreStartContainer";

/// Health of a device that can be given away.
pub const HEALTHY: &str = "Healthy";
/// Health of a device that cannot.
pub const UNHEALTHY: &str = "Unhealthy";

/// No content.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Empty {}

/// What a plugin offers beside allocation.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DevicePluginOptions {
    /// Is [`PRE_START`] wanted?
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// Is [`PREFERRED_ALLOCATION`] served?
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plugin announces itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegisterRequest {
    /// [`VERSION`].
    #[prost(string, tag = "1")]
    pub version: String,
    /// Name of the plugin's socket in [`DIRECTORY`].
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// The resource, `intel.com/sriov_a`.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// What it offers; the kubelet asks again.
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// All devices of a resource.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListAndWatchResponse {
    /// The devices; the kubelet forgets any other.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Device {
    /// Its identity, at most 63 characters.
    #[prost(string, tag = "1")]
    pub id: String,
    /// [`HEALTHY`] or [`UNHEALTHY`].
    #[prost(string, tag = "2")]
    pub health: String,
    /// Where it is; absent when it is anywhere.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// NUMA nodes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TopologyInfo {
    /// The nodes.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// A NUMA node.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NumaNode {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Asks which devices containers should get.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreferredAllocationRequest {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerPreferredAllocationRequest>,
}

/// Asks which devices a container should get.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerPreferredAllocationRequest {
    /// Devices to choose from.
    #[prost(string, repeated, tag = "1")]
    pub available_device_ids: Vec<String>,
    /// Devices that must be among them.
    #[prost(string, repeated, tag = "2")]
    pub must_include_device_ids: Vec<String>,
    /// How many.
    #[prost(int32, tag = "3")]
    pub allocation_size: i32,
}

/// Says which devices containers should get.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreferredAllocationResponse {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerPreferredAllocationResponse>,
}

/// Says which devices a container should get.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerPreferredAllocationResponse {
    /// The devices.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// Asks what containers need to use their devices.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateRequest {
    /// One for each container; the kubelet sends one.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// Asks what a container needs.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateRequest {
    /// Its devices.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// Says what containers need.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateResponse {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// Says what a container needs.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateResponse {
    /// Environment variables.
    #[prost(map = "string, string", tag = "1")]
    pub envs: HashMap<String, String>,
    /// Mounts.
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    /// Device nodes.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
    /// Annotations for the container runtime.
    #[prost(map = "string, string", tag = "4")]
    pub annotations: HashMap<String, String>,
    /// Devices that a CDI specification describes; kubelet 1.28 and later.
    #[prost(message, repeated, tag = "5")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// A mount.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    /// Where in the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// What of the host.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// May it only be read?
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// A device node.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeviceSpec {
    /// Where in the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// Which of the host.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Letters of `rwm`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// A device that a CDI specification describes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CdiDevice {
    /// `intel.com/net-pci=0000:3b:02.1`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Asks to prepare devices before a container starts.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreStartContainerRequest {
    /// The devices.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}
