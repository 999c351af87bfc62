//! What attach, detach, heal and apply have in common: a host, its state, and its locks.

use std::time::Duration;

use model::{Host, NetnsTarget, PciAddress};

use crate::checkpoint::Checkpoints;
use crate::ledger::Ledger;
use crate::netns;
use crate::root::HostRoot;
use crate::state::StateDir;

/// How long to wait for somebody else who works on the same VF or PF.
///
/// An attach takes a fraction of a second; an apply that creates VFs on a slow NIC can take a minute.
/// A container runtime gives a CNI call two minutes in all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Gives VFs away and takes them back, with the record of each kept first.
///
/// It is generic over [`Host`] so that what it does can be tested on a host that is played.
pub struct Engine<'a, H> {
    /// The host.
    pub host: &'a mut H,
    /// What is asked of the host beside observing it.
    pub ground: &'a dyn Ground,
    /// Where locks are.
    pub state: &'a StateDir,
    /// Who has what.
    pub ledger: &'a Ledger,
    /// Where tests may kill the process.
    pub checkpoints: &'a dyn Checkpoints,
}

/// Two cheap questions that must be answered without observing the host.
pub trait Ground: Sync {
    /// Returns the PF of a VF; `None` when there is no such VF.
    fn pf_of(&self, vf: PciAddress) -> Option<PciAddress>;

    /// Can the netdev of `vf` still be in the namespace that it was moved to?
    ///
    /// Not when nothing is there by that path any more or the netdev is seen on the host: the VF may
    /// have been removed and created afresh while somebody had it.
    fn can_have(&self, target: &NetnsTarget, vf: PciAddress) -> bool;
}

impl Ground for HostRoot {
    fn pf_of(&self, vf: PciAddress) -> Option<PciAddress> {
        let link = format!("/sys/bus/pci/devices/{vf}/physfn");
        self.link_name(&link).ok()?.parse().ok()
    }

    fn can_have(&self, target: &NetnsTarget, vf: PciAddress) -> bool {
        let came_back = self.has_entry(&format!("/sys/bus/pci/devices/{vf}/net"), |_| true);
        netns::lives(self, target) && !came_back
    }
}

impl<H: Host> Engine<'_, H> {
    /// Passes a checkpoint.
    pub(crate) fn passed(&self, at: crate::Checkpoint) {
        self.checkpoints.passed(at);
    }
}
