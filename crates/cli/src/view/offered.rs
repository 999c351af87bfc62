//! What pools of the device plugin offer, and what they say about devices.

use std::collections::BTreeMap;

use model::{Inventory, Pool};
use policy::pool::{DeviceStory, Health, Offered, PoolOffer, PoolStory, PoolVerdict, Verdict};
use serde::{Deserialize, Serialize};

use super::PfRefView;
use super::build::pf_ref;

/// A pool of the device plugin, with what it offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePoolView {
    /// Resource name.
    pub resource: String,
    /// `netDevice`, `accelerator` or `auxNetDevice`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its devices, by id.
    pub devices: Vec<OfferedView>,
}

/// A device that a pool offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferedView {
    /// Its id: a PCI address, or the name of a sub-function.
    pub device: String,
    /// The selector that took it, from 0.
    pub selector: usize,
    /// `healthy`, `gone`, `no-driver`, `other-driver` or `pf-link-down`.
    pub health: String,
    /// NUMA node that the kubelet is told.
    #[serde(default)]
    pub numa_node: Option<u16>,
    /// The PF of a VF, the parent of a sub-function.
    #[serde(default)]
    pub pf: Option<PfRefView>,
    /// The container that has it; `null` when none has, or nobody could be asked.
    #[serde(default)]
    pub container: Option<ContainerView>,
}

/// A container that has a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerView {
    /// Namespace and name of the pod.
    pub pod: String,
    /// The container.
    pub name: String,
    /// The resource that it got the device under.
    pub resource: String,
}

/// What one pool says about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictView {
    /// `offered`, `taken` by another pool, `excluded`, `not-selected`, `other-type` or `absent`.
    pub verdict: String,
    /// The reason in words.
    pub reason: String,
    /// With `taken`: the pool that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<String>,
}

/// What one pool makes of the devices of its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStoryView {
    /// The pool with what it offers.
    #[serde(flatten)]
    pub pool: DevicePoolView,
    /// The devices of its type that it does not offer.
    pub not_offered: Vec<NotOfferedView>,
}

/// A device that a pool does not offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotOfferedView {
    /// Its id.
    pub device: String,
    /// Why.
    #[serde(flatten)]
    pub verdict: VerdictView,
}

/// What one pool says about the device that is explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceVerdictView {
    /// The pool.
    pub resource: String,
    /// What it says.
    #[serde(flatten)]
    pub verdict: VerdictView,
    /// With `offered`: as what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<OfferedView>,
}

/// Which container has a device, by the device's id.
pub type Containers = BTreeMap<String, ContainerView>;

/// Shows what a pool offers.
#[must_use]
pub fn device_pool_view(
    pool: &Pool,
    offer: &PoolOffer,
    seen: &Inventory,
    containers: &Containers,
) -> DevicePoolView {
    let devices = offer.devices.iter();
    DevicePoolView {
        resource: pool.resource.to_string(),
        kind: pool.kind.to_string(),
        devices: devices
            .map(|(id, offered)| offered_view(&id.to_string(), offered, seen, containers))
            .collect(),
    }
}

/// Shows what a pool makes of each device.
#[must_use]
pub fn pool_story_view(
    pool: &Pool,
    story: &PoolStory,
    seen: &Inventory,
    containers: &Containers,
) -> PoolStoryView {
    let offered = story.offered.iter();
    let others = story.others.iter();
    PoolStoryView {
        pool: DevicePoolView {
            resource: pool.resource.to_string(),
            kind: pool.kind.to_string(),
            devices: offered
                .map(|(id, offered)| offered_view(&id.to_string(), offered, seen, containers))
                .collect(),
        },
        not_offered: others
            .map(|(id, verdict)| NotOfferedView {
                device: id.to_string(),
                verdict: verdict_view(verdict),
            })
            .collect(),
    }
}

/// Shows what each pool says about a device.
#[must_use]
pub fn device_verdict_views(
    story: &DeviceStory,
    seen: &Inventory,
    containers: &Containers,
) -> Vec<DeviceVerdictView> {
    let verdicts = story.pools.iter().map(|said| {
        let own = story.offered.as_ref();
        let own = own.filter(|(resource, _)| *resource == said.resource);
        let id = story.device.to_string();
        let offered = own.map(|(_, offered)| offered_view(&id, offered, seen, containers));
        let mut verdict = verdict_view(said);
        if let Some(offered) = &offered {
            "offered".clone_into(&mut verdict.verdict);
            verdict.reason = format!("selector {} takes it", offered.selector);
        }
        DeviceVerdictView {
            resource: said.resource.to_string(),
            verdict,
            offered,
        }
    });
    verdicts.collect()
}

fn offered_view(
    id: &str,
    offered: &Offered,
    seen: &Inventory,
    containers: &Containers,
) -> OfferedView {
    OfferedView {
        device: id.to_owned(),
        selector: offered.selector,
        health: match offered.health {
            Health::Healthy => "healthy",
            Health::Unhealthy(ailment) => ailment.label(),
        }
        .to_owned(),
        numa_node: offered.numa.map(|numa| numa.0),
        pf: offered.pf.map(|pf| pf_ref(seen, pf)),
        container: containers.get(id).cloned(),
    }
}

fn verdict_view(said: &PoolVerdict) -> VerdictView {
    let word = match (&said.verdict, &said.taken_by) {
        (_, Some(_)) => "taken",
        (Verdict::Absent, None) => "absent",
        (Verdict::OtherKind { .. }, None) => "other-type",
        (Verdict::Excluded(_), None) => "excluded",
        (Verdict::NotSelected(_), None) => "not-selected",
        (Verdict::Selected { .. }, None) => "offered",
    };
    VerdictView {
        verdict: word.to_owned(),
        reason: said.verdict.to_string(),
        taken_by: said.taken_by.as_ref().map(ToString::to_string),
    }
}
