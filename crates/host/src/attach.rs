//! Giving a VF to somebody, and taking it back: the one operation behind `virtfn attach`, CNI,
//! Docker and DRA.
//!
//! The order of things is what makes it safe; see [`crate::Ledger`] for the states.
//!
//! 1. Lock the VF, and its PF against a change of its VFs.
//! 2. Heal what a process that died left of this VF.
//! 3. Observe, and plan; what is refused is refused before anything is changed.
//! 4. Record all steps and their undo on the disk.
//! 5. Make the steps. When one fails, take all back and say why.
//! 6. Confirm in the record.
//!
//! Killed anywhere before the end, the next attach or detach of the VF, or the next heal, takes the
//! steps back from the record. What would surprise: an attach that was killed is not continued but
//! taken back, because whoever asked for it got no answer and will ask again.

mod adopt;
mod error;
mod rdma;
mod request;
#[cfg(test)]
mod tests;

use model::{
    AttachRequest, Holder, Host, Inventory, Netns, NetnsTarget, PciAddress, PlannedStep, Scope,
    Step,
};

use policy::{AttachNote, AttachPlan};

pub use adopt::Adoption;
use error::LockVfError;
pub use error::{AttachError, DetachError, HealError, StepFault};
use request::{asked, before, netns_of};

use crate::Checkpoint;
use crate::autoprobe;
use crate::engine::{Engine, PATIENCE};
use crate::ledger::{Claim, Damage, Happening, Record, RecordedStep, Stage, now, somebody};
use crate::lock::{Lock, LockOf, exclusive, shared};
use crate::undo::UndoError;

/// A VF was given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its PF.
    pub pf: PciAddress,
    /// Had the holder the VF already, just as asked for? Then nothing was changed.
    pub already: bool,
    /// What was done.
    pub steps: Vec<PlannedStep>,
    /// What may not be as the holder expects.
    pub notes: Vec<AttachNote>,
    /// A record that was damaged, and kept aside.
    pub damage: Option<Damage>,
    /// Was something taken back first that a process that died had left?
    pub healed: Option<Holder>,
    /// What was observed before anything was changed; `None` when nothing was.
    pub seen: Option<Inventory>,
}

/// A VF was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// From whom; somebody unknown when the record was damaged and the VF at home.
    pub holder: Holder,
    /// What was taken back, in this order.
    pub undone: Vec<Step>,
    /// A record that was damaged, and kept aside: then the VF was brought home from where it was seen,
    /// and what else had been set on it is not known.
    pub damage: Option<Damage>,
}

/// A VF whose locks we have, with its record.
struct Locked {
    _vf: Lock,
    _pf: Option<Lock>,
    record: Record,
    damage: Option<Damage>,
}

