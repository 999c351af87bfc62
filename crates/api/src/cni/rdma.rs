//! The configuration of the `rdma` plugin, and what upstream's keeps of an RDMA device that it moved:
//! `/var/lib/cni/rdma/<network>-<container>-<interface>`.
//!
//! The plugin is chained behind the one that gave the container its VF.

use std::fmt;

use model::PciAddress;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cache::ParseCacheError;
use super::config::{ConfigError, NetworkConfig, problems, shortened};
use super::json::Fields;

/// Longest name of a device on the auxiliary bus, as kernel names go.
const NAME_LIMIT: usize = 128;

/// What an RDMA device is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RdmaParent {
    /// A PCI function.
    Function(PciAddress),
    /// A device on the auxiliary bus, such as `mlx5_core.sf.4`.
    Auxiliary(String),
}

impl fmt::Display for RdmaParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(address) => address.fmt(f),
            Self::Auxiliary(name) => f.pad(name),
        }
    }
}

/// What the configuration of the `rdma` plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaConfig {
    /// The device whose RDMA device is moved; `None` when the interface of the result before it
    /// tells.
    pub parent: Option<RdmaParent>,
    /// Is much logged (`args.cni.debug`)?
    pub is_verbose: bool,
}

impl RdmaConfig {
    /// Reads the fields of the plugin.
    pub fn read(config: &NetworkConfig) -> Result<Self, ConfigError> {
        let mut fields = Fields::of(&config.json);
        let parent = fields.text("deviceID").map(parent);
        if let Some(Err(text)) = &parent {
            fields.problem(
                "deviceID",
                format!("{text:?} names no device"),
                "write a PCI address such as 0000:3b:02.3, or a device of the auxiliary bus such as mlx5_core.sf.4",
            );
        }
        let is_verbose = fields.verbose();
        problems(fields.problems)?;
        Ok(Self {
            parent: parent.and_then(Result::ok),
            is_verbose,
        })
    }
}

fn parent(text: &str) -> Result<RdmaParent, String> {
    if let Ok(address) = text.parse() {
        return Ok(RdmaParent::Function(address));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let is_name = text.len() <= NAME_LIMIT && text.bytes().all(plain) && text.contains('.');
    if is_name && !text.starts_with('.') {
        Ok(RdmaParent::Auxiliary(text.to_owned()))
    } else {
        Err(shortened(text))
    }
}

impl NetworkConfig {
    /// Returns `prevResult` just as it came, for a plugin that passes it on.
    #[must_use]
    pub fn prev_result_as_is(&self) -> Option<Value> {
        self.json.get("prevResult").map(super::json::Json::to_value)
    }
}

/// The content of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RdmaState {
    /// Version of the form, `1.0`.
    pub version: String,
    /// What the RDMA device is on.
    #[serde(rename = "deviceID")]
    pub device_id: String,
    /// Its name on the host.
    #[serde(rename = "sandboxRdmaDevName")]
    pub host_name: String,
    /// Its name in the container, which is the same.
    #[serde(rename = "containerRdmaDevName")]
    pub container_name: String,
}

impl RdmaState {
    /// Says that a device was moved.
    #[must_use]
    pub fn moved(parent: &RdmaParent, device: &str) -> Self {
        Self {
            version: "1.0".to_owned(),
            device_id: parent.to_string(),
            host_name: device.to_owned(),
            container_name: device.to_owned(),
        }
    }

    /// Reads the content of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseCacheError> {
        let state: Self = serde_json::from_slice(bytes).map_err(ParseCacheError::NotACache)?;
        state.parent().map(|_| state)
    }

    /// Returns what the RDMA device is on.
    pub fn parent(&self) -> Result<RdmaParent, ParseCacheError> {
        let is_name = |name: &str| !name.is_empty() && !name.contains('/') && name != "..";
        if !is_name(&self.container_name) {
            return Err(ParseCacheError::NoDevice);
        }
        parent(&self.device_id).map_err(|_| ParseCacheError::NoDevice)
    }

    /// Writes the content of a file.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A struct of texts always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::Command;

    fn read(more: &str) -> Result<RdmaConfig, ConfigError> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"blue","type":"rdma"{more}}}"#);
        RdmaConfig::read(&NetworkConfig::parse(text.as_bytes(), Command::Add)?)
    }

    #[test]
    fn a_function_and_a_device_of_the_auxiliary_bus_are_named() {
        let function = read(r#","deviceID":"0000:3b:02.3""#).unwrap();
        assert!(matches!(function.parent, Some(RdmaParent::Function(_))));
        let sf = read(r#","deviceID":"mlx5_core.sf.4","args":{"cni":{"debug":true}}"#).unwrap();
        assert_eq!(sf.parent.unwrap().to_string(), "mlx5_core.sf.4");
        assert!(sf.is_verbose);
        assert_eq!(read("").unwrap().parent, None);
        for bad in ["../../etc", "mlx5/core.1", ".x", "eth0", "a b.c"] {
            assert!(read(&format!(r#","deviceID":"{bad}""#)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let parent = RdmaParent::Auxiliary("mlx5_core.sf.4".to_owned());
        let state = RdmaState::moved(&parent, "mlx5_4");
        assert_eq!(
            state.to_json(),
            r#"{"version":"1.0","deviceID":"mlx5_core.sf.4","sandboxRdmaDevName":"mlx5_4","containerRdmaDevName":"mlx5_4"}"#
        );
        assert_eq!(RdmaState::parse(state.to_json().as_bytes()).unwrap(), state);
        for bad in [
            "",
            "{}",
            r#"{"deviceID":"0000:3b:02.3"}"#,
            r#"{"deviceID":"0000:3b:02.3","containerRdmaDevName":"../x"}"#,
        ] {
            assert!(RdmaState::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
