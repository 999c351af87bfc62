//! The plugins `sriov` and `ib-sriov`: a VF for a container. They differ in what a network may ask for
//! (`wanted`) and in the files that upstream would read (`kept`).
//!
//! ```text
//! ADD    check all that can be checked → lock → heal what is left → give the VF (host::Engine)
//!        → reserve addresses (IPAM) → give them to the interface → upstream's files → the result
//! DEL    release addresses → take the VF back → upstream's files
//! ```
//!
//! An ADD that failed has taken back all that it did. One that was killed has left the record of the
//! VF and the memo of its addresses, with which any later DEL, GC, or ADD of the same VF does that.
//! The file that upstream's plugin would read is written last, and so it also says that an ADD came
//! to its end: an ADD for a holder that has the VF but no such file finds one that was killed.
//!
//! What would surprise: the lock that upstream's plugin takes is held all the time, also while IPAM
//! works. It belongs to one VF, so nobody waits for it but who wants this very VF.

mod add;
mod check;
mod collect;
mod del;
mod foreign;
mod kept;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod wanted;

use std::time::Duration;

use api::cni::{Command, ErrorNumber};
use host::{DetachError, Lock};
use model::{Holder, NetnsTarget, PciAddress};

use crate::call::{Answer, Call};
use crate::failure::Failure;
use crate::place::{Machine, Place};
use crate::plugin::Plugin;

/// Serves one call.
pub(crate) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<Answer, Failure> {
    match call.environment.command {
        Command::Add => add::serve(call, place).map(Answer::Result),
        Command::Del => del::serve(call, place).map(|()| Answer::Silent),
        Command::Check => check::serve(call, place).map(|()| Answer::Silent),
        Command::Gc => collect::serve(call, place).map(|()| Answer::Silent),
        Command::Status => status::serve(call, place).map(|()| Answer::Silent),
        // It is answered before the configuration is read.
        Command::Version => Ok(Answer::Silent),
    }
}

/// Takes back an ADD whose result nobody took.
pub(crate) fn abandon<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    del::serve(call, place)
}

/// Finds the namespace of the container, which must not be the plugin's own.
pub(crate) fn netns_of<M: Machine>(
    call: &Call,
    place: &Place<M>,
    path: &str,
) -> Result<NetnsTarget, Failure> {
    let found = place.machine.netns(path);
    let netns = found.map_err(|error| Failure::of(ErrorNumber::BAD_NETNS, &error))?;
    if netns == NetnsTarget::Host && !call.environment.allows_own_netns {
        return Err(Failure::new(
            "own-netns",
            "plugin's netns and netns from CNI_NETNS should not be the same".to_owned(),
            "let the runtime give the container a network namespace of its own",
        ));
    }
    Ok(netns)
}

/// Keeps upstream's `ib-sriov` away while an InfiniBand VF is worked on.
fn infiniband_lock<M: Machine>(
    call: &Call,
    place: &Place<M>,
    vf: PciAddress,
    patience: Duration,
) -> Result<Option<Lock>, Failure> {
    if call.plugin != Plugin::IbSriov {
        return Ok(None);
    }
    let locked = place.files.lock_infiniband(vf, patience);
    locked.map(Some).map_err(|error| Failure::explained(&error))
}

/// Takes a VF back from a holder; that it is not his is fine.
///
/// Returns whether there was something to take back.
fn take_back<M: Machine>(
    place: &mut Place<M>,
    vf: PciAddress,
    holder: &Holder,
) -> Result<bool, Failure> {
    match place.engine().detach(vf, Some(holder)) {
        Ok(_) => Ok(true),
        Err(DetachError::NotAttached { .. }) => Ok(false),
        Err(DetachError::OtherHolder { holder: other, .. }) => {
            tracing::info!(pci = %vf, holder = %other, "vf left to its new holder");
            Ok(false)
        }
        Err(error) => Err(Failure::explained(&error)),
    }
}

/// Removes upstream's file of a holder who has a VF no more, unless it tells of another VF of his.
fn forget_of<M: Machine>(place: &Place<M>, holder: &Holder, vf: PciAddress) {
    let found = place.files.of_holder(holder);
    if found.is_none_or(|found| found.is_about(vf)) {
        forget(place, holder);
    }
}

/// Removes upstream's files of a holder who has a VF no more.
fn forget<M: Machine>(place: &Place<M>, holder: &Holder) {
    if let Err(error) = place.files.forget(holder) {
        tracing::warn!(%holder, %error, "cached configuration not removed");
    }
}

/// Says that nobody has a VF, in upstream's words.
fn forget_owner<M: Machine>(place: &Place<M>, vf: PciAddress) {
    if let Err(error) = place.files.clear_owner(vf) {
        tracing::warn!(pci = %vf, %error, "allocation file not removed");
    }
}
