//! GC: what no container has any more is taken back.
//!
//! A VF is taken back when its ADD never came to its end, or when its namespace is gone. A container
//! that lives keeps its VF even when the runtime does not name it: the runtime may know only some of
//! the containers, and a VF taken from a living one is worse than a VF that is free a little later.

use std::time::Duration;

use api::cni::{Command, ErrorNumber};
use host::Stage;
use model::{Holder, HolderKind, PciAddress};

use super::{forget, forget_owner, take_back};
use crate::call::{Call, holder};
use crate::failure::Failure;
use crate::ipam::Ipam;
use crate::memo::Memo;
use crate::place::{Machine, Place};

/// How long to wait for another plugin that works on a VF; after that the VF is in its good hands.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    let valid = call
        .config
        .valid_attachments()
        .map_err(|error| Failure::of(error.number(), &error))?;
    let valid: Vec<Holder> = valid
        .iter()
        .map(|attachment| holder(&attachment.container, &attachment.interface))
        .collect();
    let mut failures = Vec::new();
    for vf in vfs(place) {
        failures.extend(collect(place, vf, &valid).err());
    }
    forget_files(place, &valid);
    match Ipam::of(call) {
        Ok(Some(ipam)) => {
            // Those that are older than GC say that they do not speak its version.
            let refused = ipam.call(Command::Gc).err();
            failures.extend(refused.filter(|f| f.number() != ErrorNumber::INCOMPATIBLE_VERSION));
        }
        Ok(None) => {}
        Err(failure) => failures.push(failure),
    }
    Failure::join(failures).map_or(Ok(()), |failure| {
        Err(failure.with_number(ErrorNumber::INTERNAL))
    })
}

/// Removes the files of those who have no VF any more: virtfn's own, and upstream's of former boots.
fn forget_files<M: Machine>(place: &Place<M>, valid: &[Holder]) {
    let held = place.ledger.holders().by_vf;
    for found in place.files.all() {
        let is_held = held.values().any(|by| *by == found.holder);
        let is_old = place
            .machine
            .booted_at()
            .is_some_and(|at| found.written_at < at);
        let is_ours = found.kept.is_ours();
        if is_held || valid.contains(&found.holder) || !(is_ours || is_old) {
            continue;
        }
        if let Ok(vf) = found.kept.device()
            && !held.contains_key(&vf)
        {
            forget_owner(place, vf);
        }
        forget(place, &found.holder);
    }
}

/// Returns the VFs of which something is kept.
fn vfs<M: Machine>(place: &Place<M>) -> Vec<PciAddress> {
    let mut vfs = place.memos.vfs();
    let held = place.ledger.holders().by_vf.into_iter();
    vfs.extend(
        held.filter(|(_, by)| by.kind == HolderKind::Cni)
            .map(|(vf, _)| vf),
    );
    vfs.sort_unstable();
    vfs.dedup();
    vfs
}

fn collect<M: Machine>(
    place: &mut Place<M>,
    vf: PciAddress,
    valid: &[Holder],
) -> Result<(), Failure> {
    let Ok(_lock) = place.files.lock(vf, PATIENCE) else {
        return Ok(());
    };
    let record = place.ledger.look(vf);
    let record = record.map_err(|error| Failure::explained(&error))?;
    if let Some(claim) = record.and_then(|record| record.claim) {
        let is_whole =
            claim.stage == Stage::Attached && place.files.of_holder(&claim.holder).is_some();
        if claim.holder.kind != HolderKind::Cni || valid.contains(&claim.holder) {
            return Ok(());
        }
        let (_, ground) = place.machine.parts();
        let lives = claim
            .netns
            .as_ref()
            .is_none_or(|netns| ground.can_have(netns, vf));
        if is_whole && lives {
            return Ok(());
        }
        take_back(place, vf, &claim.holder)?;
        forget(place, &claim.holder);
        forget_owner(place, vf);
        tracing::info!(pci = %vf, holder = %claim.holder, "vf collected");
    }
    match Memo::of(place, vf)? {
        Some(memo) if !valid.contains(&memo.holder()?) => memo.release(place, vf),
        _ => Ok(()),
    }
}
