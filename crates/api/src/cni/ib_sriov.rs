//! The configuration of the `ib-sriov` plugin, and what upstream's keeps of a VF that it gave away:
//! `/var/lib/cni/ib-sriov/<container>-<interface>`.
//!
//! What would surprise: the GUID comes from `runtimeConfig.infinibandGUID` or `args.cni.guid` only; a
//! `guid` beside `deviceID` counts for nothing, whatever upstream's README says. `pkey` is not
//! applied by the plugin: ib-kubernetes reads it and gives the subnet manager the GUID.

use model::{Guid, LinkPolicy, PciAddress};
use serde::{Deserialize, Serialize};

use super::cache::CacheFile;
use super::config::{ConfigError, NetworkConfig, problems, shortened};
use super::json::Fields;

/// Value of `args.cni["mellanox.infiniband.app"]` once ib-kubernetes has done its part.
const CONFIGURED: &str = "configured";

/// What the configuration of the `ib-sriov` plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IbSriovConfig {
    /// The VF (`deviceID`).
    pub device: PciAddress,
    /// Link state that the PF is to set.
    pub link: Option<LinkPolicy>,
    /// GUID that the VF gets, as node and as port.
    pub guid: Option<Guid>,
    /// Does the RDMA device of the VF go to the container too (`rdmaIsolation`)?
    pub moves_rdma: bool,
    /// Has ib-kubernetes still to configure the GUID?
    pub awaits_ib_kubernetes: bool,
    /// `ibKubernetesEnabled` as written.
    pub ib_kubernetes: bool,
    /// Must the VF be bound to `vfio-pci` (`vfioPciMode`)?
    pub must_be_vfio: bool,
    /// Partition key, which others apply.
    pub partition_key: Option<String>,
}

impl IbSriovConfig {
    /// Reads the fields of the plugin; all that are wrong are reported at once.
    pub fn read(config: &NetworkConfig) -> Result<Self, ConfigError> {
        let mut fields = Fields::of(&config.json);
        let device = super::sriov::device(&mut fields);
        let link = super::sriov::link(&mut fields);
        let guid = guid(&mut fields);
        let moves_rdma = fields.boolean("rdmaIsolation").unwrap_or_default();
        let ib_kubernetes = fields.boolean("ibKubernetesEnabled").unwrap_or_default();
        let must_be_vfio = fields.boolean("vfioPciMode").unwrap_or_default();
        let partition_key = fields.text("pkey").map(str::to_owned);
        let app = fields.argument("mellanox.infiniband.app");
        check_ipam(&mut fields);
        let has_guid_problem = !fields.problems.is_empty();
        if ib_kubernetes && guid.is_none() && !has_guid_problem && app == Some(CONFIGURED) {
            fields.problem(
                "ibKubernetesEnabled",
                "ib-kubernetes has given no GUID".to_owned(),
                "let ib-kubernetes manage this network, or leave ibKubernetesEnabled out",
            );
        }
        problems(fields.problems)?;
        let Some(device) = device else {
            // Only a problem leaves it out, and those were reported.
            return Err(ConfigError::Fields(Vec::new()));
        };
        Ok(Self {
            device,
            link,
            guid,
            moves_rdma,
            awaits_ib_kubernetes: ib_kubernetes && app != Some(CONFIGURED),
            ib_kubernetes,
            must_be_vfio,
            partition_key,
        })
    }

    /// Refuses what an InfiniBand network cannot have, for commands that read nothing else.
    pub fn check_ipam(config: &NetworkConfig) -> Result<(), ConfigError> {
        let mut fields = Fields::of(&config.json);
        check_ipam(&mut fields);
        problems(fields.problems)
    }
}

fn check_ipam(fields: &mut Fields<'_>) {
    if fields.inner_text("ipam", "type") == Some("dhcp") {
        fields.problem(
            "ipam",
            "ipam type dhcp is not supported".to_owned(),
            "name another IPAM plugin: DHCP's client ids do not fit InfiniBand",
        );
    }
}

/// Reads the GUID that counts, and only that one.
fn guid(fields: &mut Fields<'_>) -> Option<Guid> {
    let of_runtime = fields.inner_text("runtimeConfig", "infinibandGUID");
    let (key, text) = match of_runtime {
        Some(text) => ("runtimeConfig.infinibandGUID", text),
        None => ("args.cni.guid", fields.argument("guid")?),
    };
    // Eight bytes with colons, and not the form of sysfs.
    let written = Some(text).filter(|text| text.len() == 8 * 3 - 1);
    let guid = written.and_then(|text| text.parse::<Guid>().ok());
    let guid = guid.filter(|guid| !guid.is_zero() && *guid != Guid::ONES);
    if guid.is_none() {
        fields.problem(
            key,
            format!("invalid guid {}", shortened(text)),
            "write a GUID such as 00:02:c9:03:00:2f:b1:10, neither all zeros nor all ones",
        );
    }
    guid
}

