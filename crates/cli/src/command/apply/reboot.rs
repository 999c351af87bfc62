//! What takes effect only after a reboot, or may: kernel arguments, firmware settings, the RDMA mode.
//!
//! They are written only when that was asked for, and virtfn never reboots. How often a reboot is asked
//! for is counted, so that whoever reboots when they are asked to does not do so for ever.

use host::{Applied, HostPrograms, RebootLog, RebootLogError, starved_pfs, write_kernel_arguments};
use model::{Code, Explain, RebootReason};
use policy::Decision;
use policy::kernel::{KernelArgument, KernelNeeds, needs};

use super::{Job, firmware, rdma};
use crate::command::plan::warn;
use crate::failure::{Exit, Failure};
use crate::ui::Ui;

/// Something that only a reboot brings was not asked for.
#[derive(Debug, thiserror::Error)]
#[error("{what} must be written first, and that was not asked for")]
pub(super) struct NotAskedFor {
    pub(super) what: String,
    pub(super) option: &'static str,
}

impl Explain for NotAskedFor {
    fn code(&self) -> Code {
        Code::new("reboot-needed")
    }

    fn remedy(&self) -> Option<String> {
        let option = self.option;
        Some(format!(
            "write them with `virtfn apply {option}`, and reboot"
        ))
    }
}

/// Writes what the next boot needs, and says so. The exit status is that of an apply of which nothing
/// else failed.
pub(super) fn see_to(job: &Job<'_>, decision: &Decision, applied: &Applied, ui: &mut Ui) -> Exit {
    let starved = starved_pfs(applied);
    let facts = job.known.kernel.as_ref();
    let kernel = match facts {
        Some(facts) if !starved.is_empty() => needs(&decision.desired, facts, &starved),
        _ => decision.kernel.clone(),
    };
    let mut reasons = Vec::new();
    let mut all_well = arguments(job, &kernel, &mut reasons, ui);
    all_well &= firmware::see_to(job, decision, &mut reasons, ui);
    if let Some(need) = &decision.rdma {
        all_well &= rdma::see_to(job, need, &mut reasons, ui);
    }
    match ask(job, &reasons, applied, ui) {
        Ok(()) => {}
        Err(error) => {
            Failure::failed(error).tell(ui);
            return Exit::Failed;
        }
    }
    match (all_well, reasons.is_empty()) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Pending,
        (true, true) => Exit::Done,
    }
}

/// Sees to kernel arguments; `false` when what is needed was not written.
fn arguments(
    job: &Job<'_>,
    needs: &KernelNeeds,
    reasons: &mut Vec<RebootReason>,
    ui: &mut Ui,
) -> bool {
    let reason = needs.reboot();
    let wanted: Vec<KernelArgument> = needs.arguments().cloned().collect();
    if !job.args.kernel_args {
        if let Some(reason) = reason {
            let (what, option) = (reason.to_string(), "--kernel-args");
            Failure::failed(NotAskedFor { what, option }).tell(ui);
            return false;
        }
        return true;
    }
    if wanted.is_empty() {
        return true;
    }
    let root = &job.work.root;
    match write_kernel_arguments(root, &wanted, &mut HostPrograms::new(root)) {
        Ok(written) => {
            for argument in &written.added {
                ui.say(format_args!(
                    "kernel argument {argument} written with {}",
                    written.by
                ));
            }
            reasons.extend(reason);
            true
        }
        Err(error) => {
            Failure::failed(error).tell(ui);
            false
        }
    }
}

/// Asks for a reboot within the budget, or notes that none is needed any more.
fn ask(
    job: &Job<'_>,
    reasons: &[RebootReason],
    applied: &Applied,
    ui: &mut Ui,
) -> Result<(), RebootLogError> {
    let is_settled = reasons.is_empty() && applied.is_complete();
    if reasons.is_empty() && !is_settled {
        return Ok(());
    }
    let mut log = match RebootLog::open(&job.work.root) {
        Ok(log) => log,
        // Nothing is asked for: then the count does not matter.
        Err(error) if is_settled => {
            warn(&error, ui);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if log.was_damaged {
        ui.warn("the count of reboots was damaged; it is kept aside, and counting begins anew");
    }
    if is_settled {
        return log.settle();
    }
    for reason in reasons {
        log.ask(reason)?;
        ui.say(format_args!("a reboot is needed: {reason}"));
    }
    Ok(())
}
