//! One blocking netlink socket: it sends a request and collects the answer.
//!
//! The socket is dumb. What the bytes mean is decided in [`conversation`], which is pure, and in
//! the codecs. What would surprise:
//!
//! - The kernel does the work of a request inside `send`, holding its locks, and no deadline cuts
//!   that short; the deadline bounds the wait for answers.
//! - An answer longer than the buffer is cut by the kernel and lost. The buffer then grows and the
//!   request is made again, so a request that is not a change may reach the kernel twice.
//! - A socket stays in the network namespace in which it was opened, whatever its thread does.

mod conversation;
mod options;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::error::{Fault, RequestError};
use crate::wire::{Message, Request};
pub(crate) use conversation::fuzz_conversation;
use conversation::{Conversation, Progress};

/// How long a request may take.
///
/// The slowest known holder of the RTNL lock is i40e creating 64 VFs, about 22 s, and every
/// request behind it waits.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest deadline that can be set: enough to mean "for ever", short enough to be added to a time.
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// First size of the receive buffer: a PF with 256 VFs at about 250 bytes each fits, and for more it
/// grows. Below 128 KiB the C library has it in its heap, which costs a short-lived process nothing.
const BUFFER: usize = 64 * 1024;

/// Longest answer that is believed: a PF with 65,535 VFs fits.
const LONGEST_ANSWER: usize = 32 * 1024 * 1024;

/// How often a list is read anew when its objects change meanwhile. Each try takes milliseconds;
/// interfaces come and go a hundred times slower even while VFs are created.
const DUMP_TRIES: u32 = 10;

/// A netlink protocol, the part of the kernel at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// rtnetlink: interfaces and addresses.
    Route,
    /// Generic netlink: devlink and vDPA.
    Generic,
    /// RDMA devices.
    Rdma,
    /// Device events.
    KobjectUevent,
}

impl Protocol {
    fn number(self) -> Option<rustix::net::Protocol> {
        match self {
            // NETLINK_ROUTE is 0, which rustix spells as no protocol.
            Self::Route => None,
            Self::Generic => Some(netlink::GENERIC),
            Self::Rdma => Some(netlink::RDMA),
            Self::KobjectUevent => Some(netlink::KOBJECT_UEVENT),
        }
    }

    /// Returns how people call the protocol.
    fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Generic => "generic",
            Self::Rdma => "RDMA",
            Self::KobjectUevent => "uevent",
        }
    }
}

/// What an attempt to read an event found.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// There is none.
    Nothing,
    /// Some were lost.
    Lost,
    /// One datagram.
    Datagram(&'a [u8]),
}

