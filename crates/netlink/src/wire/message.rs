//! Reading messages.

use super::{Attributes, MESSAGE_HEADER, align, array, u16_at, u32_at};

pub(crate) const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLMSG_OVERRUN: u16 = 4;

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`, the number of the request that it answers.
    pub(crate) sequence: u32,
    /// `nlmsg_pid`, the port of the request that it answers.
    pub(crate) port: u32,
    /// What follows the header, without padding.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Returns the attributes behind a family header of `header` bytes.
    pub(crate) fn attributes(self, header: usize) -> Attributes<'a> {
        Attributes::new(self.payload.get(align(header)..).unwrap_or_default())
    }

    /// Returns the signed 32-bit number at the start of the payload, an errno in errors and ends.
    pub(crate) fn status(self) -> Option<i32> {
        array(self.payload, 0).map(i32::from_ne_bytes)
    }
}

/// The messages of one datagram, in order; it ends at the first one that is cut short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }

    /// Returns the bytes that were not consumed: not empty after the end means garbage.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
        let message = Message {
            kind: u16_at(self.rest, 4)?,
            flags: u16_at(self.rest, 6)?,
            sequence: u32_at(self.rest, 8)?,
            port: u32_at(self.rest, 12)?,
            payload: self.rest.get(MESSAGE_HEADER..length)?,
        };
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        Some(message)
    }
}
