//! Attributes of one device directory, read once, with what is damaged written down.
//!
//! An attribute that is absent is normal: kernels, drivers and device kinds differ. One that is
//! there and cannot be understood (empty, cut short, not UTF-8, refused) becomes a [`Gap`] that
//! names the file, and reads as absent. A device that leaves while it is read answers `ENODEV` or
//! loses its files; [`Device::is_gone`] says so afterwards and the caller drops what it read.

use std::fmt::Display;

use model::Gap;
use rustix::io::Errno;

use crate::root::{Dir, HostRoot, is_gone};

/// Longest quotation of a damaged attribute, in characters.
const QUOTED_CHARS: usize = 40;

/// What is used for every device of a pass: one buffer, one list of gaps.
#[derive(Default)]
pub(super) struct Notes {
    buffer: Vec<u8>,
    pub(super) gaps: Vec<Gap>,
}

impl Notes {
    /// Notes that something about `object` could not be read.
    pub(super) fn gap(&mut self, object: impl Display, reason: impl Into<String>) {
        self.gaps.push(Gap {
            object: object.to_string(),
            reason: reason.into(),
        });
    }
}

/// One device directory of sysfs.
pub(super) struct Device<'a> {
    dir: Dir,
    path: String,
    object: &'a dyn Display,
    notes: &'a mut Notes,
    first_gap: usize,
    left: bool,
}

impl<'a> Device<'a> {
    /// Opens the directory at `path`; `None` when it is not there (any more).
    pub(super) fn open(
        root: &HostRoot,
        path: String,
        object: &'a dyn Display,
        notes: &'a mut Notes,
    ) -> Option<Self> {
        let dir = match root.dir(&path) {
            Ok(dir) => dir,
            Err(errno) if is_gone(errno) => return None,
            Err(errno) => {
                notes.gap(object, format!("open {path}: {errno}"));
                return None;
            }
        };
        Some(Self {
            dir,
            path,
            object,
            first_gap: notes.gaps.len(),
            notes,
            left: false,
        })
    }

    /// Reads an attribute as text without surrounding white space, and hands it to `parse`.
    ///
    /// Returns `None` when the attribute is absent, and also, with a gap, when it cannot be read or
    /// `parse` does not take it; `expected` says what it should have been.
    pub(super) fn attribute<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let bytes = match self.dir.read(name, &mut self.notes.buffer) {
            Ok(bytes) => bytes,
            Err(errno) => {
                self.unreadable("read", name, errno);
                return None;
            }
        };
        let text = std::str::from_utf8(bytes).map(str::trim);
        let value = text.ok().and_then(parse);
        if value.is_none() {
            let found = match text {
                Ok("") => "nothing".to_owned(),
                Ok(text) => format!("{:?}", text.chars().take(QUOTED_CHARS).collect::<String>()),
                Err(_) => "bytes that are not UTF-8".to_owned(),
            };
            let reason = format!("{name} holds {found}, not {expected}");
            self.notes.gap(self.object, reason);
        }
        value
    }

    /// Reads the last component of the target of the link `name`, and hands it to `parse`.
    pub(super) fn link<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let target = match self.dir.link_name(name, &mut self.notes.buffer) {
            Ok(target) => target,
            Err(errno) => {
                self.unreadable("read link", name, errno);
                return None;
            }
        };
        let value = std::str::from_utf8(target).ok().and_then(parse);
        if value.is_none() {
            let found = String::from_utf8_lossy(target);
            let found: String = found.chars().take(QUOTED_CHARS).collect();
            let reason = format!("{name} points to {found:?}, not {expected}");
            self.notes.gap(self.object, reason);
        }
        value
    }

    /// Lists the sub-directory `name`; nothing when it is absent.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        self.dir.list(name).unwrap_or_else(|errno| {
            self.unreadable("list", name, errno);
            Vec::new()
        })
    }

    /// Reads an attribute of bytes.
    pub(super) fn bytes(&mut self, name: &str) -> Option<&[u8]> {
        match self.dir.read(name, &mut self.notes.buffer) {
            Ok(_) => Some(&self.notes.buffer),
            Err(errno) => {
                self.unreadable("read", name, errno);
                None
            }
        }
    }

    /// Is there a `name` in the directory?
    pub(super) fn has(&self, name: &str) -> bool {
        self.dir.has(name)
    }

    /// Notes a gap of this device.
    pub(super) fn gap(&mut self, reason: impl Into<String>) {
        self.notes.gap(self.object, reason);
    }

    fn unreadable(&mut self, attempt: &str, name: &str, errno: Errno) {
        if matches!(errno, Errno::NOENT | Errno::NOTDIR) {
            return;
        }
        // Perhaps the device left; then the gap is forgotten in `is_gone`.
        self.left |= is_gone(errno);
        let reason = format!("{attempt} {name}: {errno}");
        self.notes.gap(self.object, reason);
    }

    /// Did the device leave while it was read? Its gaps are then forgotten.
    ///
    /// `suspect` says that an attribute which every such device has was absent; without a suspicion
    /// nothing is looked up, so a device that stayed costs no system call.
    pub(super) fn is_gone(&mut self, root: &HostRoot, suspect: bool) -> bool {
        let gone = (self.left || suspect) && !root.exists(&self.path);
        if gone {
            self.notes.gaps.truncate(self.first_gap);
        }
        gone
    }
}

/// Reads a decimal or, with `0x`, a hexadecimal number as sysfs writes it.
pub(super) fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    unsigned(digits, radix)
}

/// Reads a hexadecimal number without prefix.
pub(super) fn hex<T: TryFrom<u64>>(text: &str) -> Option<T> {
    unsigned(text, 16)
}

fn unsigned<T: TryFrom<u64>>(digits: &str, radix: u32) -> Option<T> {
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    let value = plain.then(|| u64::from_str_radix(digits, radix).ok())??;
    T::try_from(value).ok()
}
