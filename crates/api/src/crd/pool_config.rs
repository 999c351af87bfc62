//! `SriovNetworkPoolConfig`: what nodes with the same labels have in common.
//!
//! What it says of draining and of OpenShift's machine pools is read and has no meaning on one node.

use std::collections::BTreeMap;

use model::{LabelCondition, LabelExpression, LabelSelector, NodePool, Origin};
use serde::{Deserialize, Serialize};

use super::node_policy::Metadata;
use super::schema::{Field, Kind, field, required};
use crate::field::{FieldPath, FieldProblem};

/// One object of the kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovNetworkPoolConfig {
    /// Always [`super::API_VERSION`].
    pub api_version: String,
    /// Always `SriovNetworkPoolConfig`.
    pub kind: String,
    /// What names the object.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default)]
    pub spec: SriovNetworkPoolConfigSpec,
}

/// What is wanted of the nodes of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovNetworkPoolConfigSpec {
    /// How many nodes may be drained at once: a number or a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<serde_json::Value>,
    /// Which nodes; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<WireSelector>,
    /// `shared` or `exclusive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma_mode: Option<String>,
    /// OpenShift's machine pool whose OVS is offloaded; such an object is no pool of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ovs_hardware_offload_config: Option<OvsHardwareOffloadConfig>,
}

/// Names a machine pool of OpenShift.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OvsHardwareOffloadConfig {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Kubernetes' `LabelSelector`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireSelector {
    /// Labels with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<WireExpression>,
}

/// A condition on one label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireExpression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values for the first two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl SriovNetworkPoolConfig {
    /// Gives the fields their meaning; `None` for an object that is no pool of nodes. The origin is left
    /// empty: an object does not know its file.
    pub fn node_pool(&self) -> Result<Option<NodePool>, Vec<FieldProblem>> {
        let offload = self.spec.ovs_hardware_offload_config.as_ref();
        if offload.is_some_and(|offload| offload.name.as_ref().is_some_and(|n| !n.is_empty())) {
            return Ok(None);
        }
        let mut problems = Vec::new();
        let selector = self.spec.node_selector.as_ref().map(|wire| LabelSelector {
            labels: wire.match_labels.clone(),
            expressions: expressions(wire, &mut problems),
        });
        let mode = self
            .spec
            .rdma_mode
            .as_deref()
            .filter(|mode| !mode.is_empty());
        let rdma_netns = mode.and_then(|mode| {
            mode.parse()
                .map_err(|error: model::ParseError| {
                    problems.push(FieldProblem {
                        path: FieldPath::from(["spec", "rdmaMode"]),
                        problem: error.to_string(),
                        remedy: "write shared or exclusive, or leave it out".to_owned(),
                    });
                })
                .ok()
        });
        if problems.is_empty() {
            Ok(Some(NodePool {
                name: self.metadata.name.clone(),
                origin: Origin::default(),
                selector,
                rdma_netns,
            }))
        } else {
            Err(problems)
        }
    }
}

fn expressions(wire: &WireSelector, problems: &mut Vec<FieldProblem>) -> Vec<LabelExpression> {
    let path = FieldPath::from(["spec", "nodeSelector", "matchExpressions"]);
    let mut found = Vec::new();
    for (index, expression) in wire.match_expressions.iter().enumerate() {
        let values = expression.values.clone();
        let takes_values = matches!(expression.operator.as_str(), "In" | "NotIn");
        let condition = match expression.operator.as_str() {
            "In" => LabelCondition::In(values),
            "NotIn" => LabelCondition::NotIn(values),
            "Exists" => LabelCondition::Exists,
            // The schema lets no other word through.
            _ => LabelCondition::Absent,
        };
        if takes_values == expression.values.is_empty() {
            problems.push(FieldProblem {
                path: path.index(index).key("values"),
                problem: if takes_values {
                    "is required with this operator".to_owned()
                } else {
                    "has no meaning with this operator".to_owned()
                },
                remedy: "give values with In and NotIn, and with nothing else".to_owned(),
            });
        }
        found.push(LabelExpression {
            key: expression.key.clone(),
            condition,
        });
    }
    found
}

/// The fields of the kind.
pub(crate) static SCHEMA: [Field; 5] = [
    field("apiVersion", Kind::Text),
    field("kind", Kind::Text),
    field("metadata", Kind::Any),
    field("spec", Kind::Object(&SPEC)),
    field("status", Kind::Any),
];

static SPEC: [Field; 4] = [
    field("maxUnavailable", Kind::Any),
    field("nodeSelector", Kind::Object(&SELECTOR)),
    field(
        "ovsHardwareOffloadConfig",
        Kind::Object(&[field("name", Kind::Text)]),
    ),
    field("rdmaMode", Kind::OneOf(&["shared", "exclusive"])),
];

static SELECTOR: [Field; 2] = [
    field("matchExpressions", Kind::ObjectList(&EXPRESSION)),
    field("matchLabels", Kind::TextMap),
];

static EXPRESSION: [Field; 3] = [
    required("key", Kind::Text),
    required(
        "operator",
        Kind::OneOf(&["In", "NotIn", "Exists", "DoesNotExist"]),
    ),
    field("values", Kind::TextList),
];
