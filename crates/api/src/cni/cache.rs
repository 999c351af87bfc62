//! What upstream's `sriov` plugin keeps of a VF that it gave away:
//! `/var/lib/cni/sriov/<container>-<interface>`.
//!
//! It is the plugin's configuration with what the VF was like before, as JSON. virtfn reads it, so
//! that it can take back what upstream gave, and writes it, so that upstream can take back what
//! virtfn gave. All upstream versions from 2.3 are read; what is written is what 2.8 and later
//! write. Keys that a reader does not know it ignores, which is how virtfn marks its own files.

use model::{LinkPolicy, MacAddr, Mbps, PciAddress, Pcp, VfState, VlanId, VlanProto, VlanTag};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The content of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SriovCache {
    /// Version of the configuration.
    #[serde(rename = "cniVersion")]
    pub cni_version: String,
    /// Name of the network.
    pub name: String,
    /// Always `sriov`.
    #[serde(rename = "type")]
    pub plugin: String,
    /// Address management; upstream keeps its type only.
    pub ipam: CachedIpam,
    /// PCI address of the VF.
    #[serde(rename = "deviceID")]
    pub device_id: String,
    /// Name of the PF's netdev.
    #[serde(rename = "Master")]
    pub master: String,
    /// Number of the VF on its PF.
    #[serde(rename = "VFID")]
    pub vf: i64,
    /// The MAC that was asked for; empty when none was.
    #[serde(rename = "MAC", alias = "mac")]
    pub mac: String,
    /// MTU that the result named, in bytes.
    #[serde(rename = "MTU", skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// VLAN that was asked for.
    pub vlan: Option<i64>,
    /// Its priority.
    #[serde(rename = "vlanQoS")]
    pub vlan_qos: Option<i64>,
    /// Its protocol.
    #[serde(rename = "vlanProto")]
    pub vlan_proto: Option<String>,
    /// Guaranteed rate that was asked for, in Mbit/s.
    pub min_tx_rate: Option<i64>,
    /// Highest rate that was asked for, in Mbit/s.
    pub max_tx_rate: Option<i64>,
    /// Spoof checking as it was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub spoofchk: String,
    /// Trust as it was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust: String,
    /// Link state as it was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link_state: String,
    /// What the runtime asked for.
    #[serde(rename = "runtimeConfig")]
    pub runtime: CachedRuntime,
    /// What the VF was like before.
    #[serde(rename = "OrigVfState")]
    pub before: OrigVfState,
    /// Is it a device of user space? Written by upstream 2.3 to 2.7 only.
    #[serde(rename = "DPDKMode", skip_serializing_if = "std::ops::Not::not")]
    pub is_dpdk: bool,
    /// The boot in which virtfn wrote the file; absent in those of upstream.
    #[serde(rename = "virtfnBoot", skip_serializing_if = "Option::is_none")]
    pub virtfn_boot: Option<String>,
}

/// `ipam` of a cached configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedIpam {
    /// The plugin.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub plugin: String,
}

/// `runtimeConfig` of a cached configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedRuntime {
    /// The MAC that the runtime asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
}

/// What a VF was like before upstream gave it away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OrigVfState {
    /// Name of its netdev; empty when it had none.
    #[serde(rename = "HostIFName")]
    pub host_if_name: String,
    /// Spoof checking. A driver that does not report it reads as `true`.
    pub spoof_chk: bool,
    /// Trust. A driver that does not report it reads as `true`.
    pub trust: bool,
    /// MAC that the PF had set.
    #[serde(rename = "AdminMAC")]
    pub admin_mac: String,
    /// MAC of its netdev; empty when it had none.
    #[serde(rename = "EffectiveMAC")]
    pub effective_mac: String,
    /// VLAN, 0 for none.
    pub vlan: i64,
    /// Its priority.
    #[serde(rename = "VlanQoS")]
    pub vlan_qos: i64,
    /// Its protocol as an ethertype in host order; 0 is unknown and stands for 802.1Q.
    pub vlan_proto: i64,
    /// Guaranteed rate in Mbit/s.
    pub min_tx_rate: i64,
    /// Highest rate in Mbit/s.
    pub max_tx_rate: i64,
    /// Link state: 0 auto, 1 enable, 2 disable.
    pub link_state: u32,
    /// MTU in bytes; 0 in the files of upstream before 2.9.
    #[serde(rename = "MTU")]
    pub mtu: u32,
}

/// A file that is not what upstream writes.
#[derive(Debug, thiserror::Error)]
pub enum ParseCacheError {
    /// It is empty or not JSON: it is not written in one piece.
    #[error("it is not what the sriov plugin writes")]
    NotACache(#[source] serde_json::Error),
    /// It names no VF.
    #[error("it names no VF")]
    NoDevice,
}

/// A file in which a plugin keeps what it did to a VF: JSON that names the VF.
pub trait CacheFile: Serialize + DeserializeOwned {
    /// Returns the VF's address as it is written.
    fn device_id(&self) -> &str;

    /// Reads the content of a file.
    fn parse(bytes: &[u8]) -> Result<Self, ParseCacheError> {
        let cache: Self = serde_json::from_slice(bytes).map_err(ParseCacheError::NotACache)?;
        cache.device().map(|_| cache)
    }

