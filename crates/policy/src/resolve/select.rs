//! Which PFs a policy selects, and why one that it names is not among them.

use model::{Function, Inventory, Netns, NodePolicy, PciAddress, Role, VfRange};

use super::{Note, NoteKind, ResolveProblem, Resolved, Trouble};

/// Most PFs that an error lists.
const LISTED: usize = 16;

/// A PF that a policy selects.
pub(super) struct Selected<'a> {
    pub(super) pf: &'a Function,
    /// The VFs that the policy gives for it by name.
    pub(super) range: Option<VfRange>,
}

/// Returns the PFs that `policy` selects, by address; what it names in vain becomes a problem.
pub(super) fn selected<'a>(
    seen: &'a Inventory,
    policy: &NodePolicy,
    resolved: &mut Resolved,
) -> Vec<Selected<'a>> {
    if policy.nic.is_empty() {
        resolved
            .notes
            .push(Note::new(policy, NoteKind::SelectsNothing));
        return Vec::new();
    }
    let pfs: Vec<Selected<'a>> = candidates(seen)
        .filter(|pf| unmet(policy, pf).is_none())
        .map(|pf| Selected {
            pf,
            range: range(policy, pf, &mut resolved.notes),
        })
        .collect();
    let before = resolved.problems.len();
    named_in_vain(seen, policy, pfs.is_empty(), resolved);
    if pfs.is_empty() && resolved.problems.len() == before {
        resolved
            .notes
            .push(Note::new(policy, NoteKind::SelectsNothing));
    }
    pfs
}

/// Returns the PFs that a policy can select: network functions with a netdev in the host's
/// namespace. Upstream sees no others.
fn candidates(seen: &Inventory) -> impl Iterator<Item = &Function> {
    seen.pfs()
        .map(|(function, _)| function)
        .filter(|function| why_unusable(seen, function).is_none())
}

/// Returns the first criterion that a PF does not meet, as text.
fn unmet(policy: &NodePolicy, pf: &Function) -> Option<String> {
    let nic = &policy.nic;
    if let Some(vendor) = nic.vendor.filter(|vendor| *vendor != pf.id.vendor) {
        return Some(format!(
            "vendor {vendor:04x}, and it has {:04x}",
            pf.id.vendor
        ));
    }
    if let Some(device) = nic.device.filter(|device| *device != pf.id.device) {
        return Some(format!(
            "deviceID {device:04x}, and it has {:04x}",
            pf.id.device
        ));
    }
    if !nic.root_devices.is_empty() && !nic.root_devices.contains(&pf.address) {
        return Some("rootDevices, and it is not among them".to_owned());
    }
    if !nic.pf_names.is_empty() && !nic.pf_names.iter().any(|entry| is_called(pf, &entry.name)) {
        return Some("pfNames, and it is not among them".to_owned());
    }
    // Networks of virtual platforms are not seen on bare metal, so none is equal.
    let filter = nic.net_filter.as_ref();
    filter.map(|filter| {
        format!(
            "netFilter {}:{}, and it is in no such network",
            filter.key, filter.value
        )
    })
}

fn is_called(pf: &Function, name: &str) -> bool {
    pf.netdev().is_some_and(|netdev| netdev.is_called(name))
}

/// Returns the range of the first entry of `pfNames` that is the PF's name, or else an alternative
/// name of it.
fn range(policy: &NodePolicy, pf: &Function, notes: &mut Vec<Note>) -> Option<VfRange> {
    let entries = &policy.nic.pf_names;
    let by_name = |entry: &&model::PfNameSelector| {
        pf.netdev_name()
            .is_some_and(|name| name.as_str() == entry.name)
    };
    let first = entries
        .iter()
        .find(by_name)
        .or_else(|| entries.iter().find(|entry| is_called(pf, &entry.name)))?;
    for other in entries
        .iter()
        .filter(|other| is_called(pf, &other.name) && other.range != first.range)
    {
        let text = match other.range {
            Some(range) => format!("{}#{range}", other.name),
            None => other.name.clone(),
        };
        notes.push(Note::new(
            policy,
            NoteKind::SecondEntry {
                pf: pf.title(),
                entry: text,
            },
        ));
    }
    first.range
}

fn named_in_vain(
    seen: &Inventory,
    policy: &NodePolicy,
    selects_none: bool,
    resolved: &mut Resolved,
) {
    let names = policy.nic.pf_names.iter().map(|entry| {
        let found = seen
            .pf_named(&entry.name)
            .or_else(|| named(seen, &entry.name));
        (entry.name.clone(), found)
    });
    let addresses = policy
        .nic
        .root_devices
        .iter()
        .map(|address| (address.to_string(), seen.get(*address)));
    for (name, found) in names.chain(addresses) {
        let trouble = match found {
            // One list of names for many hosts is common: who has one of the PFs has enough.
            None if !selects_none => {
                let pf = name;
                resolved
                    .notes
                    .push(Note::new(policy, NoteKind::NoSuchPf { pf }));
                continue;
            }
            None => Trouble::NoSuchPf {
                name,
                has: titles(seen),
            },
            Some(function) => match why_unusable(seen, function) {
                Some(why) => Trouble::NotUsable {
                    pf: function.title(),
                    why,
                },
                None => match unmet(policy, function).filter(|_| selects_none) {
                    None => continue,
                    Some(unmet) => Trouble::NotSelected {
                        pf: function.title(),
                        unmet,
                    },
                },
            },
        };
        resolved.problems.push(ResolveProblem::new(policy, trouble));
    }
}

/// Finds any function by a name of its netdev in the host's namespace.
fn named<'a>(seen: &'a Inventory, name: &str) -> Option<&'a Function> {
    seen.functions.values().find(|function| {
        function
            .netdevs
            .iter()
            .any(|netdev| netdev.netns == Netns::Host && netdev.is_called(name))
    })
}

/// Says why a function cannot be selected, whatever a policy says.
pub(crate) fn why_unusable(seen: &Inventory, function: &Function) -> Option<String> {
    match &function.role {
        Role::Vf(facts) => {
            let pf = seen
                .get(facts.pf)
                .map_or(facts.pf.to_string(), Function::title);
            return Some(format!("it is a VF of {pf}"));
        }
        Role::Plain => return Some("it cannot have VFs (no SR-IOV capability)".to_owned()),
        Role::Pf(_) => {}
    }
    if !function.class.is_network() {
        return Some(format!(
            "it is no network device (class {})",
            function.class
        ));
    }
    let Some(driver) = &function.driver else {
        return Some("it has no driver".to_owned());
    };
    if driver.is_user_space() {
        return Some(format!(
            "it is bound to {driver}, so the kernel has no netdev of it"
        ));
    }
    match function.netdev() {
        None => Some(format!("its driver {driver} made no netdev")),
        Some(netdev) if netdev.netns != Netns::Host => Some(format!(
            "its netdev is in network namespace {}",
            netdev.netns
        )),
        Some(_) => None,
    }
}

fn titles(seen: &Inventory) -> Vec<String> {
    let mut titles: Vec<String> = candidates(seen).take(LISTED).map(Function::title).collect();
    if candidates(seen).nth(LISTED).is_some() {
        titles.push("more".to_owned());
    }
    titles
}

/// Returns the PF as errors name it, also when it is gone.
pub(super) fn title(seen: &Inventory, pf: PciAddress) -> String {
    seen.get(pf).map_or_else(|| pf.to_string(), Function::title)
}
