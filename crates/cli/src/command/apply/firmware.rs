//! Firmware settings of NICs: written, taken back, and read anew by a reset.

use host::{HostPrograms, reset_firmware, write_firmware};
use model::{
    Host, Inventory, PciAddress, PfPlan, Plan, PlannedStep, Price, RebootReason, Scope, Step,
};
use policy::vendor::mellanox::is_same_device;
use policy::{Decision, check_uplinks};

use super::Job;
use super::reboot::NotAskedFor;
use crate::command::plan::{explained, uplinks};
use crate::failure::Failure;
use crate::ui::Ui;

/// Sees to firmware; `false` when what is needed was not written.
pub(super) fn see_to(
    job: &Job<'_>,
    decision: &Decision,
    reasons: &mut Vec<RebootReason>,
    ui: &mut Ui,
) -> bool {
    let root = &job.work.root;
    let mut all_well = true;
    for need in &decision.firmware {
        // Whoever decided has told of those that cannot be.
        let Ok(change) = &need.change else { continue };
        if let Some(command) = change.command() {
            if !job.args.firmware && need.is_given_back {
                ui.note(format_args!(
                    "nobody wants VFs of NIC {} any more; with --firmware, `{command}` takes them back \
                     from its firmware",
                    change.nic
                ));
                continue;
            }
            if !job.args.firmware {
                let what = format!("firmware settings (`{command}`)");
                let option = "--firmware";
                Failure::failed(NotAskedFor { what, option }).tell(ui);
                all_well = false;
                continue;
            }
            if let Err(error) = write_firmware(root, change, &mut HostPrograms::new(root)) {
                Failure::failed(error).tell(ui);
                all_well = false;
                continue;
            }
            ui.say(format_args!("firmware written: {command}"));
        }
        let reboot = change.reboot();
        if job.args.firmware_reset && reboot.is_some() {
            reset(job, change.nic, ui);
        }
        reasons.extend(reboot);
    }
    all_well
}

/// Resets a NIC, as far as nobody needs it; a reboot follows in any case.
fn reset(job: &Job<'_>, nic: PciAddress, ui: &mut Ui) {
    match why_not_reset(job, nic, ui) {
        Ok(None) => {}
        Ok(Some(why)) => return ui.warn(format_args!("NIC {nic} is not reset: {why}")),
        Err(failure) => return failure.tell(ui),
    }
    let root = &job.work.root;
    match reset_firmware(root, nic, &mut HostPrograms::new(root)) {
        Ok(()) => ui.say(format_args!("firmware of NIC {nic} reset")),
        Err(error) => ui.warn(format_args!(
            "NIC {nic} is not reset: {}",
            explained(&error)
        )),
    }
}

fn why_not_reset(job: &Job<'_>, nic: PciAddress, ui: &mut Ui) -> Result<Option<String>, Failure> {
    let mut linux = job.work.linux()?;
    let seen = linux.observe(Scope::All).map_err(Failure::failed)?;
    let of_nic = seen.pfs().filter(|(pf, _)| is_same_device(pf.address, nic));
    let of_nic: Vec<_> = of_nic.collect();
    if let Some((pf, _)) = of_nic.iter().find(|(_, facts)| facts.num_vfs > 0) {
        return Ok(Some(format!("PF {} has VFs", pf.title())));
    }
    if job.args.allow_default_route {
        return Ok(None);
    }
    let uplinks = uplinks(&job.work.root, ui).map_err(Failure::failed)?;
    let links_down = plan_of(&seen, of_nic.iter().map(|(pf, _)| pf.address));
    let checked = check_uplinks(&seen, &links_down, &uplinks.facts, false);
    Ok(checked.err().map(|refused| refused.to_string()))
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