    /// Returns the VF.
    fn device(&self) -> Result<PciAddress, ParseCacheError> {
        self.device_id()
            .parse()
            .map_err(|_| ParseCacheError::NoDevice)
    }

    /// Writes the content of a file.
    #[must_use]
    fn to_json(&self) -> String {
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl CacheFile for SriovCache {
    fn device_id(&self) -> &str {
        &self.device_id
    }
}

impl SriovCache {
    /// Was a MAC asked for, by whomever?
    #[must_use]
    pub fn asks_for_mac(&self) -> bool {
        !self.mac.is_empty() || !self.runtime.mac.is_empty()
    }
}

impl OrigVfState {
    /// Returns the VLAN that was set.
    #[must_use]
    pub fn vlan_tag(&self) -> Option<VlanTag> {
        Some(VlanTag {
            id: VlanId::new(u16::try_from(self.vlan).ok()?)?,
            pcp: u8::try_from(self.vlan_qos)
                .ok()
                .and_then(Pcp::new)
                .unwrap_or_default(),
            proto: if self.vlan_proto == i64::from(VlanProto::Dot1ad.ethertype()) {
                VlanProto::Dot1ad
            } else {
                VlanProto::Dot1q
            },
        })
    }

    /// Returns the MAC that the PF had set; zero when it had set none.
    #[must_use]
    pub fn admin(&self) -> Option<MacAddr> {
        self.admin_mac.parse().ok()
    }

    /// Returns the MAC that the netdev had.
    #[must_use]
    pub fn effective(&self) -> Option<MacAddr> {
        self.effective_mac.parse().ok()
    }

    /// Returns a rate; `None` is unlimited.
    #[must_use]
    pub fn rate(mbps: i64) -> Option<Mbps> {
        u32::try_from(mbps).ok().and_then(Mbps::new)
    }

    /// Returns the link state.
    #[must_use]
    pub fn link(&self) -> LinkPolicy {
        match self.link_state {
            1 => LinkPolicy::Enable,
            2 => LinkPolicy::Disable,
            _ => LinkPolicy::Auto,
        }
    }
}

impl From<&VfState> for OrigVfState {
    /// Takes what a PF reports. What it does not report reads as Go's library reads the kernel's
    /// -1, so that upstream does with it what it would have done.
    fn from(state: &VfState) -> Self {
        let tag = state.vlan.flatten();
        Self {
            spoof_chk: state.spoof_check.unwrap_or(true),
            // Upstream would restore unknown trust to on; off is what nobody regrets.
            trust: state.trust.unwrap_or(false),
            admin_mac: state.mac.unwrap_or(MacAddr::ZERO).to_string(),
            vlan: tag.map_or(0, |tag| i64::from(tag.id.get())),
            vlan_qos: tag.map_or(0, |tag| i64::from(tag.pcp.get())),
            vlan_proto: i64::from(tag.map_or(VlanProto::Dot1q, |tag| tag.proto).ethertype()),
            min_tx_rate: i64::from(state.min_rate_mbps.unwrap_or(0)),
            max_tx_rate: i64::from(state.max_rate_mbps.unwrap_or(0)),
            link_state: match state.link {
                Some(LinkPolicy::Enable) => 1,
                Some(LinkPolicy::Disable) => 2,
                Some(LinkPolicy::Auto) | None => 0,
            },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = include_str!("../../corpus/cni_cache/upstream-2.10.json");

    #[test]
    fn upstreams_file_is_read() {
        let cache = SriovCache::parse(UPSTREAM.as_bytes()).unwrap();
        assert_eq!(cache.device().unwrap().to_string(), "0000:3b:02.3");
        assert_eq!((cache.vlan, cache.vlan_qos), (Some(100), Some(0)));
        assert!(cache.asks_for_mac() && cache.virtfn_boot.is_none());
        assert_eq!(cache.before.host_if_name, "ens1f0v3");
        assert_eq!(cache.before.vlan_tag(), None);
        assert_eq!(cache.before.link(), LinkPolicy::Auto);
        assert_eq!((cache.before.spoof_chk, cache.before.mtu), (true, 1500));
    }

    #[test]
    fn upstreams_file_is_written_back_with_the_same_meaning() {
        let cache = SriovCache::parse(UPSTREAM.as_bytes()).unwrap();
        let ours: serde_json::Value = serde_json::from_str(&cache.to_json()).unwrap();
        let theirs: serde_json::Value = serde_json::from_str(UPSTREAM).unwrap();
        for (key, value) in theirs.as_object().unwrap() {
            // How much was logged says nothing about the VF.
            if key != "logLevel" {
                assert_eq!(ours.get(key), Some(value), "{key}");
            }
        }
    }

    #[test]
    fn a_file_of_an_old_upstream_lacks_fields() {
        let old = r#"{"type":"sriov","deviceID":"0000:3b:02.3","DPDKMode":true,"ContIFNames":"net1","OrigVfState":{"HostIFName":""}}"#;
        let cache = SriovCache::parse(old.as_bytes()).unwrap();
        assert!(cache.is_dpdk && cache.vlan.is_none());
        assert_eq!(cache.before.mtu, 0);
    }

    #[test]
    fn broken_files_are_refused() {
        assert!(matches!(
            SriovCache::parse(b""),
            Err(ParseCacheError::NotACache(_))
        ));
        assert!(matches!(
            SriovCache::parse(b"{}"),
            Err(ParseCacheError::NoDevice)
        ));
    }
}
