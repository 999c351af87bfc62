//! Waiting for the kernel, always with a deadline.
//!
//! Nothing sleeps: whoever waits looks, waits for an event of the kernel, and looks again. An event
//! carries no state; it only says that looking is worth while. Since some events come a moment before
//! what they announce can be seen in sysfs, and some are lost under load, it is looked once a
//! second in any case.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use netlink::{Events, RequestError};
use rustix::fs::OFlags;

use crate::root::{AccessError, HostRoot};

/// How often it is looked when nothing is heard.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);

/// Looks until something is there; `None` when it was not there in time.
///
/// Open `events` before the change whose effect is awaited.
pub(crate) fn until<T>(
    events: &mut Events,
    patience: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<Option<T>, RequestError> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(None);
        }
        pause(events, deadline.min(now + LOOK_ANYWAY))?;
    }
}

/// Waits for an event, and takes all that came with it: a hundred events are worth one look.
pub(crate) fn pause(events: &mut Events, until: Instant) -> Result<(), RequestError> {
    if events.wait(until)?.is_some() {
        while events.wait(Instant::now())?.is_some() {}
    }
    Ok(())
}

/// Writes to a file of sysfs that may keep its writer in the kernel for long, or for ever.
///
/// The write is made on a thread of its own. When it does not return in time the thread is left
/// to it, because a thread inside the kernel cannot be called back.
pub(crate) fn write_slow(
    root: &HostRoot,
    path: &str,
    text: &str,
    patience: Duration,
) -> Result<(), AccessError> {
    let bytes = text.as_bytes().to_vec();
    slow(
        root,
        path,
        OFlags::WRONLY,
        "write",
        patience,
        move |fd| match rustix::io::write(&fd, &bytes)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        },
    )
}

/// Reads a number from a file of sysfs whose reader waits for the writer of [`write_slow`].
pub(crate) fn read_number_slow(
    root: &HostRoot,
    path: &str,
    patience: Duration,
) -> Result<u16, AccessError> {
    slow(root, path, OFlags::RDONLY, "read", patience, |fd| {
        let mut buffer = [0; 64];
        let length = rustix::io::read(&fd, &mut buffer)?;
        std::str::from_utf8(buffer.get(..length).unwrap_or_default())
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    })
}

fn slow<T: Send + 'static>(
    root: &HostRoot,
    path: &str,
    flags: OFlags,
    attempt: &'static str,
    patience: Duration,
    work: impl FnOnce(rustix::fd::OwnedFd) -> io::Result<T> + Send + 'static,
) -> Result<T, AccessError> {
    let error = |source: io::Error| AccessError::new(attempt, path, source);
    let fd = root
        .open_file(path, flags)
        .map_err(|errno| error(errno.into()))?;
    let (done, waiting) = mpsc::channel();
    thread::Builder::new()
        .name("slow sysfs".to_owned())
        .spawn(move || {
            // Nobody listens any more after the deadline.
            let _unheard = done.send(work(fd));
        })
        .map_err(error)?;
    waiting
        .recv_timeout(patience)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        // Opened for writing at both ends, a full pipe blocks its writer as a hung driver does.
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("numvfs"), 0o600.into()).unwrap();
        let reader = root.open_file("numvfs", OFlags::RDWR).unwrap();
        let full = vec![0; 1024 * 1024];
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        while rustix::io::write(&reader, &full).is_ok() {}
        let error = write_slow(&root, "numvfs", "8", Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn numbers_are_read_without_their_newline() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sriov_numvfs"), "7\n").unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        let long = Duration::from_secs(10);
        assert_eq!(read_number_slow(&root, "sriov_numvfs", long).unwrap(), 7);
        assert!(
            read_number_slow(&root, "absent", long)
                .unwrap_err()
                .is_gone()
        );
    }
}
