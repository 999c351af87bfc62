//! gRPC on HTTP/2: a message in a body, and how a call ended.

use std::fmt;
use std::fmt::Write as _;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// A byte that says "not compressed", and four of length.
const PREFIX: usize = 5;

/// Kind of failure, as gRPC numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u8);

impl Code {
    /// It worked.
    pub const OK: Self = Self(0);
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(2);
    /// The request makes no sense.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// It took too long.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(5);
    /// Too much, or too often.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The host is not in a state for it.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// There is no such method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// A bug.
    pub const INTERNAL: Self = Self(13);
    /// Try again later.
    pub const UNAVAILABLE: Self = Self(14);

    /// Returns the number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        f.pad(names.get(usize::from(self.0)).unwrap_or(&"UNKNOWN"))
    }
}

/// How a call failed, as the other side is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Status {
    /// The kind.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl Status {
    /// Makes a status.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Reads the values of the headers `grpc-status` and `grpc-message`.
    pub(crate) fn from_headers(code: &[u8], message: &[u8]) -> Self {
        let number = std::str::from_utf8(code)
            .ok()
            .and_then(|code| code.parse().ok());
        Self::new(Code(number.unwrap_or(Code::UNKNOWN.0)), unescaped(message))
    }

    /// Writes the message as a header can hold it.
    pub(crate) fn escaped_message(&self) -> String {
        let mut text = String::new();
        for byte in self.message.bytes() {
            if byte == b'%' || !(b' '..=b'~').contains(&byte) {
                // Writing to a string cannot fail.
                let _always = write!(text, "%{byte:02X}");
            } else {
                text.push(char::from(byte));
            }
        }
        text
    }
}

fn unescaped(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Puts a message into the form of a body.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A `BytesMut` grows, so there is always room.
    let _always = message.encode(&mut bytes);
    bytes.freeze()
}

/// Takes messages out of the bytes of a body.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: BytesMut,
    limit: usize,
}

impl Frames {
    /// Takes messages of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// Adds bytes as they came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next message when all of it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((mut prefix, body)) = self.buffer.split_at_checked(PREFIX) else {
            return Ok(None);
        };
        if prefix.get_u8() != 0 {
            let message = "compressed messages are not understood";
            return Err(Status::new(Code::UNIMPLEMENTED, message));
        }
        let length = prefix.get_u32() as usize;
        if length > self.limit {
            let message = format!("a message of {length} bytes, {} is the most", self.limit);
            return Err(Status::new(Code::RESOURCE_EXHAUSTED, message));
        }
        if body.len() < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_statuses_survive_a_header() {
        for text in ["", "no VF 0000:3b:02.1", "100 % \u{e9}\n\"x\"", "%4"] {
            let status = Status::new(Code::NOT_FOUND, text);
            let again = Status::from_headers(b"5", status.escaped_message().as_bytes());
            assert_eq!(again, status);
        }
        assert_eq!(Status::from_headers(b"x", b"").code, Code::UNKNOWN);
    }

    #[test]
    fn large_and_compressed_messages_are_refused_before_they_are_kept() {
        let mut frames = Frames::new(16);
        frames.push(&[0, 0, 0, 0, 17]);
        assert_eq!(frames.next().unwrap_err().code, Code::RESOURCE_EXHAUSTED);
        let mut frames = Frames::new(16);
        frames.push(&[1, 0, 0, 0, 0]);
        assert_eq!(frames.next().unwrap_err().code, Code::UNIMPLEMENTED);
    }

    #[test]
    fn messages_come_out_as_soon_as_they_are_whole() {
        let message = crate::registration::RegistrationStatus {
            plugin_registered: true,
            error: "none".to_owned(),
        };
        let bytes = framed(&message);
        let mut frames = Frames::new(64);
        for (at, byte) in bytes.iter().enumerate() {
            frames.push(&[*byte]);
            let whole = frames.next().unwrap();
            assert_eq!(whole.is_some(), at + 1 == bytes.len());
        }
    }
}
