//! From the bytes of a VF list to reports.

use model::{Guid, LinkPolicy, MacAddr, Pcp, VfIndex, VfState, VlanId, VlanProto, VlanTag};

use super::{
    IFLA_VF_IB_NODE_GUID, IFLA_VF_IB_PORT_GUID, IFLA_VF_INFO, IFLA_VF_LINK_STATE, IFLA_VF_MAC,
    IFLA_VF_RATE, IFLA_VF_RSS_QUERY_EN, IFLA_VF_SPOOFCHK, IFLA_VF_TRUST, IFLA_VF_TX_RATE,
    IFLA_VF_VLAN, IFLA_VF_VLAN_INFO, IFLA_VF_VLAN_LIST, INFINIBAND, VfReport,
};
use crate::wire::{ATTRIBUTE_HEADER, Attribute, Attributes, array, u16_at, u32_at};

/// A decoded VF list.
#[derive(Debug)]
pub(crate) struct DecodedList<'a> {
    pub(crate) vfs: Vec<VfReport>,
    /// It lacks VFs that the kernel has, or holds something that makes no sense.
    pub(crate) truncated: bool,
    /// What follows the list.
    pub(crate) rest: &'a [u8],
}

/// Decodes the VF list at the start of `bytes`, which go on to the end of the message.
///
/// `num_vf` is the number of VFs that the same message announces. The kernel ends the list with
/// `nla_nest_end`, which cuts its length to 16 bits: with 300 VFs of 260 bytes the length field
/// says 12,464 instead of 78,000, while the length of the message is right. So the list is read up
/// to the announced number of VFs, as long as what is there is a VF with a number above the last.
pub(crate) fn decode_list(bytes: &[u8], num_vf: Option<u32>, arphrd: u16) -> DecodedList<'_> {
    let announced = num_vf.and_then(|number| usize::try_from(number).ok());
    let claimed = u16_at(bytes, 0).map_or(0, usize::from);
    let mut entries = Attributes::new(bytes.get(ATTRIBUTE_HEADER..).unwrap_or_default());
    // A VF takes more than 64 bytes, so a wrong number cannot make this large.
    let capacity = announced.unwrap_or(0).min(bytes.len() / 64);
    let mut list = DecodedList {
        vfs: Vec::with_capacity(capacity),
        truncated: false,
        rest: &[],
    };
    loop {
        list.rest = entries.rest();
        let offset = bytes.len().saturating_sub(list.rest.len());
        let inside = offset < claimed;
        let expected = announced.is_some_and(|number| list.vfs.len() < number);
        if !inside && !expected {
            return list;
        }
        let entry = entries.next();
        let next = entry
            .filter(|entry| entry.kind == IFLA_VF_INFO)
            .and_then(|entry| report(entry, arphrd))
            .filter(|next| list.vfs.last().is_none_or(|last| last.index < next.index));
        match next {
            Some(next) => list.vfs.push(next),
            // Skip what makes no sense within the claimed length, and keep what follows.
            None if inside && entry.is_some() => list.truncated = true,
            None => {
                // A driver may leave VFs out; the list then ends just where its length says.
                list.truncated |= offset != claimed;
                return list;
            }
        }
    }
}

/// Reads one VF; `None` when it has no number.
fn report(entry: Attribute<'_>, arphrd: u16) -> Option<VfReport> {
    let mut index = None;
    let mut state = VfState::default();
    for attribute in entry.nested() {
        let is_numbered = (IFLA_VF_MAC..=IFLA_VF_RSS_QUERY_EN).contains(&attribute.kind)
            || attribute.kind == IFLA_VF_TRUST;
        if index.is_none() && is_numbered {
            index = attribute.u32().and_then(|vf| u16::try_from(vf).ok());
        }
        take(&mut state, attribute, arphrd);
    }
    Some(VfReport {
        index: VfIndex(index?),
        state,
    })
}

fn take(state: &mut VfState, attribute: Attribute<'_>, arphrd: u16) {
    let payload = attribute.payload;
    match attribute.kind {
        // IPoIB reports the first bytes of the PF's own 20-byte address here.
        IFLA_VF_MAC if arphrd != INFINIBAND => state.mac = array(payload, 4).map(MacAddr::new),
        IFLA_VF_VLAN if state.vlan.is_none() => {
            state.vlan = vlan(payload, Some(VlanProto::Dot1q));
        }
        IFLA_VF_VLAN_LIST => {
            // It says more than the old attribute, which the kernel sends too, before it.
            if let Some(info) = attribute.nested().find(IFLA_VF_VLAN_INFO) {
                state.vlan = vlan(info.payload, proto(info.payload));
            }
        }
        IFLA_VF_TX_RATE if state.max_rate_mbps.is_none() => {
            state.max_rate_mbps = u32_at(payload, 4);
        }
        IFLA_VF_RATE => {
            state.min_rate_mbps = u32_at(payload, 4);
            state.max_rate_mbps = u32_at(payload, 8).or(state.max_rate_mbps);
        }
        IFLA_VF_SPOOFCHK => state.spoof_check = switch(payload),
        IFLA_VF_RSS_QUERY_EN => state.rss_query = switch(payload),
        IFLA_VF_TRUST => state.trust = switch(payload),
        IFLA_VF_LINK_STATE => state.link = link_policy(payload),
        IFLA_VF_IB_NODE_GUID => state.node_guid = guid(payload),
        IFLA_VF_IB_PORT_GUID => state.port_guid = guid(payload),
        _ => {}
    }
}

/// Reads an on/off setting; the kernel's -1 is "not reported".
fn switch(payload: &[u8]) -> Option<bool> {
    match u32_at(payload, 4)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn link_policy(payload: &[u8]) -> Option<LinkPolicy> {
    match u32_at(payload, 4)? {
        0 => Some(LinkPolicy::Auto),
        1 => Some(LinkPolicy::Enable),
        2 => Some(LinkPolicy::Disable),
        _ => None,
    }
}

/// Reads `ifla_vf_vlan` or `ifla_vf_vlan_info`: VLAN 0 is "no VLAN"; a tag that cannot be put into
/// words is `None`, rather than another tag.
fn vlan(payload: &[u8], proto: Option<VlanProto>) -> Option<Option<VlanTag>> {
    let id = u16::try_from(u32_at(payload, 4)?).ok()?;
    if id == 0 {
        return Some(None);
    }
    Some(Some(VlanTag {
        id: VlanId::new(id)?,
        pcp: Pcp::new(u8::try_from(u32_at(payload, 8)?).ok()?)?,
        proto: proto?,
    }))
}

/// Reads the tag protocol of `ifla_vf_vlan_info`, the one field in network order.
fn proto(payload: &[u8]) -> Option<VlanProto> {
    let ethertype = u16::from_be_bytes(array(payload, 12)?);
    [VlanProto::Dot1q, VlanProto::Dot1ad]
        .into_iter()
        .find(|proto| proto.ethertype() == ethertype)
}

/// Reads `ifla_vf_guid`: the number, 4 bytes of padding, and the GUID as a host-endian integer.
fn guid(payload: &[u8]) -> Option<Guid> {
    array(payload, 8).map(u64::from_ne_bytes).map(Guid::new)
}

#[cfg(test)]
mod tests;
