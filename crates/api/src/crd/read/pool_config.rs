//! Pools of nodes in a file of policies.

use super::{Kind, OBJECT_NAME_REMEDY, Reader};
use crate::crd::pool_config::{SCHEMA, SriovNetworkPoolConfig};
use crate::yaml::Node;

pub(super) const KIND: &str = "SriovNetworkPoolConfig";

static POOL: Kind = Kind {
    word: "pool",
    named: "an object",
    name_remedy: OBJECT_NAME_REMEDY,
    schema: &SCHEMA,
    hint: |_| None,
};

impl Reader<'_> {
    pub(super) fn pool_config(&mut self, node: &Node) {
        self.object(
            node,
            &POOL,
            |reader, wire: SriovNetworkPoolConfig, node, _| match wire.node_pool() {
                Err(problems) => problems,
                Ok(pool) => {
                    let origin = reader.origin(node.line);
                    let pool = pool.map(|pool| model::NodePool { origin, ..pool });
                    reader.read.node_pools.extend(pool);
                    Vec::new()
                }
            },
        );
    }
}
