//! A request and an observation, in the words of a record.

use model::{AttachInterface, AttachRequest, Function, NetnsTarget, VfSettings};

use crate::ledger::Before;

pub(super) fn netns_of(request: &AttachRequest) -> Option<NetnsTarget> {
    Some(request.interface.as_ref()?.netns.clone())
}

/// Says what is asked for, in words that are equal when the requests are.
///
/// The structs are taken apart whole, so that a new field cannot be forgotten here.
pub(super) fn asked(request: &AttachRequest) -> String {
    let AttachRequest {
        vf: _,
        holder: _,
        settings,
        interface,
    } = request;
    let mut words = settings_asked(settings);
    if let Some(AttachInterface {
        netns: _,
        name,
        mac,
        mtu,
        addresses,
    }) = interface
    {
        words.push("as an interface".to_owned());
        words.extend(name.iter().map(|name| format!("name {name}")));
        words.extend(mac.iter().map(|mac| format!("address {mac}")));
        words.extend(mtu.iter().map(|mtu| format!("mtu {mtu}")));
        words.extend(addresses.iter().map(ToString::to_string));
    }
    words.join(", ")
}

fn settings_asked(settings: &VfSettings) -> Vec<String> {
    let VfSettings {
        mac,
        vlan,
        min_rate,
        max_rate,
        spoof_check,
        link,
        rss_query,
        trust,
        node_guid,
        port_guid,
    } = settings;
    let on = |on: &bool| if *on { "on" } else { "off" }.to_owned();
    let some = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let or = |absent: &str, value: Option<String>| value.unwrap_or_else(|| absent.to_owned());
    let rate = |rate: &Option<model::Mbps>| or("unlimited", rate.map(|rate| rate.to_string()));
    [
        some("mac", mac.map(|mac| mac.to_string())),
        some(
            "vlan",
            vlan.map(|tag| or("none", tag.map(|tag| tag.to_string()))),
        ),
        some("min rate", min_rate.as_ref().map(rate)),
        some("max rate", max_rate.as_ref().map(rate)),
        some("spoof check", spoof_check.as_ref().map(on)),
        some("link", link.map(|link| link.to_string())),
        some("rss query", rss_query.as_ref().map(on)),
        some("trust", trust.as_ref().map(on)),
        some("node guid", node_guid.map(|guid| guid.to_string())),
        some("port guid", port_guid.map(|guid| guid.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Says what the VF was like.
pub(super) fn before(function: &Function) -> Before {
    let netdev = function.netdev();
    Before {
        driver: function.driver.clone(),
        name: netdev.map(|netdev| netdev.name.clone()),
        mac: netdev.and_then(model::Netdev::mac),
        mtu: netdev.map(|netdev| netdev.mtu),
        state: function.vf().and_then(|facts| facts.state),
    }
}
