//! PFs that nobody wants anything of any more: what was configured is taken back, and only that.
//!
//! Whether a PF was configured by us (or by the operator's own daemon, before) is not seen but
//! recorded; a PF without a record is never touched. What would surprise:
//!
//! - An externally managed PF is left as it is, VFs included: only its record goes.
//! - With what the PF had at first on record, it gets that back. Without, only a value that is still
//!   the one that it was given is taken back, to what the kernel starts with: somebody else may have
//!   set another since.
//! - A record of a PF that is not seen, or that no policy could select as it is (no driver, a netdev in
//!   another namespace), is kept: it may be away for a moment, as while its driver is loaded anew,
//!   and a policy that selects it by vendor wants it again then.

use std::collections::BTreeMap;

use model::{
    Desired, EswitchMode, Function, Holder, Inventory, LinkType, Mtu, NetnsTarget, PciAddress,
    PfFacts, PfPlan, PlannedStep, Price, SteeringMode, Step,
};

use crate::resolve::why_unusable;

/// MTU that the kernel gives to an Ethernet interface (`ETH_DATA_LEN`).
const ETHERNET_MTU: u32 = 1500;
/// MTU that upstream gives back to an InfiniBand interface.
const INFINIBAND_MTU: u32 = 2048;

/// What is recorded of a PF that was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Is the PF somebody else's, and only its VFs were configured?
    pub externally_managed: bool,
    /// MTU that the PF was last given; `None` when none was asked for.
    pub given_mtu: Option<Mtu>,
    /// Eswitch mode that the PF was last given; `None` is legacy.
    pub given_eswitch: Option<EswitchMode>,
    /// What the PF had before anything was configured.
    pub original: Original,
}

/// What a PF had before anything was configured; `None` for what is not on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// MTU.
    pub mtu: Option<Mtu>,
    /// Eswitch mode.
    pub eswitch: Option<EswitchMode>,
    /// Did new VFs get a driver by themselves?
    pub autoprobe: Option<bool>,
    /// Did its netdev hand rules of tc to the hardware?
    pub tc_offload: Option<bool>,
    /// How its eswitch steered packets.
    pub steering: Option<SteeringMode>,
}

impl Original {
    /// Returns what is to be recorded of a PF before it is configured for the first time.
    #[must_use]
    pub fn of(pf: &Function) -> Self {
        let facts = pf.pf();
        Self {
            mtu: pf.netdev().and_then(|netdev| Mtu::new(netdev.mtu)),
            eswitch: facts.and_then(|facts| facts.eswitch),
            autoprobe: facts.and_then(|facts| facts.autoprobe),
            tc_offload: facts.and_then(|facts| facts.tc_offload),
            steering: facts.and_then(|facts| facts.steering),
        }
    }
}

/// What becomes of the PFs that nobody wants anything of any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// PFs to give back, by address; the record of each goes once its steps are made.
    pub plans: Vec<PfPlan>,
    /// PFs of which only the record goes.
    pub forget: Vec<PciAddress>,
}

/// Decides what becomes of the PFs that are owned and not wanted.
#[must_use]
pub fn release(seen: &Inventory, wanted: &Desired, owned: &BTreeMap<PciAddress, Owned>) -> Release {
    let mut release = Release::default();
    for (address, owned) in owned {
        if wanted.pfs.contains_key(address) {
            continue;
        }
        if owned.externally_managed {
            release.forget.push(*address);
            continue;
        }
        let Some(pf) = seen.get(*address) else {
            continue;
        };
        let Some(facts) = pf.pf() else { continue };
        if why_unusable(seen, pf).is_some() {
            continue;
        }
        let plan = give_back(seen, pf, facts, owned);
        if plan.steps.is_empty() {
            release.forget.push(*address);
        } else {
            release.plans.push(plan);
        }
    }
    release
}

