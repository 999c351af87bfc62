//! Attributes of a VF, set through its PF.
//!
//! What the PF reports to be so already is not written: some drivers reset the VF with every write
//! (`i40e`, `ice`), and some refuse even what changes nothing.

use std::time::{Duration, Instant};

use model::{IfIndex, PciAddress, VfAttr, VfIndex, VfState};
use netlink::{Events, RequestError, Socket, VfList};

use super::{Fault, Tools, device, netdev};
use crate::driver;
use crate::root::HostRoot;
use crate::wait;

/// How long a VF that resets is waited for; upstream's CNI waits 2 s for each MAC.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// How soon a busy VF is tried again when no event says that it may be done.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn set(
    tools: &mut Tools<'_>,
    pf: PciAddress,
    vf: VfIndex,
    attr: &VfAttr,
) -> Result<(), Fault> {
    let known = tools.reported.as_ref();
    let netdev = match known.and_then(|known| known.netdev_of(pf, vf)) {
        Some(netdev) => netdev,
        None => netdev_of(tools.root, pf, vf)?,
    };
    let socket = tools.sockets.route()?;
    let known = tools.reported.as_mut();
    let state = match known.and_then(|known| known.before(pf, vf, attr)) {
        Some(state) => Some(state),
        None => reported(socket, netdev, vf, attr)?,
    };
    if state.is_some_and(|state| is_so(&state, attr)) {
        return Ok(());
    }
    let Err(error) = try_while_busy(socket, netdev, vf, attr)? else {
        return Ok(());
    };
    if error.is_not_supported() && is_neutral(attr) {
        // A driver that cannot set it has it unset.
        return Ok(());
    }
    Err(explain(tools.root, pf, attr, error))
}

/// Finds the netdev of a PF through which a VF that there is can be set.
fn netdev_of(root: &HostRoot, pf: PciAddress, vf: VfIndex) -> Result<IfIndex, Fault> {
    if !root.exists(&format!("{}/virtfn{}", device(pf), vf.0)) {
        return Err(Fault::new("no-such-vf", format!("there is no {vf}"))
            .remedy("see the VFs of this host with `virtfn list vf`"));
    }
    let found = netdev::on_host(root, pf).ok_or_else(|| {
        Fault::new(
            "pf-without-netdev",
            "its PF has no interface here through which VFs are set",
        )
        .remedy(format!(
            "bind PF {pf} to its kernel driver, and keep its interface in the host's namespace"
        ))
    })?;
    Ok(found.index)
}

/// Returns what the PF reports of a VF. InfiniBand PFs are not asked, because some kernels cannot
/// answer for more than 15 VFs there; and GUIDs are not reported by all that take them.
fn reported(
    socket: &mut Socket,
    pf: IfIndex,
    vf: VfIndex,
    attr: &VfAttr,
) -> Result<Option<VfState>, Fault> {
    if matches!(attr, VfAttr::NodeGuid(_) | VfAttr::PortGuid(_)) {
        return Ok(None);
    }
    let link = match netlink::link_by_index(socket, pf, VfList::Include) {
        Err(error) if error.is_answer_too_long() => return Ok(None),
        link => link?,
    };
    let vfs = link.and_then(|link| link.vfs).unwrap_or_default();
    Ok(vfs
        .iter()
        .find(|report| report.index == vf)
        .map(|report| report.state))
}

/// Is an attribute reported to have the wanted value? "Not reported" is no.
///
/// A MAC is never so: many PFs report the VF's own MAC in its place, and writing the same one is what
/// pins it.
fn is_so(state: &VfState, attr: &VfAttr) -> bool {
    match attr {
        VfAttr::Mac(mac) => mac.is_zero() && state.mac == Some(*mac),
        VfAttr::Vlan(vlan) => state.vlan == Some(*vlan),
        VfAttr::Rate { min, max } => {
            let number = |rate: &Option<model::Mbps>| Some(rate.map_or(0, model::Mbps::get));
            state.min_rate_mbps == number(min) && state.max_rate_mbps == number(max)
        }
        VfAttr::SpoofCheck(on) => state.spoof_check == Some(*on),
        VfAttr::Link(policy) => state.link == Some(*policy),
        VfAttr::RssQuery(on) => state.rss_query == Some(*on),
        VfAttr::Trust(on) => state.trust == Some(*on),
        VfAttr::NodeGuid(guid) => state.node_guid == Some(*guid),
        VfAttr::PortGuid(guid) => state.port_guid == Some(*guid),
    }
}

