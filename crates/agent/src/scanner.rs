//! The thread that owns the host: it looks when it is asked to, and once a minute by itself.
//!
//! It keeps what it saw. When it is told which functions changed it looks at those, and puts what it sees
//! into the rest; when that is not enough it looks at the whole host.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use host::Linux;
use model::{DiscoverError, Host as _, Inventory, PciAddress, Scope};
use tokio::sync::mpsc;

use crate::grant::NodeHas;
use crate::options::OpenHost;
use crate::signals::Changed;

/// How often the whole host is looked at without a reason, in case an event was lost.
const ROUTINE: Duration = Duration::from_secs(60);

/// What was seen at one moment.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The host, or why it was not seen.
    pub(crate) seen: Result<Arc<Inventory>, DiscoverError>,
    /// What the node itself has.
    pub(crate) node: NodeHas,
    /// How long it took.
    pub(crate) took: Duration,
    /// How far the look went.
    pub(crate) extent: Extent,
    /// Did nobody ask for it?
    pub(crate) routine: bool,
}

/// How far a look goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The whole host.
    Host,
    /// Some functions and what is around them.
    Functions,
}

/// The thread that owns the host, seen from the others.
pub(crate) struct Scanner {
    requests: SyncSender<Changed>,
    /// What it saw.
    pub(crate) scans: mpsc::Receiver<Scan>,
}

impl Scanner {
    /// Starts the thread; it opens the host and lives as long as this.
    pub(crate) fn start(open: OpenHost) -> io::Result<Self> {
        // The owner asks for one scan at a time.
        let (requests, asked) = sync_channel(1);
        // The one that was asked for, and the one of the minute.
        let (answers, scans) = mpsc::channel(2);
        let (opened, how) = sync_channel(1);
        let work = move || {
            let linux = match open() {
                Ok(linux) => linux,
                Err(error) => {
                    let _gone = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(())).is_ok() {
                let mut eye = Eye { linux, seen: None };
                eye.look_until_the_end(&asked, &answers);
            }
        };
        std::thread::Builder::new()
            .name("host".to_owned())
            .spawn(work)?;
        match how.recv() {
            Ok(Ok(())) => Ok(Self { requests, scans }),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Asks for a look. Returns whether one that was asked for will come.
    pub(crate) fn look(&self, changed: Changed) -> bool {
        self.requests.try_send(changed).is_ok()
    }
}

/// What the thread has.
struct Eye {
    linux: Linux,
    seen: Option<Arc<Inventory>>,
}

impl Eye {
    fn look_until_the_end(&mut self, asked: &Receiver<Changed>, answers: &mpsc::Sender<Scan>) {
        let mut routine_at = Instant::now() + ROUTINE;
        loop {
            let wait = routine_at.saturating_duration_since(Instant::now());
            let (changed, routine) = match asked.recv_timeout(wait) {
                Ok(changed) => (changed, false),
                Err(RecvTimeoutError::Timeout) => (Changed::Anything, true),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let scan = self.scan(changed, routine);
            if scan.extent == Extent::Host {
                routine_at = Instant::now() + ROUTINE;
            }
            if answers.blocking_send(scan).is_err() {
                return;
            }
        }
    }

    fn scan(&mut self, changed: Changed, routine: bool) -> Scan {
        let begun = Instant::now();
        let part = match changed {
            Changed::Functions(functions) => self.part(&functions),
            Changed::Nothing | Changed::Anything => None,
        };
        let (seen, extent) = match part {
            Some(seen) => (Ok(seen), Extent::Functions),
            None => (self.linux.observe(Scope::All), Extent::Host),
        };
        let seen = self.keep(seen);
        let has = |name: &str| self.linux.root().exists(&format!("/sys/class/misc/{name}"));
        let node = NodeHas {
            vhost_net: has("vhost-net") && has("tun"),
        };
        Scan {
            seen,
            node,
            took: begun.elapsed(),
            extent,
            routine,
        }
    }

    /// Looks at some functions; `None` when that is not enough.
    fn part(&mut self, functions: &BTreeSet<PciAddress>) -> Option<Inventory> {
        let before = self.seen.as_ref()?;
        // What went wrong is told by the look at the whole.
        self.linux.renew(before, functions).ok().flatten()
    }

    /// Remembers what was seen; what is as it was stays the same in memory. After a look that failed the
    /// next one is at the whole host.
    fn keep(
        &mut self,
        seen: Result<Inventory, DiscoverError>,
    ) -> Result<Arc<Inventory>, DiscoverError> {
        let known = self.seen.take();
        let seen = seen?;
        let known = known.filter(|known| **known == seen);
        let seen = known.unwrap_or_else(|| Arc::new(seen));
        self.seen = Some(Arc::clone(&seen));
        Ok(seen)
    }
}
