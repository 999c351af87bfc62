//! What a container is given with its devices: environment, nodes, CDI names and device-info files.
//!
//! Pure: the pool, what it offers and the inventory in, a [`Grant`] out. Names and forms are those of
//! the SR-IOV network device plugin, because KubeVirt, Kata and DPDK programs read them. Where it
//! answers "success" without the nodes that were promised, this is an error: a container that starts
//! without its device is found much later than one that does not start.

mod environment;

use std::collections::BTreeMap;

use api::cdi::DeviceNode;
use api::device_info::DeviceInfo;
use kubelet::deviceplugin::{CdiDevice, ContainerAllocateResponse, DeviceSpec};
use model::{
    DeviceId, Function, Inventory, Pool, PoolKind, RdmaDevice, Selector, SubFunction, VdpaDevice,
    VdpaKind,
};
use policy::pool::{Ailment, Health, Offered, PoolOffer};

/// What the node itself has for devices that want it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeHas {
    /// Are there `/dev/vhost-net` and `/dev/net/tun`? Both are given or none.
    pub(crate) vhost_net: bool,
}

/// How nodes reach the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As device specs, which the kubelet passes on.
    Nodes,
    /// As names of the Container Device Interface.
    Cdi,
}

/// What a container is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Environment variables.
    pub(crate) environment: BTreeMap<String, String>,
    /// Device by device in the order of the request, with its nodes.
    pub(crate) devices: Vec<(DeviceId, Vec<DeviceNode>)>,
    /// What is written down for CNI plugins.
    pub(crate) infos: Vec<(DeviceId, DeviceInfo)>,
}

/// A device cannot be given away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    #[error("{resource} has no device {device}")]
    Unknown { resource: String, device: String },
    #[error("{device} of {resource} cannot be given away: {ailment}")]
    Unwell {
        resource: String,
        device: DeviceId,
        ailment: Ailment,
    },
    #[error("{device} of {resource} has no {lacks} at present")]
    Lacks {
        resource: String,
        device: DeviceId,
        lacks: &'static str,
    },
}

/// Everything about one device that its container may need.
pub(crate) struct Facts<'a> {
    pub(crate) id: &'a DeviceId,
    function: &'a Function,
    part: Option<&'a SubFunction>,
    selector: &'a Selector,
    pool: &'a Pool,
}

impl<'a> Facts<'a> {
    /// Finds them; `None` when the device is not on the host.
    pub(crate) fn find(
        pool: &'a Pool,
        seen: &'a Inventory,
        id: &'a DeviceId,
        offered: &Offered,
    ) -> Option<Self> {
        let (function, part) = match id {
            DeviceId::Pci(address) => (seen.get(*address)?, None),
            DeviceId::Aux(name) => {
                let part = seen.sub_functions.get(name)?;
                (seen.get(part.parent)?, Some(part))
            }
        };
        Some(Self {
            id,
            function,
            part,
            selector: pool.selectors.get(offered.selector)?,
            pool,
        })
    }

    /// Returns the RDMA devices, when the pool is for them.
    fn rdma(&self) -> Option<&'a [RdmaDevice]> {
        self.selector.rdma().then_some(match self.part {
            Some(part) => &part.rdma,
            None => &self.function.rdma,
        })
    }

    /// Returns the vDPA device, when the pool is for such.
    fn vdpa(&self) -> Option<(VdpaKind, Option<&'a VdpaDevice>)> {
        let kind = self.selector.vdpa()?;
        let mut devices = self.function.vdpa.iter();
        Some((kind, devices.find(|device| device.kind == Some(kind))))
    }

    /// Returns what the pool promises and the device does not have now.
    fn lacks(&self) -> Option<&'static str> {
        if self.rdma().is_some_and(<[_]>::is_empty) {
            return Some("RDMA device");
        }
        match self.vdpa() {
            Some((_, None)) => return Some("vDPA device of the pool's type"),
            Some((VdpaKind::Vhost, Some(device))) if device.device_node.is_none() => {
                return Some("vhost-vdpa node");
            }
            Some(_) | None => {}
        }
        let on_vfio = self.function.vfio.as_ref();
        on_vfio
            .is_some_and(|vfio| vfio.group.is_none())
            .then_some("IOMMU group")
    }

    /// Returns the nodes, in upstream's order: driver, vDPA or RDMA, vhost.
    pub(crate) fn nodes(&self, node: NodeHas) -> Vec<DeviceNode> {
        let mut nodes = Vec::new();
        if let Some(vfio) = &self.function.vfio {
            nodes.push(same("/dev/vfio/vfio"));
            nodes.extend(vfio.group.as_deref().map(|host| DeviceNode {
                host: host.to_owned(),
                container: group_in_container(host),
            }));
            if let Some(cdev) = vfio.cdev.as_deref().filter(|_| self.pool.iommufd) {
                nodes.extend([same("/dev/iommu"), same(cdev)]);
            }
        }
        nodes.extend(self.function.uio.as_deref().map(same));
        if let Some((_, device)) = self.vdpa() {
            nodes.extend(
                device
                    .and_then(|device| device.device_node.as_deref())
                    .map(same),
            );
        } else {
            let devices = self.rdma().into_iter().flatten();
            nodes.extend(
                devices
                    .flat_map(|device| &device.char_devices)
                    .map(|path| same(path)),
            );
        }
        if self.wants_vhost(node) {
            nodes.extend([same("/dev/vhost-net"), same("/dev/net/tun")]);
        }
        nodes
    }

    fn wants_vhost(&self, node: NodeHas) -> bool {
        self.selector.vhost_net && node.vhost_net && self.pool.kind != PoolKind::Accelerator
    }

    /// Returns what CNI plugins are told; only of network functions.
    pub(crate) fn info(&self) -> Option<DeviceInfo> {
        let (DeviceId::Pci(address), PoolKind::Net) = (self.id, self.pool.kind) else {
            return None;
        };
        if let Some((kind, Some(device))) = self.vdpa() {
            return Some(DeviceInfo::Vdpa {
                name: device.name.clone(),
                kind,
                path: device.device_node.clone(),
                address: *address,
            });
        }
        let rdma = self.rdma().into_iter().flatten();
        let vf = self.function.vf();
        // Upstream leaves these two out; plugins for switchdev look for them.
        let representor = vf.and_then(|vf| Some((vf.pf, vf.representor.as_ref()?)));
        Some(DeviceInfo::Pci {
            address: *address,
            rdma: rdma.map(|device| device.name.clone()).collect(),
            pf: representor.map(|(pf, _)| pf),
            representor: representor.map(|(_, name)| name.to_string()),
        })
    }
}

