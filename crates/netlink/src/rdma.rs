//! RDMA devices and the namespaces they are in (`RDMA_NL_NLDEV`).
//!
//! Sockets are of [`Protocol::Rdma`](crate::Protocol), which a kernel without RDMA does not have:
//! open them with [`Socket::open_if_supported`]. What would surprise: an RDMA device is in the
//! namespace of the socket or not listed, in mode "exclusive"; in mode "shared" every namespace
//! lists all.

use std::os::fd::{AsRawFd, BorrowedFd};

use model::{Guid, IfIndex, RdmaNetnsMode};
use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::socket::Socket;
use crate::wire::{Attribute, Attributes, Message, Request};

const CLIENT: u16 = 5;
const CMD_GET: u16 = 1;
const CMD_SET: u16 = 2;
const CMD_PORT_GET: u16 = 5;
const CMD_SYS_GET: u16 = 6;
const CMD_SYS_SET: u16 = 7;

const ATTR_DEV_INDEX: u16 = 1;
const ATTR_DEV_NAME: u16 = 2;
const ATTR_PORT_INDEX: u16 = 3;
const ATTR_FW_VERSION: u16 = 5;
const ATTR_NODE_GUID: u16 = 6;
const ATTR_NDEV_INDEX: u16 = 50;
const ATTR_SYS_NETNS_MODE: u16 = 66;
const ATTR_NET_NS_FD: u16 = 68;

/// One RDMA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Number of the device, which stays when it is renamed or moved.
    pub index: u32,
    /// Name, such as `mlx5_2` or `rocep59s0f0`.
    pub name: String,
    /// Node GUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_guid: Option<Guid>,
    /// Firmware version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
}

/// One port of an RDMA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Number of the port, from 1.
    pub index: u32,
    /// Interface of the port, when it is in the socket's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<IfIndex>,
}

/// Lists the RDMA devices that the socket's namespace sees.
pub fn devices(socket: &mut Socket) -> Result<Vec<Device>, RequestError> {
    socket.collect(
        format_args!("list RDMA devices"),
        &mut Request::dump(kind(CMD_GET), &[]),
        |message| device(attributes(message, CMD_GET)?),
    )
}

/// Lists the ports of an RDMA device.
pub fn ports(socket: &mut Socket, device: u32) -> Result<Vec<Port>, RequestError> {
    let mut request = Request::dump(kind(CMD_PORT_GET), &[]);
    request.u32(ATTR_DEV_INDEX, device);
    socket.collect(
        format_args!("list the ports of RDMA device {device}"),
        &mut request,
        |message| port(attributes(message, CMD_PORT_GET)?),
    )
}

