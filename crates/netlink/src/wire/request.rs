//! Building a request.

use super::{ATTRIBUTE_HEADER, MESSAGE_HEADER, align};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;

/// Marks an attribute that holds attributes; newer families insist on it, rtnetlink's old nests
/// (the VF list) take it or leave it.
const NLA_F_NESTED: u16 = 0x8000;

/// A request that grows attribute by attribute.
///
/// An attribute that does not fit its 16-bit length makes the whole request invalid, which
/// [`Request::bytes`] reports, so that building needs no error handling at each step.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    /// Size of the family header, between the message header and the attributes.
    header: usize,
    is_dump: bool,
    too_long: bool,
}

impl Request {
    /// Asks for one answer, or for a change, and for an acknowledgement.
    pub(crate) fn new(kind: u16, header: &[u8]) -> Self {
        Self::with_flags(kind, NLM_F_ACK, header)
    }

    /// Asks for a change with modifiers such as `NLM_F_CREATE`, and for an acknowledgement.
    pub(crate) fn with_modifiers(kind: u16, modifiers: u16, header: &[u8]) -> Self {
        Self::with_flags(kind, NLM_F_ACK | modifiers, header)
    }

    /// Asks for all objects.
    pub(crate) fn dump(kind: u16, header: &[u8]) -> Self {
        Self {
            is_dump: true,
            ..Self::with_flags(kind, NLM_F_DUMP, header)
        }
    }

    fn with_flags(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut request = Self {
            bytes,
            header: header.len(),
            is_dump: false,
            too_long: false,
        };
        request.append(header);
        request
    }

    /// Does the answer consist of many messages with an end?
    pub(crate) fn is_dump(&self) -> bool {
        self.is_dump
    }

    /// Returns the payload of the message so far: a family header and attributes.
    #[cfg(test)]
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(MESSAGE_HEADER..).unwrap_or_default()
    }

    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.start(kind, payload.len());
        self.append(payload);
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a struct of 32-bit numbers.
    pub(crate) fn words(&mut self, kind: u16, numbers: &[u32]) -> &mut Self {
        self.start(kind, numbers.len().saturating_mul(4));
        for number in numbers {
            self.bytes.extend_from_slice(&number.to_ne_bytes());
        }
        self
    }

    /// Appends text with the NUL that the kernel's string policy wants.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.start(kind, text.len().saturating_add(1));
        self.bytes.extend_from_slice(text.as_bytes());
        self.append(&[0]);
        self
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.start(kind | NLA_F_NESTED, 0);
        fill(self);
        let length = self.bytes.len().saturating_sub(start);
        self.set_length(start, length);
        self
    }

    /// Numbers the request; returns its bytes, or `None` when an attribute is too long.
    pub(crate) fn bytes(&mut self, sequence: u32) -> Option<&[u8]> {
        let length = u32::try_from(self.bytes.len()).ok()?;
        self.bytes
            .get_mut(0..4)?
            .copy_from_slice(&length.to_ne_bytes());
        self.bytes
            .get_mut(8..12)?
            .copy_from_slice(&sequence.to_ne_bytes());
        (!self.too_long).then_some(&self.bytes)
    }

    /// Names the attribute at `offset` of the message by the types on the way to it.
    ///
    /// The kernel's extended acknowledgement points at the attribute that it did not like.
    pub(crate) fn path_of(&self, offset: usize) -> Vec<u16> {
        let mut path = Vec::new();
        let mut level = MESSAGE_HEADER + align(self.header);
        let mut end = self.bytes.len();
        while let Some((start, kind, length)) = self.covering(level, end, offset) {
            path.push(kind & !NLA_F_NESTED);
            if start == offset || kind & NLA_F_NESTED == 0 {
                return path;
            }
            level = start + ATTRIBUTE_HEADER;
            end = start + length;
        }
        path
    }

    /// Finds the attribute between `start` and `end` that covers `offset`.
    fn covering(&self, mut start: usize, end: usize, offset: usize) -> Option<(usize, u16, usize)> {
        while start < end {
            let length = usize::from(super::u16_at(&self.bytes, start)?);
            let kind = super::u16_at(&self.bytes, start + 2)?;
            if length < ATTRIBUTE_HEADER {
                return None;
            }
            if (start..start + length).contains(&offset) {
                return Some((start, kind, length));
            }
            start += align(length);
        }
        None
    }

    fn start(&mut self, kind: u16, payload: usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.set_length(start, payload.saturating_add(ATTRIBUTE_HEADER));
    }

    fn set_length(&mut self, start: usize, length: usize) {
        match (u16::try_from(length), self.bytes.get_mut(start..start + 2)) {
            (Ok(length), Some(field)) => field.copy_from_slice(&length.to_ne_bytes()),
            _ => self.too_long = true,
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}
