//! DEL: a container gives its VF back.
//!
//! It succeeds when there is nothing to do, and does what it can when there is. The VF is looked for
//! in upstream's file, in the configuration and in the ledger, because each of them may be missing;
//! it is taken back only from the container that is named.

use std::time::Duration;

use api::cni::Command;
use model::{Holder, PciAddress};

use super::{foreign, forget, forget_owner, infiniband_lock, netns_of, take_back};
use crate::call::Call;
use crate::failure::Failure;
use crate::ipam::{Ipam, NO_IPAM};
use crate::memo::{self, Memo};
use crate::place::{Machine, Place};
use crate::plugin::Plugin;

/// How long to wait for another plugin that works on the VF. CRI-O gives a DEL one minute and calls
/// it only once.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    let holder = call.holder()?;
    if let Some(path) = &call.environment.netns
        && let Err(failure) = netns_of(call, place, path)
        && failure.code().as_str() == "own-netns"
    {
        return Err(failure);
    }
    let vfs = vfs_of(call, place, &holder);
    // Before addresses are given back: the IPAM plugin of an ADD that was killed reserves some until
    // it ends.
    let locks = vfs.iter().map(|vf| place.files.lock(*vf, PATIENCE));
    let locks: Vec<_> = locks.collect();
    let mut failures = Vec::new();
    let is_released = match Ipam::of(call).and_then(|ipam| match ipam {
        // No InfiniBand network was ever added with it.
        Some(ipam) if call.plugin == Plugin::IbSriov && ipam.name() == "dhcp" => Ok(()),
        Some(ipam) => ipam.call(Command::Del),
        None => Ok(()),
    }) {
        Ok(()) => true,
        Err(failure) if failure.code().as_str() == NO_IPAM => true,
        Err(failure) => {
            failures.push(failure);
            false
        }
    };
    let mut is_free = true;
    for (vf, lock) in vfs.into_iter().zip(locks) {
        let _lock = match lock {
            Ok(lock) => lock,
            Err(error) => {
                failures.push(Failure::explained(&error));
                is_free = false;
                continue;
            }
        };
        if let Err(failure) = give_back(call, place, &holder, vf, is_released) {
            failures.push(failure);
            is_free = false;
        }
    }
    if is_free {
        forget(place, &holder);
    }
    Failure::join(failures).map_or(Ok(()), Err)
}

/// Returns the VFs that a holder may have.
fn vfs_of<M: Machine>(call: &Call, place: &Place<M>, holder: &Holder) -> Vec<PciAddress> {
    let cached = place.files.of_holder(holder);
    let cached = cached.and_then(|found| found.kept.device().ok());
    let named = call.config.device_id().and_then(|text| text.parse().ok());
    let mut vfs: Vec<PciAddress> = cached.into_iter().chain(named).collect();
    let has_one = |vf: &PciAddress| {
        let record = place.ledger.look(*vf);
        let claim = record.ok().flatten().and_then(|record| record.claim);
        claim.is_some_and(|claim| claim.holder == *holder)
    };
    if !vfs.iter().any(has_one) {
        let held = place.ledger.holders().by_vf.into_iter();
        vfs.extend(held.filter(|(_, by)| by == holder).map(|(vf, _)| vf));
    }
    vfs.sort_unstable();
    vfs.dedup();
    vfs
}

/// Takes a VF, whose lock the caller has, back from a holder.
fn give_back<M: Machine>(
    call: &Call,
    place: &mut Place<M>,
    holder: &Holder,
    vf: PciAddress,
    is_released: bool,
) -> Result<(), Failure> {
    let _infiniband = infiniband_lock(call, place, vf, PATIENCE)?;
    foreign::adopt_of(place, holder, vf, call.environment.netns.as_deref())?;
    let owner = place.files.owner(vf);
    let was_held = take_back(place, vf, holder)?;
    let is_stale = owner.is_some_and(|path| {
        Some(&path) == call.environment.netns.as_ref() || place.machine.netns(&path).is_err()
    });
    if was_held || is_stale {
        forget_owner(place, vf);
    }
    match Memo::of(place, vf)? {
        Some(memo) if memo.holder()? != *holder => Ok(()),
        Some(memo) if !memo.is_of(call) => memo.release(place, vf),
        Some(_) if is_released => memo::forget(place, vf),
        Some(_) | None => Ok(()),
    }
}
