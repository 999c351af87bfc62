//! The wire between a machine and whoever runs commands in it.
//!
//! One byte stream carries many commands at once: every frame names the command it belongs to.
//! The same frames travel over the machine's virtio-serial port and, for machines that stay up,
//! over the keeper's socket. The guest is not trusted: lengths are bounded before anything is
//! allocated, and a sender may be at most [`WINDOW`] bytes ahead of what the receiver has
//! acknowledged, so that one stalled command neither blocks the others nor fills memory.
//!
//! ```text
//! frame   = length:u32le kind:u8 id:u32le payload        (length counts kind, id and payload)
//! payload = bytes, or a list of fields, each length:u32le bytes
//! ```
//!
//! This file is compiled into the guest's init as well, so it uses nothing but std.

use std::io::{self, Read, Write};

/// Name of the virtio-serial port.
pub const PORT: &str = "virtfn.lab";

/// Longest payload. The largest legitimate one is an `Exec` with a big environment.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Bytes per data frame: what virtio-console moves in one go.
pub const CHUNK: usize = 32 * 1024;

/// What may be under way per stream, in units of [`cost`]; eight chunks keep the port busy.
pub const WINDOW: usize = 8 * CHUNK;

/// What a data frame counts for: small frames are not free, or a sender could fill the
/// receiver's memory with empty ones.
pub const fn cost(bytes: usize) -> usize {
    bytes + 64
}

const HEADER: usize = 5;

/// What a frame means; who sends it is in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// (runner) Fields of a [`Config`]; the first frame a machine gets.
    Config = 1,
    /// (guest) Ready for commands; payload is the boot time line in text.
    Ready = 2,
    /// (runner) Fields of an [`Exec`]: start a command under this id.
    Exec = 3,
    /// (runner) Input; an empty payload is its end.
    Stdin = 4,
    /// (guest) Output.
    Stdout = 5,
    /// (guest) Error output.
    Stderr = 6,
    /// (guest) The command ended: [`Exit`]. Last frame of its id.
    Exit = 7,
    /// (runner) One byte: signal for the command's process group.
    Signal = 8,
    /// (runner) Terminal size: rows:u16le columns:u16le.
    Resize = 9,
    /// (both) stream:u8 cost:u32le: that much was consumed.
    Credit = 10,
    /// (runner) Power off.
    PowerOff = 11,
    /// (guest) The boot failed; payload is the reason in text.
    Failed = 12,
    /// (client of a kept machine) One byte: which machine the next frames are for.
    Select = 13,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 13] = [
            Kind::Config,
            Kind::Ready,
            Kind::Exec,
            Kind::Stdin,
            Kind::Stdout,
            Kind::Stderr,
            Kind::Exit,
            Kind::Signal,
            Kind::Resize,
            Kind::Credit,
            Kind::PowerOff,
            Kind::Failed,
            Kind::Select,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it means.
    pub kind: Kind,
    /// Which command it belongs to; 0 for the machine itself.
    pub id: u32,
    /// Its content.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Puts a message together.
    pub fn new(kind: Kind, id: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            id,
            payload: payload.into(),
        }
    }

    /// Acknowledges a data frame with that many bytes.
    pub fn credit(id: u32, stream: Kind, bytes: usize) -> Self {
        let mut payload = vec![stream as u8];
        payload.extend(u32::try_from(cost(bytes)).unwrap_or(u32::MAX).to_le_bytes());
        Self::new(Kind::Credit, id, payload)
    }

    /// Reads a `Credit` payload: the stream, and the cost of what was consumed.
    pub fn as_credit(&self) -> Option<(Kind, usize)> {
        let (stream, bytes) = self.payload.split_first()?;
        let bytes = u32::from_le_bytes(bytes.try_into().ok()?);
        Some((Kind::from_byte(*stream)?, usize::try_from(bytes).ok()?))
    }

    /// Reads the next frame; `None` at a clean end of the stream.
    pub fn read_from(reader: &mut impl Read) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        match reader.read(&mut length)? {
            0 => return Ok(None),
            got => reader.read_exact(&mut length[got..])?,
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if !(HEADER..=HEADER + MAX_PAYLOAD).contains(&length) {
            return Err(bad(format!("frame of {length} bytes")));
        }
        let mut header = [0; HEADER];
        reader.read_exact(&mut header)?;
        let [kind, id @ ..] = header;
        let kind = Kind::from_byte(kind).ok_or_else(|| bad(format!("frame of kind {kind}")))?;
        let mut payload = vec![0; length - HEADER];
        reader.read_exact(&mut payload)?;
        Ok(Some(Self {
            kind,
            id: u32::from_le_bytes(id),
            payload,
        }))
    }

    /// Writes the frame in one piece.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        if self.payload.len() > MAX_PAYLOAD {
            return Err(bad(format!(
                "payload of {} bytes, at most {MAX_PAYLOAD} fit",
                self.payload.len()
            )));
        }
        let length = u32::try_from(HEADER + self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(4 + HEADER + self.payload.len());
        bytes.extend(length.to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(&self.payload);
        writer.write_all(&bytes)?;
        writer.flush()
    }
}

