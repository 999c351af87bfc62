//! A request and an observation, in the words of a record.

use model::{
    AttachInterface, AttachRequest, Function, Holder, HolderKind, Netns, NetnsTarget, Step, VfAttr,
    VfSettings,
};

use crate::ledger::{Before, Claim, RecordedStep, Stage, now};

/// Returns the namespace whose end is the end of the claim.
pub(super) fn netns_of(request: &AttachRequest) -> Option<NetnsTarget> {
    let interface = request.interface.as_ref();
    let netns = interface.map(|interface| &interface.netns);
    netns.or(request.lives_in.as_ref()).cloned()
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
        with_rdma,
        lives_in: _,
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
    if *with_rdma {
        words.push("with its RDMA device".to_owned());
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

fn is_known(holder: &Holder) -> bool {
    holder.kind != HolderKind::Unknown
}

/// Makes a claim out of what is seen; `None` when the VF is in no other namespace.
pub(super) fn claim_as_seen(function: &Function) -> Option<Claim> {
    let facts = function.vf()?;
    let netdev = function.netdev()?;
    let Netns::Other {
        inode,
        path: Some(path),
    } = &netdev.netns
    else {
        return None;
    };
    let netns = NetnsTarget::Path {
        path: path.clone(),
        inode: *inode,
    };
    let home = Step::Move {
        function: function.address,
        from: netns.clone(),
        to: NetnsTarget::Host,
        name: netdev.name.clone(),
        up: false,
    };
    let has_vlan = facts
        .state
        .is_some_and(|state| state.vlan.flatten().is_some());
    let untag = facts.index.filter(|_| has_vlan).map(|vf| Step::SetVf {
        pf: facts.pf,
        vf,
        attr: VfAttr::Vlan(None),
    });
    // Only the undos matter here: nothing of it is done again.
    let undone = untag.into_iter().chain([home]).map(|step| RecordedStep {
        undo: Some(step.clone()),
        step,
        before: None,
    });
    Some(Claim {
        pf: facts.pf,
        holder: facts
            .holder
            .clone()
            .filter(is_known)
            .unwrap_or_else(|| Holder {
                kind: HolderKind::Namespace,
                id: path.clone(),
                interface: Some(netdev.name.clone()),
            }),
        stage: Stage::Detaching,
        netns: Some(netns),
        asked: String::new(),
        since: now(),
        before: Before::default(),
        steps: undone.collect(),
    })
}
