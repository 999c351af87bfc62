//! All that is to be done about a host, decided at once: PFs to configure, PFs to give back, firmware
//! to write, and what the kernel lacks.
//!
//! ```text
//! seen, wanted ──────── plan ────┐
//!           owned ───── release ─┼─▶ Decision { plan, forget, kernel, firmware }
//!  kernel's facts ───── kernel ──┤        │
//! firmware's settings ─ vendor ──┘        └─ steps that wait for a reboot say so in their price
//! ```
//!
//! What would surprise: a step whose price is a reboot is in the plan although it cannot be made now.
//! Whoever performs the plan leaves it out; it is what the plan after the reboot will hold.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    BindTarget, Desired, Function, GuidRule, Inventory, PciAddress, PfDesired, PfPlan, Plan,
    PlannedStep, Price, RebootReason, Step,
};

use crate::kernel::{KernelArgument, KernelFacts, KernelNeeds, needs};
use crate::plan::{guid_errors, plan_with};
use crate::vendor::mellanox::{
    self, FirmwareChange, FirmwareError, FirmwareReport, Fit, WantedNic,
};
use crate::{GuidError, KeptVfs, Owned, RdmaFacts, RdmaNeed, rdma_need, release};

#[cfg(test)]
mod tests;

/// What is known beside what was seen.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The PFs that were configured before, by address.
    pub owned: BTreeMap<PciAddress, Owned>,
    /// What the kernel offers; `None` when that could not be told, as of a recording.
    pub kernel: Option<KernelFacts>,
    /// What the firmware of NICs said, by the address that [`mellanox::lacking`] gives; or why it
    /// said nothing.
    pub firmware: BTreeMap<PciAddress, Result<FirmwareReport, String>>,
    /// What keeps the RDMA mode; `None` when that could not be told.
    pub rdma: Option<RdmaFacts>,
    /// PFs for so many VFs of which the kernel had no memory space since it was started.
    pub starved: BTreeMap<PciAddress, u16>,
    /// The administrator's file of GUIDs; `None` when there is none, and they are derived.
    pub guids: Option<Vec<GuidRule>>,
    /// What VFs should have that no policy says: what is kept across reboots, and what an apply that died
    /// had taken down.
    pub kept: KeptVfs,
}

/// All that is to be done about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What the host should have.
    pub desired: Desired,
    /// The steps: of PFs that are wanted, and of those that are given back.
    pub plan: Plan,
    /// PFs that nobody wants anything of any more, and that are in `plan` for that.
    pub released: BTreeSet<PciAddress>,
    /// What VFs that `plan` destroys have by hand, and get again: to be on record before the first step.
    pub lost: KeptVfs,
    /// PFs of which only the record that they were configured goes.
    pub forget: Vec<PciAddress>,
    /// What the kernel lacks.
    pub kernel: KernelNeeds,
    /// What is to be done about firmware.
    pub firmware: Vec<FirmwareNeed>,
    /// What is to be done about the RDMA mode; `None` for nothing.
    pub rdma: Option<RdmaNeed>,
    /// Why VFs cannot be given GUIDs.
    pub guid_errors: Vec<GuidError>,
}

/// What is to be done about the firmware of one NIC before it can have what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareNeed {
    /// What to write; what would be written, when its settings could not be told.
    pub change: Result<FirmwareChange, FirmwareError>,
    /// Why its settings could not be told.
    pub unseen: Option<String>,
    /// Is SR-IOV taken back from a NIC of which nobody wants anything any more? Nothing depends on that.
    pub is_given_back: bool,
}

impl Decision {
    /// Is there nothing to do? What is only advised does not count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plan.is_empty()
            && self.kernel.reboot().is_none()
            && self.firmware.iter().all(|need| need.is_given_back)
            && self.rdma.is_none()
    }

    /// Returns why a reboot is needed, each cause once.
    #[must_use]
    pub fn reboots(&self) -> Vec<RebootReason> {
        let firmware = self.firmware.iter().filter_map(|need| {
            let change = need.change.as_ref().ok()?;
            change.reboot()
        });
        let rdma = self.rdma.as_ref().and_then(RdmaNeed::reboot);
        let kernel = self.kernel.reboot();
        kernel.into_iter().chain(firmware).chain(rdma).collect()
    }
}

