//! Devices that the host itself uses: one whose netdev is below a bond, a bridge or a VLAN, or has an address;
//! also what containers have on one, such as a macvlan.
//!
//! What makes a use is what somebody set up on purpose. A netdev that is merely up, with the link-local
//! address that every such interface has, is free. The one list of interfaces says what is above which
//! here, and [`NodeUse`] who has addresses.
//!
//! What would surprise: addresses, and what is in other namespaces, are looked at only when the whole host
//! is observed. Network managers give addresses to every interface that they find, so that a VF which
//! somebody asks for by name is not refused for it; a bond that would lose its member is refused. Of an
//! upper one in another namespace the kernel tells nothing on this side: neither its list of interfaces nor
//! sysfs (`upper_…`) has it. So the other namespaces are looked into, and only when some netdev that
//! could be given away and has no use here is up: nothing goes through what is on one that is down. A PF
//! that has VFs is not given away.

use std::collections::{BTreeMap, BTreeSet};

use model::{Function, Holder, HolderKind, IfIndex, IfName, Netdev, Netns, NodeUse};
use netlink::Link;

use super::Aim;
use super::functions::Scan;
use crate::queries::Elsewhere;

/// What is right above the interfaces of this namespace.
#[derive(Debug, Default)]
pub(super) struct Uppers {
    /// Bonds, bridges, teams and VRFs, by their own index.
    masters: BTreeMap<IfIndex, IfName>,
    /// VLANs, macvlans and tunnels, by the index of the interface that they are on.
    on: BTreeMap<IfIndex, IfName>,
    /// The same of other namespaces, with where they are.
    far: BTreeMap<IfIndex, String>,
}

impl Uppers {
    pub(super) fn of(links: &[Link]) -> Self {
        let needed: BTreeSet<IfIndex> = links.iter().filter_map(|link| link.master).collect();
        let mut uppers = Self::default();
        for link in links {
            if needed.contains(&link.index) {
                uppers.masters.insert(link.index, link.name.clone());
            }
            if let Some(lower) = link.lower {
                uppers.on.entry(lower).or_insert_with(|| link.name.clone());
            }
        }
        uppers
    }

    /// Can something in another namespace be on a device that is free by all that is seen here?
    pub(super) fn may_be_elsewhere(
        &self,
        scan: &Scan<'_>,
        aim: Aim<'_>,
        uses: &BTreeMap<IfIndex, NodeUse>,
    ) -> bool {
        if !aim.is_thorough() {
            return false;
        }
        let named = scan.functions.values().filter(|f| aim.names(f.address));
        let is_offered = |function: &&Function| function.pf().is_none_or(|pf| pf.num_vfs == 0);
        let functions = named.filter(is_offered).filter_map(Function::netdev);
        let parts = scan.sub_functions.values().flat_map(|part| &part.netdevs);
        let mut netdevs = functions.chain(parts);
        netdevs.any(|netdev| netdev.admin_up && self.host_as_holder(netdev, uses).is_none())
    }

    /// Adds what was found in the other namespaces.
    pub(super) fn add_elsewhere(&mut self, namespaces: &[Elsewhere]) {
        for namespace in namespaces {
            let netns = Netns::Other {
                inode: namespace.inode,
                path: namespace.path.clone(),
            };
            for (lower, upper) in &namespace.uppers {
                let far = self.far.entry(*lower);
                far.or_insert_with(|| format!("{upper} in {netns}"));
            }
        }
    }

    /// Returns the host as the holder of a netdev, when it uses it.
    pub(super) fn host_as_holder(
        &self,
        netdev: &Netdev,
        uses: &BTreeMap<IfIndex, NodeUse>,
    ) -> Option<Holder> {
        if netdev.netns != Netns::Host {
            return None;
        }
        let used = uses.get(&netdev.index).copied().unwrap_or_default();
        let master = netdev.master.map(|master| {
            let name = self.masters.get(&master);
            name.map_or_else(|| format!("interface {master}"), IfName::to_string)
        });
        let upper = || self.on.get(&netdev.index).map(IfName::to_string);
        let far = || self.far.get(&netdev.index).cloned();
        let of_its_own = || {
            let words = match used {
                NodeUse {
                    default_route: true,
                    ..
                } => "default-route",
                NodeUse { address: true, .. } => "address",
                NodeUse { .. } => return None,
            };
            Some(words.to_owned())
        };
        Some(Holder {
            kind: HolderKind::Host,
            id: master.or_else(upper).or_else(far).or_else(of_its_own)?,
            interface: Some(netdev.name.clone()),
        })
    }
}
