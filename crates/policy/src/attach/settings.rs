//! What the PF sets for a VF: what is asked for, what is so already, and how to go back.

use model::{
    AttachRequest, LinkType, MacAddr, Mbps, Netdev, Netns, NetnsTarget, Step, VfAttr, VfSettings,
    VfState, VlanProto,
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
    guids(planner, wanted, &state, netdev.is_some());
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
/// Backwards only the PF's side is restored; the VF reads it when it is next given away.
fn guids(planner: &mut Planner, wanted: &VfSettings, state: &VfState, has_netdev: bool) {
    let before = planner.steps.len();
    if let Some(guid) = wanted
        .node_guid
        .filter(|guid| state.node_guid != Some(*guid))
    {
        let former = state.node_guid.map(VfAttr::NodeGuid);
        set(planner, VfAttr::NodeGuid(guid), former, former);
    }
    if let Some(guid) = wanted
        .port_guid
        .filter(|guid| state.port_guid != Some(*guid))
    {
        let former = state.port_guid.map(VfAttr::PortGuid);
        set(planner, VfAttr::PortGuid(guid), former, former);
    }
    if planner.steps.len() > before && has_netdev {
        let function = planner.vf;
        planner.step(Step::Rebind { function }, None, None);
        planner.step(Step::AwaitNetdev { function }, None, None);
    }
}

fn set(planner: &mut Planner, attr: VfAttr, before: Option<VfAttr>, undo: Option<VfAttr>) {
    let (pf, vf) = (planner.pf, planner.index);
    let step = |attr| Step::SetVf { pf, vf, attr };
    let before = before.map_or("not reported".to_owned(), |before| before.to_string());
    planner.step(step(attr), Some(before), undo.map(step));
}

fn reported(target: &Target<'_>) -> VfState {
    target.facts.state.unwrap_or_default()
}
