//! GC: what no container has any more is taken back.
//!
//! A VF is taken back when its ADD never came to its end, or when its namespace is gone. A container
//! that lives keeps its VF even when the runtime does not name it: the runtime may know only some of
//! the containers, and a VF taken from a living one is worse than a VF that is free a little later.

use std::time::Duration;

use api::cni::{Command, ErrorNumber};
use host::{Holders, Stage};
use model::{Gap, Holder, HolderKind, PciAddress};

use super::{foreign, forget, forget_of, forget_owner, take_back};
use crate::call::{Call, holder};
use crate::failure::Failure;
use crate::ipam::Ipam;
use crate::memo::Memo;
use crate::place::{Machine, Place};
use crate::upstream::Found;

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
    for vf in upstreams(place, &valid) {
        if let Ok(_lock) = place.files.lock(vf, PATIENCE) {
            failures.extend(foreign::settle_deserted(place, vf).err());
        }
    }
    let holders = place.ledger.holders();
    for vf in vfs(place, &holders) {
        failures.extend(collect(place, vf, &valid).err());
    }
    failures.extend(holders.gaps.iter().map(unread));
    forget_files(place, &valid);
    match Ipam::of(call) {
        Ok(Some(ipam)) => {
            // Those that are older than GC do not know its version, or its name.
            let refused = ipam.call(Command::Gc).err();
            let is_old = |failure: &Failure| {
                let number = failure.number();
                number == ErrorNumber::INCOMPATIBLE_VERSION
                    || number == ErrorNumber::BAD_ENVIRONMENT
            };
            failures.extend(refused.filter(|failure| !is_old(failure)));
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
    // In this order: an ADD that came to its end meanwhile has written its record before its file.
    let files = place.files.all();
    let holders = place.ledger.holders();
    let held = holders.by_vf.values();
    for found in files {
        let device = found.kept.device().ok();
        let is_unknown = device.is_none_or(|vf| holders.unknown_of(vf).is_some());
        let is_held = is_unknown || held.clone().any(|by| found.is_of(by));
        let is_valid = valid.iter().any(|by| found.is_of(by));
        let is_old = place
            .machine
            .booted_at()
            .is_some_and(|at| found.written_at < at);
        let is_ours = found.kept.is_ours();
        if is_held || is_valid || !(is_ours || is_old) {
            continue;
        }
        if let Some(vf) = device.filter(|vf| !holders.by_vf.contains_key(vf)) {
            forget_owner(place, vf);
        }
        forget(place, &found.holder);
    }
}

/// Says that nobody knows what is to be collected, because something kept cannot be read.
fn unread(gap: &Gap) -> Failure {
    Failure::new(
        "state-not-accessible",
        format!("{}: {}", gap.object, gap.reason),
        "see what virtfn keeps with `virtfn list vf`, as root",
    )
}

/// Returns the VFs that upstream gave to holders whom the runtime does not know any more.
fn upstreams<M: Machine>(place: &Place<M>, valid: &[Holder]) -> Vec<PciAddress> {
    let is_gone = |last: &Found| !last.kept.is_ours() && !valid.iter().any(|by| last.is_of(by));
    let last = place.files.by_vf().into_iter();
    last.filter(|(_, last)| is_gone(last))
        .map(|(vf, _)| vf)
        .collect()
}

/// Returns the VFs of which something is kept.
fn vfs<M: Machine>(place: &Place<M>, holders: &Holders) -> Vec<PciAddress> {
    let mut vfs = place.memos.vfs();
    let held = holders.by_vf.iter();
    vfs.extend(
        held.filter(|(_, by)| by.kind == HolderKind::Cni)
            .map(|(vf, _)| *vf),
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
    if let Some(record) = record
        && let Some(claim) = &record.claim
    {
        let is_whole =
            claim.stage == Stage::Attached && place.files.of_holder(&claim.holder).is_some();
        if claim.holder.kind != HolderKind::Cni || valid.contains(&claim.holder) {
            return Ok(());
        }
        if is_whole && place.engine().is_held(&record) {
            return Ok(());
        }
        take_back(place, vf, &claim.holder)?;
        forget_of(place, &claim.holder, vf);
        forget_owner(place, vf);
        tracing::info!(pci = %vf, holder = %claim.holder, "vf collected");
    }
    match Memo::of(place, vf)? {
        Some(memo) if !valid.contains(&memo.holder()?) => memo.release(place, vf),
        _ => Ok(()),
    }
}
