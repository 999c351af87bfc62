//! Generic netlink: families have names, and numbers that are looked up.
//!
//! What would surprise: looking up a family that does not exist makes the kernel start modprobe,
//! so absence is remembered, for the life of the socket. A family of a module that is loaded anew
//! gets another number. Both are reasons to open a socket for each pass over a host.

use crate::error::{Fault, RequestError};
use crate::socket::Socket;
use crate::wire::{Attribute, Attributes, Message, Request};

/// Number of the family that knows the others (`GENL_ID_CTRL`).
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Size of `struct genlmsghdr`: command u8, version u8, reserved u16.
const GENLMSGHDR: usize = 4;

/// A family that this kernel has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family(u16);

impl Family {
    /// Looks a family up; `None` when this kernel does not have it.
    pub(crate) fn find(
        socket: &mut Socket,
        name: &'static str,
    ) -> Result<Option<Self>, RequestError> {
        let known = socket.families.iter().find(|(known, _)| *known == name);
        if let Some((_, number)) = known {
            return Ok(number.map(Self));
        }
        let mut request = request(CONTROLLER, CTRL_CMD_GETFAMILY);
        request.text(CTRL_ATTR_FAMILY_NAME, name);
        let operation = format_args!("look up the netlink family {name}");
        let number = match socket.collect(operation, &mut request, number) {
            Ok(found) => found.into_iter().next(),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        socket.families.push((name, number));
        Ok(number.map(Self))
    }

    /// Looks a family up that the operation cannot do without.
    pub(crate) fn need(
        socket: &mut Socket,
        name: &'static str,
        operation: std::fmt::Arguments<'_>,
    ) -> Result<Self, RequestError> {
        Self::find(socket, name)?.ok_or_else(|| RequestError::new(operation, Fault::NoFamily(name)))
    }

    /// Asks for one object, or for a change.
    pub(crate) fn request(self, command: u8) -> Request {
        request(self.0, command)
    }

    /// Asks for all objects.
    pub(crate) fn dump(self, command: u8) -> Request {
        Request::dump(self.0, &header(command))
    }

    /// Returns the attributes of an answer of this family.
    pub(crate) fn attributes(self, message: Message<'_>) -> Option<Attributes<'_>> {
        (message.kind == self.0).then(|| message.attributes(GENLMSGHDR))
    }
}

fn request(family: u16, command: u8) -> Request {
    Request::new(family, &header(command))
}

/// All families that are used here are at version 1.
fn header(command: u8) -> [u8; GENLMSGHDR] {
    [command, 1, 0, 0]
}

fn number(message: Message<'_>) -> Option<u16> {
    let attributes = (message.kind == CONTROLLER).then(|| message.attributes(GENLMSGHDR))?;
    attributes
        .find(CTRL_ATTR_FAMILY_ID)
        .and_then(Attribute::u16)
}