impl<H: Host> Engine<'_, H> {
    /// Gives a VF to whoever asks for it.
    pub fn attach(&mut self, request: &AttachRequest) -> Result<Attached, AttachError> {
        let vf = request.vf;
        let mut locked = self.lock_vf(vf).map_err(AttachError::from)?;
        self.passed(Checkpoint::Locked);
        let record = &mut locked.record;
        if self.is_held(record)
            && let Some(claim) = &record.claim
        {
            return already(claim, request, locked.damage);
        }
        let healed = self.heal_record(record)?;

        let seen = self.host.observe(Scope::Function(vf))?;
        let AttachPlan { steps, notes, .. } = policy::attach(&seen, request)?;
        if locked.damage.as_ref().is_some_and(|damage| !damage.is_void) {
            // It is seen nowhere else, but a process may have it that did not open it yet.
            return Err(AttachError::InUse {
                vf,
                holder: somebody("its record is damaged"),
                netns: None,
            });
        }
        let claim = claim(&seen, request, &steps)?;
        let pf = claim.pf;
        record.claim = Some(claim);
        self.ledger.write(record)?;
        self.passed(Checkpoint::Recorded);

        if let Err(source) = self.make_steps(&steps) {
            let undo = self.give_up(record, None);
            let source = Box::new(source);
            return Err(AttachError::Step { vf, source, undo });
        }
        self.passed(Checkpoint::Unconfirmed);
        if let Err(source) = self.confirm(record) {
            let holder = request.holder.clone();
            let undo = self.give_up(record, Some(Happening::Healed { holder }));
            return Err(AttachError::Confirm { source, undo });
        }
        self.passed(Checkpoint::Confirmed);
        tracing::info!(pci = %vf, pf = %pf, holder = %request.holder, "vf attached");
        Ok(Attached {
            pf,
            already: false,
            steps,
            notes,
            damage: locked.damage,
            healed,
            seen: Some(seen),
        })
    }

    /// Takes a VF back from whoever has it, or from `holder` and nobody else.
    pub fn detach(
        &mut self,
        vf: PciAddress,
        holder: Option<&Holder>,
    ) -> Result<Detached, DetachError> {
        let Locked {
            mut record,
            damage,
            _vf,
            _pf,
        } = self.lock_vf(vf).map_err(DetachError::from)?;
        self.passed(Checkpoint::Locked);
        if damage.is_some() {
            record.claim = self.claim_as_seen(vf)?;
        }
        if damage.is_some() && record.claim.is_none() {
            // It is at home, so that a free record says all there is to say.
            self.ledger.free(vf, [Happening::Damaged])?;
            return Ok(Detached {
                holder: somebody("its record is damaged"),
                undone: Vec::new(),
                damage,
            });
        }
        let Some(claim) = record.claim.clone() else {
            return Err(DetachError::NotAttached { vf });
        };
        let other = holder.filter(|by| **by != claim.holder);
        if let Some(by) = other.filter(|_| damage.is_none()) {
            return Err(DetachError::OtherHolder {
                vf,
                holder: claim.holder.clone(),
                by: by.clone(),
            });
        }
        // On a full disk this fails, and taking the VF back must not: the undo is on the disk
        // already, only the mark that it began is missing.
        let marked = match &damage {
            None => self.ledger.mark(vf, Stage::Detaching),
            // It says nothing that a mark could be put behind; what was seen does.
            Some(_) => self.ledger.amend(&record),
        };
        if let Err(error) = marked {
            tracing::warn!(pci = %vf, %error, "detach begun without a mark of it");
        }
        self.passed(Checkpoint::Recorded);
        let failures = self.take_back(&claim);
        if !failures.is_empty() {
            return Err(DetachError::Undo { vf, failures });
        }
        self.passed(Checkpoint::Unconfirmed);
        let holder = claim.holder.clone();
        let damaged = damage.iter().map(|_| Happening::Damaged);
        self.ledger
            .free(vf, damaged.chain([Happening::Detached { holder }]))?;
        self.passed(Checkpoint::Confirmed);
        tracing::info!(pci = %vf, holder = %claim.holder, "vf detached");
        Ok(Detached {
            undone: claim
                .steps
                .iter()
                .rev()
                .filter_map(|s| s.undo.clone())
                .collect(),
            holder: claim.holder,
            damage,
        })
    }

    /// Makes a claim out of what is seen of a VF whose record is damaged: it is taken home from the
    /// namespace that it is in, without its VLAN.
    fn claim_as_seen(&mut self, vf: PciAddress) -> Result<Option<Claim>, DetachError> {
        let seen = self.host.observe(Scope::Function(vf))?;
        Ok(seen.get(vf).and_then(request::claim_as_seen))
    }

    /// Locks a VF, and its PF against a change of its VFs, and opens the VF's record.
    fn lock_vf(&mut self, vf: PciAddress) -> Result<Locked, LockVfError> {
        let lock = exclusive(self.state, LockOf::Vf(vf), PATIENCE)?;
        let pf = self.ground.pf_of(vf);
        let pf_lock = pf.map(|pf| shared(self.state, LockOf::Pf(pf), PATIENCE));
        let (record, damage) = self.ledger.open(vf, lock.is_first())?;
        if let Some(pf) = pf {
            autoprobe::settle(self.host, self.state, pf, self.checkpoints);
        }
        Ok(Locked {
            _vf: lock,
            _pf: pf_lock.transpose()?,
            record,
            damage,
        })
    }

    /// Has somebody the VF who still lives? The caller has the VF's lock, so a claim that is not
    /// confirmed is of a process that died.
    pub fn is_held(&mut self, record: &Record) -> bool {
        let attached = |claim: &&Claim| claim.stage == Stage::Attached;
        let Some(claim) = record.claim.as_ref().filter(attached) else {
            return false;
        };
        let Some(netns) = &claim.netns else {
            return true;
        };
        self.ground.can_have(netns, record.vf) || self.is_seen_in(record.vf, netns)
    }

    /// Is the VF in a namespace, by whatever path? Other processes can keep one for which it was
    /// attached by the id of a process that ended.
    fn is_seen_in(&mut self, vf: PciAddress, netns: &NetnsTarget) -> bool {
        let NetnsTarget::Path { inode: meant, .. } = netns else {
            return false;
        };
        let Ok(seen) = self.host.observe(Scope::Function(vf)) else {
            return false;
        };
        let netdev = seen.get(vf).and_then(model::Function::netdev);
        netdev.is_some_and(
            |netdev| matches!(&netdev.netns, Netns::Other { inode, .. } if inode == meant),
        )
    }

    /// Takes back what a record says, of a holder that is no more; the caller has the VF's lock.
    ///
    /// Returns whose it was. When something cannot be taken back, the record stays.
    pub(crate) fn heal_record(&mut self, record: &mut Record) -> Result<Option<Holder>, HealError> {
        let Some(claim) = &mut record.claim else {
            return Ok(None);
        };
        let was_attached = claim.stage == Stage::Attached;
        claim.stage = Stage::Detaching;
        let claim = claim.clone();
        if !self.is_taken_over(record.vf, &claim) {
            let failures = self.take_back(&claim);
            if !failures.is_empty() {
                let vf = record.vf;
                return Err(HealError::Undo { vf, failures });
            }
        }
        let holder = claim.holder;
        record.claim = None;
        let former = holder.clone();
        let what = if was_attached {
            Happening::Deserted { holder: former }
        } else {
            Happening::Healed { holder: former }
        };
        self.ledger.free(record.vf, [what])?;
        tracing::info!(pci = %record.vf, %holder, "vf taken back from a holder that is no more");
        Ok(Some(holder))
    }

    fn make_steps(&mut self, steps: &[PlannedStep]) -> Result<(), StepFault> {
        let mut settings: Option<Lock> = None;
        for PlannedStep { step, .. } in steps {
            match step {
                Step::SetVf { pf, .. } if settings.is_none() => {
                    let of = LockOf::PfSettings(*pf);
                    settings = Some(exclusive(self.state, of, PATIENCE)?);
                }
                Step::SetVf { .. } => {}
                _ => settings = None,
            }
            self.host.perform(step)?;
            self.passed(Checkpoint::StepMade);
        }
        Ok(())
    }

    fn confirm(&self, record: &Record) -> Result<(), crate::LedgerError> {
        // Before the mark: an attach that dies between the two is told of, and told to be healed.
        if let Some(Claim { holder, steps, .. }) = &record.claim {
            let holder = holder.clone();
            let changes = steps.iter().map(Into::into).collect();
            let what = Happening::Attached { holder, changes };
            self.ledger.note(record.vf, what);
        }
        self.ledger.mark(record.vf, Stage::Attached)
    }

    /// Takes everything back after a failure; what fails of that is returned, and the record stays
    /// then, so that the next one tries again. The history is told so if it was told of the attach.
    fn give_up(&mut self, record: &mut Record, told: Option<Happening>) -> Vec<UndoError> {
        let Some(claim) = &record.claim else {
            return Vec::new();
        };
        let failures = self.take_back(claim);
        if failures.is_empty() {
            record.claim = None;
            if let Err(error) = self.ledger.free(record.vf, told) {
                // The record says `attaching`, and so the next one undoes once more: no harm.
                tracing::warn!(pci = %record.vf, %error, "record not removed");
            }
        }
        failures
    }
}

fn already(
    claim: &Claim,
    request: &AttachRequest,
    damage: Option<Damage>,
) -> Result<Attached, AttachError> {
    let same = claim.holder == request.holder
        && claim.netns == netns_of(request)
        && claim.asked == asked(request);
    if same {
        return Ok(Attached {
            pf: claim.pf,
            already: true,
            steps: Vec::new(),
            notes: Vec::new(),
            damage,
            healed: None,
            seen: None,
        });
    }
    Err(AttachError::InUse {
        vf: request.vf,
        holder: claim.holder.clone(),
        netns: claim.netns.clone(),
    })
}

fn claim(
    seen: &Inventory,
    request: &AttachRequest,
    steps: &[PlannedStep],
) -> Result<Claim, AttachError> {
    let function = seen.get(request.vf);
    let Some((function, facts)) = function.and_then(|f| Some((f, f.vf()?))) else {
        return Err(AttachError::NoVf { vf: request.vf });
    };
    Ok(Claim {
        pf: facts.pf,
        holder: request.holder.clone(),
        stage: Stage::Attaching,
        netns: netns_of(request),
        asked: asked(request),
        since: now(),
        before: before(function),
        steps: steps.iter().map(RecordedStep::from).collect(),
    })
}
