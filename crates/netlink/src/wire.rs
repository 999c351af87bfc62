//! Bytes of netlink: messages, attributes, and how to build a request.
//!
//! Everything here is pure. Reading never panics and never allocates: an iterator ends where the
//! bytes stop making sense. What would surprise: netlink is host-endian, with single fields in
//! network order; and lengths are 16 bits, so the kernel itself emits attributes whose length
//! wrapped around (see `vf::decode`).

mod attribute;
mod message;
mod request;

pub(crate) use attribute::{Attribute, Attributes};
pub(crate) use message::{Message, Messages, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};
pub(crate) use request::Request;

/// Size of `struct nlmsghdr`.
pub(crate) const MESSAGE_HEADER: usize = 16;

/// Size of `struct nlattr`.
pub(crate) const ATTRIBUTE_HEADER: usize = 4;

/// Messages and attributes start at multiples of 4 (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
pub(crate) const fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// Returns `N` bytes of `bytes` from `offset` on, when they are there.
pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// Returns the host-endian 16-bit number at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_ne_bytes)
}

/// Returns the host-endian 32-bit number at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
