//! What the host itself needs its NICs for: nobody cuts the branch that they sit on unasked.
//!
//! A PF that carries the default route, the way to the API server, or the storage that the system
//! runs from is not reconfigured, whether it carries it itself or below a bond, a bridge or a VLAN.
//! Upstream has no such protection.
//!
//! ```text
//! default route ─▶ br-ex ─▶ bond0 ─▶ ens1f0, ens2f0        `UplinkFacts`: uses, and what is below
//!                                      │
//!                 Plan: 0000:3b:00.0 have 8 VFs            refused, unless it is allowed
//! ```
//!
//! What would surprise: making the first VFs is refused as well, because drivers reset the port for
//! it. Steps on a VF alone are fine, unless the host itself uses that VF. A namespace of its own
//! hides what it uses: a PF that was moved into one is not the host's uplink.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use model::{Code, Explain, IfName, Inventory, Netns, PciAddress, Plan, Step};

#[cfg(test)]
mod tests;

/// What a host uses its interfaces for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkFacts {
    /// The uses, each with the interface that the kernel names for it.
    pub uses: Vec<UplinkUse>,
    /// What is right below an interface: the members of a bond, the ports of a bridge, the carrier
    /// of a VLAN.
    pub lower: BTreeMap<IfName, Vec<IfName>>,
}

/// One use of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkUse {
    /// What for.
    pub purpose: Purpose,
    /// The interface.
    pub interface: IfName,
}

/// What a host needs an interface for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The IPv4 default route.
    DefaultRouteV4,
    /// The IPv6 default route.
    DefaultRouteV6,
    /// The way to the API server of the cluster.
    ApiServer(IpAddr),
    /// A file system that the system runs from.
    NfsMount {
        /// Who serves it.
        server: IpAddr,
        /// Where it is mounted.
        mount: String,
    },
    /// A disk.
    Iscsi(IpAddr),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultRouteV4 => f.write_str("the IPv4 default route"),
            Self::DefaultRouteV6 => f.write_str("the IPv6 default route"),
            Self::ApiServer(address) => write!(f, "the way to the API server {address}"),
            Self::NfsMount { server, mount } => {
                write!(f, "the NFS file system of {server} on {mount}")
            }
            Self::Iscsi(server) => write!(f, "the iSCSI disk of {server}"),
        }
    }
}

/// Something that a function carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burden {
    /// What for.
    pub purpose: Purpose,
    /// The interfaces from the one that the kernel names down to the function's own.
    pub path: Vec<IfName>,
}

impl fmt::Display for Burden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.purpose)?;
        let Some((_own, above)) = self
            .path
            .split_last()
            .filter(|(_, above)| !above.is_empty())
        else {
            return Ok(());
        };
        f.write_str(" below ")?;
        for (at, name) in above.iter().enumerate() {
            let joint = if at > 0 { " and " } else { "" };
            write!(f, "{joint}{name}")?;
        }
        Ok(())
    }
}

/// A plan would reconfigure what the host itself needs. The text has one line a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkInUse {
    /// What is needed, each with the first step that disturbs it; never empty.
    pub refused: Vec<UplinkRefused>,
}

/// A function that the host needs, and what would be done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkRefused {
    /// The PF whose plan it is.
    pub pf: PciAddress,
    /// The function that is needed: the PF or a VF of it.
    pub function: PciAddress,
    /// The function as people look for it.
    pub title: String,
    /// What it carries; never empty.
    pub burdens: Vec<Burden>,
    /// The first step that disturbs it.
    pub step: String,
}

impl UplinkRefused {
    /// Says what the function carries: `PF ens1 (0000:3b:00.0) carries the IPv4 default route`.
    #[must_use]
    pub fn need(&self) -> String {
        let kind = if self.pf == self.function { "PF" } else { "VF" };
        let burdens: Vec<String> = self.burdens.iter().map(ToString::to_string).collect();
        format!("{kind} {} carries {}", self.title, burdens.join(", "))
    }
}

impl fmt::Display for UplinkRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; the plan would: {}", self.need(), self.step)
    }
}

impl fmt::Display for UplinkInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, refused) in self.refused.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            refused.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for UplinkInUse {}

impl Explain for UplinkInUse {
    fn code(&self) -> Code {
        Code::new("pf-carries-route")
    }

