//! VFs that upstream's plugin gave away: left alone while somebody has them, taken back as upstream
//! would have when nobody has.
//!
//! Upstream's files name the namespace of a VF by its path only, and nothing removes them after a
//! reboot. So what they say counts only while that path leads to a namespace, or until the boot that
//! they were written in ends. Files that virtfn wrote for upstream to read carry a mark, and for
//! those VFs the ledger knows better, unless it was lost: then they are all that tells.

mod infiniband;

use api::cni::{OrigVfState, SriovCache};
use host::{Adoption, AttachError, Before, Claim, RecordedStep};
use model::{
    Function, Holder, Host, Inventory, LinkPolicy, MacAddr, Mtu, Netns, NetnsTarget, PciAddress,
    Scope, Step, VfAttr, VfIndex, VfState, VlanId, VlanProto, VlanTag,
};

use super::{forget, forget_owner};
use crate::failure::Failure;
use crate::place::{Machine, Place};
use crate::upstream::{Found, Kept};

/// Refuses a VF that upstream gave to somebody who lives; what it left of somebody who does not is
/// made ready to be taken back.
pub(super) fn settle<M: Machine>(place: &mut Place<M>, vf: PciAddress) -> Result<(), Failure> {
    let Some(owner) = place.files.owner(vf) else {
        return Ok(());
    };
    let claim = claim(place, vf);
    if claim
        .as_ref()
        .is_some_and(|claim| path_of(claim) == Some(owner.as_str()))
    {
        return Ok(());
    }
    let found = place.files.of_vf(vf);
    let lives = place.machine.netns(&owner).is_ok();
    // Who dies while it gives a VF back may leave the files of what is at home; of a container that is
    // gone it does no harm to take it back twice.
    let is_known =
        |found: &&Found| is_ours(found) && (lives || claim.is_some() || !is_of_now(place, found));
    if let Some(found) = found.as_ref().filter(is_known) {
        forget(place, &found.holder);
    } else if lives {
        let by = found.map_or("somebody".to_owned(), |found| found.holder.to_string());
        return Err(Failure::new(
            "vf-in-use",
            format!("pci address {vf} is already allocated: {by} has it in namespace {owner}"),
            "take another VF, or wait until that container is gone",
        ));
    } else if let Some(found) = found {
        adopt(place, vf, &found, &owner)?;
        forget(place, &found.holder);
    }
    forget_owner(place, vf);
    Ok(())
}

/// Removes the file of a former holder of an InfiniBand VF, of which no file says whose it is: the call
/// that should have removed it was killed, or the host booted since.
pub(super) fn forget_stale<M: Machine>(place: &Place<M>, vf: PciAddress) {
    let found = place.files.of_vf(vf).filter(is_ours);
    if let Some(found) = found.filter(|_| claim(place, vf).is_none()) {
        forget(place, &found.holder);
    }
}

/// Makes what upstream gave to somebody who is no more ready to be taken back.
pub(super) fn settle_deserted<M: Machine>(
    place: &mut Place<M>,
    vf: PciAddress,
) -> Result<(), Failure> {
    match place.files.owner(vf) {
        Some(owner) if place.machine.netns(&owner).is_err() => settle(place, vf),
        Some(_) | None => Ok(()),
    }
}

/// Has a holder the VF from upstream, as far as its files tell?
pub(super) fn has<M: Machine>(
    place: &Place<M>,
    holder: &Holder,
    vf: PciAddress,
    netns: Option<&str>,
) -> bool {
    let found = place.files.of_holder(holder);
    found.is_some_and(|found| !is_ours(&found) && found.is_about(vf))
        && place.files.owner(vf).as_deref() == netns
}

/// Makes what upstream gave to a holder a record of ours, unless the VF is somebody else's by now.
pub(super) fn adopt_of<M: Machine>(
    place: &mut Place<M>,
    holder: &Holder,
    vf: PciAddress,
    netns: Option<&str>,
) -> Result<(), Failure> {
    let Some(found) = place.files.of_holder(holder) else {
        return Ok(());
    };
    let claim = claim(place, vf);
    let has_record = claim.as_ref().is_some_and(|claim| claim.holder == *holder);
    let owner = place.files.owner(vf);
    let is_lost = claim.is_none() && owner.is_some() && is_of_now(place, &found);
    if !found.is_about(vf) || has_record || is_ours(&found) && !is_lost {
        return Ok(());
    }
    let is_anothers = owner.as_deref().is_some_and(|owner| match netns {
        Some(netns) => netns != owner,
        // The container's own namespace is gone.
        None => place.machine.netns(owner).is_ok(),
    });
    if is_anothers {
        tracing::info!(pci = %vf, %holder, "vf left to its new holder");
        return Ok(());
    }
    let path = netns.map(str::to_owned).or(owner).unwrap_or_default();
    adopt(place, vf, &found, &path)
}