/// A blocking netlink socket in one network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
    deadline: Duration,
    /// An answer may still be under way, from a request that was given up.
    unfinished: bool,
    /// Generic netlink families that were resolved; `None` is "this kernel has none".
    pub(crate) families: Vec<(&'static str, Option<u16>)>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, RequestError> {
        Self::with_groups(protocol, 0).map_err(|fault| {
            let operation = format_args!("open a {} netlink socket", protocol.name());
            RequestError::new(operation, fault)
        })
    }

    /// Opens a socket, or returns `None` when this kernel does not have the protocol.
    pub fn open_if_supported(protocol: Protocol) -> Result<Option<Self>, RequestError> {
        match Self::open(protocol) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if error.is_not_supported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets how long each later request may take; 30 s when it is not set.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline.min(LONGEST_DEADLINE);
    }

    /// Opens a socket that also receives the events of `groups`, a mask of multicast groups.
    pub(crate) fn with_groups(protocol: Protocol, groups: u32) -> Result<Self, Fault> {
        let call = |call| move |errno| Fault::Call { call, errno };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            flags,
            protocol.number(),
        )
        .map_err(call("socket"))?;
        options::ask_for_explanations(fd.as_fd());
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(call("bind"))?;
        let address = rustix::net::getsockname(&fd).map_err(call("getsockname"))?;
        let address = SocketAddrNetlink::try_from(address).map_err(call("getsockname"))?;
        Ok(Self {
            fd,
            port: address.pid(),
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
            deadline: DEADLINE,
            unfinished: false,
            families: Vec::new(),
        })
    }

    /// Makes a request that is answered by nothing but an acknowledgement.
    pub(crate) fn change(
        &mut self,
        operation: fmt::Arguments<'_>,
        request: &mut Request,
    ) -> Result<(), RequestError> {
        self.exchange(request, &mut |_| {})
            .map_err(|fault| RequestError::new(operation, fault))
    }

    /// Makes a request for one object or for all; returns what `read` makes of the answers.
    ///
    /// When the kernel says that objects changed meanwhile, everything is read anew.
    pub(crate) fn collect<T>(
        &mut self,
        operation: fmt::Arguments<'_>,
        request: &mut Request,
        mut read: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, RequestError> {
        let mut tries = 0;
        loop {
            let mut found = Vec::new();
            let outcome = self.exchange(request, &mut |message| found.extend(read(message)));
            tries += 1;
            let again = match &outcome {
                Err(Fault::Unsettled(_)) => true,
                // The receive queue overflowed and answers were lost.
                Err(Fault::Call { errno, .. }) => *errno == Errno::NOBUFS,
                _ => false,
            };
            match outcome {
                Ok(()) => return Ok(found),
                Err(_) if again && tries < DUMP_TRIES => {}
                Err(Fault::Unsettled(_)) => {
                    return Err(RequestError::new(operation, Fault::Unsettled(tries)));
                }
                Err(fault) => return Err(RequestError::new(operation, fault)),
            }
        }
    }

    /// Sends a request and gives each answer to `answer`, until the kernel is done.
    fn exchange(
        &mut self,
        request: &mut Request,
        answer: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), Fault> {
        let until = Instant::now() + self.deadline;
        loop {
            self.settle(until)?;
            // 0 is the sequence number of events.
            self.sequence = self.sequence.wrapping_add(1).max(1);
            let bytes = request.bytes(self.sequence).ok_or(Fault::RequestTooLong)?;
            retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty())).map_err(
                |errno| match errno {
                    // The protocol exists but nobody listens in this namespace.
                    Errno::CONNREFUSED => Fault::Call {
                        call: "send",
                        errno: Errno::PROTONOSUPPORT,
                    },
                    errno => Fault::Call {
                        call: "send",
                        errno,
                    },
                },
            )?;
            self.unfinished = true;
            let mut conversation = Conversation::new(self.sequence, self.port, request.is_dump());
            if self.listen(&mut conversation, until, answer)? {
                self.unfinished = false;
                return conversation.verdict(|offset| request.path_of(offset));
            }
            // The buffer has grown: ask again. Nothing was answered from the cut datagram, but
            // earlier datagrams of a list were, so the list starts over.
            if conversation.has_answered() {
                return Err(Fault::Unsettled(1));
            }
        }
    }

    /// Receives until the conversation ends; `false` when an answer was cut and must be asked anew.
    fn listen(
        &mut self,
        conversation: &mut Conversation,
        until: Instant,
        answer: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, Fault> {
        loop {
            let Some((length, sender)) = self.receive(until)? else {
                return Err(Fault::Deadline(self.deadline));
            };
            if sender != 0 {
                continue;
            }
            if length > self.buffer.len() {
                self.grow(length)?;
                return Ok(false);
            }
            if conversation.hear(&self.buffer, answer)? == Progress::Done {
                return Ok(true);
            }
        }
    }

    /// Receives one datagram into the buffer; returns its true length, which may exceed that, and its
    /// sender's port, or `None` when nothing came until then.
    fn receive(&mut self, until: Instant) -> Result<Option<(usize, u32)>, Fault> {
        loop {
            let received = retry_on_intr(|| {
                self.buffer.clear();
                let room = spare_capacity(&mut self.buffer);
                rustix::net::recvfrom(&self.fd, room, RecvFlags::TRUNC)
            });
            match received {
                Ok((_, length, sender)) => {
                    let sender = sender.and_then(|any| SocketAddrNetlink::try_from(any).ok());
                    return Ok(Some((length, sender.map_or(u32::MAX, |from| from.pid()))));
                }
                Err(Errno::AGAIN) if self.wait_readable(until)? => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => {
                    return Err(Fault::Call {
                        call: "recvfrom",
                        errno,
                    });
                }
            }
        }
    }

    /// Waits until there is something to receive; `false` when the deadline passed.
    fn wait_readable(&self, until: Instant) -> Result<bool, Fault> {
        wait_any(&mut [PollFd::new(&self.fd, PollFlags::IN)], until)
    }

    /// Reads an event without waiting.
    pub(crate) fn event(&mut self) -> Result<Heard<'_>, Fault> {
        loop {
            match self.receive(Instant::now()) {
                Ok(None) => return Ok(Heard::Nothing),
                // Only the kernel sends from port 0.
                Ok(Some((_, sender))) if sender != 0 => {}
                Ok(Some((length, _))) => {
                    let whole = self.buffer.get(..length);
                    return Ok(whole.map_or(Heard::Lost, Heard::Datagram));
                }
                Err(Fault::Call {
                    errno: Errno::NOBUFS,
                    ..
                }) => return Ok(Heard::Lost),
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Has the kernel keep up to `bytes` of what was not yet received, or as much as it allows.
    pub(crate) fn widen_queue(&self, bytes: usize) {
        // Above the system's bound (`net.core.rmem_max`) only the privileged way goes; with less
        // room events are lost sooner, which is reported when it happens.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.fd, bytes).is_err() {
            let _best_effort = rustix::net::sockopt::set_socket_recv_buffer_size(&self.fd, bytes);
        }
    }

    /// Swallows what is left of a request that was given up: the kernel refuses a second list
    /// while it still sends a first.
    fn settle(&mut self, until: Instant) -> Result<(), Fault> {
        while self.unfinished {
            if Instant::now() > until {
                return Err(Fault::Deadline(self.deadline));
            }
            match self.receive(Instant::now()) {
                Ok(Some(_))
                | Err(Fault::Call {
                    errno: Errno::NOBUFS,
                    ..
                }) => {}
                Ok(None) => self.unfinished = false,
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    fn grow(&mut self, length: usize) -> Result<(), Fault> {
        if length > LONGEST_ANSWER {
            return Err(Fault::AnswerTooLong(length));
        }
        self.buffer = Vec::with_capacity(length.next_power_of_two());
        Ok(())
    }
}

/// Waits until one of `fds` is ready; `false` when the deadline passed.
pub(crate) fn wait_any(fds: &mut [PollFd<'_>], until: Instant) -> Result<bool, Fault> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(fds, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Fault::Call {
                    call: "poll",
                    errno,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
