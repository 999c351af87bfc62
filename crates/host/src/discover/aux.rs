//! Sub-functions: parts of a network controller that are devices on the auxiliary bus.
//!
//! `/sys/bus/auxiliary/devices/mlx5_core.sf.4` is a link into the directory of its PCI function, so
//! one `readlink` finds the parent, also while the parent's own netdev is in a pod. The other kinds
//! on that bus (`eth`, `rdma`, `vnet`) have no `sfnum` and are drivers' business.

use model::{AuxName, SubFunction};

use super::device::number;
use super::functions::Scan;
use super::rdma::nearest_function;
use crate::root::HostRoot;

/// Where sysfs lists the auxiliary devices.
pub(crate) const AUX_DEVICES: &str = "/sys/bus/auxiliary/devices";

/// The kind of auxiliary device that a sub-function is.
const SUB_FUNCTION: &str = "sf";

/// Adds the sub-functions of the functions that were scanned.
pub(super) fn add(root: &HostRoot, scan: &mut Scan<'_>) {
    let names = match root.list(AUX_DEVICES) {
        Ok(names) => names,
        Err(error) if error.is_gone() => return,
        Err(error) => {
            let reason = format!("{error}: {}", error.source);
            return scan.notes.gap(AUX_DEVICES, reason);
        }
    };
    for name in names {
        let Some(name) = name.parse().ok().filter(is_sub_function) else {
            continue;
        };
        let path = format!("{AUX_DEVICES}/{name}");
        let parent = root.link_target(&path).ok();
        let parent = parent.and_then(|target| nearest_function(&target));
        let Some(parent) = parent.filter(|parent| scan.functions.contains_key(parent)) else {
            continue;
        };
        let number = match root.read_text(&format!("{path}/sfnum")) {
            Ok(text) => number(&text),
            Err(error) if error.is_gone() => continue,
            Err(error) => {
                scan.notes.gap(&name, format!("{error}: {}", error.source));
                continue;
            }
        };
        let Some(number) = number else {
            scan.notes.gap(&name, "sfnum holds no number");
            continue;
        };
        let sub_function = SubFunction {
            name: name.clone(),
            parent,
            number,
            netdevs: Vec::new(),
            rdma: Vec::new(),
        };
        scan.sub_functions.insert(name, sub_function);
    }
}

fn is_sub_function(name: &AuxName) -> bool {
    name.kind() == SUB_FUNCTION
}

/// Returns the sub-function in a path of `/sys/devices`.
pub(super) fn in_path(path: &str) -> Option<AuxName> {
    let mut parts = path.rsplit('/').filter_map(|part| part.parse().ok());
    parts.find(is_sub_function)
}