/// Returns how RDMA devices relate to namespaces; `None` before kernel 5.3, which cannot say.
pub fn netns_mode(socket: &mut Socket) -> Result<Option<RdmaNetnsMode>, RequestError> {
    let outcome = socket.collect(
        format_args!("read the RDMA namespace mode"),
        &mut Request::new(kind(CMD_SYS_GET), &[]),
        |message| mode(attributes(message, CMD_SYS_GET)?),
    );
    match outcome {
        Ok(found) => Ok(found.into_iter().next()),
        // An old kernel does not know the command.
        Err(error) if error.is_not_supported() || error.is_invalid() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets how RDMA devices relate to namespaces. The kernel refuses as busy once another network
/// namespace exists.
pub fn set_netns_mode(socket: &mut Socket, mode: RdmaNetnsMode) -> Result<(), RequestError> {
    let number = match mode {
        RdmaNetnsMode::Exclusive => 0,
        RdmaNetnsMode::Shared => 1,
    };
    let mut request = Request::new(kind(CMD_SYS_SET), &[]);
    request.u8(ATTR_SYS_NETNS_MODE, number);
    socket.change(
        format_args!("set the RDMA namespace mode to {mode}"),
        &mut request,
    )
}

/// Moves an RDMA device from the socket's namespace to another one, in mode "exclusive".
pub fn move_device(
    socket: &mut Socket,
    device: u32,
    netns: BorrowedFd<'_>,
) -> Result<(), RequestError> {
    socket.change(
        format_args!("move RDMA device {device} to a namespace"),
        &mut move_request(device, netns),
    )
}

fn move_request(device: u32, netns: BorrowedFd<'_>) -> Request {
    let mut request = Request::new(kind(CMD_SET), &[]);
    request
        .u32(ATTR_DEV_INDEX, device)
        .attribute(ATTR_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    request
}

/// Returns the message type of a command: the client in the upper six bits (`RDMA_NL_GET_TYPE`).
fn kind(command: u16) -> u16 {
    CLIENT << 10 | command
}

fn attributes(message: Message<'_>, command: u16) -> Option<Attributes<'_>> {
    (message.kind == kind(command)).then(|| message.attributes(0))
}

fn device(attributes: Attributes<'_>) -> Option<Device> {
    Some(Device {
        index: attributes.find(ATTR_DEV_INDEX)?.u32()?,
        name: attributes.find(ATTR_DEV_NAME)?.string()?,
        node_guid: attributes
            .find(ATTR_NODE_GUID)
            .and_then(Attribute::u64)
            .map(Guid::new),
        firmware: attributes.find(ATTR_FW_VERSION).and_then(Attribute::string),
    })
}

fn port(attributes: Attributes<'_>) -> Option<Port> {
    Some(Port {
        index: attributes.find(ATTR_PORT_INDEX)?.u32()?,
        netdev: attributes
            .find(ATTR_NDEV_INDEX)
            .and_then(Attribute::u32)
            .and_then(IfIndex::new),
    })
}

fn mode(attributes: Attributes<'_>) -> Option<RdmaNetnsMode> {
    match attributes.find(ATTR_SYS_NETNS_MODE)?.u8()? {
        0 => Some(RdmaNetnsMode::Exclusive),
        1 => Some(RdmaNetnsMode::Shared),
        _ => None,
    }
}

/// Decodes arbitrary bytes as the attributes of each kind of answer.
pub(crate) fn fuzz_rdma(data: &[u8]) {
    let attributes = Attributes::new(data);
    if let Some(device) = device(attributes) {
        assert!(device.name.len() < data.len(), "a name from nowhere");
    }
    let _answers = (port(attributes), mode(attributes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fill: impl FnOnce(&mut Request)) -> Vec<u8> {
        let mut request = Request::new(0, &[]);
        fill(&mut request);
        request.payload().to_vec()
    }

    #[test]
    fn a_node_guid_is_a_host_endian_integer() {
        let bytes = answer(|device| {
            device
                .u32(ATTR_DEV_INDEX, 3)
                .text(ATTR_DEV_NAME, "mlx5_2")
                .attribute(ATTR_NODE_GUID, &0x0002_c903_002f_b110_u64.to_ne_bytes());
        });
        let device = device(Attributes::new(&bytes)).unwrap();
        let guid = device.node_guid.unwrap();
        assert_eq!(guid.to_string(), "00:02:c9:03:00:2f:b1:10");
        assert_eq!((device.index, device.name.as_str()), (3, "mlx5_2"));
    }

    /// As Linux 6.12 sent it for `rxe0` on an Ethernet NIC.
    #[cfg(target_endian = "little")]
    #[test]
    fn captured_answers_are_read() {
        let bytes = include_bytes!("../corpus/rdma/rxe-device");
        let device = device(Attributes::new(bytes)).unwrap();
        assert_eq!((device.index, device.name.as_str()), (0, "rxe0"));
        let guid = device.node_guid.unwrap();
        assert_eq!(guid.sysfs_text(), "5054:00ff:fe1a:0000");
        assert_eq!(device.firmware, None);
        let port = port(Attributes::new(include_bytes!("../corpus/rdma/rxe-port")));
        let netdev = IfIndex::new(2);
        assert_eq!(port, Some(Port { index: 1, netdev }));
        let system = Attributes::new(include_bytes!("../corpus/rdma/system"));
        assert_eq!(mode(system), Some(RdmaNetnsMode::Shared));
    }

    /// As the kernel's policy has it (`nldev_policy`): two 32-bit attributes, 1 and 68.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_move_names_the_device_and_the_namespace() {
        use std::os::fd::AsFd;
        let file = std::fs::File::open("/proc/self/ns/net").unwrap();
        let request = move_request(3, file.as_fd());
        let fd = u8::try_from(file.as_raw_fd()).unwrap();
        assert_eq!(
            request.payload(),
            [8, 0, 1, 0, 3, 0, 0, 0, 8, 0, 68, 0, fd, 0, 0, 0]
        );
    }

    #[test]
    fn exclusive_is_zero_on_the_wire() {
        let exclusive = answer(|sys| {
            sys.u8(ATTR_SYS_NETNS_MODE, 0);
        });
        let shared = answer(|sys| {
            sys.u8(ATTR_SYS_NETNS_MODE, 1);
        });
        assert_eq!(
            mode(Attributes::new(&exclusive)),
            Some(RdmaNetnsMode::Exclusive)
        );
        assert_eq!(mode(Attributes::new(&shared)), Some(RdmaNetnsMode::Shared));
        assert_eq!(mode(Attributes::new(&[])), None);
    }

    #[test]
    fn commands_carry_the_client_number() {
        assert_eq!(kind(CMD_SYS_GET), 0x1406);
    }
}