/// The content of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IbSriovCache {
    /// Version of the configuration.
    #[serde(rename = "cniVersion")]
    pub cni_version: String,
    /// Name of the network.
    pub name: String,
    /// Always `ib-sriov`.
    #[serde(rename = "type")]
    pub plugin: String,
    /// Address management; its type is enough.
    pub ipam: super::CachedIpam,
    /// PCI address of the VF.
    #[serde(rename = "deviceID")]
    pub device_id: String,
    /// Name of the PF's netdev.
    #[serde(rename = "Master")]
    pub master: String,
    /// Number of the VF on its PF.
    #[serde(rename = "VFID")]
    pub vf: i64,
    /// Name of the VF's netdev on the host; empty when it had none.
    #[serde(rename = "HostIFNames")]
    pub host_name: String,
    /// Port GUID that it had.
    #[serde(rename = "HostIFGUID")]
    pub host_guid: String,
    /// Name of its netdev in the container.
    #[serde(rename = "ContIFNames")]
    pub container_name: String,
    /// Partition key.
    pub pkey: String,
    /// Link state as it was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link_state: String,
    /// Was its RDMA device moved too?
    #[serde(rename = "rdmaIsolation", skip_serializing_if = "std::ops::Not::not")]
    pub moves_rdma: bool,
    /// As configured.
    #[serde(
        rename = "ibKubernetesEnabled",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub ib_kubernetes: bool,
    /// As configured.
    #[serde(rename = "vfioPciMode", skip_serializing_if = "std::ops::Not::not")]
    pub is_vfio: bool,
    /// Its RDMA device.
    #[serde(rename = "RdmaNetState")]
    pub rdma: super::RdmaState,
    /// What the runtime asked for.
    #[serde(rename = "runtimeConfig")]
    pub runtime: IbRuntime,
    /// What the pod's annotation asked for.
    pub args: IbArguments,
    /// The boot in which virtfn wrote the file; absent in those of upstream.
    #[serde(rename = "virtfnBoot", skip_serializing_if = "Option::is_none")]
    pub virtfn_boot: Option<String>,
}

/// `runtimeConfig` of a cached configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IbRuntime {
    /// The GUID that the runtime asked for.
    #[serde(rename = "infinibandGUID", skip_serializing_if = "String::is_empty")]
    pub guid: String,
}

/// `args` of a cached configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IbArguments {
    /// `args.cni`.
    pub cni: IbCniArguments,
}

/// `args.cni` of a cached configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IbCniArguments {
    /// The GUID that the pod asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub guid: String,
}

impl CacheFile for IbSriovCache {
    fn device_id(&self) -> &str {
        &self.device_id
    }
}

impl IbSriovCache {
    /// Was a GUID given to the VF?
    #[must_use]
    pub fn asks_for_guid(&self) -> bool {
        !self.runtime.guid.is_empty() || !self.args.cni.guid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::Command;

    const UPSTREAM: &str = include_str!("../../corpus/cni_cache/upstream-ib-1.3.json");

    fn read(more: &str) -> Result<IbSriovConfig, ConfigError> {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"ib","type":"ib-sriov","deviceID":"0000:3b:02.3"{more}}}"#
        );
        IbSriovConfig::read(&NetworkConfig::parse(text.as_bytes(), Command::Add)?)
    }

    #[test]
    fn the_runtimes_guid_beats_the_annotations() {
        let both = r#","runtimeConfig":{"infinibandGUID":"00:02:c9:03:00:2f:b1:10"},"args":{"cni":{"guid":"00:02:c9:03:00:2f:b1:11"}},"guid":"no""#;
        let config = read(both).unwrap();
        assert_eq!(config.guid.unwrap().to_string(), "00:02:c9:03:00:2f:b1:10");
        let config = read(r#","args":{"cni":{"guid":"00:02:C9:03:00:2f:b1:11"}}"#).unwrap();
        assert_eq!(config.guid.unwrap().to_string(), "00:02:c9:03:00:2f:b1:11");
        assert_eq!(read("").unwrap().guid, None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            r#","deviceID":"""#,
            r#","deviceID":"3b:02"#,
            r#","link_state":"up""#,
            r#","rdmaIsolation":"true""#,
            r#","ipam":{"type":"dhcp"}"#,
            r#","args":{"cni":{"guid":"00:00:00:00:00:00:00:00"}}"#,
            r#","args":{"cni":{"guid":"ff:ff:ff:ff:ff:ff:ff:ff"}}"#,
            r#","args":{"cni":{"guid":"0002:c903:002f:b110"}}"#,
            r#","args":{"cni":{"guid":7}}"#,
            r#","runtimeConfig":{"infinibandGUID":"00-02-c9-03-00-2f-b1-10"}"#,
            r#","ibKubernetesEnabled":true,"args":{"cni":{"mellanox.infiniband.app":"configured"}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn ib_kubernetes_says_when_it_is_done() {
        let config = read(r#","ibKubernetesEnabled":true"#).unwrap();
        assert!(config.awaits_ib_kubernetes);
        let done = r#","ibKubernetesEnabled":true,"args":{"cni":{"mellanox.infiniband.app":"configured","guid":"00:02:c9:03:00:2f:b1:10"}}"#;
        assert!(!read(done).unwrap().awaits_ib_kubernetes);
    }

    #[test]
    fn upstreams_file_is_read_and_written_back() {
        let cache = IbSriovCache::parse(UPSTREAM.as_bytes()).unwrap();
        assert_eq!(cache.device().unwrap().to_string(), "0000:3b:02.3");
        assert!(cache.asks_for_guid() && cache.virtfn_boot.is_none());
        assert_eq!(cache.rdma.host_name, "mlx5_5");
        let ours: serde_json::Value = serde_json::from_str(&cache.to_json()).unwrap();
        let theirs: serde_json::Value = serde_json::from_str(UPSTREAM).unwrap();
        for (key, value) in theirs.as_object().unwrap() {
            assert_eq!(ours.get(key), Some(value), "{key}");
        }
    }
}