/// Is the wanted value what a VF has whose driver knows nothing of the attribute?
fn is_neutral(attr: &VfAttr) -> bool {
    match attr {
        VfAttr::Vlan(None)
        | VfAttr::Link(model::LinkPolicy::Auto)
        | VfAttr::Rate {
            min: None,
            max: None,
        }
        | VfAttr::Trust(false)
        | VfAttr::RssQuery(false)
        | VfAttr::SpoofCheck(false) => true,
        VfAttr::Mac(_)
        | VfAttr::Vlan(Some(_))
        | VfAttr::Link(_)
        | VfAttr::Rate { .. }
        | VfAttr::Trust(true)
        | VfAttr::RssQuery(true)
        | VfAttr::SpoofCheck(true)
        | VfAttr::NodeGuid(_)
        | VfAttr::PortGuid(_) => false,
    }
}

/// Sets the attribute, and again while the VF is in the middle of a reset.
fn try_while_busy(
    socket: &mut Socket,
    pf: IfIndex,
    vf: VfIndex,
    attr: &VfAttr,
) -> Result<Result<(), RequestError>, Fault> {
    let Err(error) = netlink::set_vf(socket, pf, vf, &[*attr]) else {
        return Ok(Ok(()));
    };
    if !error.is_busy() {
        return Ok(Err(error));
    }
    let mut events = Events::open()?;
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        wait::pause(&mut events, Instant::now() + BUSY_PAUSE)?;
        match netlink::set_vf(socket, pf, vf, &[*attr]) {
            Err(error) if error.is_busy() && Instant::now() < deadline => {}
            outcome => return Ok(outcome),
        }
    }
}

/// Says what a refusal means for the user: the kernel's words are in `error` already.
fn explain(root: &HostRoot, pf: PciAddress, attr: &VfAttr, error: RequestError) -> Fault {
    let driver = driver::bound(root, pf).map_or("of the PF".to_owned(), |d| d.to_string());
    let name = attr.name();
    if error.is_not_supported() {
        let what = match attr {
            VfAttr::Vlan(Some(tag)) if tag.proto == model::VlanProto::Dot1ad => {
                return Fault::from(error).code("not-supported").remedy(format!(
                    "driver {driver} tags VFs with 802.1q only; leave the VLAN protocol out"
                ));
            }
            VfAttr::Mac(_) => "MAC",
            VfAttr::Vlan(_) => "VLAN",
            VfAttr::Rate { .. } => "rate",
            VfAttr::SpoofCheck(_) => "spoof check",
            VfAttr::Link(_) => "link state",
            VfAttr::RssQuery(_) => "RSS query",
            VfAttr::Trust(_) => "trust",
            VfAttr::NodeGuid(_) | VfAttr::PortGuid(_) => "GUID",
        };
        return Fault::from(error).code("not-supported").remedy(format!(
            "driver {driver} has no {what} setting for VFs; leave {name} out (--{name}, or its key in the configuration)"
        ));
    }
    let remedy = match attr {
        VfAttr::Rate { .. } if error.is_invalid() => Some(format!(
            "driver {driver} takes a rate only while the PF has link, at most the link speed, and often no lower bound"
        )),
        VfAttr::Mac(mac) if mac.is_zero() && error.is_invalid() => Some(format!(
            "driver {driver} does not take an admin MAC back; removing and making the VFs does"
        )),
        VfAttr::Vlan(Some(tag)) if tag.pcp.get() != 0 && error.is_invalid() => Some(format!(
            "driver {driver} may not take a priority: try without qos"
        )),
        _ => None,
    };
    let fault = Fault::from(error);
    match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LinkPolicy;

    #[test]
    fn what_is_not_reported_is_written() {
        let silent = VfState::default();
        for attr in [
            VfAttr::Trust(false),
            VfAttr::SpoofCheck(true),
            VfAttr::Vlan(None),
            VfAttr::Link(LinkPolicy::Auto),
        ] {
            assert!(!is_so(&silent, &attr), "{attr}");
        }
        let state = VfState {
            vlan: Some(None),
            trust: Some(false),
            min_rate_mbps: Some(0),
            max_rate_mbps: Some(0),
            ..VfState::default()
        };
        assert!(is_so(&state, &VfAttr::Vlan(None)));
        assert!(is_so(
            &state,
            &VfAttr::Rate {
                min: None,
                max: None
            }
        ));
        assert!(!is_so(&state, &VfAttr::Trust(true)));
    }
}
