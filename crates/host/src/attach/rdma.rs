//! The RDMA device of a VF that a holder has already, lent to the same namespace and taken back.
//!
//! It becomes one more step of the holder's record, so that whatever takes the VF back takes the
//! RDMA device back with it.

use model::{Holder, Host, NetnsTarget, PciAddress, Scope, Step};

use super::{AttachError, DetachError};
use crate::Checkpoint;
use crate::engine::Engine;
use crate::ledger::{RecordedStep, Stage};
use crate::undo::UndoError;

impl<H: Host> Engine<'_, H> {
    /// Moves the RDMA device of a VF to the namespace of its holder, or says that the holder does not
    /// have the VF from virtfn (`None`). Returns the name of the device.
    pub fn lend_rdma(
        &mut self,
        vf: PciAddress,
        holder: &Holder,
        netns: &NetnsTarget,
    ) -> Result<Option<String>, AttachError> {
        let mut locked = self.lock_vf(vf).map_err(AttachError::from)?;
        let record = &mut locked.record;
        let Some(claim) = &mut record.claim else {
            return Ok(None);
        };
        if claim.holder != *holder || claim.stage != Stage::Attached {
            return Err(AttachError::InUse {
                vf,
                holder: claim.holder.clone(),
                netns: claim.netns.clone(),
            });
        }
        if let Some(device) = claim.steps.iter().find_map(device_of) {
            return Ok(Some(device.to_owned()));
        }
        let seen = self.host.observe(Scope::Function(vf))?;
        let planned = policy::attach_rdma(&seen, vf, netns)?;
        let recorded = RecordedStep::from(&planned);
        let device = device_of(&recorded).unwrap_or_default().to_owned();
        claim.steps.push(recorded);
        self.ledger.write(record)?;
        self.passed(Checkpoint::Recorded);
        if let Err(error) = self.host.perform(&planned.step) {
            if let Some(claim) = &mut record.claim {
                claim.steps.pop();
            }
            if let Err(error) = self.ledger.amend(record) {
                // Its undo finds the device at home, and that is fine.
                tracing::warn!(pci = %vf, %error, "record not written");
            }
            return Err(AttachError::Step {
                vf,
                source: Box::new(error.into()),
                undo: Vec::new(),
            });
        }
        self.passed(Checkpoint::StepMade);
        tracing::info!(pci = %vf, %holder, device, "rdma device lent");
        Ok(Some(device))
    }

    /// Takes the RDMA device of a VF back from its holder, who keeps the VF. Returns whether the record
    /// knew of one.
    pub fn return_rdma(&mut self, vf: PciAddress, holder: &Holder) -> Result<bool, DetachError> {
        let mut locked = self.lock_vf(vf).map_err(DetachError::from)?;
        let record = &mut locked.record;
        let Some(claim) = record.claim.as_mut().filter(|c| c.holder == *holder) else {
            return Ok(false);
        };
        // What was attached along with the VF itself goes back with it.
        let is_last = claim
            .steps
            .last()
            .is_some_and(|step| device_of(step).is_some());
        let Some(lent) = claim.steps.last().filter(|_| is_last) else {
            return Ok(false);
        };
        if let Some(undo) = &lent.undo
            && let Err(source) = self.host.perform(undo)
        {
            let step = undo.clone();
            let failures = vec![UndoError { step, source }];
            return Err(DetachError::Undo { vf, failures });
        }
        self.passed(Checkpoint::StepUndone);
        if let Some(claim) = &mut record.claim {
            claim.steps.pop();
        }
        self.ledger.amend(record)?;
        tracing::info!(pci = %vf, %holder, "rdma device returned");
        Ok(true)
    }
}

fn device_of(step: &RecordedStep) -> Option<&str> {
    match &step.step {
        Step::MoveRdma { device, .. } => Some(device),
        _ => None,
    }
}