/// Decides what leads from `seen` to `wanted`.
#[must_use]
pub fn decide(seen: &Inventory, wanted: &Desired, known: &Circumstances) -> Decision {
    let guids = known.guids.as_deref();
    let (mut all, lost) = plan_with(seen, wanted, known);
    for pf in wanted.pfs.values().filter(|pf| !pf.externally_managed) {
        mend_autoprobe(&mut all, seen, pf, known.owned.get(&pf.pf));
    }
    let release = release(seen, wanted, &known.owned);
    let released = release.plans.iter().map(|plan| plan.pf).collect();
    all.pfs.extend(release.plans);
    all.pfs.sort_by_key(|plan| plan.pf);
    let starved = starved(seen, wanted, known);
    let kernel = known
        .kernel
        .as_ref()
        .map(|facts| needs(wanted, facts, &starved))
        .unwrap_or_default();
    let firmware: Vec<FirmwareNeed> = mellanox::lacking(seen, wanted)
        .iter()
        .map(|nic| firmware_need(nic, known.firmware.get(&nic.nic)))
        .chain(firmware_back(seen, wanted, known))
        .collect();
    let is_for_space = |argument: &KernelArgument| *argument == KernelArgument::pci_realloc();
    if let Some(reason) = kernel.reboot_for(|argument| !is_for_space(argument)) {
        all.pfs.iter_mut().for_each(|pf| postpone_vfio(pf, &reason));
    }
    if let Some(reason) = kernel.reboot_for(is_for_space) {
        let waiting = all.pfs.iter_mut().filter(|pf| starved.contains(&pf.pf));
        waiting.for_each(|pf| postpone_vfs(pf, &reason));
    }
    for change in firmware.iter().filter_map(|need| need.change.as_ref().ok()) {
        if let Some(reason) = change.reboot() {
            for pf in &mut all.pfs {
                if mellanox::is_same_device(pf.pf, change.nic) && lacks_vfs(seen, wanted, pf.pf) {
                    postpone_vfs(pf, &reason);
                }
            }
        }
    }
    Decision {
        desired: wanted.clone(),
        plan: all,
        released,
        lost,
        forget: release.forget,
        kernel,
        firmware,
        rdma: known
            .rdma
            .and_then(|facts| rdma_need(seen.rdma_netns, wanted.rdma_netns, facts)),
        guid_errors: wanted
            .pfs
            .values()
            .flat_map(|pf| guid_errors(seen, pf, guids))
            .collect(),
    }
}

/// Lets new VFs of a PF get drivers by themselves again, where a process died while that was off.
fn mend_autoprobe(all: &mut Plan, seen: &Inventory, wanted: &PfDesired, owned: Option<&Owned>) {
    let was_on = owned.and_then(|owned| owned.original.autoprobe) == Some(true);
    let Some((pf, facts)) = seen.get(wanted.pf).and_then(|pf| Some((pf, pf.pf()?))) else {
        return;
    };
    if !was_on || facts.autoprobe != Some(false) {
        return;
    }
    let at = all.pfs.iter().position(|plan| plan.pf == pf.address);
    let at = at.unwrap_or_else(|| {
        all.pfs.push(PfPlan {
            pf: pf.address,
            name: pf.netdev_name().cloned(),
            steps: Vec::new(),
            vfs: BTreeMap::new(),
            is_cut: false,
        });
        all.pfs.len() - 1
    });
    let Some(plan) = all.pfs.get_mut(at) else {
        return;
    };
    let mends = |planned: &PlannedStep| matches!(planned.step, Step::SetAutoprobe { on: true, .. });
    if plan.steps.iter().any(mends) {
        // New VFs, which a policy or nobody is for, get their drivers from the plan itself.
        return;
    }
    let goes = |planned: &PlannedStep| matches!(planned.step, Step::SetNumVfs { count: 0, .. });
    let stay = !plan.steps.iter().any(goes);
    let free = |step, before: Option<&str>, undo| PlannedStep {
        step,
        before: before.map(str::to_owned),
        undo: Some(undo),
        price: Price::default(),
    };
    let bare = facts.vfs.iter().filter(|(index, vf)| {
        let found = seen.get(**vf);
        wanted.group_of(**index).is_none() && found.is_some_and(|vf| vf.driver.is_none())
    });
    for (index, vf) in bare.filter(|_| stay) {
        let bind = |to| Step::Bind { function: *vf, to };
        plan.vfs.insert(*vf, *index);
        plan.steps.push(free(
            bind(BindTarget::Default),
            Some("no driver"),
            bind(BindTarget::Nothing),
        ));
    }
    let set = |on| Step::SetAutoprobe { pf: wanted.pf, on };
    plan.steps.push(free(set(true), Some("off"), set(false)));
}

