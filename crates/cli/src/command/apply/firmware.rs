//! Firmware settings of NICs: written, taken back, and read anew by a reset.

use host::{HostPrograms, HostRoot, Programs, reset_firmware, write_firmware};
use model::{
    Host, Inventory, PciAddress, PfPlan, Plan, PlannedStep, Price, RebootReason, Scope, Step,
};
use policy::vendor::mellanox::is_same_device;
use policy::{Decision, FirmwareNeed, UplinkFacts, UplinkRefused, check_uplinks};

use super::Job;
use super::reboot::NotAskedFor;
use crate::command::plan::{explained, uplinks};
use crate::failure::Failure;
use crate::ui::Ui;

#[cfg(test)]
mod tests;

/// Sees to firmware; `false` when what is needed was not written.
pub(super) fn see_to(
    job: &Job<'_>,
    decision: &Decision,
    reasons: &mut Vec<RebootReason>,
    ui: &mut Ui,
) -> bool {
    let root = &job.work.root;
    let mut tools = Tools {
        root,
        programs: &mut HostPrograms::new(root),
        may_write: job.args.firmware,
        may_reset: job.args.firmware_reset,
        why_not: &mut |nic, ui| why_not_reset(job, nic, ui),
    };
    let mut all_well = true;
    for need in &decision.firmware {
        all_well &= tools.see_to(need, reasons, ui);
    }
    all_well
}

/// The vendor's tools, and what they may be used for.
struct Tools<'a> {
    root: &'a HostRoot,
    programs: &'a mut dyn Programs,
    may_write: bool,
    may_reset: bool,
    /// Says why a NIC must not be reset now.
    why_not: &'a mut WhyNot<'a>,
}

type WhyNot<'a> = dyn FnMut(PciAddress, &mut Ui) -> Result<Option<String>, Failure> + 'a;

impl Tools<'_> {
    fn see_to(
        &mut self,
        need: &FirmwareNeed,
        reasons: &mut Vec<RebootReason>,
        ui: &mut Ui,
    ) -> bool {
        // Whoever decided has told of those that cannot be.
        let Ok(change) = &need.change else {
            return true;
        };
        if let Some(command) = change.command() {
            if !self.may_write && need.is_given_back {
                ui.note(format_args!(
                    "nobody wants VFs of NIC {} any more; with --firmware, `{command}` takes them back \
                     from its firmware",
                    change.nic
                ));
                return true;
            }
            if !self.may_write {
                let what = format!("firmware settings (`{command}`)");
                let option = "--firmware";
                Failure::failed(NotAskedFor { what, option }).tell(ui);
                return false;
            }
            if let Err(error) = write_firmware(self.root, change, self.programs) {
                Failure::failed(error).tell(ui);
                return false;
            }
            ui.say(format_args!("firmware written: {command}"));
        }
        let reboot = change.reboot();
        if self.may_reset && reboot.is_some() {
            self.reset(change.nic, ui);
        }
        reasons.extend(reboot);
        true
    }

    /// Resets a NIC, as far as nobody needs it; a reboot follows in any case.
    fn reset(&mut self, nic: PciAddress, ui: &mut Ui) {
        match (self.why_not)(nic, ui) {
            Ok(None) => {}
            Ok(Some(why)) => return ui.warn(format_args!("NIC {nic} is not reset: {why}")),
            Err(failure) => return failure.tell(ui),
        }
        match reset_firmware(self.root, nic, self.programs) {
            Ok(()) => ui.say(format_args!("firmware of NIC {nic} reset")),
            Err(error) => ui.warn(format_args!(
                "NIC {nic} is not reset: {}",
                explained(&error)
            )),
        }
    }
}

fn why_not_reset(job: &Job<'_>, nic: PciAddress, ui: &mut Ui) -> Result<Option<String>, Failure> {
    let mut linux = job.work.linux()?;
    let seen = linux.observe(Scope::All).map_err(Failure::failed)?;
    let needed = match job.args.allow_default_route {
        true => None,
        false => Some(uplinks(&job.work.root, ui).map_err(Failure::failed)?.facts),
    };
    Ok(who_needs(&seen, nic, needed.as_ref()))
}

/// Says who needs a NIC; `None` for nobody. `uplinks` is what the host needs interfaces for, if that
/// matters.
fn who_needs(seen: &Inventory, nic: PciAddress, uplinks: Option<&UplinkFacts>) -> Option<String> {
    let of_nic = || {
        let pfs = seen.pfs();
        pfs.filter(|(pf, _)| is_same_device(pf.address, nic))
    };
    if let Some((pf, _)) = of_nic().find(|(_, facts)| facts.num_vfs > 0) {
        return Some(format!("PF {} has VFs", pf.title()));
    }
    let links_down = plan_of(seen, of_nic().map(|(pf, _)| pf.address));
    let refused = check_uplinks(seen, &links_down, uplinks?, false).err()?;
    let needs: Vec<String> = refused.refused.iter().map(UplinkRefused::need).collect();
    Some(format!(
        "{}, and would have no link meanwhile",
        needs.join("; ")
    ))
}

/// Says what a reset does to PFs in the words of a plan.
fn plan_of(seen: &Inventory, pfs: impl Iterator<Item = PciAddress>) -> Plan {
    let down = |pf| PfPlan {
        pf,
        name: seen.get(pf).and_then(|pf| pf.netdev_name().cloned()),
        steps: vec![PlannedStep {
            step: Step::SetUp {
                function: pf,
                netns: model::NetnsTarget::Host,
                up: false,
            },
            before: None,
            undo: None,
            price: Price::default(),
        }],
        vfs: std::collections::BTreeMap::new(),
        is_cut: false,
    };
    Plan {
        pfs: pfs.map(down).collect(),
    }
}
