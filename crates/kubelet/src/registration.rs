//! Package `pluginregistration`: how the kubelet's plugin watcher asks a socket that it found what it is.

use prost::Message;

/// Method that asks what is behind a socket.
pub const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
/// Method by which the kubelet says whether it took the plugin.
pub const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";

/// The type of plugins that hand out devices.
pub const DEVICE_PLUGIN: &str = "DevicePlugin";

/// Asks what is behind a socket.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct InfoRequest {}

/// Says what is behind a socket.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PluginInfo {
    /// [`DEVICE_PLUGIN`].
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// The resource.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Socket of the plugin, as the kubelet sees it; empty for the one that it asked through.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    /// Versions of the interface.
    #[prost(string, repeated, tag = "4")]
    pub supported_versions: Vec<String>,
}

/// Says whether the kubelet took the plugin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegistrationStatus {
    /// Did it?
    #[prost(bool, tag = "1")]
    pub plugin_registered: bool,
    /// Why not.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// No content.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegistrationStatusResponse {}
