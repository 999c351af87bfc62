//! What policies mean for one host: which PFs each selects, and what they say together.
//!
//! The rules are upstream's (sriov-network-operator, `SriovNetworkNodePolicy.Apply` and
//! `mergeConfigs`), so that a node means the same under both:
//!
//! 1. Policies are applied in order, the numerically larger `priority` first, equal ones by name;
//!    later ones override, so 0 is the most important.
//! 2. A policy selects the PFs for which every criterion given holds. With `numVfs: 0`, with an
//!    empty selector, or with the name `default`, it contributes nothing.
//! 3. Where a PF has something from an earlier policy, the earlier groups of VFs stay behind the new
//!    one, unless they offer the same resource or share a VF with it.
//! 4. If one stayed, or the two policies have equal priority, `mtu` and `numVfs` are the larger of
//!    both. Everything else is the later policy's, also when it is not given there.
//!
//! Differences, each where upstream has a bug: a range is honoured also behind an alternative name
//! of a PF (upstream falls back to all VFs); and what has no effect is said in a [`Note`].
//!
//! A problem is no reason to stop for somebody who looks after many hosts: the others' wishes are
//! resolved all the same. Who wants all or nothing, as `virtfn apply` does, calls
//! [`Resolved::accept`].

mod merge;
mod note;
mod problem;
mod select;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::{Desired, Inventory, NodePolicy};

use merge::Merge;
pub use note::{Note, NoteKind};
pub use problem::{ResolveError, ResolveProblem, Trouble};
pub(crate) use select::why_unusable;

/// What policies mean for a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// What the host should have; PFs with a problem are left out.
    pub desired: Desired,
    /// What has no effect, or another one than it seems.
    pub notes: Vec<Note>,
    /// What cannot be.
    pub problems: Vec<ResolveProblem>,
}

impl Resolved {
    /// Returns what the host should have, unless something cannot be.
    pub fn accept(self) -> Result<(Desired, Vec<Note>), ResolveError> {
        if self.problems.is_empty() {
            Ok((self.desired, self.notes))
        } else {
            Err(ResolveError {
                problems: self.problems,
            })
        }
    }
}

/// Merges `policies` into what the host that looks like `seen` and has `labels` should have.
#[must_use]
pub fn resolve(
    seen: &Inventory,
    policies: &[NodePolicy],
    labels: &BTreeMap<String, String>,
) -> Resolved {
    let mut resolved = Resolved::default();
    let mut ordered: Vec<&NodePolicy> = policies.iter().collect();
    ordered.sort_by(|a, b| {
        b.priority
            .cmp(&a.priority)
            .then_with(|| a.name.cmp(&b.name))
    });
    let mut merge = Merge::default();
    for policy in without_doubles(&ordered, &mut resolved.problems) {
        if policy.name == "default" {
            continue;
        }
        if let Some((key, value)) = missing_label(policy, labels) {
            resolved.notes.push(Note::new(
                policy,
                NoteKind::OtherNodes {
                    key: key.clone(),
                    value: value.clone(),
                },
            ));
            continue;
        }
        let pfs = select::selected(seen, policy, &mut resolved);
        merge.apply(policy, &pfs, &mut resolved.notes);
    }
    merge.finish(seen, &mut resolved);
    resolved
}

/// Leaves out policies whose name was there before, each with a problem: which one is meant?
fn without_doubles<'a>(
    ordered: &[&'a NodePolicy],
    problems: &mut Vec<ResolveProblem>,
) -> Vec<&'a NodePolicy> {
    let mut first: BTreeMap<&str, &NodePolicy> = BTreeMap::new();
    for policy in ordered {
        if let Some(other) = first.get(policy.name.as_str()) {
            problems.push(ResolveProblem::new(
                policy,
                Trouble::NameTwice {
                    other: other.origin.clone(),
                },
            ));
        } else {
            first.insert(&policy.name, policy);
        }
    }
    let mut left: Vec<&NodePolicy> = first.into_values().collect();
    left.sort_by(|a, b| {
        b.priority
            .cmp(&a.priority)
            .then_with(|| a.name.cmp(&b.name))
    });
    left
}

fn missing_label<'a>(
    policy: &'a NodePolicy,
    labels: &BTreeMap<String, String>,
) -> Option<(&'a String, &'a String)> {
    policy
        .node_selector
        .iter()
        .find(|(key, value)| labels.get(*key) != Some(value))
}