/// What a machine is told before it mounts anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Host name, such as `lab0`.
    pub hostname: String,
    /// Directory of the kernel's modules, a path on the host.
    pub modules: String,
    /// Whether there is a second file system, `tools`, to lay under the host's files.
    pub tools: bool,
    /// Whether there is a third one, `services`, to lay under those.
    pub services: bool,
    /// Modules to load from the initramfs, dependencies first.
    pub load: Vec<String>,
    /// Whether files of the host may change while the machine runs: what it knows of them is
    /// then forgotten before each command.
    pub forget: bool,
    /// Whether what is written is kept on the machine's disk, across boots.
    pub keep: bool,
    /// Whether systemd becomes process 1 once the machine takes commands.
    pub systemd: bool,
}

impl Config {
    /// Writes the fields.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let word = |flag| if flag { "yes" } else { "" };
        for field in [
            &self.hostname,
            &self.modules,
            word(self.tools),
            word(self.services),
            word(self.forget),
            word(self.keep),
            word(self.systemd),
        ] {
            put(&mut out, field.as_bytes());
        }
        for module in &self.load {
            put(&mut out, module.as_bytes());
        }
        out
    }

    /// Reads the fields; `None` when they are cut short or not text.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = fields(payload)?
            .into_iter()
            .map(|field| String::from_utf8(field).ok());
        let mut next = || fields.next().flatten();
        let (hostname, modules) = (next()?, next()?);
        let mut flag = || next().map(|word| !word.is_empty());
        Some(Self {
            hostname,
            modules,
            tools: flag()?,
            services: flag()?,
            forget: flag()?,
            keep: flag()?,
            systemd: flag()?,
            load: fields.collect::<Option<_>>()?,
        })
    }
}

/// A command to run. Arguments and environment are bytes: Linux promises no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`, added to the machine's own environment.
    pub env: Vec<Vec<u8>>,
    /// Working directory; empty for `/`.
    pub cwd: Vec<u8>,
    /// Rows and columns, when the command gets a terminal.
    pub tty: Option<(u16, u16)>,
}

impl Exec {
    /// Writes the fields.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &self.tty.map(size_bytes).unwrap_or_default());
        put(&mut out, &self.cwd);
        put(
            &mut out,
            &u32::try_from(self.argv.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        for field in self.argv.iter().chain(&self.env) {
            put(&mut out, field);
        }
        out
    }

    /// Reads the fields; `None` when they are cut short or there is no program.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = fields(payload)?.into_iter();
        let tty = size(&fields.next()?);
        let cwd = fields.next()?;
        let count = u32::from_le_bytes(fields.next()?.try_into().ok()?);
        let argv: Vec<_> = fields.by_ref().take(usize::try_from(count).ok()?).collect();
        (!argv.is_empty()).then(|| Self {
            argv,
            env: fields.collect(),
            cwd,
            tty,
        })
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It could not be started: the status a shell would give (126, 127), and why.
    NotStarted(i32, String),
}

impl Exit {
    /// The status a shell would report.
    pub fn status(&self) -> i32 {
        match self {
            Self::Code(code) | Self::NotStarted(code, _) => *code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether it returned status 0.
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }

    /// Writes kind, number and text.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, number, text) = match self {
            Self::Code(code) => (0, *code, ""),
            Self::Signal(signal) => (1, *signal, ""),
            Self::NotStarted(code, why) => (2, *code, why.as_str()),
        };
        let mut out = vec![kind];
        out.extend(number.to_le_bytes());
        out.extend(text.as_bytes());
        out
    }

