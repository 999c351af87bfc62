//! Word from the kernel that interfaces or devices changed.
//!
//! An event says "observe again" and nothing more: events get lost under load, arrive in bunches
//! and describe a past that may be over. So nobody keeps state from them. What would surprise:
//! device events of interfaces reach only the namespace that the interface is in.

mod uevent;

use std::collections::VecDeque;
use std::time::Instant;

use model::IfIndex;
use rustix::event::{PollFd, PollFlags};

use crate::address::{RTM_DELADDR, RTM_NEWADDR};
use crate::error::{Fault, RequestError};
use crate::link::{RTM_DELLINK, RTM_NEWLINK};
use crate::socket::{Heard, Protocol, Socket, wait_any};
use crate::wire::{Message, Messages, u32_at};

pub(crate) use uevent::fuzz_uevent;
pub use uevent::{Uevent, UeventAction};

/// `RTNLGRP_LINK` is group 1, so bit 0 of the mask; `RTNLGRP_IPV6_IFADDR` is group 9.
const LINK_AND_ADDRESS_GROUPS: u32 = 1 | 1 << 8;

/// Group 1 of uevents is the kernel's own; group 2 is what udev makes of them.
const KERNEL_UEVENT_GROUP: u32 = 1;

/// Bytes of events that the kernel keeps for us: the creation of 256 VFs makes some 2,000 events
/// of about 2 KiB each, of which half are read meanwhile.
const QUEUE: usize = 2 * 1024 * 1024;

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface of the namespace came or changed.
    LinkChanged(IfIndex),
    /// An interface left the namespace.
    LinkGone(IfIndex),
    /// An IPv6 address of an interface came, went, or passed its check for a duplicate.
    AddressChanged(IfIndex),
    /// A device came, went or changed.
    Device(Uevent),
    /// Events were lost: anything may have changed.
    Overrun,
}

/// The stream of events of one network namespace.
#[derive(Debug)]
pub struct Events {
    links: Socket,
    devices: Socket,
    heard: VecDeque<Event>,
}

impl Events {
    /// Starts to listen in the calling thread's network namespace.
    ///
    /// Open it before the change whose effect is awaited, then observe, then wait.
    pub fn open() -> Result<Self, RequestError> {
        let open = |protocol, group| {
            let socket = Socket::with_groups(protocol, group)?;
            socket.widen_queue(QUEUE);
            Ok(socket)
        };
        let both = || {
            Ok(Self {
                links: open(Protocol::Route, LINK_AND_ADDRESS_GROUPS)?,
                devices: open(Protocol::KobjectUevent, KERNEL_UEVENT_GROUP)?,
                heard: VecDeque::new(),
            })
        };
        both().map_err(|fault| RequestError::new("listen to kernel events", fault))
    }

    /// Waits for the next event; `None` when there was none until then.
    pub fn wait(&mut self, until: Instant) -> Result<Option<Event>, RequestError> {
        self.next_event(until)
            .map_err(|fault| RequestError::new("wait for a kernel event", fault))
    }

    fn next_event(&mut self, until: Instant) -> Result<Option<Event>, Fault> {
        loop {
            if let Some(event) = self.heard.pop_front() {
                return Ok(Some(event));
            }
            let heard_any = self.listen()?;
            if !heard_any {
                let mut fds = [
                    PollFd::new(&self.links, PollFlags::IN),
                    PollFd::new(&self.devices, PollFlags::IN),
                ];
                if !wait_any(&mut fds, until)? {
                    return Ok(None);
                }
            }
        }
    }

    /// Takes one datagram from each socket; `false` when there was none.
    fn listen(&mut self) -> Result<bool, Fault> {
        let mut any = true;
        match self.links.event()? {
            Heard::Nothing => any = false,
            Heard::Lost => self.heard.push_back(Event::Overrun),
            Heard::Datagram(bytes) => self
                .heard
                .extend(Messages::new(bytes).filter_map(link_event)),
        }
        match self.devices.event()? {
            Heard::Nothing => return Ok(any),
            Heard::Lost => self.heard.push_back(Event::Overrun),
            Heard::Datagram(bytes) => self.heard.extend(Uevent::parse(bytes).map(Event::Device)),
        }
        Ok(true)
    }
}

fn link_event(message: Message<'_>) -> Option<Event> {
    let index = IfIndex::new(u32_at(message.payload, 4)?)?;
    match message.kind {
        RTM_NEWLINK => Some(Event::LinkChanged(index)),
        RTM_DELLINK => Some(Event::LinkGone(index)),
        RTM_NEWADDR | RTM_DELADDR => Some(Event::AddressChanged(index)),
        _ => None,
    }
}