fn same(path: &str) -> DeviceNode {
    DeviceNode {
        host: path.to_owned(),
        container: path.to_owned(),
    }
}

/// Without an IOMMU the host's node is `noiommu-7`, and programs look for `7`.
fn group_in_container(host: &str) -> String {
    host.replacen("/noiommu-", "/", 1)
}

/// Decides what a container is given with `wanted`, in its order.
pub(crate) fn grant(
    pool: &Pool,
    offer: &PoolOffer,
    seen: &Inventory,
    node: NodeHas,
    wanted: &[String],
) -> Result<Grant, GrantError> {
    let mut grant = Grant::default();
    let mut told = Vec::new();
    let resource = || pool.resource.to_string();
    for text in wanted {
        let found = text.parse().ok();
        let found = found.and_then(|id: DeviceId| offer.devices.get_key_value(&id));
        let Some((id, offered)) = found else {
            return Err(GrantError::Unknown {
                resource: resource(),
                device: text.chars().take(63).collect(),
            });
        };
        match offered.health {
            // The kubelet knew that the link is down when it chose.
            Health::Healthy | Health::Unhealthy(Ailment::PfLinkDown) => {}
            Health::Unhealthy(ailment) => {
                return Err(GrantError::Unwell {
                    resource: resource(),
                    device: id.clone(),
                    ailment,
                });
            }
        }
        let lacks = |lacks| GrantError::Lacks {
            resource: resource(),
            device: id.clone(),
            lacks,
        };
        let facts = Facts::find(pool, seen, id, offered).ok_or_else(|| lacks("selector"))?;
        if let Some(what) = facts.lacks() {
            return Err(lacks(what));
        }
        grant.devices.push((id.clone(), facts.nodes(node)));
        grant
            .infos
            .extend(facts.info().map(|info| (id.clone(), info)));
        told.push(facts);
    }
    grant.environment = environment::environment(pool, &told, node);
    Ok(grant)
}

impl Grant {
    /// Returns the nodes that the host must have, each once.
    pub(crate) fn nodes(&self) -> Vec<&DeviceNode> {
        let mut nodes: Vec<&DeviceNode> = Vec::new();
        for node in self.devices.iter().flat_map(|(_, nodes)| nodes) {
            if !nodes.iter().any(|known| known.host == node.host) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Returns the answer to the kubelet.
    pub(crate) fn response(&self, pool: &Pool, delivery: Delivery) -> ContainerAllocateResponse {
        let mut response = ContainerAllocateResponse {
            envs: self.environment.clone().into_iter().collect(),
            ..ContainerAllocateResponse::default()
        };
        match delivery {
            Delivery::Nodes => {
                let specs = self.nodes().into_iter().map(|node| DeviceSpec {
                    container_path: node.container.clone(),
                    host_path: node.host.clone(),
                    permissions: "rw".to_owned(),
                });
                response.devices = specs.collect();
            }
            Delivery::Cdi => {
                let specified = self.devices.iter().filter(|(_, nodes)| !nodes.is_empty());
                let names: Vec<String> = specified
                    .map(|(id, _)| api::cdi::device_name(&pool.resource, pool.kind, id))
                    .collect();
                if !names.is_empty() {
                    let key = api::cdi::annotation_key(&pool.resource, pool.kind);
                    response.annotations.insert(key, names.join(","));
                }
                response.cdi_devices = names.into_iter().map(|name| CdiDevice { name }).collect();
            }
        }
        response
    }
}

#[cfg(test)]
pub(crate) mod tests;
