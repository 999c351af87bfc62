//! VFs that the host itself uses: one below a bond, a bridge or a VLAN, or with an address.
//!
//! What makes a use is what somebody set up on purpose. A VF that is merely up, with the link-local
//! address that every such interface has, is free. All that is asked was told already: the one list
//! of interfaces says what is above which, and [`NodeUse`] who has addresses.
//!
//! What would surprise: addresses are looked at only when the whole host is observed. Network
//! managers give some to every interface that they find, so that a VF which somebody asks for by name is
//! not refused for it; a bond that would lose its member is refused. What containers have above a
//! VF of the host, such as a macvlan, is in their namespaces and is not seen here.

use std::collections::{BTreeMap, BTreeSet};

use model::{Holder, HolderKind, IfIndex, IfName, Netdev, Netns, NodeUse};
use netlink::Link;

/// What is right above the interfaces of this namespace.
#[derive(Debug, Default)]
pub(super) struct Uppers {
    /// Bonds, bridges, teams and VRFs, by their own index.
    masters: BTreeMap<IfIndex, IfName>,
    /// VLANs, macvlans and tunnels, by the index of the interface that they are on.
    on: BTreeMap<IfIndex, IfName>,
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
            id: master.or_else(upper).or_else(of_its_own)?,
            interface: Some(netdev.name.clone()),
        })
    }
}
