//! How often a reboot was asked for, and for what: never more than twice for one cause.
//!
//! A cause is asked for once in each boot that still has it. When the second reboot did not settle
//! it, a third will not either: something (a boot loader that takes another entry, an image that is
//! restored) undoes what was written. virtfn itself never reboots a host; this is for those who do
//! when they are asked to.

use std::collections::{BTreeMap, BTreeSet};

use model::{Code, Explain, RebootReason};

/// Most reboots for one cause. The first may be lost to a boot loader that was just updated.
pub const MAX_REBOOTS: usize = 2;

/// The boots in which a reboot was asked for, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reboots {
    /// Boot ids by cause, such as `intel_iommu=on`.
    pub asked: BTreeMap<String, BTreeSet<String>>,
}

/// A reboot was asked for too often.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{times} reboots did not settle {cause}: not asking for another")]
pub struct RebootRefused {
    /// What it was for.
    pub cause: String,
    /// How often it was asked for.
    pub times: usize,
}

impl Explain for RebootRefused {
    fn code(&self) -> Code {
        Code::new("reboot-budget-spent")
    }

    fn remedy(&self) -> Option<String> {
        Some(format!(
            "find out why {} does not reach the running kernel (compare /proc/cmdline with what the \
             boot loader starts); removing /var/lib/virtfn/reboots.json allows {MAX_REBOOTS} more",
            self.cause
        ))
    }
}

impl Reboots {
    /// Asks for a reboot in the boot `boot`. Asking again in the same boot costs nothing; a refusal
    /// is not counted.
    pub fn ask(&mut self, reason: &RebootReason, boot: &str) -> Result<(), RebootRefused> {
        let causes = causes(reason);
        for cause in &causes {
            let times = self
                .asked
                .get(cause)
                .map_or(0, |boots| boots.len() + usize::from(!boots.contains(boot)));
            if times > MAX_REBOOTS {
                return Err(RebootRefused {
                    cause: cause.clone(),
                    times: MAX_REBOOTS,
                });
            }
        }
        for cause in causes {
            self.asked.entry(cause).or_default().insert(boot.to_owned());
        }
        Ok(())
    }

    /// Forgets all causes: nothing needs a reboot any more.
    ///
    /// A single cause is not forgotten while others last, or two that take turns would make a loop.
    pub fn settle(&mut self) {
        self.asked.clear();
    }
}

/// One cause for each argument, so that asking for another one beside it starts no new count.
fn causes(reason: &RebootReason) -> Vec<String> {
    match reason {
        RebootReason::KernelArguments(arguments) => arguments
            .iter()
            .map(|argument| format!("kernel argument {argument}"))
            .collect(),
        RebootReason::Firmware(setting) => vec![format!("firmware setting {setting}")],
        RebootReason::RdmaNetns(mode) => vec![format!("RDMA namespace mode {mode}")],
    }
}
