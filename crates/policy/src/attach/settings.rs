//! What the PF sets for a VF: what is asked for, what is so already, and how to go back.

use model::{
    AttachRequest, Guid, LinkType, MacAddr, Mbps, Netdev, Netns, NetnsTarget, Step, VfAttr,
    VfSettings, VfState, VlanProto,
};

use super::{AttachRefused, Planner, Target};

/// Returns the settings of a request with the interface's MAC among them, checked for what cannot
/// be.
pub(super) fn wanted(
    target: &Target<'_>,
    request: &AttachRequest,
) -> Result<VfSettings, AttachRefused> {
    let mut wanted = request.settings;
    let of_interface = request
        .interface
        .as_ref()
        .and_then(|interface| interface.mac);
    if let (Some(admin), Some(own)) = (wanted.mac, of_interface)
        && admin != own
    {
        return Err(AttachRefused::MacsDiffer { admin, own });
    }
    wanted.mac = wanted.mac.or(of_interface);
    if let Some(mac) = wanted.mac.filter(|mac| mac.is_group() || mac.is_zero()) {
        return Err(AttachRefused::BadMac { mac });
    }
    if let (Some(Some(min)), Some(Some(max))) = (wanted.min_rate, wanted.max_rate)
        && min > max
    {
        return Err(AttachRefused::MinAboveMax { min, max });
    }
    if wanted == VfSettings::default() {
        return Ok(wanted);
    }
    let here = target
        .pf
        .netdev()
        .filter(|netdev| netdev.netns == Netns::Host);
    let Some(pf_netdev) = here else {
        return Err(AttachRefused::PfWithoutNetdev {
            vf: target.vf.address,
            pf: target.pf.title(),
            driver: target.pf.driver.clone(),
        });
    };
    let unsupported = unsupported(target, &wanted, pf_netdev.link_type);
    unsupported.map_or(Ok(wanted), |attribute| {
        Err(AttachRefused::Unsupported {
            pf: target.pf.title(),
            driver: target.pf.driver.clone(),
            attribute,
        })
    })
}

