//! One device that a pool could have, with what selectors ask about it.

use model::{
    DeviceId, Function, Holder, Inventory, Netdev, Netns, NodeUse, Pool, PoolKind, RdmaDevice,
    SubFunction,
};

/// A function or a sub-function.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) id: DeviceId,
    /// The function, or that of which the device is a part.
    pub(super) function: &'a Function,
    /// Set when the device is a part.
    pub(super) part: Option<&'a SubFunction>,
    /// The PF of a VF, the parent of a part.
    pub(super) pf: Option<&'a Function>,
    /// Number among the PF's VFs or the parent's parts.
    pub(super) index: Option<u32>,
    seen: &'a Inventory,
}

/// Returns all devices of a host that some kind of pool can have, in the order of their ids.
pub(super) fn candidates(seen: &Inventory) -> impl Iterator<Item = Candidate<'_>> {
    let functions = seen.functions.values();
    let functions = functions.map(|function| Candidate::of_function(seen, function));
    let parts = seen.sub_functions.values();
    functions.chain(parts.filter_map(|part| Candidate::of_part(seen, part)))
}

impl<'a> Candidate<'a> {
    pub(super) fn find(seen: &'a Inventory, id: &DeviceId) -> Option<Self> {
        match id {
            DeviceId::Pci(address) => Some(Self::of_function(seen, seen.get(*address)?)),
            DeviceId::Aux(name) => Self::of_part(seen, seen.sub_functions.get(name)?),
        }
    }

    fn of_function(seen: &'a Inventory, function: &'a Function) -> Self {
        let vf = function.vf();
        Self {
            id: DeviceId::Pci(function.address),
            function,
            part: None,
            pf: vf.and_then(|vf| seen.get(vf.pf)),
            index: vf.and_then(|vf| vf.index).map(|index| index.0.into()),
            seen,
        }
    }

    fn of_part(seen: &'a Inventory, part: &'a SubFunction) -> Option<Self> {
        let parent = seen.get(part.parent)?;
        Some(Self {
            id: DeviceId::Aux(part.name.clone()),
            function: parent,
            part: Some(part),
            pf: Some(parent),
            index: Some(part.number),
            seen,
        })
    }

    /// Can `pool` have it, by its kind?
    pub(super) fn is_for(&self, pool: &Pool) -> bool {
        let class = self.function.class;
        match pool.kind {
            PoolKind::Net => self.part.is_none() && class.is_network(),
            PoolKind::Accelerator => {
                self.part.is_none() && pool.classes.iter().any(|wanted| wanted.has(class))
            }
            PoolKind::SubFunction => self.part.is_some() && class.is_network(),
        }
    }

    /// Returns the netdevs of the device itself, representors left out.
    pub(super) fn netdevs(&self) -> impl Iterator<Item = &'a Netdev> {
        let netdevs = match self.part {
            Some(part) => &part.netdevs,
            None => &self.function.netdevs,
        };
        netdevs.iter().filter(|netdev| !netdev.is_representor())
    }

    /// Returns the device's own netdev or, while a pod has it, that of its PF: they have one link
    /// layer.
    pub(super) fn netdev_or_pfs(&self) -> Option<&'a Netdev> {
        self.netdevs().next().or_else(|| self.pf?.netdev())
    }

    pub(super) fn rdma(&self) -> &'a [RdmaDevice] {
        match self.part {
            Some(part) => &part.rdma,
            None => &self.function.rdma,
        }
    }

    /// Returns the DDP package that the device is served by: its PF's, or its own.
    pub(super) fn ddp(&self) -> Option<&'a str> {
        let facts = self.pf.unwrap_or(self.function).pf()?;
        facts.ddp.as_deref()
    }

    pub(super) fn holder(&self) -> Option<&'a Holder> {
        self.seen.holder_of(&self.id)
    }

    pub(super) fn is_vf(&self) -> bool {
        self.part.is_none() && self.function.vf().is_some()
    }

    /// Returns what a netdev in the host's namespace does for the node itself.
    pub(super) fn node_use(&self, netdev: &Netdev) -> NodeUse {
        let uses = &self.seen.node_uses;
        let used = uses
            .get(&netdev.index)
            .filter(|_| netdev.netns == Netns::Host);
        used.copied().unwrap_or_default()
    }
}
