//! What a written pool means.

use std::fmt::Display;
use std::str::FromStr;

use model::{
    ClassPrefix, Extra, Filter, HealthChecks, PciAddress, PfItem, Pool, PoolKind, Preference,
    ResourceName, Selector, VdpaKind,
};

use super::wire::{PoolSpec, SelectorSpec};
use crate::{FieldPath, FieldProblem};

/// Says what a pool means, or `None` when something about it is a problem.
pub(super) fn pool(
    spec: &PoolSpec,
    path: &FieldPath,
    default_prefix: &str,
    problems: &mut Vec<FieldProblem>,
    notes: &mut Vec<FieldProblem>,
) -> Option<Pool> {
    let mut says = Says { problems, notes };
    let resource = resource(spec, path, default_prefix, &mut says);
    let first_generation = spec.selectors.is_none() && spec.root_devices.is_some();
    let kind = kind(spec, path, first_generation, &mut says);
    let selectors = if first_generation {
        first_generation_selectors(spec, path, &mut says)
    } else {
        selectors(spec, kind?, path, &mut says)
    };
    let extra = extra(spec, path, &mut says);
    let preference = preference(spec, path, &mut says);
    let classes = classes(spec, kind?, path, &mut says);
    Some(Pool {
        resource: resource?,
        kind: kind?,
        classes,
        selectors,
        exclude_topology: spec.exclude_topology,
        extra,
        health: HealthChecks {
            pf_link: spec.check_health_on_pf,
        },
        preference,
        iommufd: spec.iommufd,
        offer_used_by_node: spec.offer_used_by_node,
    })
}

/// Where what is said about a pool goes.
struct Says<'a> {
    problems: &'a mut Vec<FieldProblem>,
    notes: &'a mut Vec<FieldProblem>,
}

