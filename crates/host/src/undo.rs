//! Taking steps back, wherever the VF may be by now.
//!
//! Each undo is tried as it was recorded. Only when that does not work is the host observed, and the
//! undo aimed at where the VF really is: a namespace that died gave its netdev back to the host
//! under the name and with the settings that it had there; a VF that is gone took everything with it.
//! All undos are tried, whatever fails, and all failures are returned.

use model::{
    BindTarget, Function, Host, Inventory, Mtu, Netns, NetnsTarget, PciAddress, Scope, Step,
    StepError,
};

use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, PATIENCE};
use crate::ledger::{Claim, RecordedStep};
use crate::lock::{Lock, LockOf, exclusive};
use crate::state::StateDir;

/// A step that could not be taken back.
#[derive(Debug, thiserror::Error)]
#[error("take back what was done to {}", step.function())]
pub struct UndoError {
    /// The undo.
    pub step: Step,
    /// Why it could not be made.
    pub source: StepError,
}

impl<H: Host> Engine<'_, H> {
    /// Takes back all steps of a claim, the last one first.
    ///
    /// What is set through the PF is set with the PF's settings locked, as on the way there.
    pub(crate) fn take_back(&mut self, claim: &Claim) -> Vec<UndoError> {
        let mut failures = Vec::new();
        let mut settings = None;
        let mut other_path = None;
        for undo in claim.steps.iter().rev().filter_map(undo_of) {
            if other_path.is_none() {
                other_path = self.other_path(undo);
            }
            let undo = &by_path(undo, other_path.as_ref());
            settings = match undo {
                Step::SetVf { pf, .. } => settings.or_else(|| lock_settings(self.state, *pf)),
                _ => None,
            };
            if let Err(source) = undo_one(self.host, claim, undo, &mut other_path) {
                let step = undo.clone();
                failures.push(UndoError { step, source });
            }
            self.passed(Checkpoint::StepUndone);
        }
        if failures.is_empty() {
            restore(self.host, claim);
        }
        failures
    }

    /// Looks for another path to the namespace that a netdev is moved home from, when its own leads there
    /// no more: other processes can keep the namespace.
    fn other_path(&mut self, undo: &Step) -> Option<OtherPath> {
        let Step::Move { function, from, .. } = undo else {
            return None;
        };
        if self.ground.can_have(from, *function) {
            return None;
        }
        let seen = self.host.observe(Scope::Function(*function)).ok()?;
        let found = seen.get(*function).and_then(netns_found)?;
        (from.is_same(&found) && found != *from).then(|| OtherPath {
            meant: from.clone(),
            found,
        })
    }
}

/// Gives a netdev that is home the MTU and the address that it had: its holder may have changed them
/// (a plugin that is chained behind ours does), and its namespace may be gone with whoever would have
/// changed them back.
///
/// A refusal is no reason to keep the VF: the PF may have a smaller MTU by now.
fn restore(host: &mut impl Host, claim: &Claim) {
    let moved = claim.steps.iter().find_map(|step| match step.undo {
        Some(Step::Move { function, .. }) => Some(function),
        _ => None,
    });
    let Some(function) = moved else {
        return;
    };
    let netns = NetnsTarget::Host;
    let mtu = claim.before.mtu.and_then(Mtu::new);
    let mtu = mtu.map(|mtu| Step::SetMtu {
        function,
        netns: netns.clone(),
        mtu,
    });
    let mac = claim.before.mac.map(|mac| Step::SetMac {
        function,
        netns,
        mac,
    });
    for step in mtu.into_iter().chain(mac) {
        if let Err(error) = host.perform(&step) {
            tracing::warn!(pci = %function, %error, "not as it was before");
        }
    }
}

fn undo_of(step: &RecordedStep) -> Option<&Step> {
    step.undo.as_ref()
}

/// Locks the settings of a PF. Without the lock it goes on: a VF that is not taken back is worse than
/// a driver that is asked by two.
fn lock_settings(state: &StateDir, pf: PciAddress) -> Option<Lock> {
    let locked = exclusive(state, LockOf::PfSettings(pf), PATIENCE);
    locked
        .inspect_err(|error| tracing::warn!(%pf, %error, "settings taken back without a lock"))
        .ok()
}

/// Another path to the namespace that some undos are for, found when theirs led nowhere.
struct OtherPath {
    meant: NetnsTarget,
    found: NetnsTarget,
}

/// Returns an undo with the path that is known to lead somewhere: moving a netdev out of a namespace
/// that seems to be gone would wait for the kernel to give it back.
fn by_path(undo: &Step, other: Option<&OtherPath>) -> Step {
    let other = other.filter(|other| netns_of(undo) == Some(&other.meant));
    match other.map(|other| elsewhere(undo, &other.meant, other.found.clone())) {
        Some(Aim::At(step)) => step,
        Some(Aim::Void | Aim::Same) | None => undo.clone(),
    }
}

fn undo_one(
    host: &mut impl Host,
    claim: &Claim,
    undo: &Step,
    other_path: &mut Option<OtherPath>,
) -> Result<(), StepError> {
    let Err(error) = host.perform(undo) else {
        return Ok(());
    };
    let Ok(seen) = host.observe(Scope::Function(undo.function())) else {
        return Err(error);
    };
    let seen = if has_lost_its_netdev(&seen, undo) {
        regain_netdev(host, claim, undo, &seen);
        let Ok(again) = host.observe(Scope::Function(undo.function())) else {
            return Err(error);
        };
        again
    } else {
        seen
    };
    match aim(undo, &seen) {
        Aim::Void => Ok(()),
        Aim::At(step) => {
            let found = netns_of(&step).cloned();
            if let (Some(meant), Some(found)) = (netns_of(undo).cloned(), found)
                && meant.is_same(&found)
            {
                *other_path = Some(OtherPath { meant, found });
            }
            host.perform(&step)
        }
        Aim::Same => Err(error),
    }
}

