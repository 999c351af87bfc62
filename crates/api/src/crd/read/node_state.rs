//! Node states in a file of policies.

use model::{Desired, Origin};

use super::{Kind, Reader};
use crate::crd::node_state::{SCHEMA, SriovNetworkNodeState};
use crate::field::{FieldPath, FieldProblem};
use crate::yaml::Node;

pub(super) const KIND: &str = "SriovNetworkNodeState";

/// What a `SriovNetworkNodeState` says that its node should have. Its status is not looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeStateDocument {
    /// Name of the object: that of the node.
    pub name: String,
    /// Where it was read, for errors.
    pub origin: Origin,
    /// What the node should have. No PF at all is a statement too: none is wanted any more.
    pub desired: Desired,
}

static NODE_STATE: Kind = Kind {
    word: "node state",
    named: "a node",
    name_remedy: "write the name of the node, as `kubectl get nodes` shows it",
    schema: &SCHEMA,
    hint: |_| None,
};

impl Reader<'_> {
    pub(super) fn node_state(&mut self, node: &Node) {
        self.object(node, &NODE_STATE, Self::accept_node_state);
    }

    fn accept_node_state(
        &mut self,
        wire: SriovNetworkNodeState,
        node: &Node,
        object: &str,
    ) -> Vec<FieldProblem> {
        let desired = match Desired::try_from(&wire.spec) {
            Ok(desired) => desired,
            Err(invalid) => return invalid.problems,
        };
        if !wire.spec.bridges.ovs.is_empty() {
            let path = FieldPath::from(["spec", "bridges"]);
            let text = format!("{path} is ignored: software bridges are not managed");
            self.warn(node.line_of(&path), object, text);
        }
        self.read.node_states.push(NodeStateDocument {
            name: wire.metadata.name,
            origin: self.origin(node.line),
            desired,
        });
        Vec::new()
    }
}
