//! What nodes that carry the same labels have in common.

use std::collections::BTreeMap;

use crate::{Origin, RdmaNetnsMode};

/// One `SriovNetworkPoolConfig`, as far as it is about one node: how many of its nodes may be drained at
/// once is for who looks after a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePool {
    /// Name of the object.
    pub name: String,
    /// Where it was read.
    pub origin: Origin,
    /// Which nodes it is for; `None` for all.
    pub selector: Option<LabelSelector>,
    /// How RDMA devices of these nodes should relate to network namespaces.
    pub rdma_netns: Option<RdmaNetnsMode>,
}

impl NodePool {
    /// Is a node with these labels one of the pool's?
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector
            .as_ref()
            .is_none_or(|selector| selector.matches(labels))
    }
}

/// Which labels an object must have: all that is given must hold, and nothing given holds for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels with their values.
    pub labels: BTreeMap<String, String>,
    /// Further conditions.
    pub expressions: Vec<LabelExpression>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What must hold.
    pub condition: LabelCondition,
}

/// What must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelCondition {
    /// It is there and has one of these values.
    In(Vec<String>),
    /// It is absent or has another value.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is absent.
    Absent,
}

impl LabelSelector {
    /// Does everything that is given hold?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut equal = self.labels.iter();
        let mut conditions = self.expressions.iter();
        equal.all(|(key, value)| labels.get(key) == Some(value))
            && conditions.all(|expression| {
                let value = labels.get(&expression.key);
                match &expression.condition {
                    LabelCondition::In(values) => value.is_some_and(|v| values.contains(v)),
                    LabelCondition::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
                    LabelCondition::Exists => value.is_some(),
                    LabelCondition::Absent => value.is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_as_in_kubernetes() {
        let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
        let holds = |key: &str, condition| {
            let key = key.to_owned();
            let selector = LabelSelector {
                expressions: vec![LabelExpression { key, condition }],
                ..LabelSelector::default()
            };
            selector.matches(&labels)
        };
        let values = |text: &str| vec![text.to_owned()];
        assert!(holds("rack", LabelCondition::In(values("a"))));
        assert!(!holds("rack", LabelCondition::In(values("b"))));
        assert!(!holds("row", LabelCondition::In(values("a"))));
        assert!(holds("rack", LabelCondition::NotIn(values("b"))));
        assert!(!holds("rack", LabelCondition::NotIn(values("a"))));
        assert!(holds("row", LabelCondition::NotIn(values("a"))));
        assert!(holds("rack", LabelCondition::Exists) && !holds("row", LabelCondition::Exists));
        assert!(holds("row", LabelCondition::Absent) && !holds("rack", LabelCondition::Absent));
        assert!(LabelSelector::default().matches(&BTreeMap::new()));
        let exact = LabelSelector {
            labels: BTreeMap::from([("rack".to_owned(), "b".to_owned())]),
            ..LabelSelector::default()
        };
        assert!(!exact.matches(&labels));
    }
}
