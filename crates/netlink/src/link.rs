//! Interfaces: what the kernel says of them, and changes to them.
//!
//! One list of all interfaces is one request; there is no request for one VF, the PF's answer
//! holds all of them. What would surprise: the index of an interface is only good in its network
//! namespace; and `dev_port` is in sysfs alone.

mod alt_name;
mod change;
mod decode;

use model::{IfIndex, IfName, LinkType, OperState, PciAddress};
use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::socket::Socket;
use crate::vf::VfReport;
use crate::wire::Request;

pub use alt_name::{add_alt_name, remove_alt_name};
pub use change::{LinkChange, NetnsRef, change_link};
pub(crate) use decode::{fuzz_link, link_message};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_NUM_VF: u16 = 21;
pub(crate) const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PHYS_SWITCH_ID: u16 = 36;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PHYS_PORT_NAME: u16 = 38;
const IFLA_MIN_MTU: u16 = 50;
const IFLA_MAX_MTU: u16 = 51;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;
const IFLA_INFO_KIND: u16 = 1;

/// Report the VFs of each PF.
const RTEXT_FILTER_VF: u32 = 1;
/// Leave statistics out; since kernel 6.5 also those of each VF, which cost mlx5 a firmware
/// command each.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IFF_UP: u32 = 0x1;
const IFF_RUNNING: u32 = 0x40;

/// One interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Index in its namespace.
    pub index: IfIndex,
    /// Name in its namespace; `?` and the index when it has one that is no [`IfName`].
    pub name: IfName,
    /// Alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alt_names: Vec<String>,
    /// Link layer as an `ARPHRD_*` number: 1 is Ethernet, 32 InfiniBand.
    pub arphrd: u16,
    /// Is it up as the administrator wants it (`IFF_UP`)?
    #[serde(default, skip_serializing_if = "is_false")]
    pub up: bool,
    /// Does it have a carrier and everything else that traffic needs (`IFF_RUNNING`)?
    #[serde(default, skip_serializing_if = "is_false")]
    pub running: bool,
    /// Operational state.
    pub oper: OperState,
    /// MTU in bytes.
    pub mtu: u32,
    /// Smallest MTU that it takes, in bytes; `None` when the driver sets no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_mtu: Option<u32>,
    /// Largest MTU that it takes, in bytes; `None` when the driver sets no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mtu: Option<u32>,
    /// Hardware address as text: 6 bytes on Ethernet, 20 on InfiniBand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Permanent hardware address as text, since kernel 5.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent_address: Option<String>,
    /// Bus of the device that it belongs to, such as `pci`, since kernel 5.14.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_bus: Option<String>,
    /// Name of that device on its bus, since kernel 5.14.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_dev: Option<String>,
    /// Name of the port on its switch: `p0` is an uplink, `pf0vf3` a representor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phys_port_name: Option<String>,
    /// Id of the switch that the port belongs to, as sysfs writes it: hexadecimal, no colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phys_switch_id: Option<String>,
    /// Upper device (bond, bridge, OVS) that enslaved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<IfIndex>,
    /// Interface that it is on, such as that of a VLAN, when it is in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<IfIndex>,
    /// Interface that it is on, when that is in another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub far_lower: Option<FarLower>,
    /// Kind of a software device, such as `veth` or `vlan`; `None` for hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Number of VFs that the device has; `None` when VFs were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_vf: Option<u32>,
    /// What the device reports of its VFs; `None` when VFs were not asked for, or when its driver
    /// reports nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfs: Option<Vec<VfReport>>,
    /// Is the list of VFs shorter than it should be, because the kernel could not send all?
    #[serde(default, skip_serializing_if = "is_false")]
    pub vfs_truncated: bool,
}

/// An interface of another namespace, below one of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FarLower {
    /// Its index there.
    pub index: IfIndex,
    /// The number by which this namespace knows that one ([`netns_id`](crate::netns_id)).
    pub netns: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference to the field"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Link {
    /// Returns the address of the PCI function that it belongs to.
    #[must_use]
    pub fn parent_pci(&self) -> Option<PciAddress> {
        if self.parent_bus.as_deref() != Some("pci") {
            return None;
        }
        self.parent_dev.as_ref()?.parse().ok()
    }

    /// Does it stand for a VF or a sub-function on the switch of its device?
    #[must_use]
    pub fn is_representor(&self) -> bool {
        let port = self.phys_port_name.as_deref();
        self.phys_switch_id.is_some() && port.is_some_and(|port| !model::is_uplink_port(port))
    }

    /// Returns the link layer.
    #[must_use]
    pub fn link_type(&self) -> LinkType {
        LinkType::from_arphrd(self.arphrd)
    }
}