    fn remedy(&self) -> Option<String> {
        Some(
            "leave the PF out of the policies, or give --allow-default-route with a console at hand"
                .to_owned(),
        )
    }
}

/// Returns what each function carries for the host.
#[must_use]
pub fn uplinks(seen: &Inventory, facts: &UplinkFacts) -> BTreeMap<PciAddress, Vec<Burden>> {
    let mut functions: BTreeMap<&IfName, PciAddress> = BTreeMap::new();
    for function in seen.functions.values() {
        for netdev in &function.netdevs {
            if netdev.netns == Netns::Host {
                functions.insert(&netdev.name, function.address);
            }
        }
    }
    let mut uplinks: BTreeMap<PciAddress, Vec<Burden>> = BTreeMap::new();
    for used in &facts.uses {
        // Breadth first, so that the path told is the shortest; each interface once, because what
        // is below can meet again and, in made-up facts, go in circles.
        let mut paths = vec![vec![&used.interface]];
        let mut visited = BTreeSet::from([&used.interface]);
        while let Some(path) = (!paths.is_empty()).then(|| paths.remove(0)) {
            let Some(last) = path.last() else { continue };
            if let Some(function) = functions.get(last) {
                uplinks.entry(*function).or_default().push(Burden {
                    purpose: used.purpose.clone(),
                    path: path.iter().copied().cloned().collect(),
                });
            }
            for below in facts.lower.get(*last).into_iter().flatten() {
                if visited.insert(below) {
                    paths.push([path.as_slice(), &[below]].concat());
                }
            }
        }
    }
    uplinks
}

/// Refuses a plan that reconfigures what the host itself needs, unless that is allowed.
pub fn check_uplinks(
    seen: &Inventory,
    plan: &Plan,
    facts: &UplinkFacts,
    allow: bool,
) -> Result<(), UplinkInUse> {
    if allow {
        return Ok(());
    }
    let uplinks = uplinks(seen, facts);
    let mut refused: Vec<UplinkRefused> = Vec::new();
    for pf in &plan.pfs {
        for planned in &pf.steps {
            for function in disturbed(seen, &planned.step) {
                let Some(burdens) = uplinks.get(&function) else {
                    continue;
                };
                if refused.iter().any(|known| known.function == function) {
                    continue;
                }
                refused.push(UplinkRefused {
                    pf: pf.pf,
                    function,
                    title: seen
                        .get(function)
                        .map_or_else(|| function.to_string(), model::Function::title),
                    burdens: burdens.clone(),
                    step: planned.step.to_string(),
                });
            }
        }
    }
    if refused.is_empty() {
        Ok(())
    } else {
        Err(UplinkInUse { refused })
    }
}

/// Returns the functions whose traffic a step can stop.
fn disturbed(seen: &Inventory, step: &Step) -> Vec<PciAddress> {
    let vfs_of = |pf: &PciAddress| {
        let facts = seen.get(*pf).and_then(model::Function::pf);
        facts
            .into_iter()
            .flat_map(|facts| facts.vfs.values().copied())
    };
    // A port that is reset takes the traffic of its VFs along.
    let with_vfs = |pf: &PciAddress| [*pf].into_iter().chain(vfs_of(pf)).collect();
    match step {
        Step::SetNumVfs { pf, .. } | Step::SetEswitch { pf, .. } | Step::SetSteering { pf, .. } => {
            with_vfs(pf)
        }
        Step::SetVf { pf, vf, .. } => seen
            .vf_of(*pf, *vf)
            .map(|function| function.address)
            .into_iter()
            .collect(),
        Step::Bind { function, .. }
        | Step::Rebind { function }
        | Step::SetMtu { function, .. }
        | Step::SetUp {
            function,
            up: false,
            ..
        }
        | Step::Move { function, .. } => with_vfs(function),
        Step::SetMac { function, .. }
        | Step::Rename { function, .. }
        | Step::RemoveAddress { function, .. } => vec![*function],
        Step::SetVdpa { function, .. } => vec![*function],
        Step::SetAutoprobe { .. }
        | Step::SetTcOffload { .. }
        | Step::AwaitNetdev { .. }
        | Step::MoveRdma { .. }
        | Step::SetUp { up: true, .. }
        | Step::AddAddress { .. } => Vec::new(),
    }
}
