//! VFs that somebody else gave away, such as upstream's CNI plugin.
//!
//! A node can change from another plugin to virtfn and back while pods run. What the other plugin
//! gave away, and says so in its files, is adopted: it becomes a record as if we had given it, and is
//! taken back like any other. What it took over from us is left to it.

use model::{Holder, Host, Netns, NetnsTarget, PciAddress, Scope};

use super::AttachError;
use crate::engine::Engine;
use crate::ledger::{Before, Claim, RecordedStep, Stage, now};

/// A VF that somebody else gave away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The VF.
    pub vf: PciAddress,
    /// Its PF.
    pub pf: PciAddress,
    /// Who has it.
    pub holder: Holder,
    /// The namespace that the holder lives in; `None` when it is gone.
    pub netns: Option<NetnsTarget>,
    /// What the VF was like before.
    pub before: Before,
    /// What was done, in this order, each with what takes it back.
    pub steps: Vec<RecordedStep>,
}

impl<H: Host> Engine<'_, H> {
    /// Records that somebody else gave a VF away. What is recorded of the same holder stands; what a
    /// holder that is no more has left on the VF is taken back after what was done since, as it lies
    /// beneath.
    pub fn adopt(&mut self, adoption: &Adoption) -> Result<(), AttachError> {
        let vf = adoption.vf;
        let mut locked = self.lock_vf(vf).map_err(AttachError::from)?;
        let record = &mut locked.record;
        if let Some(claim) = &record.claim {
            if claim.holder == adoption.holder {
                return Ok(());
            }
            if self.is_held(record) {
                return Err(AttachError::InUse {
                    vf,
                    holder: claim.holder.clone(),
                    netns: claim.netns.clone(),
                });
            }
        }
        let left = record.claim.take();
        let (before, left) = match left {
            Some(left) => (left.before, left.steps),
            None => (adoption.before.clone(), Vec::new()),
        };
        let steps = left.into_iter().chain(adoption.steps.iter().cloned());
        record.claim = Some(Claim {
            pf: adoption.pf,
            holder: adoption.holder.clone(),
            stage: Stage::Attached,
            netns: adoption.netns.clone(),
            asked: "what another plugin gave".to_owned(),
            since: now(),
            before,
            steps: steps.collect(),
        });
        Ok(self.ledger.write(record)?)
    }

    /// Is the VF in a living namespace other than that of a holder that is no more? Then whoever put
    /// it there did so after us and without us, and nothing is ours to take back.
    pub(super) fn is_taken_over(&mut self, vf: PciAddress, claim: &Claim) -> bool {
        let Some(NetnsTarget::Path { inode, .. }) = &claim.netns else {
            return false;
        };
        let Ok(seen) = self.host.observe(Scope::Function(vf)) else {
            return false;
        };
        let netdev = seen.get(vf).and_then(model::Function::netdev);
        match netdev.map(|netdev| &netdev.netns) {
            Some(Netns::Other { inode: found, .. }) => found != inode,
            Some(Netns::Host) | None => false,
        }
    }
}
