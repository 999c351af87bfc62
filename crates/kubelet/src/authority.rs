//! Takes the percent-encoded `:authority` of the kubelet.
//!
//! The kubelet's plugin watcher dials a socket without naming an authority, so grpc-go sends the path
//! of the socket, `%2Fvar%2Flib%2F…` (older ones send `/var/lib/…`). RFC 3986 allows the former, `h2`
//! takes neither and resets the stream before any handler runs (hyperium/h2#487). Nobody reads the
//! value. So this stands between the socket and `h2` and puts a letter in its place.
//!
//! Nothing is decompressed for that. A header block is a sequence of fields whose borders can be found
//! without a table, and grpc-go writes `:authority` with its index in HPACK's static table, 1. The
//! table that both ends keep stays in step, because entries are counted from the newest and ours is
//! only smaller than the peer thinks: whatever the peer still has, `h2` has too.
//!
//! What is not of that form passes as it is: a block in more than one frame (over 16 KiB), or one that
//! is malformed, which `h2` refuses with the right error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What every connection starts with: `PRI * HTTP/2.0`, `SM` and line ends.
const PREFACE: usize = 24;

/// Length, type, flags and stream of a frame.
const FRAME_HEADER: usize = 9;

/// Largest payload of a frame that `h2` takes; it says so in its settings.
const LARGEST_FRAME: usize = 16 * 1024;

const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The authority that `h2` is shown.
const STAND_IN: [u8; 2] = [1, b'k'];

/// Index of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// A connection whose incoming `:authority` is always well formed.
#[derive(Debug)]
pub(crate) struct PlainAuthority<T> {
    inner: T,
    rewriter: Rewriter,
    /// What was read and rewritten, but not yet taken.
    ready: Vec<u8>,
    taken: usize,
}

impl<T> PlainAuthority<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            rewriter: Rewriter::default(),
            ready: Vec::new(),
            taken: 0,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PlainAuthority<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let rest = this.ready.get(this.taken..).unwrap_or_default();
            if !rest.is_empty() {
                let fits = rest.len().min(buffer.remaining());
                buffer.put_slice(rest.get(..fits).unwrap_or_default());
                this.taken += fits;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.taken = 0;
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut this.inner).poll_read(context, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => this.rewriter.feed(read.filled(), &mut this.ready),
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PlainAuthority<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// Rewrites the bytes of a connection as they come.
#[derive(Debug)]
pub(crate) struct Rewriter {
    /// Bytes that pass before the next frame begins.
    passing: usize,
    /// A frame that is looked at, as far as it came.
    frame: Vec<u8>,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self {
            passing: PREFACE,
            frame: Vec::new(),
        }
    }
}

impl Rewriter {
    /// Takes bytes in and appends what can be passed on.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let wanted = match self.frame_length() {
                _ if self.passing > 0 => self.passing,
                None => FRAME_HEADER - self.frame.len(),
                Some(length) => length - self.frame.len(),
            };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.passing > 0 {
                self.passing -= now.len();
                out.extend_from_slice(now);
                continue;
            }
            self.frame.extend_from_slice(now);
            let Some(length) = self.frame_length() else {
                continue;
            };
            let kind = self.frame.get(3).copied();
            if kind != Some(HEADERS) || length > FRAME_HEADER + LARGEST_FRAME {
                self.passing = length - self.frame.len();
                out.append(&mut self.frame);
            } else if self.frame.len() == length {
                match rewritten(&self.frame) {
                    Some(frame) => out.extend(frame),
                    None => out.extend_from_slice(&self.frame),
                }
                self.frame.clear();
            }
        }
    }

    /// Returns how long the frame is with its header, once that is there.
    fn frame_length(&self) -> Option<usize> {
        match self.frame.get(..FRAME_HEADER)? {
            [a, b, c, ..] => Some(
                FRAME_HEADER + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
            ),
            _ => None,
        }
    }
}

/// Returns a whole HEADERS frame with another authority; `None` when it stays as it is.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, mut payload) = frame.split_at_checked(FRAME_HEADER)?;
    let flags = *header.get(4)?;
    if flags & END_HEADERS == 0 {
        return None;
    }
    if flags & PADDED != 0 {
        let (padding, rest) = payload.split_first()?;
        payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
    let (priority, block) = payload.split_at_checked(priority)?;
    let mut fields = Vec::with_capacity(block.len());
    replace_authority(block, &mut fields)?;
    let length = u32::try_from(priority.len() + fields.len()).ok()?;
    let mut frame = length.to_be_bytes().get(1..)?.to_vec();
    frame.extend([HEADERS, flags & !PADDED]);
    frame.extend_from_slice(header.get(5..)?);
    frame.extend_from_slice(priority);
    frame.append(&mut fields);
    Some(frame)
}

/// Copies a header block field by field, with another authority. `None` when it is malformed.
fn replace_authority(mut block: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let [first, ..] = block {
        let start = block;
        // RFC 7541 section 6: how many bits of the first byte are an index or a size, and whether
        // strings follow.
        let (bits, literal) = match first.leading_zeros() {
            0 => (7, false),
            1 => (6, true),
            2 => (5, false),
            _ => (4, true),
        };
        let index = integer(&mut block, bits)?;
        if !literal {
            out.extend_from_slice(taken(start, block)?);
            continue;
        }
        if index == 0 {
            string(&mut block)?;
        }
        out.extend_from_slice(taken(start, block)?);
        let value = block;
        string(&mut block)?;
        let value = taken(value, block)?;
        // An empty one would be shorter than what replaces it.
        if index == AUTHORITY && value.len() > 1 {
            out.extend(STAND_IN);
        } else {
            out.extend_from_slice(value);
        }
    }
    Some(())
}

/// Returns the part of `start` that is not in `rest`, its end.
fn taken<'a>(start: &'a [u8], rest: &[u8]) -> Option<&'a [u8]> {
    start.get(..start.len().checked_sub(rest.len())?)
}

/// Takes an integer whose first byte has `bits` bits for it.
fn integer(bytes: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut rest) = bytes.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (next, tail) = rest.split_first()?;
            rest = tail;
            value = value.checked_add(usize::from(next & 0x7f).checked_shl(shift)?)?;
            if next & 0x80 == 0 {
                break;
            }
            shift += 7;
            // Nothing in a frame is longer than a frame.
            if shift > 21 {
                return None;
            }
        }
    }
    *bytes = rest;
    Some(value)
}

/// Takes a string, compressed or not.
fn string(bytes: &mut &[u8]) -> Option<()> {
    let length = integer(bytes, 7)?;
    *bytes = bytes.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests;
