//! The result of an ADD, in the form of each version.
//!
//! Inside, it is what 1.1.0 has. [`AddResult::to_json`] writes older forms, and
//! [`AddResult::from_value`] reads them. What would surprise: before 0.3.0 a result has at most one
//! address of a family and must have one at all, so a network without IPAM cannot be written there;
//! and 0.3.0 is written as 0.3.1 because nobody ever did otherwise.

mod legacy;

use std::net::IpAddr;

use model::{Code, Explain, InterfaceAddress};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ErrorNumber;
use super::version::CniVersion;

/// What an ADD made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddResult {
    /// Interfaces.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub interfaces: Vec<Interface>,
    /// Addresses.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub ips: Vec<Ip>,
    /// Routes.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub routes: Vec<Route>,
    /// Name resolution.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Dns::is_empty"
    )]
    pub dns: Dns,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Hardware address as text; empty when there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// MTU in bytes; 0 when not said. Not before 1.0.0.
    #[serde(skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Path of the namespace; empty for the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Path of a vhost-user socket. Not before 1.0.0.
    #[serde(rename = "socketPath", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// PCI address. Not before 1.0.0.
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// Which of the interfaces has it, by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
    /// The address and its prefix.
    pub address: InterfaceAddress,
    /// The gateway of its network.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_address"
    )]
    pub gateway: Option<IpAddr>,
}

/// A route of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: InterfaceAddress,
    /// Next hop; the gateway of the first address of its family when `None`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_address"
    )]
    pub gw: Option<IpAddr>,
    /// MTU of its path in bytes, 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Advertised TCP segment size in bytes, 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub advmss: u32,
    /// Metric, 0 for the kernel's own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u32,
    /// Routing table; the main one when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope (`rt_scope`); global when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<String>,
}

impl Dns {
    /// Does it say nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A result cannot be read, or not be written in a version.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// It is no JSON, or no result.
    #[error("read a CNI result")]
    NotAResult(#[source] serde_json::Error),
    /// Its version is none that we know.
    #[error("no converter for CNI result version {0:?}")]
    Version(String),
    /// Results before 0.3.0 have an address.
    #[error("cannot convert: no valid IP addresses, which a result of version {0} needs")]
    NoAddress(CniVersion),
}

impl ResultError {
    /// Returns the error's number.
    #[must_use]
    pub fn number(&self) -> ErrorNumber {
        match self {
            Self::NotAResult(_) => ErrorNumber::DECODE,
            Self::Version(_) => ErrorNumber::INCOMPATIBLE_VERSION,
            Self::NoAddress(_) => ErrorNumber::BAD_CONFIG,
        }
    }
}

impl Explain for ResultError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::NotAResult(_) => "result-not-json",
            Self::Version(_) => "incompatible-cni-version",
            Self::NoAddress(_) => "result-without-address",
        })
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::NotAResult(_) => None,
            Self::Version(_) | Self::NoAddress(_) => {
                Some("set cniVersion of the network to 0.3.1 or later".to_owned())
            }
        }
    }
}

impl AddResult {
    /// Reads what a delegate printed; without a version in it, it is in that of the configuration.
    pub fn parse(stdout: &[u8], config: CniVersion) -> Result<Self, ResultError> {
        let value = serde_json::from_slice(stdout).map_err(ResultError::NotAResult)?;
        Self::from_value(value, config)
    }

    /// Reads a result; `null` is an empty one.
    pub fn from_value(mut value: Value, config: CniVersion) -> Result<Self, ResultError> {
        drop_nulls(&mut value);
        let version = match value.get("cniVersion").and_then(Value::as_str) {
            None | Some("") => config,
            Some(text) => text
                .parse()
                .map_err(|_| ResultError::Version(text.chars().take(80).collect()))?,
        };
        if value.is_null() {
            return Ok(Self::default());
        }
        if !value.is_object() {
            let error = <serde_json::Error as serde::de::Error>::custom("it is no object");
            return Err(ResultError::NotAResult(error));
        }
        if version < CniVersion::V0_3_0 {
            return legacy::read(value).map_err(ResultError::NotAResult);
        }
        serde_json::from_value(value).map_err(ResultError::NotAResult)
    }

    /// Can it be written in `version` when it has, or has not, addresses? It is asked before
    /// anything is changed.
    pub fn check_version(version: CniVersion, has_addresses: bool) -> Result<(), ResultError> {
        if version < CniVersion::V0_3_0 && !has_addresses {
            Err(ResultError::NoAddress(version))
        } else {
            Ok(())
        }
    }

    /// Writes it in the form of `version`.
    pub fn to_json(&self, version: CniVersion) -> Result<Value, ResultError> {
        Self::check_version(version, !self.ips.is_empty())?;
        if version < CniVersion::V0_3_0 {
            return Ok(legacy::write(self, version));
        }
        let mut value = json!(self);
        let Some(object) = value.as_object_mut() else {
            return Ok(value);
        };
        object.insert("cniVersion".to_owned(), json!(version.as_str()));
        if version < CniVersion::V1_0_0 {
            object.insert("dns".to_owned(), json!(self.dns));
            let items = |value: Option<&mut Value>,
                         change: fn(&mut serde_json::Map<String, Value>)| {
                let list = value.and_then(Value::as_array_mut);
                let objects = list.into_iter().flatten().filter_map(Value::as_object_mut);
                objects.for_each(change);
            };
            items(object.get_mut("interfaces"), |interface| {
                for key in ["mtu", "socketPath", "pciID"] {
                    interface.remove(key);
                }
            });
            items(object.get_mut("ips"), |ip| {
                let is_v6 = ip
                    .get("address")
                    .is_some_and(|a| a.as_str().is_some_and(|a| a.contains(':')));
                ip.insert("version".to_owned(), json!(if is_v6 { "6" } else { "4" }));
            });
        }
        Ok(value)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference to the field"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Removes what is `null`, which for Go is as if absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Go writes an empty list as `null`.
fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An address that may be absent, `null` or empty.
mod optional_address {
    use std::borrow::Cow;
    use std::net::IpAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        address: &Option<IpAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        address.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpAddr>, D::Error> {
        match Option::<Cow<'de, str>>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests;
