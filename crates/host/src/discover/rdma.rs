//! RDMA devices and the character devices that belong to them.
//!
//! `/sys/class/infiniband/mlx5_2` is a link into the directory of its PCI function, so one `readlink`
//! per device finds the function; the same holds for the character devices. Unlike upstream's
//! device plugin all nodes of a device are listed: a dual-port adapter has two `umad` and two `issm`.
//!
//! A device that is in another namespace while RDMA is in exclusive mode is not there to be seen.

use std::collections::BTreeMap;

use model::{Guid, LinkType, PciAddress, RdmaDevice};

use super::aux;
use super::device::Notes;
use super::functions::Scan;
use crate::root::HostRoot;

/// Classes of character devices and the prefixes of their names, in the order in which the device
/// plugin lists them.
const CHAR_CLASSES: [(&str, &[&str]); 3] = [
    ("/sys/class/infiniband_cm", &["ucm"]),
    ("/sys/class/infiniband_mad", &["issm", "umad"]),
    ("/sys/class/infiniband_verbs", &["uverbs"]),
];

/// The connection manager's node, which is shared by all devices.
const RDMA_CM: &str = "/sys/class/misc/rdma_cm";

/// Adds its RDMA devices to every function that was scanned. Returns whether there are any.
pub(super) fn add(root: &HostRoot, scan: &mut Scan<'_>) -> bool {
    let names = class(root, "/sys/class/infiniband", &mut scan.notes);
    if names.is_empty() {
        return false;
    }
    let mut nodes = char_devices(root, scan);
    let rdma_cm = root.exists(RDMA_CM);
    for (name, function) in names {
        let Some(function) = scan.functions.get(&function) else {
            continue;
        };
        let address = function.address;
        let on_infiniband = function
            .netdevs
            .first()
            .is_none_or(|netdev| netdev.link_type == LinkType::InfiniBand);
        let partition_key = on_infiniband
            .then(|| {
                root.read_text(&format!("/sys/class/infiniband/{name}/ports/1/pkeys/0"))
                    .ok()
            })
            .flatten();
        let node_guid = read_guid(root, &name, &mut scan.notes);
        let mut char_devices = nodes.remove(&name).unwrap_or_default();
        if rdma_cm && !char_devices.is_empty() {
            char_devices.push("/dev/infiniband/rdma_cm".to_owned());
        }
        let path = root.link_target(&format!("/sys/class/infiniband/{name}"));
        let device = RdmaDevice {
            node_guid,
            name,
            char_devices,
            partition_key,
        };
        let part = path.ok().and_then(|path| aux::in_path(&path));
        if let Some(part) = part {
            if let Some(part) = scan.sub_functions.get_mut(&part) {
                part.rdma.push(device);
            }
        } else if let Some(function) = scan.functions.get_mut(&address) {
            function.rdma.push(device);
        }
    }
    true
}

fn read_guid(root: &HostRoot, name: &str, notes: &mut Notes) -> Option<Guid> {
    let path = format!("/sys/class/infiniband/{name}/node_guid");
    match root.read_text(&path) {
        Ok(text) => match text.parse() {
            Ok(guid) => return Some(guid),
            Err(error) => notes.gap(name, format!("node_guid: {error}")),
        },
        Err(error) if error.is_gone() => {}
        Err(error) => notes.gap(name, format!("{error}: {}", error.source)),
    }
    None
}

/// Returns the nodes of each RDMA device of a function that was scanned, by its name.
fn char_devices(root: &HostRoot, scan: &mut Scan<'_>) -> BTreeMap<String, Vec<String>> {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, prefixes) in CHAR_CLASSES {
        let mut entries = class(root, path, &mut scan.notes);
        entries.retain(|(_, function)| scan.functions.contains_key(function));
        for prefix in prefixes {
            for (name, _) in entries.iter().filter(|(name, _)| name.starts_with(prefix)) {
                match root.read_text(&format!("{path}/{name}/ibdev")) {
                    Ok(device) => {
                        let node = format!("/dev/infiniband/{name}");
                        nodes.entry(device).or_default().push(node);
                    }
                    Err(error) if error.is_gone() => {}
                    Err(error) => {
                        let reason = format!("{error}: {}", error.source);
                        scan.notes.gap(name, reason);
                    }
                }
            }
        }
    }
    nodes
}

/// Lists the members of a class that are on a PCI function, with the function.
fn class(root: &HostRoot, path: &str, notes: &mut Notes) -> Vec<(String, PciAddress)> {
    let names = match root.list(path) {
        Ok(names) => names,
        Err(error) if error.is_gone() => return Vec::new(),
        Err(error) => {
            notes.gap(path, format!("{error}: {}", error.source));
            return Vec::new();
        }
    };
    let on_function = |name: String| {
        let target = root.link_target(&format!("{path}/{name}")).ok()?;
        let function = nearest_function(&target)?;
        Some((name, function))
    };
    names.into_iter().filter_map(on_function).collect()
}

/// Returns the last PCI function in a path of `/sys/devices`: the one that the device is on.
pub fn nearest_function(path: &str) -> Option<PciAddress> {
    path.rsplit('/').find_map(|part| part.parse().ok())
}