    /// Reads what [`Exit::encode`] wrote.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let (number, text) = rest.split_first_chunk::<4>()?;
        let number = i32::from_le_bytes(*number);
        match kind {
            0 => Some(Self::Code(number)),
            1 => Some(Self::Signal(number)),
            2 => Some(Self::NotStarted(
                number,
                String::from_utf8_lossy(text).into_owned(),
            )),
            _ => None,
        }
    }
}

/// Rows and columns as bytes.
pub fn size_bytes((rows, columns): (u16, u16)) -> Vec<u8> {
    [rows.to_le_bytes(), columns.to_le_bytes()].concat()
}

/// Rows and columns from bytes; `None` for anything but four bytes.
pub fn size(bytes: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *bytes else { return None };
    Some((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
}

fn put(out: &mut Vec<u8>, field: &[u8]) {
    out.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(field);
}

fn fields(mut rest: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        fields.push(tail.get(..length)?.to_vec());
        rest = tail.get(length..)?;
    }
    Some(fields)
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Option<Frame>> {
        Frame::read_from(&mut &bytes[..])
    }

    #[test]
    fn frames_round_trip() {
        for payload in [vec![], vec![0], vec![7; MAX_PAYLOAD]] {
            let frame = Frame::new(Kind::Stdout, 3, payload);
            let mut bytes = Vec::new();
            frame.write_to(&mut bytes).unwrap();
            assert_eq!(read(&bytes).unwrap(), Some(frame));
        }
        assert_eq!(read(&[]).unwrap(), None);
        assert!(
            Frame::new(Kind::Stdin, 1, vec![0; MAX_PAYLOAD + 1])
                .write_to(&mut Vec::new())
                .is_err()
        );
    }

    #[test]
    fn hostile_frames_are_refused_before_anything_is_allocated() {
        for bytes in [
            &b"\xff\xff\xff\xff\x04\0\0\0\0"[..], // four gigabytes
            b"\0\0\0\0",                          // shorter than its own header
            b"\x05\0\0\0\xee\0\0\0\0",            // no such kind
            b"\x09\0\0\0\x04\0\0\0\0ab",          // cut short
            b"\x05\0",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn fields_of_any_bytes_round_trip_and_cut_ones_are_refused() {
        let exec = Exec {
            argv: vec![b"a b".to_vec(), vec![], vec![0xff, 0]],
            env: vec![b"A=".to_vec()],
            cwd: b"/x".to_vec(),
            tty: Some((24, 80)),
        };
        let bytes = exec.encode();
        assert_eq!(Exec::decode(&bytes), Some(exec));
        assert!(
            (0..bytes.len())
                .all(|end| Exec::decode(&bytes[..end]).is_none_or(|exec| exec.env.is_empty()))
        );
        assert_eq!(
            Exec::decode(&Exec::default().encode()),
            None,
            "a command without program"
        );
        assert_eq!(Exec::decode(b"\xff\xff\xff\xff"), None);
        let config = Config {
            hostname: "lab0".into(),
            load: vec!["igb".into()],
            tools: true,
            systemd: true,
            ..Config::default()
        };
        assert_eq!(Config::decode(&config.encode()), Some(config));
        for exit in [
            Exit::Code(-1),
            Exit::Signal(9),
            Exit::NotStarted(127, "no".into()),
        ] {
            assert_eq!(Exit::decode(&exit.encode()), Some(exit));
        }
        assert_eq!(Exit::decode(&[0, 1]), None);
    }
}