fn adopt<M: Machine>(
    place: &mut Place<M>,
    vf: PciAddress,
    found: &Found,
    path: &str,
) -> Result<(), Failure> {
    let (host, _) = place.machine.parts();
    let seen = host.observe(Scope::Function(vf));
    let seen: Inventory = seen.map_err(|error| Failure::explained(&error))?;
    let Some(target) = Target::of(&seen, vf) else {
        return Ok(());
    };
    let netns = place.machine.netns(path).unwrap_or(NetnsTarget::Path {
        path: path.to_owned(),
        // No namespace has it: the path leads to none any more.
        inode: 0,
    });
    // VFs are as new after a boot. A clock that was set since may tell of one that was none.
    let booted_at = place.machine.booted_at();
    let is_former = booted_at.is_some_and(|at| found.written_at < at);
    if is_former && !is_of_now(place, found) && !is_in(&seen, vf, &netns) {
        return Ok(());
    }
    let adoption = Adoption {
        vf,
        pf: target.pf,
        holder: found.holder.clone(),
        netns: Some(netns.clone()),
        before: match &found.kept {
            Kept::Sriov(cache) => before(&cache.before),
            Kept::Infiniband(cache) => infiniband::before(cache),
        },
        steps: match &found.kept {
            Kept::Sriov(cache) => steps(cache, &target, &netns),
            Kept::Infiniband(cache) => infiniband::steps(cache, &target, &netns),
        },
    };
    match place.engine().adopt(&adoption) {
        Ok(()) => Ok(()),
        Err(AttachError::InUse { holder, .. }) => {
            tracing::info!(pci = %vf, %holder, "vf left to its new holder");
            Ok(())
        }
        Err(error) => Err(Failure::explained(&error)),
    }
}

fn claim<M: Machine>(place: &Place<M>, vf: PciAddress) -> Option<Claim> {
    place.ledger.look(vf).ok()??.claim
}

fn path_of(claim: &Claim) -> Option<&str> {
    match claim.netns.as_ref()? {
        NetnsTarget::Host => None,
        NetnsTarget::Path { path, .. } => Some(path),
    }
}

fn is_ours(found: &Found) -> bool {
    found.kept.is_ours()
}

/// Did virtfn write the file since the host started?
fn is_of_now<M: Machine>(place: &Place<M>, found: &Found) -> bool {
    found.kept.boot() == Some(place.boot.as_str())
}

/// Is the interface of a VF in a namespace?
fn is_in(seen: &Inventory, vf: PciAddress, netns: &NetnsTarget) -> bool {
    let netdev = seen.get(vf).and_then(Function::netdev);
    match (netdev.map(|netdev| &netdev.netns), netns) {
        (Some(Netns::Other { inode: found, .. }), NetnsTarget::Path { inode, .. }) => {
            found == inode
        }
        _ => false,
    }
}

/// A VF with what is needed to set it.
struct Target {
    vf: PciAddress,
    pf: PciAddress,
    index: VfIndex,
    state: VfState,
}

impl Target {
    fn of(seen: &Inventory, vf: PciAddress) -> Option<Self> {
        let facts = seen.get(vf).and_then(Function::vf)?;
        Some(Self {
            vf,
            pf: facts.pf,
            index: facts.index?,
            state: facts.state.unwrap_or_default(),
        })
    }

    fn set(&self, to: VfAttr, back: VfAttr) -> RecordedStep {
        let (pf, vf) = (self.pf, self.index);
        let step = |attr| Step::SetVf { pf, vf, attr };
        RecordedStep {
            before: Some(back.to_string()),
            step: step(to),
            undo: Some(step(back)),
        }
    }
}