/// Returns the first setting that the PF's driver is known not to have.
fn unsupported(target: &Target<'_>, wanted: &VfSettings, link: LinkType) -> Option<&'static str> {
    let driver = target.driver;
    let state = reported(target);
    let new_link = wanted.link.filter(|link| state.link != Some(*link));
    let tag = wanted.vlan.flatten();
    if new_link.is_some() && !driver.sets_link {
        Some("link-state")
    } else if wanted.min_rate.flatten().is_some() && !driver.sets_min_rate {
        Some("min_tx_rate")
    } else if tag.is_some_and(|tag| tag.proto == VlanProto::Dot1ad) && !driver.tags_dot1ad {
        Some("802.1ad")
    } else if wanted.node_guid.or(wanted.port_guid).is_some() && link != LinkType::InfiniBand {
        Some("guid")
    } else if wanted.mac.is_some() && link == LinkType::InfiniBand {
        Some("mac")
    } else {
        None
    }
}

/// Plans what differs.
pub(super) fn plan(
    planner: &mut Planner,
    target: &Target<'_>,
    wanted: &VfSettings,
    netdev: Option<&Netdev>,
) {
    let state = reported(target);
    guids(planner, target, wanted, &state, netdev);
    if let Some(vlan) = wanted.vlan.filter(|vlan| state.vlan != Some(*vlan)) {
        let undo = VfAttr::Vlan(state.vlan.flatten());
        set(
            planner,
            VfAttr::Vlan(vlan),
            state.vlan.map(VfAttr::Vlan),
            Some(undo),
        );
    }
    if let Some(mac) = wanted.mac {
        plan_mac(planner, target, mac, state.mac, netdev);
    }
    rates(planner, wanted, &state);
    if let Some(on) = wanted
        .spoof_check
        .filter(|on| state.spoof_check != Some(*on))
    {
        let undo = state.spoof_check.or(target.driver.spoof_check);
        set(
            planner,
            VfAttr::SpoofCheck(on),
            state.spoof_check.map(VfAttr::SpoofCheck),
            undo.map(VfAttr::SpoofCheck),
        );
    }
    if let Some(on) = wanted.trust.filter(|on| state.trust != Some(*on)) {
        // Unknown trust goes back to none, never to more than there was.
        let undo = VfAttr::Trust(state.trust.unwrap_or(false));
        set(
            planner,
            VfAttr::Trust(on),
            state.trust.map(VfAttr::Trust),
            Some(undo),
        );
    }
    if let Some(on) = wanted.rss_query.filter(|on| state.rss_query != Some(*on)) {
        let undo = VfAttr::RssQuery(state.rss_query.unwrap_or(false));
        set(
            planner,
            VfAttr::RssQuery(on),
            state.rss_query.map(VfAttr::RssQuery),
            Some(undo),
        );
    }
    if let Some(link) = wanted.link.filter(|link| state.link != Some(*link)) {
        let undo = VfAttr::Link(state.link.unwrap_or(model::LinkPolicy::Auto));
        set(
            planner,
            VfAttr::Link(link),
            state.link.map(VfAttr::Link),
            Some(undo),
        );
    }
}

/// Plans the MAC: see the module above for the order.
fn plan_mac(
    planner: &mut Planner,
    target: &Target<'_>,
    mac: MacAddr,
    reported: Option<MacAddr>,
    netdev: Option<&Netdev>,
) {
    let mut back = reported.unwrap_or(MacAddr::ZERO);
    let own = netdev.and_then(Netdev::mac).filter(|own| *own != mac);
    if let Some(own) = own {
        if target.driver.pins_mac {
            let undo = Some(VfAttr::Mac(back));
            set(
                planner,
                VfAttr::Mac(MacAddr::ZERO),
                reported.map(VfAttr::Mac),
                undo,
            );
            back = MacAddr::ZERO;
        }
        let function = planner.vf;
        let step = |mac| Step::SetMac {
            function,
            netns: NetnsTarget::Host,
            mac,
        };
        planner.step(step(mac), Some(format!("mac {own}")), Some(step(own)));
    }
    // Above, the VF's own MAC may have changed what the PF reports, but not that it is not pinned.
    if own.is_some() || reported != Some(mac) {
        let before = if own.is_some() && target.driver.pins_mac {
            Some(VfAttr::Mac(back))
        } else {
            reported.map(VfAttr::Mac)
        };
        set(planner, VfAttr::Mac(mac), before, Some(VfAttr::Mac(back)));
    }
}

fn rates(planner: &mut Planner, wanted: &VfSettings, state: &VfState) {
    if wanted.min_rate.is_none() && wanted.max_rate.is_none() {
        return;
    }
    // Both go in one message, so the one that nobody asked for stays as it is.
    let (has_min, has_max) = (
        state.min_rate_mbps.and_then(Mbps::new),
        state.max_rate_mbps.and_then(Mbps::new),
    );
    let former = VfAttr::Rate {
        min: has_min,
        max: has_max,
    };
    let attr = VfAttr::Rate {
        min: wanted.min_rate.unwrap_or(has_min),
        max: wanted.max_rate.unwrap_or(has_max),
    };
    let is_reported = state.min_rate_mbps.is_some() && state.max_rate_mbps.is_some();
    if attr != former || !is_reported {
        set(planner, attr, is_reported.then_some(former), Some(former));
    }
}

/// Plans the GUIDs of an InfiniBand VF, which its driver reads when it is bound.
///
/// Backwards the driver is bound once more, after the PF has its former GUIDs again: that is the undo
/// of a step that changes nothing on the way there. A GUID that the VF did not have, or whose former
/// one is not known, is taken back with all ones.
fn guids(
    planner: &mut Planner,
    target: &Target<'_>,
    wanted: &VfSettings,
    state: &VfState,
    netdev: Option<&Netdev>,
) {
    let has_node = state
        .node_guid
        .or(target.vf.rdma.first().and_then(|device| device.node_guid));
    let has_port = state.port_guid.or(netdev.and_then(port_guid));
    let node = wanted.node_guid.filter(|guid| has_node != Some(*guid));
    let port = wanted.port_guid.filter(|guid| has_port != Some(*guid));
    if node.is_none() && port.is_none() {
        return;
    }
    let former = |guid: Option<Guid>| guid.filter(|guid| !guid.is_zero()).unwrap_or(Guid::ONES);
    let function = planner.vf;
    if netdev.is_some() {
        let undo = Step::Rebind { function };
        planner.step(Step::AwaitNetdev { function }, None, Some(undo));
    }
    if let Some(guid) = node {
        set(
            planner,
            VfAttr::NodeGuid(guid),
            has_node.map(VfAttr::NodeGuid),
            Some(VfAttr::NodeGuid(former(has_node))),
        );
    }
    if let Some(guid) = port {
        set(
            planner,
            VfAttr::PortGuid(guid),
            has_port.map(VfAttr::PortGuid),
            Some(VfAttr::PortGuid(former(has_port))),
        );
    }
    if netdev.is_some() {
        planner.step(Step::Rebind { function }, None, None);
        planner.wait();
    }
}

/// Returns the port GUID of an IPoIB interface: the last 8 of the 20 bytes of its address.
fn port_guid(netdev: &Netdev) -> Option<Guid> {
    let address = netdev.address.as_deref()?;
    let tail = address.len().checked_sub(PORT_GUID_TEXT)?;
    let is_infiniband = netdev.link_type == LinkType::InfiniBand;
    address.get(tail..)?.parse().ok().filter(|_| is_infiniband)
}

/// Length of eight bytes as text with colons.
const PORT_GUID_TEXT: usize = 8 * 3 - 1;

fn set(planner: &mut Planner, attr: VfAttr, before: Option<VfAttr>, undo: Option<VfAttr>) {
    let (pf, vf) = (planner.pf, planner.index);
    let step = |attr| Step::SetVf { pf, vf, attr };
    let before = before.map_or("not reported".to_owned(), |before| before.to_string());
    planner.step(step(attr), Some(before), undo.map(step));
}

fn reported(target: &Target<'_>) -> VfState {
    target.facts.state.unwrap_or_default()
}
