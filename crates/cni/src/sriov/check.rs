//! CHECK: is the VF still as ADD left it?
//!
//! Plugins that are chained behind this one may change the MAC, the MTU, the routing and more of the
//! interface. So only this is looked at: that the container has the VF, that its interface is there
//! and up, that the PF has set what was asked for, and that the addresses are on it.

use api::cni::{AddResult, Command, Ip};
use host::{Claim, Stage};
use model::{Function, Host, NetnsTarget, PciAddress, Scope, VfSettings, VfState};

use super::wanted::Wanted;
use super::{foreign, netns_of};
use crate::call::Call;
use crate::failure::Failure;
use crate::ipam::Ipam;
use crate::place::{Machine, Place};

pub(super) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    let asked = Wanted::read(call)?;
    let previous = call.config.prev_result().map_err(|error| {
        let way_out = "let the runtime pass on what ADD returned";
        Failure::of(error.number(), &error).during("prevResult of CHECK", way_out)
    })?;
    let previous = previous.ok_or_else(|| {
        Failure::new(
            "no-prev-result",
            "CHECK without the result of ADD (prevResult)".to_owned(),
            "let the runtime pass on what ADD returned",
        )
    })?;
    let ipam = Ipam::of(call)?;
    if let Some(ipam) = &ipam {
        ipam.call(Command::Check)?;
    }
    let path = call.environment.netns.as_deref().unwrap_or_default();
    let netns = netns_of(call, place, path)?;
    let vf = asked.device();
    let claim = claim(call, place, vf, &netns)?;
    let (host, _) = place.machine.parts();
    let seen = host.observe(Scope::Function(vf));
    let seen = seen.map_err(|error| Failure::explained(&error))?;
    let function = seen
        .get(vf)
        .ok_or_else(|| changed(format!("VF {vf} is gone")))?;
    let state = function.vf().and_then(|facts| facts.state);
    let mac = asked
        .mac()
        .filter(|_| claim.as_ref().is_some_and(is_device));
    let wanted = VfSettings {
        mac,
        ..asked.settings()
    };
    if let Some(what) = difference(&wanted, &state.unwrap_or_default()) {
        return Err(changed(format!("VF {vf}: {what}")));
    }
    if claim
        .as_ref()
        .map_or_else(|| has_no_netdev(function), is_device)
    {
        return Ok(());
    }
    interface(call, place, vf, &netns, &previous)
}

/// Returns the record of the VF, which must be the container's; `None` when upstream's plugin gave
/// it.
fn claim<M: Machine>(
    call: &Call,
    place: &Place<M>,
    vf: PciAddress,
    netns: &NetnsTarget,
) -> Result<Option<Claim>, Failure> {
    let holder = call.holder()?;
    let path = call.environment.netns.as_deref();
    let record = place.ledger.look(vf);
    let record = record.map_err(|error| Failure::explained(&error))?;
    match record.and_then(|record| record.claim) {
        Some(claim) if claim.holder != holder && foreign::has(place, &holder, vf, path) => Ok(None),
        Some(claim) if claim.holder != holder => Err(changed(format!(
            "VF {vf} belongs to {}, not to {holder}",
            claim.holder
        ))),
        Some(claim) if claim.stage != Stage::Attached => {
            Err(changed(format!("VF {vf} is only half given to {holder}")))
        }
        Some(claim) if !claim.netns.as_ref().is_some_and(|in_| in_.is_same(netns)) => Err(changed(
            format!("VF {vf} was given to {holder} in another namespace than {netns}"),
        )),
        Some(claim) => Ok(Some(claim)),
        None if place.files.of_holder(&holder).is_some() => Ok(None),
        None => Err(changed(format!("VF {vf} is not given to {holder}"))),
    }
}

fn is_device(claim: &Claim) -> bool {
    let mut steps = claim.steps.iter();
    !steps.any(|step| matches!(step.step, model::Step::Move { .. }))
}

fn has_no_netdev(function: &Function) -> bool {
    function
        .driver
        .as_ref()
        .is_some_and(|driver| driver.is_user_space())
}

/// Names the first setting that is not as asked for; what the PF does not report cannot be judged.
fn difference(wanted: &VfSettings, state: &VfState) -> Option<String> {
    fn differs<T: PartialEq>(wanted: Option<T>, has: Option<T>) -> bool {
        matches!((wanted, has), (Some(wanted), Some(has)) if wanted != has)
    }
    let number = |rate: Option<model::Mbps>| rate.map_or(0, model::Mbps::get);
    let found = [
        ("mac", differs(wanted.mac, state.mac)),
        ("vlan", differs(wanted.vlan, state.vlan)),
        (
            "min_tx_rate",
            differs(wanted.min_rate.map(number), state.min_rate_mbps),
        ),
        (
            "max_tx_rate",
            differs(wanted.max_rate.map(number), state.max_rate_mbps),
        ),
        ("spoofchk", differs(wanted.spoof_check, state.spoof_check)),
        ("trust", differs(wanted.trust, state.trust)),
        ("link_state", differs(wanted.link, state.link)),
        ("node GUID", differs(wanted.node_guid, state.node_guid)),
        ("port GUID", differs(wanted.port_guid, state.port_guid)),
    ];
    let (name, _) = found.into_iter().find(|(_, differs)| *differs)?;
    Some(format!("its {name} is not what the network asks for"))
}

fn interface<M: Machine>(
    call: &Call,
    place: &Place<M>,
    vf: PciAddress,
    netns: &NetnsTarget,
    previous: &AddResult,
) -> Result<(), Failure> {
    let (_, name) = call.attachment()?;
    let looked = place.machine.look(netns, name);
    let found = looked.map_err(|error| Failure::explained(&error))?;
    let found =
        found.ok_or_else(|| changed(format!("the container has no interface {name} any more")))?;
    if found.function.is_some_and(|function| function != vf) {
        return Err(changed(format!("interface {name} is not of VF {vf}")));
    }
    if !found.is_up {
        return Err(changed(format!("interface {name} is down")));
    }
    let number = previous
        .interfaces
        .iter()
        .position(|interface| interface.name == name.as_str());
    let number = number.and_then(|number| i64::try_from(number).ok());
    // One that is on no interface, or on another's, says nothing of this one.
    let is_of_it = |ip: &&Ip| ip.interface.is_some() && ip.interface == number;
    for ip in previous.ips.iter().filter(is_of_it) {
        if !found.addresses.contains(&ip.address) {
            return Err(changed(format!(
                "interface {name} does not have address {}",
                ip.address
            )));
        }
    }
    Ok(())
}

fn changed(message: String) -> Failure {
    Failure::new(
        "attachment-changed",
        message,
        "see what was done to the VF with `virtfn explain`, and restart the pod",
    )
}
