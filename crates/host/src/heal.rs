//! Taking back what nobody needs any more: of processes that died half way, and of namespaces that
//! are gone.
//!
//! Every attach heals its own VF first, so this is for the others: the agent runs it when it starts,
//! `virtfn apply` before it changes PFs.

use model::{Holder, Host, PciAddress};

use crate::attach::HealError;
use crate::engine::{Engine, PATIENCE};
use crate::lock::{LockOf, if_free, shared};

/// A VF that was healed, or could not be.
#[derive(Debug)]
pub struct Healed {
    /// The VF.
    pub vf: PciAddress,
    /// Who had it before, or why it could not be taken back.
    pub outcome: Result<Holder, HealError>,
}

impl<H: Host> Engine<'_, H> {
    /// Heals all VFs whose lock is free; a VF that is locked is in somebody's good hands.
    pub fn heal(&mut self) -> Vec<Healed> {
        let vfs = self.ledger.recorded().unwrap_or_else(|error| {
            tracing::warn!(%error, "nothing healed, because the records cannot be listed");
            Vec::new()
        });
        vfs.into_iter()
            .filter_map(|vf| {
                let outcome = self.heal_vf(vf).transpose()?;
                Some(Healed { vf, outcome })
            })
            .collect()
    }

    fn heal_vf(&mut self, vf: PciAddress) -> Result<Option<Holder>, HealError> {
        let Some(_lock) = if_free(self.state, LockOf::Vf(vf))? else {
            return Ok(None);
        };
        let pf = self.ground.pf_of(vf);
        let _pf = pf
            .map(|pf| shared(self.state, LockOf::Pf(pf), PATIENCE))
            .transpose()?;
        let (mut record, damage) = self.ledger.open(vf)?;
        // Whose the VF was cannot be told from a damaged record: it stays for who detaches the VF.
        if damage.is_some() || self.is_held(&record) {
            return Ok(None);
        }
        self.heal_record(&mut record)
    }
}
