//! The answers to one request: which messages belong to it, when it ends, and how.
//!
//! Pure, so that every bad answer can be tested without a kernel that gives it.

use rustix::io::Errno;

use crate::error::{Fault, Refusal};
use crate::wire::{
    ATTRIBUTE_HEADER, Attributes, MESSAGE_HEADER, Message, Messages, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, align,
};

/// The objects changed while they were listed.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// The error message does not hold the request's payload.
const NLM_F_CAPPED: u16 = 0x100;
/// The error message holds explanations.
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;

/// Longest text of the kernel that is kept, in characters; the kernel's own bound is 80 bytes for
/// formatted ones.
const LONGEST_TEXT: usize = 512;

/// Does more come?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

/// What has been heard of one request.
#[derive(Debug)]
pub(super) struct Conversation {
    sequence: u32,
    port: u32,
    is_dump: bool,
    answered: bool,
    changed_meanwhile: bool,
    refusal: Option<Unplaced>,
}

/// A refusal whose attribute is still an offset in the request.
#[derive(Debug, PartialEq, Eq)]
struct Unplaced {
    errno: Errno,
    message: Option<String>,
    offset: Option<usize>,
    missing: Option<u32>,
}

impl Conversation {
    pub(super) fn new(sequence: u32, port: u32, is_dump: bool) -> Self {
        Self {
            sequence,
            port,
            is_dump,
            answered: false,
            changed_meanwhile: false,
            refusal: None,
        }
    }

    /// Was any answer passed on?
    pub(super) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Takes one datagram, and gives the answers in it to `answer`.
    pub(super) fn hear(
        &mut self,
        datagram: &[u8],
        answer: &mut dyn FnMut(Message<'_>),
    ) -> Result<Progress, Fault> {
        let mut messages = Messages::new(datagram);
        for message in messages.by_ref() {
            // Answers to a request that was given up, and events, are not ours.
            if message.sequence != self.sequence || message.port != self.port {
                continue;
            }
            self.changed_meanwhile |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_NOOP => {}
                NLMSG_OVERRUN => return Err(Fault::Malformed("the kernel reports an overrun")),
                NLMSG_ERROR => {
                    self.refusal = refusal(message)?;
                    return Ok(Progress::Done);
                }
                NLMSG_DONE if self.is_dump => {
                    self.refusal = done(message)?;
                    return Ok(Progress::Done);
                }
                NLMSG_DONE => {}
                _ => {
                    self.answered = true;
                    answer(message);
                }
            }
        }
        if messages.rest().is_empty() {
            Ok(Progress::More)
        } else {
            Err(Fault::Malformed("a message is cut short"))
        }
    }

    /// Says how it ended; `path_of` names the attribute at an offset of the request.
    pub(super) fn verdict(self, path_of: impl FnOnce(usize) -> Vec<u16>) -> Result<(), Fault> {
        match self.refusal {
            Some(refusal) => Err(Fault::Refused {
                refusal: Refusal {
                    errno: refusal.errno,
                    message: refusal.message,
                    attribute: refusal.offset.map(path_of).unwrap_or_default(),
                    missing: refusal.missing,
                },
            }),
            None if self.changed_meanwhile => Err(Fault::Unsettled(1)),
            None => Ok(()),
        }
    }
}

/// Reads an `NLMSG_ERROR`; error 0 is an acknowledgement.
fn refusal(message: Message<'_>) -> Result<Option<Unplaced>, Fault> {
    let status = message
        .status()
        .ok_or(Fault::Malformed("an error without a number"))?;
    let Some(errno) = errno(status)? else {
        return Ok(None);
    };
    // The error is followed by the header of the request, and by its payload unless capped.
    let copied = crate::wire::u32_at(message.payload, 4)
        .and_then(|length| usize::try_from(length).ok())
        .filter(|_| message.flags & NLM_F_CAPPED == 0)
        .unwrap_or(MESSAGE_HEADER);
    let explanations = if message.flags & NLM_F_ACK_TLVS == 0 {
        Attributes::new(&[])
    } else {
        message.attributes(4_usize.saturating_add(align(copied)))
    };
    Ok(Some(explained(errno, explanations)))
}

/// Reads an `NLMSG_DONE`, which carries the error that ended a list early, and its explanation.
fn done(message: Message<'_>) -> Result<Option<Unplaced>, Fault> {
    // Some families end a list with the number of its bytes, and some with nothing.
    let status = message.status().filter(|status| *status < 0).unwrap_or(0);
    Ok(errno(status)?.map(|errno| explained(errno, message.attributes(4))))
}

/// Reads a negated error number; 0 is none.
fn errno(status: i32) -> Result<Option<Errno>, Fault> {
    match status {
        0 => Ok(None),
        // The range of error numbers that the kernel itself allows (`MAX_ERRNO`).
        -4095..=-1 => Ok(Some(Errno::from_raw_os_error(-status))),
        _ => Err(Fault::Malformed("an error number out of range")),
    }
}

fn explained(errno: Errno, explanations: Attributes<'_>) -> Unplaced {
    let mut refusal = Unplaced {
        errno,
        message: None,
        offset: None,
        missing: None,
    };
    for explanation in explanations {
        match explanation.kind {
            NLMSGERR_ATTR_MSG => {
                refusal.message = explanation
                    .text()
                    .filter(|text| !text.is_empty())
                    .map(|text| text.chars().take(LONGEST_TEXT).collect());
            }
            NLMSGERR_ATTR_OFFS => {
                refusal.offset = explanation.u32().and_then(|at| usize::try_from(at).ok());
            }
            NLMSGERR_ATTR_MISS_TYPE => refusal.missing = explanation.u32(),
            _ => {}
        }
    }
    refusal
}

/// Hears arbitrary bytes as if the kernel had said them.
pub(crate) fn fuzz_conversation(data: &[u8]) {
    for is_dump in [false, true] {
        let mut conversation = Conversation::new(1, 0, is_dump);
        let mut answers = 0_usize;
        let _heard = conversation.hear(data, &mut |message| {
            answers += message.attributes(ATTRIBUTE_HEADER).count();
        });
        let _verdict = conversation.verdict(|_| Vec::new());
        assert!(answers <= data.len(), "more attributes than bytes");
    }
}

#[cfg(test)]
mod tests;