fn before(state: &OrigVfState) -> Before {
    Before {
        driver: None,
        name: state.host_if_name.parse().ok(),
        mac: state.effective(),
        mtu: Some(state.mtu).filter(|mtu| *mtu != 0),
        state: Some(VfState {
            mac: state.admin(),
            vlan: Some(state.vlan_tag()),
            ..VfState::default()
        }),
    }
}

/// Says what upstream did, in its own restore rules: what its configuration asked for goes back to
/// what was there before, and nothing else is touched.
///
/// The order is that of virtfn's own attach: undone from the last to the first, the netdev comes
/// home before anything is set, and the PF lifts its MAC before the VF takes its own again.
fn steps(cache: &SriovCache, target: &Target, netns: &NetnsTarget) -> Vec<RecordedStep> {
    let before = &cache.before;
    let mut steps = Vec::new();
    if let Some(vlan) = cache.vlan {
        let asked = u16::try_from(vlan).ok().and_then(VlanId::new);
        let asked = asked.map(|id| VlanTag {
            id,
            pcp: model::Pcp::default(),
            proto: VlanProto::default(),
        });
        steps.push(target.set(VfAttr::Vlan(asked), VfAttr::Vlan(before.vlan_tag())));
    }
    let name = before.host_if_name.parse().ok();
    macs(cache, target, name.is_some(), &mut steps);
    if cache.min_tx_rate.or(cache.max_tx_rate).is_some() {
        let rates = |min, max| VfAttr::Rate {
            min: OrigVfState::rate(min),
            max: OrigVfState::rate(max),
        };
        steps.push(target.set(
            rates(
                cache.min_tx_rate.unwrap_or(0),
                cache.max_tx_rate.unwrap_or(0),
            ),
            rates(before.min_tx_rate, before.max_tx_rate),
        ));
    }
    if !cache.spoofchk.is_empty() {
        steps.push(target.set(
            VfAttr::SpoofCheck(cache.spoofchk == "on"),
            VfAttr::SpoofCheck(before.spoof_chk),
        ));
    }
    if !cache.trust.is_empty() {
        // Upstream reads a trust that the driver does not report as on.
        let was_trusted = before.trust && target.state.trust.is_some();
        steps.push(target.set(
            VfAttr::Trust(cache.trust == "on"),
            VfAttr::Trust(was_trusted),
        ));
    }
    if let Ok(link) = cache.link_state.parse::<LinkPolicy>() {
        steps.push(target.set(VfAttr::Link(link), VfAttr::Link(before.link())));
    }
    let function = target.vf;
    if let Some(name) = name {
        steps.extend(Mtu::new(before.mtu).map(|mtu| {
            let set = Step::SetMtu {
                function,
                netns: NetnsTarget::Host,
                mtu,
            };
            same(set)
        }));
        steps.push(same(Step::Move {
            function,
            from: netns.clone(),
            to: NetnsTarget::Host,
            name,
            up: false,
        }));
    }
    steps
}

fn macs(cache: &SriovCache, target: &Target, has_netdev: bool, steps: &mut Vec<RecordedStep>) {
    let asked = [&cache.runtime.mac, &cache.mac];
    let asked: Option<MacAddr> = asked.into_iter().find_map(|text| text.parse().ok());
    let admin = cache.before.admin().unwrap_or(MacAddr::ZERO);
    let own = cache.before.effective().filter(|_| has_netdev);
    match (asked, own) {
        (Some(asked), None) => {
            steps.push(target.set(VfAttr::Mac(asked), VfAttr::Mac(admin)));
        }
        (Some(asked), Some(own)) => {
            steps.push(target.set(VfAttr::Mac(MacAddr::ZERO), VfAttr::Mac(admin)));
            steps.push(own_mac(target, own));
            steps.push(target.set(VfAttr::Mac(asked), VfAttr::Mac(MacAddr::ZERO)));
        }
        (None, Some(own)) => steps.push(own_mac(target, own)),
        (None, None) => {}
    }
}

fn own_mac(target: &Target, mac: MacAddr) -> RecordedStep {
    same(Step::SetMac {
        function: target.vf,
        netns: NetnsTarget::Host,
        mac,
    })
}

/// A step of which only the undo is known.
fn same(undo: Step) -> RecordedStep {
    RecordedStep {
        step: undo.clone(),
        undo: Some(undo),
        before: None,
    }
}
