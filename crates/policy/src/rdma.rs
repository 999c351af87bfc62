//! How RDMA devices relate to network namespaces (`rdmaMode`): a setting of the whole kernel.
//!
//! It is kept by a line for `modprobe` that the operator's daemon writes too, and set in the running kernel
//! where that allows it: only while no network namespace but the host's exists, as at boot. Otherwise it
//! waits for a reboot. Unlike the operator's daemon, virtfn adds no kernel argument and asks for no reboot
//! when the mode is right already; and when nobody wants a mode any more, the line goes and the running
//! kernel stays as it is.

use std::collections::BTreeMap;
use std::fmt;

use model::{NodePool, RdmaNetnsMode, RebootReason};

/// What is known of the mode beside what the kernel runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RdmaFacts {
    /// The mode that the line for `modprobe` asks for; `None` when there is no such line.
    pub kept: Option<RdmaNetnsMode>,
    /// Are there other network namespaces than the host's, as far as they are seen?
    pub has_other_netns: bool,
}

/// What is to be done about the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdmaNeed {
    /// What becomes of the line for `modprobe`.
    pub kept: Option<Keep>,
    /// The mode that the running kernel should have and has not.
    pub mode: Option<RdmaNetnsMode>,
    /// Can the running kernel not change it, as far as can be told before it is tried?
    pub needs_reboot: bool,
}

/// What becomes of the line for `modprobe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is written.
    Write(RdmaNetnsMode),
    /// It is taken back.
    Remove,
}

impl RdmaNeed {
    /// Returns why a reboot is needed.
    #[must_use]
    pub fn reboot(&self) -> Option<RebootReason> {
        let mode = self.mode.filter(|_| self.needs_reboot);
        mode.map(RebootReason::RdmaNetns)
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(mode) => write!(f, "load ib_core in mode {mode} from now on"),
            Self::Remove => f.write_str("load ib_core in the kernel's own mode from now on"),
        }
    }
}

/// Decides what leads from the mode that the kernel `runs` with (`None` when it has no RDMA yet) to the
/// one that is wanted; `None` when there is nothing to do.
#[must_use]
pub fn rdma_need(
    runs: Option<RdmaNetnsMode>,
    wanted: Option<RdmaNetnsMode>,
    facts: RdmaFacts,
) -> Option<RdmaNeed> {
    let kept = match wanted {
        Some(mode) => (facts.kept != Some(mode)).then_some(Keep::Write(mode)),
        None => facts.kept.map(|_| Keep::Remove),
    };
    // A kernel without RDMA reads the line when it loads it.
    let mode = wanted.filter(|mode| runs.is_some_and(|runs| runs != *mode));
    (kept.is_some() || mode.is_some()).then_some(RdmaNeed {
        kept,
        mode,
        needs_reboot: mode.is_some() && facts.has_other_netns,
    })
}

/// Returns the mode that pools ask for on a node with these labels, or the names of the pools when more
/// than one selects the node: then, as upstream has it, none of them counts.
pub fn rdma_of_pools<'a>(
    pools: &'a [NodePool],
    labels: &BTreeMap<String, String>,
) -> Result<Option<RdmaNetnsMode>, Vec<&'a str>> {
    let ours: Vec<&NodePool> = pools.iter().filter(|pool| pool.selects(labels)).collect();
    match ours.as_slice() {
        [] => Ok(None),
        [only] => Ok(only.rdma_netns),
        many => Err(many.iter().map(|pool| pool.name.as_str()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use model::RdmaNetnsMode::{Exclusive, Shared};

    use super::*;

    fn facts(kept: Option<RdmaNetnsMode>, has_other_netns: bool) -> RdmaFacts {
        RdmaFacts {
            kept,
            has_other_netns,
        }
    }

    #[test]
    fn a_mode_that_runs_and_is_kept_needs_nothing() {
        let kept = facts(Some(Exclusive), true);
        assert_eq!(rdma_need(Some(Exclusive), Some(Exclusive), kept), None);
        assert_eq!(rdma_need(Some(Exclusive), None, facts(None, true)), None);
        assert_eq!(rdma_need(None, None, RdmaFacts::default()), None);
    }

    #[test]
    fn another_mode_is_set_at_once_only_where_the_kernel_allows_it() {
        let need = |other| rdma_need(Some(Shared), Some(Exclusive), facts(None, other)).unwrap();
        assert_eq!(need(false).kept, Some(Keep::Write(Exclusive)));
        assert_eq!(need(false).mode, Some(Exclusive));
        assert_eq!(need(false).reboot(), None);
        let reason = need(true).reboot().unwrap().to_string();
        assert_eq!(reason, "RDMA namespace mode exclusive");
    }

    #[test]
    fn without_rdma_in_the_kernel_the_line_is_enough() {
        let need = rdma_need(None, Some(Exclusive), facts(None, true)).unwrap();
        assert_eq!((need.mode, need.reboot()), (None, None));
    }

    #[test]
    fn what_nobody_wants_is_given_back_without_a_reboot() {
        let need = rdma_need(Some(Exclusive), None, facts(Some(Exclusive), true)).unwrap();
        assert_eq!(need.kept, Some(Keep::Remove));
        assert_eq!((need.mode, need.reboot()), (None, None));
    }

    #[test]
    fn two_pools_of_one_node_cancel_each_other() {
        let pool = |name: &str, rack: &str| NodePool {
            name: name.to_owned(),
            origin: model::Origin::default(),
            selector: Some(model::LabelSelector {
                labels: [("rack".to_owned(), rack.to_owned())].into(),
                ..model::LabelSelector::default()
            }),
            rdma_netns: Some(Exclusive),
        };
        let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
        let all = NodePool {
            selector: None,
            ..pool("all", "")
        };
        let pools = [pool("a", "a"), pool("b", "b"), all];
        assert_eq!(rdma_of_pools(&pools[..2], &labels), Ok(Some(Exclusive)));
        assert_eq!(rdma_of_pools(&pools[1..2], &labels), Ok(None));
        assert_eq!(rdma_of_pools(&pools, &labels), Err(vec!["a", "all"]));
    }
}