/// Is the list of VFs asked for? It is the expensive part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfList {
    /// No.
    Omit,
    /// Yes, without statistics. A PF with many VFs may then be refused as
    /// [`RequestError::is_answer_too_long`]; some kernels do it to InfiniBand from 16 VFs on.
    Include,
}

impl VfList {
    fn mask(self) -> u32 {
        match self {
            Self::Omit => RTEXT_FILTER_SKIP_STATS,
            Self::Include => RTEXT_FILTER_SKIP_STATS | RTEXT_FILTER_VF,
        }
    }
}

/// Lists all interfaces of the socket's namespace, without VFs.
///
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, RequestError> {
    list(socket, VfList::Omit)
}

/// Lists all interfaces of the socket's namespace, with the VFs of each PF, in one request.
///
/// Some kernels cannot send the list when one PF has too many VFs (InfiniBand from 16 VFs on).
/// Then each interface is asked for by itself, and the one at fault is marked as truncated.
pub fn links_with_vfs(socket: &mut Socket) -> Result<Vec<Link>, RequestError> {
    match list(socket, VfList::Include) {
        Err(error) if error.is_answer_too_long() => one_by_one(socket),
        outcome => outcome,
    }
}

fn one_by_one(socket: &mut Socket) -> Result<Vec<Link>, RequestError> {
    let mut links = links(socket)?;
    for link in &mut links {
        // Only a device on a bus can have VFs; a kernel before 5.14 does not tell.
        if link.parent_bus.is_none() && link.kind.is_some() {
            continue;
        }
        match link_by_index(socket, link.index, VfList::Include) {
            Ok(Some(whole)) => *link = whole,
            Ok(None) => {}
            Err(error) if error.is_answer_too_long() => link.vfs_truncated = true,
            Err(error) => return Err(error),
        }
    }
    Ok(links)
}

/// Returns the interface with this index, or `None` when there is none.
pub fn link_by_index(
    socket: &mut Socket,
    index: IfIndex,
    vfs: VfList,
) -> Result<Option<Link>, RequestError> {
    let mut request = Request::new(RTM_GETLINK, &header(index.get()));
    request.u32(IFLA_EXT_MASK, vfs.mask());
    one(
        socket,
        format_args!("look up interface {index}"),
        &mut request,
    )
}

/// Returns the interface with this name or alternative name, or `None` when there is none.
pub fn link_by_name(
    socket: &mut Socket,
    name: &IfName,
    vfs: VfList,
) -> Result<Option<Link>, RequestError> {
    let mut request = Request::new(RTM_GETLINK, &header(0));
    request.text(IFLA_IFNAME, name.as_str());
    request.u32(IFLA_EXT_MASK, vfs.mask());
    one(
        socket,
        format_args!("look up interface {name}"),
        &mut request,
    )
}

fn list(socket: &mut Socket, vfs: VfList) -> Result<Vec<Link>, RequestError> {
    let mut request = Request::dump(RTM_GETLINK, &header(0));
    request.u32(IFLA_EXT_MASK, vfs.mask());
    socket.collect(format_args!("list interfaces"), &mut request, link_message)
}

fn one(
    socket: &mut Socket,
    operation: std::fmt::Arguments<'_>,
    request: &mut Request,
) -> Result<Option<Link>, RequestError> {
    match socket.collect(operation, request, link_message) {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Size of `struct ifinfomsg`: family u8, pad u8, type u16, index i32, flags u32, change u32.
pub(crate) const IFINFOMSG: usize = 16;

pub(crate) fn header(index: u32) -> [u8; IFINFOMSG] {
    flags_header(index, 0, 0)
}

/// Returns an `ifinfomsg` that sets the bits `change` of the flags to those of `flags`.
fn flags_header(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}
