//! Taking back what nobody needs any more: of processes that died half way, and of namespaces that
//! are gone.
//!
//! Every attach heals its own VF first, so this is for the others: the agent runs it when it starts,
//! `virtfn apply` before it changes PFs.

use model::{Holder, Host, PciAddress};

use crate::attach::HealError;
use crate::autoprobe;
use crate::engine::{Engine, PATIENCE};
use crate::ledger::Damage;
use crate::lock::{LockOf, if_free, shared};

/// A VF or a PF that was healed, or could not be.
#[derive(Debug)]
pub struct Healed {
    /// The function.
    pub function: PciAddress,
    /// What was done, or why it could not be.
    pub outcome: Result<Mended, HealError>,
}

/// What was done for a function.
#[derive(Debug)]
pub enum Mended {
    /// The PF's autoprobe was on for the moment of a process that died in it; it is off again.
    Autoprobe,
    /// The VF was taken back from this holder, who is no more.
    TakenBack(Holder),
    /// The VF's record could not be used and is of a former boot; the VF is free.
    Void(Damage),
}

impl<H: Host> Engine<'_, H> {
    /// Heals all VFs whose lock is free, and the autoprobe of their PFs; a VF that is locked is in somebody's good hands.
    pub fn heal(&mut self) -> Vec<Healed> {
        let owing = autoprobe::owing(self.state).into_iter();
        let settled: Vec<Healed> = owing
            .filter(|pf| autoprobe::settle(self.host, self.state, *pf, self.checkpoints))
            .map(|function| Healed {
                function,
                outcome: Ok(Mended::Autoprobe),
            })
            .collect();
        let vfs = self.ledger.recorded().unwrap_or_else(|error| {
            tracing::warn!(%error, "nothing healed, because the records cannot be listed");
            Vec::new()
        });
        let vfs = vfs.into_iter().filter_map(|function| {
            let outcome = self.heal_vf(function).transpose()?;
            Some(Healed { function, outcome })
        });
        settled.into_iter().chain(vfs).collect()
    }

    fn heal_vf(&mut self, vf: PciAddress) -> Result<Option<Mended>, HealError> {
        let Some(lock) = if_free(self.state, LockOf::Vf(vf))? else {
            return Ok(None);
        };
        let pf = self.ground.pf_of(vf);
        let _pf = pf
            .map(|pf| shared(self.state, LockOf::Pf(pf), PATIENCE))
            .transpose()?;
        let (mut record, damage) = self.ledger.open(vf, lock.is_first())?;
        match damage {
            Some(damage) if damage.is_void => Ok(Some(Mended::Void(damage))),
            // Whose the VF is cannot be told: it stays for who detaches it.
            Some(_) => Ok(None),
            None if self.is_held(&record) => Ok(None),
            None => Ok(self.heal_record(&mut record)?.map(Mended::TakenBack)),
        }
    }
}