impl Says<'_> {
    fn problem(&mut self, path: FieldPath, problem: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(FieldProblem {
            path,
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    fn note(&mut self, path: FieldPath, problem: impl Into<String>, remedy: impl Into<String>) {
        self.notes.push(FieldProblem {
            path,
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }
}

fn resource(
    spec: &PoolSpec,
    path: &FieldPath,
    default_prefix: &str,
    says: &mut Says<'_>,
) -> Option<ResourceName> {
    let path_of_name = path.key("resourceName");
    let Some(name) = spec
        .resource_name
        .as_deref()
        .filter(|name| !name.is_empty())
    else {
        // A mistyped one has its problem already.
        if !says.problems.iter().any(|known| known.path == path_of_name) {
            says.problem(
                path_of_name,
                "it is missing",
                "name the pool, such as sriov_a",
            );
        }
        return None;
    };
    if name.contains('.') {
        let problem = format!("{} has a dot", quoted(name));
        says.problem(path_of_name, problem, "use letters, digits, '-' and '_'");
        return None;
    }
    let full = spec.full_name(default_prefix).unwrap_or_default();
    match full.parse() {
        Ok(resource) => {
            if !crate::device_info::has_names(&resource) {
                says.note(
                    path_of_name,
                    "the name is too long for a device-info file, so CNI plugins are told nothing",
                    "use a shorter resourcePrefix",
                );
            }
            Some(resource)
        }
        Err(_) => {
            // Which of the two parts the kubelet would refuse.
            let prefix_is_good = full
                .rsplit_once('/')
                .is_some_and(|(prefix, _)| format!("{prefix}/x").parse::<ResourceName>().is_ok());
            let (key, remedy) = if prefix_is_good {
                (
                    "resourceName",
                    "use 1 to 63 letters, digits, '-' and '_' with a letter or digit at both ends",
                )
            } else {
                (
                    "resourcePrefix",
                    "use a DNS name in lower case such as intel.com, of at most 244 characters, that is \
                     not kubernetes.io",
                )
            };
            let problem = format!("the kubelet would refuse {}", quoted(&full));
            says.problem(path.key(key), problem, remedy);
            None
        }
    }
}

fn kind(
    spec: &PoolSpec,
    path: &FieldPath,
    first_generation: bool,
    says: &mut Says<'_>,
) -> Option<PoolKind> {
    match spec.device_type.as_deref() {
        None | Some("" | "netDevice") => Some(PoolKind::Net),
        Some("accelerator") => Some(PoolKind::Accelerator),
        Some("auxNetDevice") => Some(PoolKind::SubFunction),
        // It chose the device nodes, which the driver of a device now does.
        Some("vfio" | "uio" | "netdevice") if first_generation => Some(PoolKind::Net),
        Some(other) => {
            let problem = format!("{} is no type of device", quoted(other));
            let remedy = match other {
                "vfio" | "uio" => r#"write netDevice, and "drivers": ["vfio-pci"] in selectors"#,
                _ => "write netDevice, accelerator or auxNetDevice, in this case of letters",
            };
            says.problem(path.key("deviceType"), problem, remedy);
            None
        }
    }
}

/// Returns the classes that a pool of accelerators is of.
fn classes(
    spec: &PoolSpec,
    kind: PoolKind,
    path: &FieldPath,
    says: &mut Says<'_>,
) -> Vec<ClassPrefix> {
    if kind != PoolKind::Accelerator {
        if spec.pci_classes.is_some() {
            let problem = format!("a pool of type {kind} has its own class, so it is ignored");
            says.note(
                path.key("pciClasses"),
                problem,
                r#"remove it, or write "deviceType": "accelerator""#,
            );
        }
        return Vec::new();
    }
    let Some(texts) = spec.pci_classes.as_ref().filter(|texts| !texts.is_empty()) else {
        return vec![ClassPrefix::ACCELERATORS];
    };
    let mut classes = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(class) => classes.push(class),
            Err(_) => says.problem(
                path.key("pciClasses").index(index),
                format!("{} is no class of PCI functions", quoted(text)),
                "write 2, 4 or 6 hex digits in lower case, such as 0108 for NVMe",
            ),
        }
    }
    classes
}

fn first_generation_selectors(
    spec: &PoolSpec,
    path: &FieldPath,
    says: &mut Says<'_>,
) -> Vec<Selector> {
    let path = path.key("rootDevices");
    let mut addresses = Vec::new();
    for (index, text) in spec.root_devices.iter().flatten().enumerate() {
        let short = format!("0000:{text}").parse::<PciAddress>();
        match text.parse::<PciAddress>().or(short) {
            Ok(address) => addresses.push(address),
            Err(_) => {
                let problem = format!("{} is no PCI address", quoted(text));
                says.problem(path.index(index), problem, "write 0000:3b:00.0 or 3b:00.0");
            }
        }
    }
    if addresses.is_empty() {
        says.problem(
            path.clone(),
            "it names no device",
            "name PFs, or write selectors",
        );
    }
    let filter = if spec.sriov_mode {
        let item = |address: &PciAddress| PfItem::new(&address.to_string());
        Filter::RootDevices(addresses.iter().map(item).collect())
    } else {
        Filter::PciAddresses(addresses)
    };
    says.note(
        path,
        "the pool is written in the form of the first generation",
        format!("write \"selectors\": {{\"{}\": […]}}", filter.key()),
    );
    let rdma = spec.is_rdma.unwrap_or_default().then_some(Filter::Rdma);
    vec![Selector {
        filters: [filter].into_iter().chain(rdma).collect(),
        vhost_net: false,
    }]
}

fn selectors(
    spec: &PoolSpec,
    kind: PoolKind,
    path: &FieldPath,
    says: &mut Says<'_>,
) -> Vec<Selector> {
    let path = path.key("selectors");
    match spec.selectors.as_deref() {
        None => {
            if says.problems.iter().any(|known| known.path == path) {
                return Vec::new();
            }
            if kind == PoolKind::SubFunction {
                says.problem(
                    path,
                    "it is missing, and a pool of sub-functions needs auxTypes",
                    r#"write "selectors": {"auxTypes": ["sf"]}"#,
                );
                return Vec::new();
            }
            says.note(
                path,
                format!("it is missing, so every {kind} of the node is in the pool"),
                "write selectors; {} says the same",
            );
            vec![Selector {
                filters: spec
                    .is_rdma
                    .unwrap_or_default()
                    .then_some(Filter::Rdma)
                    .into_iter()
                    .collect(),
                vhost_net: false,
            }]
        }
        Some([one]) => vec![selector(one, spec, kind, &path, says)],
        Some(list) => list
            .iter()
            .enumerate()
            .map(|(index, one)| selector(one, spec, kind, &path.index(index), says))
            .collect(),
    }
}

fn selector(
    spec: &SelectorSpec,
    pool: &PoolSpec,
    kind: PoolKind,
    path: &FieldPath,
    says: &mut Says<'_>,
) -> Selector {
    let mut filters = Vec::new();
    for key in super::wire::LISTS {
        let Some(values) = spec.lists.get(key) else {
            continue;
        };
        let at = path.key(key);
        if !has(kind, key) {
            let problem = format!("a pool of type {kind} has no such selector, so it is ignored");
            says.note(at, problem, "remove it");
            continue;
        }
        let texts = || values.clone();
        filters.push(match key {
            "vendors" => Filter::Vendors(matchable(values, &at, says)),
            "devices" => Filter::Devices(matchable(values, &at, says)),
            "drivers" => Filter::Drivers(texts()),
            "pciAddresses" => Filter::PciAddresses(matchable(values, &at, says)),
            "acpiIndexes" => Filter::AcpiIndexes(texts()),
            "pfNames" => Filter::PfNames(items(values, &at, says)),
            "rootDevices" => Filter::RootDevices(items(values, &at, says)),
            "linkTypes" => Filter::LinkTypes(texts()),
            "ddpProfiles" => Filter::DdpProfiles(texts()),
            "pKeys" => {
                note_keys(values, &at, says);
                Filter::PKeys(texts())
            }
            _ => continue,
        });
    }
    aux_types(spec, kind, path, says);
    let networks = kind != PoolKind::Accelerator;
    if networks && spec.is_rdma.or(pool.is_rdma).unwrap_or_default() {
        filters.push(Filter::Rdma);
    }
    let vdpa = spec.vdpa_type.as_deref().filter(|text| !text.is_empty());
    if let Some(text) = vdpa.filter(|_| kind == PoolKind::Net) {
        let at = path.key("vdpaType");
        if filters.contains(&Filter::Rdma) {
            says.problem(
                at.clone(),
                "isRdma and vdpaType are both set, and no device is both",
                "write two selectors in a list",
            );
        }
        let vdpa = text.parse::<VdpaKind>().ok();
        if vdpa.is_none() {
            let problem = format!("{} matches no device", quoted(text));
            says.note(at, problem, "write virtio or vhost");
        }
        filters.push(Filter::Vdpa(vdpa));
    }
    Selector {
        filters,
        vhost_net: networks && spec.need_vhost_net,
    }
}

/// Has a pool of `kind` the list `key`? Unlike upstream's code its README gives `acpiIndexes` to
/// accelerators, and a pool that relies on it must not get all of them.
fn has(kind: PoolKind, key: &str) -> bool {
    match kind {
        PoolKind::Net => key != "auxTypes",
        PoolKind::Accelerator => {
            matches!(
                key,
                "vendors" | "devices" | "drivers" | "pciAddresses" | "acpiIndexes"
            )
        }
        PoolKind::SubFunction => matches!(
            key,
            "vendors"
                | "devices"
                | "drivers"
                | "auxTypes"
                | "pfNames"
                | "rootDevices"
                | "linkTypes"
        ),
    }
}

fn aux_types(spec: &SelectorSpec, kind: PoolKind, path: &FieldPath, says: &mut Says<'_>) {
    if kind != PoolKind::SubFunction {
        return;
    }
    let path = path.key("auxTypes");
    let remedy = r#"write "auxTypes": ["sf"]"#;
    match spec.lists.get("auxTypes") {
        None => says.problem(path, "a pool of sub-functions needs it", remedy),
        Some(types) => {
            for (index, other) in types.iter().enumerate().filter(|(_, kind)| *kind != "sf") {
                let problem = format!("{} is not supported", quoted(other));
                says.problem(path.index(index), problem, remedy);
            }
        }
    }
}

/// Returns the values that can match a device. Only the form in which the value is written by
/// `Display` can, because upstream compares texts.
fn matchable<T: FromStr + Display>(
    values: &[String],
    path: &FieldPath,
    says: &mut Says<'_>,
) -> Vec<T>
where
    T::Err: Display,
{
    let mut good = Vec::new();
    for (index, text) in values.iter().enumerate() {
        match text.parse::<T>() {
            Ok(value) if value.to_string() == *text => good.push(value),
            Ok(value) => says.note(
                path.index(index),
                format!("{} matches no device", quoted(text)),
                format!("write {value}"),
            ),
            Err(error) => says.note(path.index(index), "it matches no device", error.to_string()),
        }
    }
    good
}

fn items(values: &[String], path: &FieldPath, says: &mut Says<'_>) -> Vec<PfItem> {
    let items: Vec<PfItem> = values.iter().map(|text| PfItem::new(text)).collect();
    for (index, item) in items.iter().enumerate() {
        let remedy = format!(
            "write {}#0-3,7, or the PF alone for all of its functions",
            item.key()
        );
        if let Some(entry) = item.cut_at() {
            let problem = format!(
                "{} is no function or range; it ends the list",
                quoted(entry)
            );
            says.note(path.index(index), problem, remedy);
        } else if item.is_void() {
            let problem = format!("{} selects nothing", quoted(&item.to_string()));
            says.note(path.index(index), problem, remedy);
        }
        if items
            .iter()
            .take(index)
            .any(|earlier| earlier.names(item.key()))
        {
            says.note(
                path.index(index),
                format!("only the first item of PF {} counts", quoted(item.key())),
                "write all functions of a PF in one item, such as ens1f0#0-3,7",
            );
        }
    }
    items
}

fn note_keys(values: &[String], path: &FieldPath, says: &mut Says<'_>) {
    for (index, text) in values.iter().enumerate() {
        let kernel = text.strip_prefix("0x").is_some_and(|hex| {
            hex.len() == 4 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if !kernel {
            let problem = format!("{} matches no device", quoted(text));
            says.note(
                path.index(index),
                problem,
                "write it as the kernel does: 0x8001",
            );
        }
    }
}

fn extra(spec: &PoolSpec, path: &FieldPath, says: &mut Says<'_>) -> Option<Extra> {
    let mut extra = Extra::default();
    for (key, values) in spec.additional_info.as_ref()? {
        if key == "*" {
            extra.all.clone_from(values);
        } else if let Ok(address) = key.parse::<PciAddress>() {
            extra.by_address.insert(address, values.clone());
        } else {
            let path = path.key("additionalInfo").key(key);
            says.note(
                path,
                "it is no device, so it is ignored",
                "write * or 0000:3b:00.0",
            );
        }
    }
    Some(extra)
}

fn preference(spec: &PoolSpec, path: &FieldPath, says: &mut Says<'_>) -> Option<Preference> {
    match spec.preferred_allocation.as_deref()? {
        "" | "kubelet" => None,
        "packed" => Some(Preference::Packed),
        "balanced" => Some(Preference::Balanced),
        other => {
            let problem = format!("{} is no way to prefer devices", quoted(other));
            says.problem(
                path.key("preferredAllocation"),
                problem,
                "write packed or balanced, or leave it out",
            );
            None
        }
    }
}

/// Quotes text of the file, bounded.
fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}
