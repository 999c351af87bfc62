//! What several policies say about one PF.

use std::collections::BTreeMap;

use model::{
    EswitchMode, Inventory, NodePolicy, PciAddress, PfDesired, PfFacts, VfDriver, VfGroup, VfRange,
};

use crate::fit::{mtu_too_large, why_no_vdpa};
use crate::vendor::mellanox;

use super::select::{Selected, title};
use super::{Note, NoteKind, ResolveProblem, Resolved, Trouble};

/// The PFs so far, while policies are applied one after the other.
#[derive(Default)]
pub(super) struct Merge<'a> {
    pfs: BTreeMap<PciAddress, Entry<'a>>,
    /// Priority of the policy that was applied before; upstream compares with no other.
    previous: Option<u8>,
}

struct Entry<'a> {
    desired: PfDesired,
    /// The policy applied last, whose PF-wide settings stand.
    last: &'a NodePolicy,
    /// The policy whose `numVfs` stands.
    counts: &'a NodePolicy,
    /// The policy whose `mtu` stands.
    sizes: &'a NodePolicy,
}

impl<'a> Merge<'a> {
    /// Applies the next policy to the PFs that it selects.
    pub(super) fn apply(
        &mut self,
        policy: &'a NodePolicy,
        pfs: &[Selected<'_>],
        notes: &mut Vec<Note>,
    ) {
        let equal = self.previous == Some(policy.priority);
        self.previous = Some(policy.priority);
        let Some(all) = VfRange::all(policy.num_vfs) else {
            if !pfs.is_empty() {
                notes.push(Note::new(policy, NoteKind::NoVfs));
            }
            return;
        };
        for Selected { pf, range } in pfs {
            let mut new = Entry {
                desired: desired(policy, pf, range.unwrap_or(all)),
                last: policy,
                counts: policy,
                sizes: policy,
            };
            if let Some(old) = self.pfs.remove(&pf.address) {
                keep(&mut new, old, equal, &pf.title(), notes);
            }
            self.pfs.insert(pf.address, new);
        }
    }

    /// Holds the result against what the PFs are, and keeps those that can be had.
    pub(super) fn finish(self, seen: &Inventory, resolved: &mut Resolved) {
        for (pf, entry) in self.pfs {
            let Some(facts) = seen.get(pf).and_then(|function| function.pf()) else {
                continue;
            };
            let before = resolved.problems.len();
            impossible(seen, &entry, facts, &mut resolved.problems);
            if resolved.problems.len() == before {
                odd(seen, &entry, &mut resolved.notes);
                resolved.desired.pfs.insert(pf, entry.desired);
            }
        }
    }
}

/// What a policy alone says about a PF.
fn desired(policy: &NodePolicy, pf: &model::Function, range: VfRange) -> PfDesired {
    PfDesired {
        pf: pf.address,
        name: pf.netdev_name().cloned(),
        num_vfs: policy.num_vfs,
        mtu: policy.mtu,
        link_type: policy.link_type,
        eswitch: policy.eswitch,
        externally_managed: policy.externally_managed,
        groups: vec![VfGroup {
            resource: policy.resource.clone(),
            policy: policy.name.clone(),
            range,
            driver: policy.driver.clone(),
            mtu: policy.mtu,
            is_rdma: policy.is_rdma,
            vdpa: policy.vdpa,
        }],
    }
}

/// Keeps of the earlier entry what the new one leaves room for.
fn keep<'a>(new: &mut Entry<'a>, old: Entry<'a>, equal: bool, pf: &str, notes: &mut Vec<Note>) {
    let mut kept = false;
    for group in old.desired.groups {
        let Some(first) = new.desired.groups.first() else {
            continue;
        };
        let same_resource = group.resource == first.resource;
        if same_resource || group.range.overlaps(first.range) {
            notes.push(Note::new(
                new.last,
                NoteKind::Replaces {
                    pf: pf.to_owned(),
                    policy: group.policy,
                    range: group.range,
                    same_resource: same_resource.then_some(group.resource),
                },
            ));
        } else {
            new.desired.groups.push(group);
            kept = true;
        }
    }
    if equal || kept {
        if old.desired.mtu > new.desired.mtu {
            new.desired.mtu = old.desired.mtu;
            new.sizes = old.sizes;
        }
        if old.desired.num_vfs > new.desired.num_vfs {
            new.desired.num_vfs = old.desired.num_vfs;
            new.counts = old.counts;
        }
    }
}

