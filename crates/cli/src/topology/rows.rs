//! One line of a drawing for each VF, or for a run of VFs that are alike and that nobody holds.

use crate::command::list::{short_id, vlan_of};
use crate::view::{PfView, VfView};

/// A VF, or several that look the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VfRow {
    /// Who holds it: `netns blue`, `cni 3f2a…`, or `free`.
    pub(super) holder: String,
    /// Does somebody?
    pub(super) held: bool,
    /// Its interface; empty when there is none to name.
    pub(super) interface: String,
    /// `vf 0`, or `vf 2-6`.
    pub(super) label: String,
    /// `vlan 100 · trust`.
    pub(super) tags: String,
    /// VLAN id; `None` when not reported.
    pub(super) vlan: Option<u16>,
}

/// Returns the rows of a PF, by index.
pub(super) fn rows(pf: &PfView) -> Vec<VfRow> {
    let mut rows: Vec<VfRow> = Vec::new();
    let mut run: Option<(Option<u16>, VfRow)> = None;
    for vf in pf.vfs.iter().flatten() {
        let row = row(pf, vf);
        // A run goes on while index follows index and all but the label is the same.
        if let (Some((first, last)), Some(previous), Some(index)) =
            (run.as_ref(), rows.last_mut(), vf.index)
            && !row.held
            && let Some(first) = first
            && same(last, &row)
        {
            previous.label = format!("vf {first}-{index}");
            previous.interface.clear();
            continue;
        }
        run = (!row.held).then(|| (vf.index, row.clone()));
        rows.push(row);
    }
    rows
}

/// Are two free VFs drawn as one? Their interfaces differ in name only.
fn same(a: &VfRow, b: &VfRow) -> bool {
    a.holder == b.holder
        && a.tags == b.tags
        && a.vlan == b.vlan
        && a.interface.is_empty() == b.interface.is_empty()
}

fn row(pf: &PfView, vf: &VfView) -> VfRow {
    let netdev = vf.netdev.as_ref();
    let netns = netdev.and_then(|netdev| netdev.netns.as_ref());
    let held = vf.holder.is_some() || netns.is_some();
    let holder = match (&vf.holder, netns) {
        (Some(holder), netns) => match (holder.kind.as_str(), netns) {
            ("attach" | "namespace", Some(netns)) => format!("netns {}", netns.title()),
            ("attach" | "namespace", None) => format!("netns {}", short_id(&holder.id)),
            (kind, _) => format!("{kind} {}", short_id(&holder.id)),
        },
        (None, Some(netns)) => format!("netns {}", netns.title()),
        (None, None) => match &vf.driver {
            None => "free, no driver".to_owned(),
            Some(driver) if netdev.is_none() => format!("free, {driver}"),
            Some(_) => "free".to_owned(),
        },
    };
    let index = vf
        .index
        .map_or_else(|| "vf ?".to_owned(), |index| format!("vf {index}"));
    VfRow {
        holder,
        held,
        interface: netdev.map_or_else(String::new, |netdev| netdev.name.clone()),
        label: index,
        tags: tags(pf, vf),
        vlan: vf.vlan,
    }
}

/// What is unusual of a VF; what every VF has is not worth the room.
fn tags(pf: &PfView, vf: &VfView) -> String {
    let mut tags = Vec::new();
    if vf.vlan.is_some_and(|vlan| vlan != 0) {
        tags.push(format!("vlan {}", vlan_of(vf)));
    }
    if vf.trust == Some(true) {
        tags.push("trust".to_owned());
    }
    // A switchdev PF checks nothing by itself: its flow rules do.
    let switched = pf.eswitch_mode.as_deref() == Some("switchdev");
    if vf.spoof_check == Some(false) && !switched {
        tags.push("no spoof check".to_owned());
    }
    if let Some(max) = vf.max_tx_rate_mbps.filter(|&max| max != 0) {
        tags.push(format!("max {max}M"));
    }
    if let Some(state) = vf.link_state.as_ref().filter(|state| *state != "auto") {
        tags.push(format!("link {state}"));
    }
    tags.join(" · ")
}
