//! The owner of the inventory: events in, one snapshot out.
//!
//! ```text
//! kernel, files, minute, calls ─▶ what changed ─▶ scan ─┐
//! config file ─▶ pools ─────────────────────────────────┼─▶ Snapshot ─▶ servers, files, HTTP
//! kubelet ─▶ what pods hold ────────────────────────────┘
//! ```
//!
//! The first event is answered with a scan at once; those that follow wait until a fifth of a second
//! has passed since it began, so that the thousand events of new VFs cost a few scans. A scan looks at the
//! functions that events named, and at the whole host when one named none. Nothing happens while nothing
//! changes, but for the look that the scanner takes every minute.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kubelet::{CallError, Stopper, stopper};
use model::{Inventory, ResourceName, with_causes};
use policy::pool::overlaps;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use crate::board::Board;
use crate::config::Configuration;
use crate::endpoint::{Asker, Endpoint, Look, Shared};
use crate::grant::{Delivery, NodeHas};
use crate::http;
use crate::options::{Dirs, Options, Registration};
use crate::outputs::Outputs;
use crate::pods::{Beliefs, PodDevice, pod_devices};
use crate::scanner::{Scan, Scanner};
use crate::signals::{Changed, Files, Interests, Word, listen_to_kernel, listen_to_recorded};
use crate::snapshot::Snapshot;

/// Least time from the beginning of one scan to that of the next.
const BREATH: Duration = Duration::from_millis(200);

/// Calls that wait for a scan at once: as many as a burst of pods has containers, and more wait.
const LOOKS: usize = 64;

/// The agent could not start.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct StartError {
    /// What was tried.
    pub attempt: String,
    /// Why it did not work.
    #[source]
    pub source: std::io::Error,
}

impl model::Explain for StartError {
    fn code(&self) -> model::Code {
        model::Code::new("agent-not-started")
    }

