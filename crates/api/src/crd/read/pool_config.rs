//! Pools of nodes in a file of policies.

use super::{INVALID, Reader, is_object_name};
use crate::crd::pool_config::{SCHEMA, SriovNetworkPoolConfig};
use crate::crd::schema::{self, shorten};
use crate::field::{FieldPath, FieldProblem};
use crate::yaml::Node;

pub(super) const KIND: &str = "SriovNetworkPoolConfig";

impl Reader<'_> {
    pub(super) fn pool_config(&mut self, node: &Node) {
        let name = node
            .get("metadata")
            .and_then(|metadata| metadata.text("name"));
        let object = name.map_or("pool without a name".to_owned(), |name| {
            format!("pool {}", shorten(name))
        });
        let found = schema::check(node, &SCHEMA);
        for unknown in found.unknown {
            let path = unknown.path.to_string();
            let hint = unknown
                .guess
                .map_or(String::new(), |guess| format!("; did you mean {guess}?"));
            let text = format!("unknown field {} is ignored{hint}", shorten(&path));
            self.warn(node.line_of(&unknown.path), &object, text);
        }
        let mut problems = found.problems;
        if !name.is_some_and(is_object_name) {
            problems.push(FieldProblem {
                path: FieldPath::from(["metadata", "name"]),
                problem: name.map_or("is required".to_owned(), |name| {
                    format!("{:?} is not a name of an object", shorten(name))
                }),
                remedy: "write lower-case letters, digits, '-' and '.', such as rack-a".to_owned(),
            });
        }
        if problems.is_empty() {
            problems = self.accept_pool(node);
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

    fn accept_pool(&mut self, node: &Node) -> Vec<FieldProblem> {
        let wire: SriovNetworkPoolConfig = match serde_json::from_value(node.to_json()) {
            Ok(wire) => wire,
            Err(error) => {
                return vec![FieldProblem {
                    path: FieldPath::default(),
                    problem: error.to_string(),
                    remedy: "compare it with the CRD".to_owned(),
                }];
            }
        };
        match wire.node_pool() {
            Err(problems) => problems,
            Ok(pool) => {
                let origin = self.origin(node.line);
                let pool = pool.map(|pool| model::NodePool { origin, ..pool });
                self.read.node_pools.extend(pool);
                Vec::new()
            }
        }
    }
}
