//! Node states in a file of policies.

use model::{Desired, Origin};

use super::{INVALID, Reader, is_object_name};
use crate::crd::node_state::{SCHEMA, SriovNetworkNodeState};
use crate::crd::schema::{self, shorten};
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

impl Reader<'_> {
    pub(super) fn node_state(&mut self, node: &Node) {
        let name = node
            .get("metadata")
            .and_then(|metadata| metadata.text("name"));
        let object = name.map_or("node state without a name".to_owned(), |name| {
            format!("node state {}", shorten(name))
        });
        let mut problems = Vec::new();
        if !name.is_some_and(is_object_name) {
            problems.push(FieldProblem {
                path: FieldPath::from(["metadata", "name"]),
                problem: name.map_or("is required".to_owned(), |name| {
                    format!("{:?} is not a name of a node", shorten(name))
                }),
                remedy: "write the name of the node, as `kubectl get nodes` shows it".to_owned(),
            });
        }
        let found = schema::check(node, &SCHEMA);
        for unknown in found.unknown {
            let path = unknown.path.to_string();
            let hint = unknown
                .guess
                .map_or(String::new(), |guess| format!("; did you mean {guess}?"));
            let text = format!("unknown field {} is ignored{hint}", shorten(&path));
            self.warn(node.line_of(&unknown.path), &object, text);
        }
        problems.extend(found.problems);
        if problems.is_empty() {
            problems = self.accept_node_state(node, &object);
        }
        for FieldProblem {
            path,
            problem,
            remedy,
        } in problems
        {
            let line = node.line_of(&path);
            self.problem(line, &object, format!("{path}: {problem}"), remedy, INVALID);
        }
    }

    fn accept_node_state(&mut self, node: &Node, object: &str) -> Vec<FieldProblem> {
        let wire: SriovNetworkNodeState = match serde_json::from_value(node.to_json()) {
            Ok(wire) => wire,
            Err(error) => {
                return vec![FieldProblem {
                    path: FieldPath::default(),
                    problem: error.to_string(),
                    remedy: "compare it with the CRD".to_owned(),
                }];
            }
        };
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
