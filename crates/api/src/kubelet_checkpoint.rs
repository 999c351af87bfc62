//! What the kubelet's device manager wrote down: which pod was given which device.
//!
//! `/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint` is read when the kubelet itself cannot
//! be asked, as during the first second of a node. It is the kubelet's own file and never written.

use std::collections::{BTreeMap, BTreeSet};

use model::{DeviceId, ResourceName};
use serde::Deserialize;

/// The file's name in the directory of device plugins.
pub const FILE: &str = "kubelet_internal_checkpoint";

/// Largest file: an entry has some kilobytes, and a node some hundred pods.
pub const LARGEST: u64 = 16 * 1024 * 1024;

/// The file is not what the kubelet writes.
#[derive(Debug, thiserror::Error)]
#[error("this is no checkpoint of the kubelet's device manager")]
pub struct ReadCheckpointError {
    #[source]
    source: serde_json::Error,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    #[serde(default)]
    pod_device_entries: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    resource_name: String,
    #[serde(rename = "DeviceIDs", default)]
    device_ids: Option<BTreeMap<String, Option<Vec<String>>>>,
}

/// Returns the devices that pods were given, by resource. What is no device of ours is left out.
pub fn devices_of_pods(
    bytes: &[u8],
) -> Result<BTreeMap<ResourceName, BTreeSet<DeviceId>>, ReadCheckpointError> {
    let file: File =
        serde_json::from_slice(bytes).map_err(|source| ReadCheckpointError { source })?;
    let mut devices: BTreeMap<ResourceName, BTreeSet<DeviceId>> = BTreeMap::new();
    for entry in file.data.pod_device_entries.unwrap_or_default() {
        let Ok(resource) = entry.resource_name.parse() else {
            continue;
        };
        let by_node = entry.device_ids.unwrap_or_default().into_values();
        let ids = by_node.flatten().flatten();
        devices
            .entry(resource)
            .or_default()
            .extend(ids.filter_map(|id| id.parse().ok()));
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_all_numa_nodes_are_found() {
        let seed = include_bytes!("../corpus/kubelet_checkpoint/two-pods.json");
        let devices = devices_of_pods(seed).unwrap();
        let resource: ResourceName = "intel.com/sriov_a".parse().unwrap();
        let ids: Vec<String> = devices[&resource].iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["0000:3b:0a.2", "0000:86:0a.2", "mlx5_core.sf.4"]);
        assert!(devices_of_pods(b"{}").is_err());
        assert!(devices_of_pods(br#"{"Data":{"PodDeviceEntries":null}}"#).is_ok());
    }
}
