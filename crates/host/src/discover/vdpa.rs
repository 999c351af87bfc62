//! vDPA devices: virtio devices that a function's hardware serves.
//!
//! The vDPA bus in sysfs says everything: the link of a device leads through its function (perhaps
//! through an auxiliary device of it), its driver says what it is offered as, and with `vhost_vdpa`
//! the name of the node is a directory of it. Software devices (`vduse`) are on no function and are
//! left out.

use model::{VdpaDevice, VdpaKind};

use super::functions::Scan;
use super::rdma::nearest_function;
use crate::root::HostRoot;

/// Where sysfs lists the vDPA devices.
pub(crate) const VDPA_DEVICES: &str = "/sys/bus/vdpa/devices";

/// Adds its vDPA devices to every function that was scanned.
pub(super) fn add(root: &HostRoot, scan: &mut Scan<'_>) {
    let names = match root.list(VDPA_DEVICES) {
        Ok(names) => names,
        Err(error) if error.is_gone() => return,
        Err(error) => {
            let reason = format!("{error}: {}", error.source);
            return scan.notes.gap(VDPA_DEVICES, reason);
        }
    };
    for name in names {
        let path = format!("{VDPA_DEVICES}/{name}");
        let target = root.link_target(&path).ok();
        let function = target.and_then(|target| nearest_function(&target));
        let Some(function) = function.and_then(|at| scan.functions.get_mut(&at)) else {
            continue;
        };
        let kind = match root.link_name(&format!("{path}/driver")).as_deref() {
            Ok("vhost_vdpa") => Some(VdpaKind::Vhost),
            Ok("virtio_vdpa") => Some(VdpaKind::Virtio),
            _ => None,
        };
        let node = match kind {
            Some(VdpaKind::Vhost) => root.list(&path).unwrap_or_default(),
            Some(VdpaKind::Virtio) | None => Vec::new(),
        };
        let node = node.iter().find(|entry| entry.starts_with("vhost-vdpa-"));
        function.vdpa.push(VdpaDevice {
            device_node: node.map(|entry| format!("/dev/{entry}")),
            name,
            kind,
        });
    }
}
