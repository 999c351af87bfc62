//! The thread that owns the host: it looks when it is asked to.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use model::{DiscoverError, Host as _, Inventory, Scope};
use tokio::sync::oneshot;

use crate::grant::NodeHas;
use crate::options::OpenHost;

/// What was seen at one moment.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The host, or why it was not seen.
    pub(crate) seen: Result<Inventory, DiscoverError>,
    /// What the node itself has.
    pub(crate) node: NodeHas,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Asks the thread that owns the host.
pub(crate) struct Scanner {
    requests: SyncSender<oneshot::Sender<Scan>>,
}

impl Scanner {
    /// Starts the thread; it opens the host and lives as long as this.
    pub(crate) fn start(open: OpenHost) -> io::Result<Self> {
        // The owner asks for one scan at a time.
        let (requests, asked) = sync_channel::<oneshot::Sender<Scan>>(1);
        let (opened, how) = sync_channel(1);
        let work = move || {
            let mut linux = match open() {
                Ok(linux) => linux,
                Err(error) => {
                    let _gone = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(())).is_err() {
                return;
            }
            while let Ok(answer) = asked.recv() {
                let begun = Instant::now();
                let seen = linux.observe(Scope::All);
                let has = |name: &str| linux.root().exists(&format!("/sys/class/misc/{name}"));
                let scan = Scan {
                    seen,
                    node: NodeHas {
                        vhost_net: has("vhost-net") && has("tun"),
                    },
                    took: begun.elapsed(),
                };
                // Nobody waits any more when the agent ends.
                let _ended = answer.send(scan);
            }
        };
        std::thread::Builder::new()
            .name("host".to_owned())
            .spawn(work)?;
        match how.recv() {
            Ok(Ok(())) => Ok(Self { requests }),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Begins to look. The answer never comes when the thread is gone.
    pub(crate) fn look(&self) -> Option<oneshot::Receiver<Scan>> {
        let (answer, scan) = oneshot::channel();
        self.requests.try_send(answer).ok().map(|()| scan)
    }
}
