//! The RDMA mode: the line that keeps it, and the running kernel.

use host::{keep_rdma_mode, set_rdma_mode};
use model::RebootReason;
use policy::{Keep, RdmaNeed};

use super::Job;
use crate::failure::Failure;
use crate::ui::Ui;

/// Sees to the mode; `false` when something failed. What the running kernel cannot change waits for a
/// reboot.
pub(super) fn see_to(
    job: &Job<'_>,
    need: &RdmaNeed,
    reasons: &mut Vec<RebootReason>,
    ui: &mut Ui,
) -> bool {
    if let Some(keep) = need.kept {
        if let Err(error) = keep_rdma_mode(&job.work.root, keep) {
            Failure::failed(error).tell(ui);
            return false;
        }
        match keep {
            Keep::Write(mode) => ui.say(format_args!(
                "RDMA namespace mode {mode} kept for each boot"
            )),
            Keep::Remove => ui.say("RDMA namespace mode is up to the kernel from the next boot on"),
        }
    }
    let Some(mode) = need.mode else { return true };
    match set_rdma_mode(mode) {
        Ok(true) => ui.say(format_args!("RDMA namespace mode is {mode}")),
        Ok(false) => reasons.push(RebootReason::RdmaNetns(mode)),
        Err(error) => {
            Failure::failed(error).tell(ui);
            return false;
        }
    }
    true
}
