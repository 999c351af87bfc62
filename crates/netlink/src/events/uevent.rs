//! Device events: `add@/devices/…`, then `KEY=value` lines that end in NUL.

/// Longest event that is read; the kernel's own buffer has 2 KiB (`UEVENT_BUFFER_SIZE`).
const LONGEST: usize = 16 * 1024;

/// A device came, went or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// What happened.
    pub action: UeventAction,
    /// Path of the device below `/sys`.
    pub devpath: String,
    /// Its subsystem, such as `net` or `pci`.
    pub subsystem: Option<String>,
}

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UeventAction {
    /// It was added.
    Add,
    /// It was removed.
    Remove,
    /// It was renamed, or moved in the tree.
    Move,
    /// It was bound to a driver.
    Bind,
    /// It was unbound from its driver.
    Unbind,
    /// Anything else: it changed, went online or offline.
    Change,
}

impl Uevent {
    /// Reads an event; `None` when it is none, such as one of udev's own.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST {
            return None;
        }
        let mut lines = bytes.split(|byte| *byte == 0);
        let (action, devpath) = text(lines.next()?)?.split_once('@')?;
        let subsystem = lines
            .filter_map(text)
            .find_map(|line| line.strip_prefix("SUBSYSTEM="));
        devpath.starts_with('/').then(|| Self {
            action: UeventAction::from_word(action),
            devpath: devpath.to_owned(),
            subsystem: subsystem.map(str::to_owned),
        })
    }
}

impl UeventAction {
    fn from_word(word: &str) -> Self {
        match word {
            "add" => Self::Add,
            "remove" => Self::Remove,
            "move" => Self::Move,
            "bind" => Self::Bind,
            "unbind" => Self::Unbind,
            _ => Self::Change,
        }
    }
}

fn text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()
}

/// Parses arbitrary bytes as a device event.
pub(crate) fn fuzz_uevent(data: &[u8]) {
    if let Some(event) = Uevent::parse(data) {
        assert!(event.devpath.len() < data.len(), "a path from nowhere");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_netdev_is_an_add_in_subsystem_net() {
        let event = Uevent::parse(
            b"add@/devices/pci0000:00/0000:00:02.0/0000:01:10.0/net/eth2\0ACTION=add\0\
              DEVPATH=/devices/pci0000:00/0000:00:02.0/0000:01:10.0/net/eth2\0SUBSYSTEM=net\0\
              INTERFACE=eth2\0IFINDEX=7\0SEQNUM=1831\0",
        )
        .unwrap();
        assert_eq!(event.action, UeventAction::Add);
        assert_eq!(event.subsystem.as_deref(), Some("net"));
        assert!(event.devpath.ends_with("/net/eth2"));
    }

    #[test]
    fn what_is_no_kernel_event_is_ignored() {
        for bad in [
            &b""[..],
            b"libudev\0\xfe\xed\xca\xfe",
            b"add",
            b"add@relative",
            b"\xff@/devices",
            &[b'a'; LONGEST + 1],
        ] {
            assert_eq!(Uevent::parse(bad), None, "{bad:?}");
        }
    }
}
