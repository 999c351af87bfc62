//! From the bytes of an interface message to a [`Link`].

use std::fmt::Write as _;

use model::{IfIndex, IfName, OperState};

use super::{
    FarLower, IFF_RUNNING, IFF_UP, IFINFOMSG, IFLA_ADDRESS, IFLA_ALT_IFNAME, IFLA_IFNAME,
    IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MAX_MTU,
    IFLA_MIN_MTU, IFLA_MTU, IFLA_NUM_VF, IFLA_OPERSTATE, IFLA_PARENT_DEV_BUS_NAME,
    IFLA_PARENT_DEV_NAME, IFLA_PERM_ADDRESS, IFLA_PHYS_PORT_NAME, IFLA_PHYS_SWITCH_ID,
    IFLA_PROP_LIST, IFLA_VFINFO_LIST, Link, RTM_NEWLINK,
};
use crate::vf;
use crate::wire::{Attribute, Attributes, Message, align, u16_at, u32_at};

/// Longest hardware address that is believed, in bytes: the kernel's `MAX_ADDR_LEN`.
const LONGEST_ADDRESS: usize = 32;

/// Most alternative names that are kept of one interface: as many as an attribute can hold. The kernel
/// sets no bound of its own.
const MOST_ALT_NAMES: usize = 64 * 1024 / 8;

/// Reads an interface message; `None` when it is another one, or without an index or a name.
///
/// An interface is never left out for its name: whoever has one in a container gives it what name the
/// kernel takes, and must not hide it from us thereby.
pub(crate) fn link_message(message: Message<'_>) -> Option<Link> {
    if message.kind == RTM_NEWLINK {
        link(message.payload)
    } else {
        None
    }
}

fn link(payload: &[u8]) -> Option<Link> {
    let flags = u32_at(payload, 8)?;
    let index = IfIndex::new(u32_at(payload, 4)?)?;
    let mut attributes = Attributes::new(payload.get(align(IFINFOMSG)..)?);
    let mut link = Link {
        index,
        name: name(attributes.find(IFLA_IFNAME)?, index)?,
        alt_names: Vec::new(),
        arphrd: u16_at(payload, 2)?,
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        oper: OperState::Unknown,
        mtu: 0,
        min_mtu: None,
        max_mtu: None,
        address: None,
        permanent_address: None,
        parent_bus: None,
        parent_dev: None,
        phys_port_name: None,
        phys_switch_id: None,
        master: None,
        lower: None,
        far_lower: None,
        kind: None,
        num_vf: None,
        vfs: None,
        vfs_truncated: false,
    };
    let mut far = None;
    loop {
        let here = attributes.rest();
        // The length of a long VF list wraps around, so it is not for the iterator to judge.
        if attributes.next_kind() == Some(IFLA_VFINFO_LIST) {
            let list = vf::decode_list(here, link.num_vf, link.arphrd);
            link.vfs_truncated = list.truncated;
            link.vfs = Some(list.vfs);
            attributes = Attributes::new(list.rest);
        } else if let Some(attribute) = attributes.next() {
            if attribute.kind == IFLA_LINK_NETNSID {
                far = Some(attribute.u32());
            }
            take(&mut link, attribute);
        } else {
            if let Some(netns) = far {
                // An index of another namespace means nothing in this one.
                let lower = link.lower.take().zip(netns);
                link.far_lower = lower.map(|(index, netns)| FarLower { index, netns });
            }
            return Some(link);
        }
    }
}

/// Reads a name, or makes one up for a name that is no [`IfName`], such as one of bytes above 127.
fn name(attribute: Attribute<'_>, index: IfIndex) -> Option<IfName> {
    let text = attribute.text().and_then(|text| text.parse().ok());
    text.or_else(|| format!("?{index}").parse().ok())
}

fn take(link: &mut Link, attribute: Attribute<'_>) {
    match attribute.kind {
        IFLA_MTU => link.mtu = attribute.u32().unwrap_or(0),
        IFLA_MIN_MTU => link.min_mtu = attribute.u32().filter(|mtu| *mtu != 0),
        IFLA_MAX_MTU => link.max_mtu = attribute.u32().filter(|mtu| *mtu != 0),
        IFLA_OPERSTATE => {
            link.oper = attribute
                .u8()
                .map_or(OperState::Unknown, OperState::from_number);
        }
        IFLA_ADDRESS => link.address = hexadecimal(attribute, ":"),
        IFLA_PERM_ADDRESS => link.permanent_address = hexadecimal(attribute, ":"),
        IFLA_PHYS_SWITCH_ID => link.phys_switch_id = hexadecimal(attribute, ""),
        IFLA_PHYS_PORT_NAME => link.phys_port_name = attribute.string(),
        IFLA_PARENT_DEV_NAME => link.parent_dev = attribute.string(),
        IFLA_PARENT_DEV_BUS_NAME => link.parent_bus = attribute.string(),
        IFLA_MASTER => link.master = attribute.u32().and_then(IfIndex::new),
        IFLA_LINK => link.lower = attribute.u32().and_then(IfIndex::new),
        IFLA_NUM_VF => link.num_vf = attribute.u32(),
        IFLA_LINKINFO => {
            link.kind = attribute
                .nested()
                .find(IFLA_INFO_KIND)
                .and_then(Attribute::string);
        }
        IFLA_PROP_LIST => link.alt_names.extend(
            attribute
                .nested()
                .filter(|property| property.kind == IFLA_ALT_IFNAME)
                .filter_map(Attribute::string)
                .take(MOST_ALT_NAMES),
        ),
        _ => {}
    }
}

/// Writes bytes in hexadecimal; `None` for none, and for more than an address can have.
fn hexadecimal(attribute: Attribute<'_>, separator: &str) -> Option<String> {
    let (first, rest) = attribute.payload.split_first()?;
    if rest.len() >= LONGEST_ADDRESS {
        return None;
    }
    let mut text = format!("{first:02x}");
    for byte in rest {
        write!(text, "{separator}{byte:02x}").ok()?;
    }
    Some(text)
}

/// Decodes arbitrary bytes as the payload of an interface message.
pub(crate) fn fuzz_link(data: &[u8]) {
    if let Some(link) = link(data) {
        let vfs = link.vfs.map_or(0, |vfs| vfs.len());
        assert!(vfs <= data.len() / 4, "more VFs than bytes could hold");
        assert!(link.alt_names.len() <= data.len() / 4);
    }
}

#[cfg(test)]
mod tests;
