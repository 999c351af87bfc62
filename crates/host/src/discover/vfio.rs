//! Device nodes through which user space reaches a function on VFIO.
//!
//! Which nodes there are is read from sysfs, not from `/dev`: a container seldom has the host's
//! `/dev`, and udev makes the nodes from the same facts.

use model::{DriverName, IommuGroup, VfioNode};

use super::device::Device;
use crate::root::HostRoot;

/// Returns the nodes of `device`, or `None` while no VFIO driver is bound.
pub(super) fn read_node(
    root: &HostRoot,
    device: &mut Device<'_>,
    driver: Option<&DriverName>,
    group: Option<IommuGroup>,
) -> Option<VfioNode> {
    if !driver?.is_vfio() {
        return None;
    }
    // Kernels without CONFIG_VFIO_DEVICE_CDEV (Debian 12's) have the entry, and no node for it.
    let mut entries = device.list("vfio-dev").into_iter();
    let cdev = entries.find(|name| device.has(&format!("vfio-dev/{name}/dev")));
    Some(VfioNode {
        group: group.map(|group| group_node(root, group)),
        cdev: cdev.map(|name| format!("/dev/vfio/devices/{name}")),
    })
}

/// Names the node of a group; without an IOMMU the kernel calls it `noiommu-N`.
fn group_node(root: &HostRoot, group: IommuGroup) -> String {
    let name = root.read_text(&format!("/sys/kernel/iommu_groups/{group}/name"));
    match name.as_deref() {
        Ok("vfio-noiommu") => format!("/dev/vfio/noiommu-{group}"),
        _ => format!("/dev/vfio/{group}"),
    }
}
