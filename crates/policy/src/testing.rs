//! What the tests of this crate write down briefly.

use std::collections::BTreeMap;

use model::{
    Desired, Host, Inventory, NicSelector, NodePolicy, Origin, PfNameSelector, Plan, VfDriver,
};

use crate::resolve;

/// Returns a policy for PFs by name (`ens1` or `ens1#0-3`), with resource `res_<name>`.
pub(crate) fn policy(name: &str, pfs: &[&str], num_vfs: u16) -> NodePolicy {
    let pf_names = pfs.iter().map(|text| match text.split_once('#') {
        Some((name, range)) => PfNameSelector {
            name: name.to_owned(),
            range: Some(range.parse().unwrap()),
        },
        None => PfNameSelector {
            name: (*text).to_owned(),
            range: None,
        },
    });
    NodePolicy {
        name: name.to_owned(),
        origin: Origin {
            file: format!("{name}.yaml"),
            line: 1,
        },
        priority: 99,
        resource: format!("res_{name}"),
        node_selector: BTreeMap::new(),
        nic: NicSelector {
            pf_names: pf_names.collect(),
            ..NicSelector::default()
        },
        num_vfs,
        mtu: None,
        driver: VfDriver::Kernel,
        is_rdma: false,
        need_vhost_net: false,
        link_type: None,
        eswitch: None,
        vdpa: None,
        externally_managed: false,
        exclude_topology: false,
    }
}

/// Returns what is wanted of a PF: VFs and nothing else.
pub(crate) fn wanted_pf(pf: &str, num_vfs: u16) -> model::PfDesired {
    model::PfDesired {
        pf: pf.parse().unwrap(),
        name: None,
        num_vfs,
        mtu: None,
        link_type: None,
        eswitch: None,
        externally_managed: false,
        groups: Vec::new(),
    }
}

/// Changes a policy in place, for use in an expression.
pub(crate) trait With: Sized {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl With for NodePolicy {}

/// Resolves policies that must have no problem.
#[track_caller]
pub(crate) fn desired(seen: &Inventory, policies: &[NodePolicy]) -> Desired {
    let resolved = resolve(seen, policies, &BTreeMap::new());
    assert_eq!(resolved.problems, []);
    resolved.desired
}

/// Performs all steps.
#[track_caller]
pub(crate) fn perform(host: &mut impl Host, plan: &Plan) {
    for planned in plan.steps() {
        host.perform(&planned.step).unwrap();
    }
}
