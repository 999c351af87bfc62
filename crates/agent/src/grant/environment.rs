//! The environment variables of a container: its devices, and what is known about each.
//!
//! `PCIDEVICE_<PREFIX>_<NAME>` lists the devices; the same with `_INFO` is JSON, device by device and
//! provider by provider, byte for byte as Go's `encoding/json` writes it: sorted keys, no blanks, and
//! `<`, `>`, `&` escaped.

use std::collections::BTreeMap;

use model::{DeviceId, PciAddress, Pool, RdmaDevice};

use super::{Facts, NodeHas, group_in_container};

type Told = BTreeMap<String, String>;

/// Returns the variables for devices of `pool`, in the order of the request.
pub(super) fn environment(
    pool: &Pool,
    devices: &[Facts<'_>],
    node: NodeHas,
) -> BTreeMap<String, String> {
    let name = format!("{}_{}", pool.resource.prefix(), pool.resource.name());
    let name = format!("PCIDEVICE_{}", name.replace('.', "_").to_uppercase());
    let ids: Vec<String> = devices.iter().map(|facts| facts.id.to_string()).collect();
    let told: BTreeMap<String, BTreeMap<&str, Told>> = devices
        .iter()
        .map(|facts| (facts.id.to_string(), providers(facts, node)))
        .collect();
    // Strings under string keys can always be written.
    let told = serde_json::to_string(&told).unwrap_or_default();
    BTreeMap::from([
        (name.clone(), ids.join(",")),
        (name + "_INFO", as_go(&told)),
    ])
}

fn providers(facts: &Facts<'_>, node: NodeHas) -> BTreeMap<&'static str, Told> {
    let mut told: BTreeMap<&'static str, Told> = BTreeMap::new();
    let mut tell = |provider, key: &str, value: &str| {
        let keys = told.entry(provider).or_default();
        keys.insert(key.to_owned(), value.to_owned());
    };
    tell("generic", "deviceID", &facts.id.to_string());
    if let Some(vfio) = &facts.function.vfio {
        tell("vfio", "mount", "/dev/vfio/vfio");
        if let Some(group) = &vfio.group {
            tell("vfio", "dev-mount", &group_in_container(group));
        }
        if let Some(cdev) = vfio.cdev.as_deref().filter(|_| facts.pool.iommufd) {
            tell("vfio", "cdev-mount", cdev);
        }
    }
    if let Some(uio) = &facts.function.uio {
        told.insert("uio", [mount(uio)].into());
    }
    if let Some((_, device)) = facts.vdpa() {
        let path = device.and_then(|device| device.device_node.as_deref());
        told.insert("vdpa", path.into_iter().map(mount).collect());
    } else if let Some(devices) = facts.rdma() {
        told.insert("rdma", rdma(devices));
    }
    if facts.wants_vhost(node) {
        let keys = [
            ("net-mount", "/dev/vhost-net"),
            ("tun-mount", "/dev/net/tun"),
        ];
        let keys = keys.map(|(key, path)| (key.to_owned(), path.to_owned()));
        told.insert("vhost", Told::from(keys));
    }
    if let Some(extra) = &facts.pool.extra {
        told.insert("extra", effective(extra, address_of(facts)));
    }
    told
}

fn mount(path: &str) -> (String, String) {
    ("mount".to_owned(), path.to_owned())
}

/// Returns what is known of RDMA devices; of several nodes of one kind the first is told.
fn rdma(devices: &[RdmaDevice]) -> Told {
    let mut told = Told::new();
    if let Some(first) = devices.first() {
        told.insert("rdma_dev".to_owned(), first.name.clone());
    }
    for path in devices.iter().flat_map(|device| &device.char_devices) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let kinds = ["uverbs", "umad", "issm", "rdma_cm"];
        if let Some(kind) = kinds.into_iter().find(|kind| name.starts_with(kind)) {
            told.entry(kind.to_owned()).or_insert_with(|| path.clone());
        }
    }
    told
}

/// Returns the address that `additionalInfo` knows a device by.
fn address_of(facts: &Facts<'_>) -> PciAddress {
    match facts.id {
        DeviceId::Pci(address) => *address,
        DeviceId::Aux(_) => facts.function.address,
    }
}

fn effective(extra: &model::Extra, address: PciAddress) -> Told {
    let mut told = extra.all.clone();
    let own = extra.by_address.get(&address).into_iter().flatten();
    told.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    told
}

/// Escapes what Go escapes for HTML. These characters stand in JSON only within strings.
fn as_go(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text
}
