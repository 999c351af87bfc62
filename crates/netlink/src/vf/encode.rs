//! From VF attributes to the bytes of a request.

use std::fmt;

use model::{Guid, IfIndex, LinkPolicy, Mbps, VfAttr, VfIndex, VlanTag};

use super::{
    IFLA_VF_IB_NODE_GUID, IFLA_VF_IB_PORT_GUID, IFLA_VF_INFO, IFLA_VF_LINK_STATE, IFLA_VF_MAC,
    IFLA_VF_RATE, IFLA_VF_RSS_QUERY_EN, IFLA_VF_SPOOFCHK, IFLA_VF_TRUST, IFLA_VF_VLAN_INFO,
    IFLA_VF_VLAN_LIST,
};
use crate::error::RequestError;
use crate::link::{IFLA_VFINFO_LIST, RTM_SETLINK, header};
use crate::socket::Socket;
use crate::wire::Request;

/// Sets attributes of a VF through its PF, in one message and under one RTNL lock.
///
/// The kernel (4.2 and later) applies them in an order of its own: MAC, VLAN, rate, spoof check,
/// link state, RSS query, trust, GUIDs. It stops at the first that the driver refuses, keeps what
/// it did before, and does not tell which one that was: on error read the state again and set the
/// rest one by one. Of two attributes of one kind the last one counts.
pub fn set_vf(
    socket: &mut Socket,
    pf: IfIndex,
    vf: VfIndex,
    attributes: &[VfAttr],
) -> Result<(), RequestError> {
    if attributes.is_empty() {
        return Ok(());
    }
    let listed = Listed(attributes);
    socket.change(
        format_args!("set {listed} of {vf} on interface {pf}"),
        &mut set_request(pf, vf, attributes),
    )
}

/// Writes `mac 02:00:5e:10:00:01, trust on`.
struct Listed<'a>(&'a [VfAttr]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, attribute) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{attribute}")?;
        }
        Ok(())
    }
}

fn set_request(pf: IfIndex, vf: VfIndex, attributes: &[VfAttr]) -> Request {
    let mut request = Request::new(RTM_SETLINK, &header(pf.get()));
    request.nest(IFLA_VFINFO_LIST, |list| {
        list.nest(IFLA_VF_INFO, |info| {
            for attribute in attributes {
                append(info, u32::from(vf.0), attribute);
            }
        });
    });
    request
}

fn append(info: &mut Request, vf: u32, attribute: &VfAttr) {
    match attribute {
        VfAttr::Mac(mac) => {
            // `ifla_vf_mac`: the number and 32 bytes, of which Ethernet uses six.
            let mut payload = [0; 36];
            payload[..4].copy_from_slice(&vf.to_ne_bytes());
            payload[4..10].copy_from_slice(&mac.bytes());
            info.attribute(IFLA_VF_MAC, &payload);
        }
        VfAttr::Vlan(tag) => {
            info.nest(IFLA_VF_VLAN_LIST, |list| {
                list.attribute(IFLA_VF_VLAN_INFO, &vlan_info(vf, *tag));
            });
        }
        VfAttr::Rate { min, max } => {
            let number = |rate: &Option<Mbps>| rate.map_or(0, Mbps::get);
            info.words(IFLA_VF_RATE, &[vf, number(min), number(max)]);
        }
        VfAttr::SpoofCheck(on) => switch(info, IFLA_VF_SPOOFCHK, vf, *on),
        VfAttr::RssQuery(on) => switch(info, IFLA_VF_RSS_QUERY_EN, vf, *on),
        VfAttr::Trust(on) => switch(info, IFLA_VF_TRUST, vf, *on),
        VfAttr::Link(policy) => {
            let state = match policy {
                LinkPolicy::Auto => 0,
                LinkPolicy::Enable => 1,
                LinkPolicy::Disable => 2,
            };
            info.words(IFLA_VF_LINK_STATE, &[vf, state]);
        }
        VfAttr::NodeGuid(guid) => {
            info.attribute(IFLA_VF_IB_NODE_GUID, &vf_guid(vf, *guid));
        }
        VfAttr::PortGuid(guid) => {
            info.attribute(IFLA_VF_IB_PORT_GUID, &vf_guid(vf, *guid));
        }
    }
}

fn switch(info: &mut Request, kind: u16, vf: u32, on: bool) {
    info.words(kind, &[vf, u32::from(on)]);
}

/// Lays out `ifla_vf_vlan_info`: 14 bytes of fields in 16, and newer kernels refuse 14.
///
/// "No VLAN" is VLAN 0 with the protocol that every driver takes.
fn vlan_info(vf: u32, tag: Option<VlanTag>) -> [u8; 16] {
    let (id, pcp) = tag.map_or((0, 0), |tag| (tag.id.get(), tag.pcp.get()));
    let proto = tag.map(|tag| tag.proto).unwrap_or_default();
    let mut payload = [0; 16];
    payload[..4].copy_from_slice(&vf.to_ne_bytes());
    payload[4..8].copy_from_slice(&u32::from(id).to_ne_bytes());
    payload[8..12].copy_from_slice(&u32::from(pcp).to_ne_bytes());
    payload[12..14].copy_from_slice(&proto.ethertype().to_be_bytes());
    payload
}

/// Lays out `ifla_vf_guid`: the compiler pads the number to 8 bytes before the 64-bit integer.
fn vf_guid(vf: u32, guid: Guid) -> [u8; 16] {
    let mut payload = [0; 16];
    payload[..4].copy_from_slice(&vf.to_ne_bytes());
    payload[8..].copy_from_slice(&guid.get().to_ne_bytes());
    payload
}

#[cfg(test)]
mod tests;