fn give_back(seen: &Inventory, pf: &Function, facts: &PfFacts, owned: &Owned) -> PfPlan {
    let mut plan = PfPlan {
        pf: pf.address,
        name: pf.netdev_name().cloned(),
        steps: Vec::new(),
        vfs: BTreeMap::new(),
        is_cut: false,
    };
    if facts.num_vfs > 0 {
        let set = |count| Step::SetNumVfs {
            pf: pf.address,
            count,
        };
        let interrupts = holders(seen, facts);
        for (vf, _) in &interrupts {
            if let Some(index) = seen.get(*vf).and_then(|found| found.vf()?.index) {
                plan.vfs.insert(*vf, index);
            }
        }
        plan.steps.push(PlannedStep {
            step: set(0),
            before: Some(format!("{} VFs", facts.num_vfs)),
            undo: Some(set(facts.num_vfs)),
            price: Price {
                interrupts,
                destroys_vfs: true,
                reboot: None,
            },
        });
    }
    let changes = [
        eswitch(pf, facts, owned),
        steering(pf, facts, owned),
        tc_offload(pf, facts, owned),
        mtu(pf, owned),
        autoprobe(pf, facts, owned),
    ];
    let free = changes.into_iter().flatten().map(|change| PlannedStep {
        step: change.step,
        before: Some(change.before),
        undo: change.undo,
        price: Price::default(),
    });
    plan.steps.extend(free);
    plan
}

/// A change that costs nobody anything, since no VF is left.
struct Change {
    step: Step,
    before: String,
    undo: Option<Step>,
}

/// Returns the mode that a PF gets back; `None` when it keeps the one that it has.
fn former_mode(facts: &PfFacts, owned: &Owned) -> Option<EswitchMode> {
    let has = facts.eswitch?;
    let former = owned.original.eswitch.or_else(|| {
        (owned.given_eswitch == Some(EswitchMode::Switchdev)).then_some(EswitchMode::Legacy)
    });
    former.filter(|mode| *mode != has)
}

fn eswitch(pf: &Function, facts: &PfFacts, owned: &Owned) -> Option<Change> {
    let has = facts.eswitch?;
    let set = |mode| Step::SetEswitch {
        pf: pf.address,
        mode,
    };
    Some(Change {
        step: set(former_mode(facts, owned)?),
        before: has.to_string(),
        undo: Some(set(has)),
    })
}

/// It can be changed in legacy mode only.
fn steering(pf: &Function, facts: &PfFacts, owned: &Owned) -> Option<Change> {
    let mode = former_mode(facts, owned).or(facts.eswitch);
    let has = facts
        .steering
        .filter(|_| mode == Some(EswitchMode::Legacy))?;
    let former = owned.original.steering.filter(|former| *former != has)?;
    let set = |mode| Step::SetSteering {
        pf: pf.address,
        mode,
    };
    Some(Change {
        step: set(former),
        before: format!("flow_steering_mode {has}"),
        undo: Some(set(has)),
    })
}

fn tc_offload(pf: &Function, facts: &PfFacts, owned: &Owned) -> Option<Change> {
    let has = facts.tc_offload?;
    let on = owned.original.tc_offload.filter(|on| *on != has)?;
    let set = |on| Step::SetTcOffload { pf: pf.address, on };
    Some(Change {
        step: set(on),
        before: if has { "on" } else { "off" }.to_owned(),
        undo: Some(set(has)),
    })
}

fn mtu(pf: &Function, owned: &Owned) -> Option<Change> {
    let netns = NetnsTarget::Host;
    let netdev = pf.netdev().filter(|netdev| netdev.netns == netns.netns())?;
    let has = Mtu::new(netdev.mtu);
    let kernels = match netdev.link_type {
        LinkType::InfiniBand => INFINIBAND_MTU,
        LinkType::Ethernet | LinkType::Other(_) => ETHERNET_MTU,
    };
    let is_ours = owned.given_mtu.is_some() && owned.given_mtu == has;
    let former = owned
        .original
        .mtu
        .or_else(|| Mtu::new(kernels).filter(|_| is_ours))?;
    if Some(former) == has {
        return None;
    }
    let set = |mtu| Step::SetMtu {
        function: pf.address,
        netns: netns.clone(),
        mtu,
    };
    Some(Change {
        step: set(former),
        before: format!("mtu {}", netdev.mtu),
        undo: has.map(set),
    })
}

fn autoprobe(pf: &Function, facts: &PfFacts, owned: &Owned) -> Option<Change> {
    let has = facts.autoprobe?;
    let on = owned.original.autoprobe.filter(|on| *on != has)?;
    let set = |on| Step::SetAutoprobe { pf: pf.address, on };
    Some(Change {
        step: set(on),
        before: if has { "on" } else { "off" }.to_owned(),
        undo: Some(set(has)),
    })
}

/// Returns who holds VFs of a PF.
fn holders(seen: &Inventory, facts: &PfFacts) -> Vec<(PciAddress, Holder)> {
    let held = facts.vfs.values().filter_map(|vf| {
        let holder = seen.get(*vf)?.vf()?.holder.clone()?;
        Some((*vf, holder))
    });
    held.collect()
}

#[cfg(test)]
mod tests;