/// Does the undo need a netdev, and the function, being there, has none in sight?
fn has_lost_its_netdev(seen: &Inventory, undo: &Step) -> bool {
    let needs_one = !matches!(undo, Step::MoveRdma { .. });
    needs_one
        && netns_of(undo).is_some()
        && seen
            .get(undo.function())
            .is_some_and(|function| function.netdev().is_none())
}

/// Brings a netdev back into sight: whoever had the VF may have bound it to another driver (Kata
/// does), and the kernel returns the netdev of a dying namespace some time after its last user left.
///
/// What fails here shows as the failure of the undo itself.
fn regain_netdev(host: &mut impl Host, claim: &Claim, undo: &Step, seen: &Inventory) {
    let function = undo.function();
    let driver = seen.get(function).and_then(|f| f.driver.as_ref());
    if claim.before.driver.is_some() && driver != claim.before.driver.as_ref() {
        let to = BindTarget::Default;
        if let Err(error) = host.perform(&Step::Bind { function, to }) {
            tracing::warn!(pci = %function, %error, "driver not given back");
        }
    }
    if let Err(error) = host.perform(&Step::AwaitNetdev { function }) {
        tracing::warn!(pci = %function, %error, "netdev not seen again");
    }
}

/// What an undo becomes, given where its function is.
#[derive(Debug, PartialEq, Eq)]
enum Aim {
    /// There is nothing left to take back.
    Void,
    /// This has to be done instead.
    At(Step),
    /// The undo was right as it was, and so was its failure.
    Same,
}

fn aim(undo: &Step, seen: &Inventory) -> Aim {
    if is_gone(undo, seen) {
        return Aim::Void;
    }
    let Some(meant) = netns_of(undo) else {
        return Aim::Same;
    };
    let found = seen.get(undo.function()).and_then(netns_found);
    match found {
        // By another path it may be the same namespace: the one that was meant can be gone alone.
        Some(found) if found != *meant => elsewhere(undo, meant, found),
        _ => Aim::Same,
    }
}

/// Is the function, or the VF on its PF, no longer there?
fn is_gone(undo: &Step, seen: &Inventory) -> bool {
    match undo {
        Step::SetVf { pf, vf, .. } => seen
            .get(*pf)
            .and_then(Function::pf)
            .is_none_or(|facts| !facts.vfs.contains_key(vf)),
        other => seen.get(other.function()).is_none(),
    }
}

/// Returns the namespace in which a step expects the netdev, or the RDMA device that went along.
fn netns_of(step: &Step) -> Option<&NetnsTarget> {
    match step {
        Step::SetMtu { netns, .. }
        | Step::SetUp { netns, .. }
        | Step::SetMac { netns, .. }
        | Step::Rename { netns, .. }
        | Step::AddAddress { netns, .. }
        | Step::RemoveAddress { netns, .. }
        | Step::Move { from: netns, .. }
        | Step::MoveRdma { from: netns, .. } => Some(netns),
        Step::SetNumVfs { .. }
        | Step::SetAutoprobe { .. }
        | Step::SetEswitch { .. }
        | Step::SetTcOffload { .. }
        | Step::SetSteering { .. }
        | Step::SetVf { .. }
        | Step::Bind { .. }
        | Step::Rebind { .. }
        | Step::SetVdpa { .. }
        | Step::AwaitNetdev { .. } => None,
    }
}

/// Returns the namespace in which a netdev was found, when it is one that can be entered.
fn netns_found(function: &Function) -> Option<NetnsTarget> {
    match &function.netdev()?.netns {
        Netns::Host => Some(NetnsTarget::Host),
        Netns::Other { inode, path } => Some(NetnsTarget::Path {
            path: path.clone()?,
            inode: *inode,
        }),
    }
}

/// Aims an undo at the namespace in which the netdev was found.
fn elsewhere(undo: &Step, meant: &NetnsTarget, found: NetnsTarget) -> Aim {
    let mut step = undo.clone();
    match &mut step {
        // Addresses do not move with a netdev.
        Step::AddAddress { .. } | Step::RemoveAddress { .. } if !meant.is_same(&found) => {
            return Aim::Void;
        }
        Step::Move {
            from,
            to,
            name,
            function,
            ..
        } => {
            if to.is_same(&found) {
                step = Step::Rename {
                    function: *function,
                    netns: found,
                    name: name.clone(),
                };
            } else {
                *from = found;
            }
        }
        // An RDMA device is not where its netdev is by now, unless by another path to it.
        Step::MoveRdma { .. } if !meant.is_same(&found) => return Aim::Same,
        Step::MoveRdma { from, .. } => *from = found,
        Step::SetMtu { netns, .. }
        | Step::SetUp { netns, .. }
        | Step::SetMac { netns, .. }
        | Step::AddAddress { netns, .. }
        | Step::RemoveAddress { netns, .. }
        | Step::Rename { netns, .. } => *netns = found,
        Step::SetNumVfs { .. }
        | Step::SetAutoprobe { .. }
        | Step::SetEswitch { .. }
        | Step::SetTcOffload { .. }
        | Step::SetSteering { .. }
        | Step::SetVf { .. }
        | Step::Bind { .. }
        | Step::Rebind { .. }
        | Step::SetVdpa { .. }
        | Step::AwaitNetdev { .. } => return Aim::Same,
    }
    Aim::At(step)
}