    fn remedy(&self) -> Option<String> {
        let text = match self.source.kind() {
            ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => {
                "give --listen another address, or end who has this one"
            }
            ErrorKind::PermissionDenied => {
                "run it as root in the host's network namespace, with CAP_NET_ADMIN"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

fn starting(attempt: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let attempt = attempt.into();
    move |source| StartError { attempt, source }
}

type Listing = oneshot::Receiver<(Result<Vec<PodDevice>, CallError>, std::time::Instant)>;

/// The owner.
pub(crate) struct Owner {
    dirs: Dirs,
    registration: Registration,
    scanner: Scanner,
    interests: Interests,
    config: Configuration,
    seen: Arc<Inventory>,
    node: NodeHas,
    outputs: Outputs,
    publish: watch::Sender<Arc<Snapshot>>,
    poke: watch::Sender<()>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    served: BTreeMap<ResourceName, Served>,
    tasks: JoinSet<()>,
    /// Was the host seen once?
    started: bool,
    /// Is there a file that could not be written?
    unwritten: bool,
}

struct Served {
    prefers: bool,
    _stopper: Stopper,
}

/// Runs the agent until it is told to end.
pub(crate) async fn run(options: Options) -> Result<(), StartError> {
    let mut end = Endings::new().map_err(starting("wait for signals"))?;
    let delivery = if options.cdi {
        Delivery::Cdi
    } else {
        Delivery::Nodes
    };
    let interests = Interests::default();
    let kernel = if options.live {
        listen_to_kernel(interests.clone()).map_err(starting("listen to the kernel"))?
    } else {
        let recorded = listen_to_recorded(options.root.path());
        recorded.map_err(starting("listen to what is played"))?
    };
    let scanner = Scanner::start(options.open_host).map_err(starting("open the host"))?;
    let mut watched = vec![
        options
            .config
            .parent()
            .map_or_else(PathBuf::new, PathBuf::from),
        options.ledger,
        options.dirs.device_plugins.clone(),
    ];
    let registration = options.registration.decided(&options.dirs);
    if registration == Registration::Watcher {
        watched.push(options.dirs.watched());
    }
    let files = Files::watch(watched);
    let (publish, snapshot) = watch::channel(Arc::default());
    let (looks, asked) = mpsc::channel(LOOKS);
    let board = Arc::new(Board::default());
    let mut tasks = JoinSet::new();
    let shared = Arc::new(Shared {
        dirs: options.dirs.clone(),
        delivery,
        root: options.live.then_some(options.root),
        snapshot,
        looks,
        beliefs: Mutex::new(Beliefs::default()),
        checkpoints: Arc::clone(&options.checkpoints),
    });
    if let Some(address) = options.listen {
        let bound = http::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (bound, listener) = bound.map_err(starting(format!("listen on {address}")))?;
        info!(address = %bound, "listening");
        let (board, shared) = (Arc::clone(&board), Arc::clone(&shared));
        tasks.spawn(http::serve(listener, board, shared));
    }
    let mut owner = Owner {
        registration,
        scanner,
        interests,
        config: Configuration::new(options.config, options.prefix, delivery),
        seen: Arc::default(),
        node: NodeHas::default(),
        outputs: Outputs::new(
            options.dirs.clone(),
            delivery,
            Arc::clone(&options.checkpoints),
        ),
        dirs: options.dirs,
        publish,
        poke: watch::Sender::new(()),
        shared,
        board,
        served: BTreeMap::new(),
        tasks,
        started: false,
        unwritten: false,
    };
    owner.first_beliefs().await;
    owner.config.reload();
    owner.live(&files, &kernel, asked, &mut end).await;
    owner.stop().await;
    Ok(())
}

/// The signals that end the agent, and the one that makes it look again.
struct Endings {
    ends: [Signal; 3],
    again: Signal,
}

impl Endings {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            ends: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
            again: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one: true when it is the end.
    async fn next(&mut self) -> bool {
        let [first, second, third] = &mut self.ends;
        tokio::select! {
            _ = first.recv() => true,
            _ = second.recv() => true,
            _ = third.recv() => true,
            _ = self.again.recv() => false,
        }
    }
}

impl Owner {
    /// Learns what pods hold before anything is offered: the first list must have all of it.
    async fn first_beliefs(&mut self) {
        let asked = std::time::Instant::now();
        let listed = pod_devices(&self.dirs.kubelet).await;
        let mut beliefs = self.shared.beliefs();
        match listed {
            Ok(devices) => beliefs.kubelet_said(devices, asked),
            Err(error) => {
                debug!(
                    error = with_causes(&error),
                    "kubelet not asked; its checkpoint is read"
                );
                beliefs.kubelet_wrote(&self.dirs);
            }
        }
    }

    async fn live(
        &mut self,
        files: &Files,
        kernel: &Word,
        mut asked: mpsc::Receiver<Look>,
        end: &mut Endings,
    ) {
        let mut scanning = false;
        let mut listing: Option<Listing> = None;
        // Calls that wait for the scan that runs, and for the next one.
        let (mut current, mut later): (Vec<Asker>, Vec<Asker>) = (Vec::new(), Vec::new());
        let mut wanted = Changed::Anything;
        let mut not_before = Instant::now();
        loop {
            let wants = wanted != Changed::Nothing;
            if wants && !scanning && (not_before <= Instant::now() || !later.is_empty()) {
                not_before = Instant::now() + BREATH;
                current.append(&mut later);
                scanning = self.scanner.look(std::mem::take(&mut wanted));
                continue;
            }
            tokio::select! {
                ends = end.next() => {
                    if ends {
                        return;
                    }
                    info!("told to look again");
                    files.watch_again();
                    self.reload();
                    wanted = Changed::Anything;
                }
                Some(scan) = self.scanner.scans.recv() => {
                    let waiting = if scan.routine {
                        files.watch_again();
                        self.reload();
                        self.poke.send_replace(());
                        Vec::new()
                    } else {
                        scanning = false;
                        std::mem::take(&mut current)
                    };
                    self.scanned(scan);
                    for asker in waiting {
                        // The call may have given up.
                        let _gone = asker.send(());
                    }
                    if listing.is_none() {
                        listing = Some(self.list_pods());
                    }
                }
                listed = received(&mut listing), if listing.is_some() => {
                    listing = None;
                    if let Some((listed, asked)) = listed {
                        self.listed(listed, asked);
                    }
                }
                changed = kernel.heard() => wanted.add(changed),
                Some(Look { changed, asker }) = asked.recv() => {
                    later.push(asker);
                    wanted.add(changed);
                }
                changed = files.heard() => {
                    self.reload();
                    self.poke.send_replace(());
                    wanted.add(changed);
                }
                () = sleep_until(not_before), if wants && !scanning => {}
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        error!(%error, "a task failed");
                    }
                }
            }
        }
    }

    /// Asks the kubelet on a task of its own, because it may hang.
    fn list_pods(&mut self) -> Listing {
        let (answer, listing) = oneshot::channel();
        let kubelet = self.dirs.kubelet.clone();
        self.tasks.spawn(async move {
            let asked = std::time::Instant::now();
            let listed = pod_devices(&kubelet).await;
            // Nobody waits any more when the agent ends.
            let _ended = answer.send((listed, asked));
        });
        listing
    }

    fn listed(&mut self, listed: Result<Vec<PodDevice>, CallError>, asked: std::time::Instant) {
        match listed {
            Ok(devices) => self.shared.beliefs().kubelet_said(devices, asked),
            Err(error) => debug!(error = with_causes(&error), "kubelet not asked"),
        }
        self.publish();
    }

    fn reload(&mut self) {
        if self.config.reload() {
            self.publish();
        }
    }

    fn scanned(&mut self, scan: Scan) {
        let fault = match scan.seen {
            Ok(seen) => {
                if !Arc::ptr_eq(&self.seen, &seen) {
                    self.interests.follow(&seen);
                    self.seen = seen;
                }
                self.node = scan.node;
                self.started = true;
                None
            }
            Err(error) => {
                let fault = with_causes(&error);
                warn!(error = fault, "host not seen; what was seen before stays");
                Some(fault)
            }
        };
        self.board.scanned(scan.extent, scan.took, fault);
        self.publish();
    }

    /// Makes a new snapshot, if anything differs, and serves the pools that there are.
    fn publish(&mut self) {
        self.board.set_config(self.config.problems.clone());
        if !self.started {
            return;
        }
        let held = self.shared.beliefs().held();
        let before = Arc::clone(&self.publish.borrow());
        let same = Arc::ptr_eq(&before.seen, &self.seen)
            && Arc::ptr_eq(&before.pools, &self.config.pools)
            && before.held == held
            && before.node == self.node;
        // What could not be written is tried again whenever the host was looked at.
        if same && !self.unwritten {
            return;
        }
        let pools = Arc::clone(&self.config.pools);
        let mut snapshot = Snapshot::new(pools, Arc::clone(&self.seen), held, self.node);
        self.write(&mut snapshot);
        // The devices themselves, because what pools make of each seldom changes.
        let devices = before
            .seen
            .functions
            .keys()
            .eq(snapshot.seen.functions.keys());
        let claims_changed = !devices || !Arc::ptr_eq(&before.pools, &snapshot.pools);
        let snapshot = Arc::new(snapshot);
        self.publish.send_replace(Arc::clone(&snapshot));
        self.serve();
        if claims_changed {
            tell_overlaps(&snapshot);
        }
    }

    /// Writes the files that others read, and tells which it could not.
    fn write(&mut self, snapshot: &mut Snapshot) {
        let faults: Vec<String> = self
            .outputs
            .follow(snapshot)
            .iter()
            .map(|error| with_causes(error))
            .collect();
        self.unwritten = !faults.is_empty();
        // A directory that cannot be written is one trouble, however many devices there are.
        let count = faults.len();
        let told = match faults.into_iter().next() {
            Some(first) if count > 1 => vec![format!("{first}, and {} others", count - 1)],
            first => first.into_iter().collect(),
        };
        if self.board.set_files(told.clone()) {
            for fault in told {
                warn!(error = fault, "files not written");
            }
        }
    }

    /// Starts servers for new pools and ends those of pools that went.
    fn serve(&mut self) {
        let pools = Arc::clone(&self.config.pools);
        let stays = |resource: &ResourceName, served: &Served| {
            let mut pools = pools.iter();
            pools.any(|pool| {
                pool.resource == *resource && pool.preference.is_some() == served.prefers
            })
        };
        let board = &self.board;
        self.served.retain(|resource, served| {
            let stays = stays(resource, served);
            if !stays {
                info!(%resource, "pool not served any more");
                board.forget(resource);
            }
            stays
        });
        for pool in pools.iter() {
            if self.served.contains_key(&pool.resource) {
                continue;
            }
            let (stopper, stop) = stopper();
            let endpoint = Endpoint {
                resource: pool.resource.clone(),
                prefers: pool.preference.is_some(),
                registration: self.registration,
                shared: Arc::clone(&self.shared),
                board: self.board.pool(&pool.resource),
                poke: self.poke.subscribe(),
                stop,
            };
            self.tasks.spawn(endpoint.run());
            let served = Served {
                prefers: pool.preference.is_some(),
                _stopper: stopper,
            };
            self.served.insert(pool.resource.clone(), served);
        }
    }

    /// Ends all servers at once; each removes its socket.
    async fn stop(mut self) {
        self.served.clear();
        let endpoints = async {
            while self.poke.receiver_count() > 0 {
                if self.tasks.join_next().await.is_none() {
                    break;
                }
            }
        };
        // A second for calls that are being answered, and some for the rest.
        if tokio::time::timeout(Duration::from_secs(2), endpoints)
            .await
            .is_err()
        {
            warn!("servers did not end in time");
        }
        self.tasks.abort_all();
        info!("ended");
    }
}

/// Says which pools claim the same devices: the order of the file decides, which may not be meant.
fn tell_overlaps(snapshot: &Snapshot) {
    let overlaps = overlaps(
        &snapshot.pools,
        &snapshot.seen,
        &snapshot.held,
        &snapshot.offer,
    );
    for overlap in overlaps {
        let first = overlap.devices.first().map(ToString::to_string);
        warn!(
            pool = %overlap.loser,
            owner = %overlap.owner,
            devices = overlap.devices.len(),
            first,
            "two pools claim the same devices; the earlier one in the file has them, or that of a pod"
        );
    }
}

async fn received<T>(receiver: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use model::Explain as _;

    use super::*;

    #[tokio::test]
    async fn an_address_that_somebody_has_is_refused_with_a_way_out() {
        let first = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = http::bind(first.local_addr().unwrap());
        let error = second.map_err(starting("listen on it")).unwrap_err();
        assert!(error.remedy().unwrap().contains("--listen"), "{error:?}");
    }
}
