//! What differs between what is wanted of a host and what is seen: a plan tells what to do, this
//! tells what is.
//!
//! It is made from the plan, so that the two cannot disagree: a PF whose plan has steps is never as
//! wanted. Steps that only follow from others, as the drivers of VFs that are yet to be made, are no
//! differences. What no step mends (a PF that is not there, too few VFs on a PF that somebody else
//! configures) is a difference all the same.

use model::{BindTarget, VfIndex};
use model::{
    Desired, EswitchMode, IfName, Inventory, PciAddress, PfDesired, PfPlan, Plan, PlannedStep, Step,
};

#[cfg(test)]
mod tests;

/// How one PF stands to what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfStanding {
    /// The PF.
    pub pf: PciAddress,
    /// Its name: as it is seen, or else as it was when the policies were resolved.
    pub name: Option<IfName>,
    /// What differs, the PF's own first, then by VF; empty when it is as wanted.
    pub differences: Vec<Difference>,
}

/// One thing that is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The VF that it is about; `None` for the PF.
    pub vf: Option<VfIndex>,
    /// What, for people: `driver`, `mtu`.
    pub what: &'static str,
    /// How it should be.
    pub wanted: String,
    /// How it is.
    pub seen: String,
}

/// Compares all PFs that somebody wants something of; `plan` is what leads from `seen` to `wanted`.
#[must_use]
pub fn drift(seen: &Inventory, wanted: &Desired, plan: &Plan) -> Vec<PfStanding> {
    let standing = |wanted: &PfDesired| {
        let plan = plan.pfs.iter().find(|plan| plan.pf == wanted.pf);
        let name = seen
            .get(wanted.pf)
            .and_then(|pf| pf.netdev_name().cloned())
            .or_else(|| wanted.name.clone());
        PfStanding {
            pf: wanted.pf,
            name,
            differences: differences(seen, wanted, plan),
        }
    };
    wanted.pfs.values().map(standing).collect()
}

fn differences(seen: &Inventory, wanted: &PfDesired, plan: Option<&PfPlan>) -> Vec<Difference> {
    let of_pf = |what, wanted: String, seen: &str| Difference {
        vf: None,
        what,
        wanted,
        seen: seen.to_owned(),
    };
    let Some(pf) = seen.get(wanted.pf) else {
        return vec![of_pf("PF", "present".to_owned(), "not there")];
    };
    let Some(facts) = pf.pf() else {
        return vec![of_pf("SR-IOV", "supported".to_owned(), "not supported")];
    };
    let mut found = Vec::new();
    let has_too_few = facts.num_vfs < wanted.num_vfs;
    let has_others = facts.num_vfs != wanted.num_vfs;
    if has_too_few || (has_others && !wanted.externally_managed) {
        let seen = facts.num_vfs.to_string();
        found.push(of_pf("number of VFs", wanted.num_vfs.to_string(), &seen));
    }
    let mode = wanted.eswitch.unwrap_or(EswitchMode::Legacy);
    if let Some(has) = facts.eswitch.filter(|has| *has != mode) {
        found.push(of_pf("eswitch mode", mode.to_string(), &has.to_string()));
    }
    let link = pf.netdev().map(|netdev| netdev.link_type);
    if let (Some(wanted), Some(seen)) = (wanted.link_type, link)
        && wanted != seen
    {
        found.push(of_pf("link type", wanted.to_string(), &seen.to_string()));
    }
    let Some(plan) = plan else { return found };
    found.extend(plan.steps.iter().filter_map(|step| of_step(plan, step)));
    if found.is_empty()
        && let Some(step) = plan.steps.first()
    {
        // A kind of step that has no words here must not look like "as wanted".
        found.push(of_pf("settings", step.step.to_string(), "not yet"));
    }
    // Stable: the order of the steps stays within the PF and within a VF.
    found.sort_by_key(|difference| difference.vf);
    found
}

/// Returns the difference that a step mends; `None` when it only follows from another step.
fn of_step(plan: &PfPlan, planned: &PlannedStep) -> Option<Difference> {
    let before = planned.before.as_deref()?;
    let (what, wanted) = match &planned.step {
        // Number and mode are told by themselves, as two steps may stand for one difference; autoprobe is
        // off, and VFs are without drivers, only for the moment; the rest goes with the mode.
        Step::SetNumVfs { .. }
        | Step::SetAutoprobe { .. }
        | Step::SetEswitch { .. }
        | Step::SetSteering { .. }
        | Step::SetTcOffload { .. }
        | Step::Bind {
            to: BindTarget::Nothing,
            ..
        } => return None,
        Step::SetVdpa { kind, .. } => (
            "vDPA device",
            kind.map_or("none".to_owned(), |kind| kind.to_string()),
        ),
        Step::SetVf { attr, .. } => (attr.name(), without_name(&attr.to_string(), attr.name())),
        Step::Bind { to, .. } => (
            "driver",
            match to {
                BindTarget::Default => "netdevice".to_owned(),
                BindTarget::Driver(_) | BindTarget::Nothing => to.to_string(),
            },
        ),
        Step::SetMtu { mtu, .. } => ("mtu", mtu.to_string()),
        Step::SetUp { up, .. } => ("link", if *up { "up" } else { "down" }.to_owned()),
        Step::SetMac { mac, .. } => ("interface mac", mac.to_string()),
        Step::Rename { name, .. } => ("name", name.to_string()),
        Step::Rebind { .. } => ("driver", "bound anew, to read its settings".to_owned()),
        other @ (Step::AwaitNetdev { .. }
        | Step::Move { .. }
        | Step::MoveRdma { .. }
        | Step::AddAddress { .. }
        | Step::RemoveAddress { .. }) => ("settings", other.to_string()),
    };
    Some(Difference {
        vf: if let Step::SetVf { vf, .. } = &planned.step {
            Some(*vf)
        } else {
            plan.vfs.get(&planned.step.function()).copied()
        },
        what,
        wanted,
        seen: without_name(before, what),
    })
}

/// Plans write `mtu 1500`; beside the word `mtu` the number is enough.
fn without_name(text: &str, name: &str) -> String {
    let rest = text.strip_prefix(name).and_then(|r| r.strip_prefix(' '));
    rest.unwrap_or(text).to_owned()
}