fn firmware_need(nic: &WantedNic, report: Option<&Result<FirmwareReport, String>>) -> FirmwareNeed {
    let (change, unseen) = match report {
        Some(Ok(report)) => (mellanox::change(nic, report, Fit::Enough), None),
        Some(Err(why)) => (mellanox::guessed_change(nic), Some(why.clone())),
        None => {
            let why = "it was not asked".to_owned();
            (mellanox::guessed_change(nic), Some(why))
        }
    };
    FirmwareNeed {
        change,
        unseen,
        is_given_back: false,
    }
}

/// Decides about the firmware of NICs of which nobody wants anything any more, as far as it was asked.
fn firmware_back(seen: &Inventory, wanted: &Desired, known: &Circumstances) -> Vec<FirmwareNeed> {
    let need = |nic: PciAddress| {
        let (change, unseen) = match known.firmware.get(&nic)? {
            Ok(report) => (mellanox::give_back(nic, report), None),
            Err(why) => (mellanox::guessed_give_back(nic), Some(why.clone())),
        };
        (!change.is_nothing()).then_some(FirmwareNeed {
            change: Ok(change),
            unseen,
            is_given_back: true,
        })
    };
    let nics = mellanox::unwanted(seen, wanted, &known.owned);
    nics.into_iter().filter_map(need).collect()
}

/// Returns the PFs that still lack VFs for which the kernel had no memory space. Fewer than it had none
/// for may do.
fn starved(seen: &Inventory, wanted: &Desired, known: &Circumstances) -> BTreeSet<PciAddress> {
    let is_starved = |(pf, had_none_for): &(&PciAddress, &u16)| {
        let has = seen.get(**pf).and_then(Function::pf);
        let wanted = wanted.pfs.get(pf).map(|wanted| wanted.num_vfs);
        has.zip(wanted)
            .is_some_and(|(has, wanted)| wanted > has.num_vfs && wanted >= **had_none_for)
    };
    let starved = known.starved.iter().filter(is_starved);
    starved.map(|(pf, _)| *pf).collect()
}

/// Are more VFs wanted of a PF than it offers?
fn lacks_vfs(seen: &Inventory, wanted: &Desired, pf: PciAddress) -> bool {
    let offered = seen.get(pf).and_then(Function::pf);
    let wanted = wanted.pfs.get(&pf);
    offered
        .zip(wanted)
        .is_some_and(|(offered, wanted)| wanted.num_vfs > offered.total_vfs)
}

/// Says of the steps that bind VFs to VFIO that they wait for a reboot.
fn postpone_vfio(pf: &mut PfPlan, reason: &RebootReason) {
    for planned in &mut pf.steps {
        if let Step::Bind {
            to: BindTarget::Driver(driver),
            ..
        } = &planned.step
            && driver.is_vfio()
        {
            planned.price.reboot = Some(reason.clone());
        }
    }
}

/// Says of all steps about the VFs of a PF, and about the switch that is for them, that they wait for a
/// reboot.
fn postpone_vfs(pf: &mut PfPlan, reason: &RebootReason) {
    for planned in &mut pf.steps {
        let is_of_pf = planned.step.function() == pf.pf;
        // Autoprobe is only off while VFs are made.
        let is_for_vfs = matches!(
            planned.step,
            Step::SetNumVfs { .. }
                | Step::SetAutoprobe { .. }
                | Step::SetEswitch { .. }
                | Step::SetSteering { .. }
                | Step::SetVf { .. }
        );
        if !is_of_pf || is_for_vfs {
            planned.price.reboot = Some(reason.clone());
        }
    }
}