/// Finds what a PF cannot do.
fn impossible(
    seen: &Inventory,
    entry: &Entry<'_>,
    facts: &PfFacts,
    problems: &mut Vec<ResolveProblem>,
) {
    let wanted = &entry.desired;
    let pf = || title(seen, wanted.pf);
    if wanted.num_vfs > facts.total_vfs && !is_up_to_firmware(seen, wanted) {
        problems.push(ResolveProblem::new(
            entry.counts,
            Trouble::TooManyVfs {
                pf: pf(),
                asked: wanted.num_vfs,
                total: facts.total_vfs,
            },
        ));
    }
    if wanted.eswitch == Some(EswitchMode::Switchdev) && facts.eswitch.is_none() {
        let driver = seen
            .get(wanted.pf)
            .and_then(|function| function.driver.clone());
        problems.push(ResolveProblem::new(
            entry.last,
            Trouble::NoSwitchdev { pf: pf(), driver },
        ));
    }
    for group in &wanted.groups {
        if let Some(why) = why_no_vdpa(wanted, group) {
            problems.push(ResolveProblem::new(
                entry.last,
                Trouble::NoVdpa {
                    pf: pf(),
                    asker: group.policy.clone(),
                    why,
                },
            ));
        }
    }
    if !wanted.externally_managed {
        let too_large = seen.get(wanted.pf).and_then(|pf| mtu_too_large(pf, wanted));
        if let Some((asked, most)) = too_large {
            problems.push(ResolveProblem::new(
                entry.sizes,
                Trouble::MtuTooLarge {
                    pf: pf(),
                    asked,
                    most,
                },
            ));
        }
        return;
    }
    if wanted.num_vfs > facts.num_vfs && wanted.num_vfs <= facts.total_vfs {
        problems.push(ResolveProblem::new(
            entry.counts,
            Trouble::NotThatManyMade {
                pf: pf(),
                asked: wanted.num_vfs,
                made: facts.num_vfs,
            },
        ));
    }
    let netdev = seen.get(wanted.pf).and_then(|function| function.netdev());
    if let (Some(mtu), Some(netdev)) = (wanted.mtu, netdev)
        && mtu.get() > netdev.mtu
    {
        problems.push(ResolveProblem::new(
            entry.sizes,
            Trouble::MtuNotOurs {
                pf: pf(),
                asked: mtu,
                has: netdev.mtu,
            },
        ));
    }
}

/// Can the device be told to offer more VFs?
fn is_up_to_firmware(seen: &Inventory, wanted: &PfDesired) -> bool {
    let pf = seen.get(wanted.pf);
    pf.is_some_and(|pf| mellanox::can_offer_more(pf.id)) && !wanted.externally_managed
}

/// Finds what a PF can do, but not as somebody may expect.
fn odd(seen: &Inventory, entry: &Entry<'_>, notes: &mut Vec<Note>) {
    let wanted = &entry.desired;
    let function = seen.get(wanted.pf);
    let netdev = function.and_then(|function| function.netdev());
    if let (Some(link), Some(netdev)) = (wanted.link_type, netdev)
        && link != netdev.link_type
    {
        notes.push(Note::new(
            entry.last,
            NoteKind::OtherLinkType {
                pf: title(seen, wanted.pf),
                has: netdev.link_type,
                wanted: link,
            },
        ));
    }
    let total = function
        .and_then(|function| function.pf())
        .map_or(0, |facts| facts.total_vfs);
    if wanted.num_vfs > total {
        notes.push(Note::new(
            entry.counts,
            NoteKind::FirmwareOffersFewer {
                pf: title(seen, wanted.pf),
                asked: wanted.num_vfs,
                total,
            },
        ));
    }
    for group in &wanted.groups {
        if group.range.last().0 >= wanted.num_vfs {
            notes.push(Note::new(
                entry.last,
                NoteKind::BeyondNumVfs {
                    pf: title(seen, wanted.pf),
                    policy: group.policy.clone(),
                    range: group.range,
                    num_vfs: wanted.num_vfs,
                },
            ));
        }
        let vfio = matches!(&group.driver, VfDriver::Named(driver) if driver.is_vfio());
        if vfio && function.is_some_and(|function| function.iommu_group.is_none()) {
            notes.push(Note::new(
                entry.last,
                NoteKind::NoIommu {
                    pf: title(seen, wanted.pf),
                },
            ));
        }
    }
}
