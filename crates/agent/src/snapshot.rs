//! What is offered at one moment: the state that everything around the owner reads.
//!
//! Pure: pools, inventory and what pods hold in, an offer out. It is replaced as a whole, so a reader
//! sees pools, devices and facts that belong together.

use std::collections::BTreeMap;
use std::sync::Arc;

use kubelet::deviceplugin::{
    Device, HEALTHY, ListAndWatchResponse, NumaNode, TopologyInfo, UNHEALTHY,
};
use model::{Inventory, Pool, ResourceName};
use policy::pool::{Health, Held, Offer, PoolOffer, offer};

use crate::grant::NodeHas;

/// What is offered at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The pools, in the order of the configuration.
    pub(crate) pools: Arc<Vec<Pool>>,
    /// What the host was seen to have.
    pub(crate) seen: Arc<Inventory>,
    /// What pods hold.
    pub(crate) held: Held,
    /// What the node itself has.
    pub(crate) node: NodeHas,
    /// What each pool offers, in the same order.
    pub(crate) offer: Offer,
    /// The CDI specifications, by path.
    pub(crate) specifications: BTreeMap<String, String>,
}

impl Snapshot {
    /// Decides what is offered.
    pub(crate) fn new(
        pools: Arc<Vec<Pool>>,
        seen: Arc<Inventory>,
        held: Held,
        node: NodeHas,
    ) -> Self {
        let offer = offer(&pools, &seen, &held);
        Self {
            pools,
            seen,
            held,
            node,
            offer,
            specifications: BTreeMap::new(),
        }
    }

    /// Returns a pool and what it offers.
    pub(crate) fn pool(&self, resource: &ResourceName) -> Option<(&Pool, &PoolOffer)> {
        let mut pools = self.pools.iter().zip(&self.offer.pools);
        pools.find(|(pool, _)| pool.resource == *resource)
    }

    /// Returns the devices of a resource as the kubelet takes them; none when there is no such pool.
    pub(crate) fn list(&self, resource: &ResourceName) -> ListAndWatchResponse {
        let offered = self.pool(resource).map(|(_, offer)| &offer.devices);
        let devices = offered.into_iter().flatten().map(|(id, device)| Device {
            id: id.to_string(),
            health: match device.health {
                Health::Healthy => HEALTHY.to_owned(),
                Health::Unhealthy(_) => UNHEALTHY.to_owned(),
            },
            topology: device.numa.map(|numa| TopologyInfo {
                nodes: vec![NumaNode { id: numa.0.into() }],
            }),
        });
        ListAndWatchResponse {
            devices: devices.collect(),
        }
    }
}
