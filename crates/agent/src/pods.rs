//! Which pod has which device: asked of the kubelet, read from its checkpoint, or remembered.
//!
//! What is believed is never less than what is true: a device that we gave away counts as held until
//! the kubelet, asked some time later, does not name it. The kubelet tells nobody when a pod ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kubelet::podresources::{LIST, ListPodResourcesRequest, ListPodResourcesResponse, SOCKET};
use kubelet::{CallError, call};
use model::{DeviceId, ResourceName};
use policy::pool::Held;

use crate::options::Dirs;

/// How long the kubelet may take. It answers from memory; only a hung one takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long after an allocation the kubelet may not name it yet: it does so when the pod is admitted,
/// which takes as long as its slowest device plugin.
const ADMISSION: Duration = Duration::from_secs(30);

/// A container that has a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDevice {
    /// The resource that it was got under.
    pub resource: ResourceName,
    /// The device.
    pub device: DeviceId,
    /// Namespace and name of the pod, `default/web-0`.
    pub pod: String,
    /// The container.
    pub container: String,
}

/// Asks the kubelet which container has which device. What is no device of ours is left out.
pub(crate) async fn pod_devices(kubelet: &Path) -> Result<Vec<PodDevice>, CallError> {
    let request = ListPodResourcesRequest {};
    let socket = kubelet.join(SOCKET);
    let pods: ListPodResourcesResponse = call(&socket, LIST, &request, DEADLINE).await?;
    let mut devices = Vec::new();
    for pod in pods.pod_resources {
        for container in pod.containers {
            for entry in container.devices {
                let Ok(resource) = entry.resource_name.parse::<ResourceName>() else {
                    continue;
                };
                let ids = entry.device_ids.iter().filter_map(|id| id.parse().ok());
                devices.extend(ids.map(|device| PodDevice {
                    resource: resource.clone(),
                    device,
                    pod: format!("{}/{}", pod.namespace, pod.name),
                    container: container.name.clone(),
                }));
            }
        }
    }
    Ok(devices)
}

/// What is believed about pods.
#[derive(Debug, Default)]
pub(crate) struct Beliefs {
    listed: BTreeMap<ResourceName, BTreeSet<DeviceId>>,
    complete: bool,
    given: BTreeMap<(ResourceName, DeviceId), Instant>,
}

impl Beliefs {
    /// Remembers that devices were given away.
    pub(crate) fn gave(&mut self, resource: &ResourceName, devices: &[DeviceId], at: Instant) {
        for device in devices {
            self.given.insert((resource.clone(), device.clone()), at);
        }
    }

    /// Takes what the kubelet said; it was asked at `asked`.
    pub(crate) fn kubelet_said(&mut self, devices: Vec<PodDevice>, asked: Instant) {
        self.listed.clear();
        for found in devices {
            let known = self.listed.entry(found.resource).or_default();
            known.insert(found.device);
        }
        self.complete = true;
        let listed = &self.listed;
        self.given.retain(|(resource, device), at| {
            let named = listed.get(resource).is_some_and(|ids| ids.contains(device));
            named || asked.saturating_duration_since(*at) < ADMISSION
        });
    }

    /// Takes what the kubelet wrote down, when it cannot be asked.
    pub(crate) fn kubelet_wrote(&mut self, dirs: &Dirs) {
        let path = dirs.device_plugins.join(api::kubelet_checkpoint::FILE);
        let Ok(file) = File::open(path) else {
            return;
        };
        let mut bytes = Vec::new();
        let read = file
            .take(api::kubelet_checkpoint::LARGEST)
            .read_to_end(&mut bytes);
        if read.is_ok()
            && let Ok(devices) = api::kubelet_checkpoint::devices_of_pods(&bytes)
        {
            self.listed = devices;
        }
    }

    /// Returns what pods hold, as far as it is known.
    pub(crate) fn held(&self) -> Held {
        let mut by_pods = self.listed.clone();
        for (resource, device) in self.given.keys() {
            let known = by_pods.entry(resource.clone()).or_default();
            known.insert(device.clone());
        }
        Held {
            by_pods,
            complete: self.complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_held_until_the_kubelet_does_not_name_it() {
        let resource: ResourceName = "intel.com/a".parse().unwrap();
        let device: DeviceId = "0000:01:10.0".parse().unwrap();
        let start = Instant::now();
        let mut beliefs = Beliefs::default();
        beliefs.gave(&resource, std::slice::from_ref(&device), start);
        let held = |beliefs: &Beliefs| beliefs.held().resource_of(&device).is_some();
        assert!(held(&beliefs) && !beliefs.held().complete);
        let named = PodDevice {
            resource: resource.clone(),
            device: device.clone(),
            pod: "default/a".to_owned(),
            container: "a".to_owned(),
        };
        beliefs.kubelet_said(Vec::new(), start);
        assert!(held(&beliefs), "the pod may still be on its way");
        beliefs.kubelet_said(vec![named], start + 2 * ADMISSION);
        assert!(held(&beliefs));
        beliefs.kubelet_said(Vec::new(), start + 3 * ADMISSION);
        assert!(!held(&beliefs) && beliefs.held().complete);
    }
}
