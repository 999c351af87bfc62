//! Alternative names of interfaces, which udev adds and which travel with a device since kernel
//! 6.6.

use model::IfIndex;

use super::{IFLA_ALT_IFNAME, IFLA_PROP_LIST, header};
use crate::error::RequestError;
use crate::socket::Socket;
use crate::wire::Request;

const RTM_NEWLINKPROP: u16 = 108;
const RTM_DELLINKPROP: u16 = 109;

const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// Adds an alternative name, up to 127 bytes. A name that is taken in the namespace is refused as
/// already there, also when it is this interface that has it.
pub fn add_alt_name(socket: &mut Socket, index: IfIndex, name: &str) -> Result<(), RequestError> {
    let modifiers = NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND;
    let mut request = property(RTM_NEWLINKPROP, modifiers, index, name);
    socket.change(
        format_args!("add alternative name {name:?} to interface {index}"),
        &mut request,
    )
}

/// Removes an alternative name. One that the interface does not have is refused as not found.
pub fn remove_alt_name(
    socket: &mut Socket,
    index: IfIndex,
    name: &str,
) -> Result<(), RequestError> {
    let mut request = property(RTM_DELLINKPROP, 0, index, name);
    socket.change(
        format_args!("remove alternative name {name:?} of interface {index}"),
        &mut request,
    )
}

fn property(kind: u16, modifiers: u16, index: IfIndex, name: &str) -> Request {
    let mut request = Request::with_modifiers(kind, modifiers, &header(index.get()));
    request.nest(IFLA_PROP_LIST, |properties| {
        properties.text(IFLA_ALT_IFNAME, name);
    });
    request
}
