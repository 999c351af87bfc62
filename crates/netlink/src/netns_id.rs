//! The number by which one network namespace knows another (`RTM_GETNSID`).
//!
//! An interface whose lower one is in another namespace names that namespace by such a number
//! ([`FarLower`](crate::FarLower)). It means something only in the namespace that it was told in, and is
//! given when it is first needed.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::RequestError;
use crate::socket::Socket;
use crate::wire::{Attributes, Request, align};

const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;

const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// Size of `struct rtgenmsg`: the family, u8.
const RTGENMSG: usize = 1;

/// Returns the number of `netns` in the socket's namespace; `None` when it has none there.
pub fn netns_id(socket: &mut Socket, netns: BorrowedFd<'_>) -> Result<Option<u32>, RequestError> {
    let found = socket.collect(
        format_args!("ask for the number of a namespace"),
        &mut request(netns),
        |message| (message.kind == RTM_NEWNSID).then(|| number(message.payload))?,
    );
    Ok(found?.into_iter().next().flatten())
}

fn request(netns: BorrowedFd<'_>) -> Request {
    let mut request = Request::new(RTM_GETNSID, &[0; align(RTGENMSG)]);
    // A descriptor of this process is never negative.
    request.u32(NETNSA_FD, netns.as_raw_fd().unsigned_abs());
    request
}

/// Reads an answer: `None` when there is no number in it, `Some(None)` for "it has none".
fn number(payload: &[u8]) -> Option<Option<u32>> {
    let attributes = Attributes::new(payload.get(align(RTGENMSG)..)?);
    let number = attributes.find(NETNSA_NSID)?.u32()?;
    // The kernel writes -1 for none.
    Some(i32::try_from(number).ok().map(i32::unsigned_abs))
}

/// Decodes arbitrary bytes as the payload of an answer.
pub(crate) fn fuzz_netns_id(data: &[u8]) {
    let _ = number(data);
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::Protocol;
    use crate::testing::{attribute, words};

    fn answer(number: u32) -> Option<Option<u32>> {
        let id = attribute(NETNSA_NSID, &words(&[number]));
        super::number(&[words(&[0]), id].concat())
    }

    #[test]
    fn no_number_is_not_a_number() {
        assert_eq!(answer(3), Some(Some(3)));
        assert_eq!(answer(u32::MAX), Some(None));
    }

    #[test]
    fn the_kernel_answers_for_a_namespace_that_it_was_asked_for() {
        let own = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        // Nobody has asked for it before, or somebody has.
        netns_id(&mut socket, own.as_fd()).unwrap();
        let no_namespace = std::fs::File::open("/proc/self/status").unwrap();
        netns_id(&mut socket, no_namespace.as_fd()).unwrap_err();
    }
}
