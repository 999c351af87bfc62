//! One pool towards the kubelet: its socket, its registration, and how both come back by themselves.
//!
//! ```text
//!          bind                 the kubelet looks (watcher) or is called (legacy)
//!  absent ──────▶ listening ───────────────────────────────────▶ registered
//!    ▲                │ socket vanished: end the old server first      │
//!    └────────────────┴────────────────────────────────────────────────┘
//! ```
//!
//! What would surprise:
//!
//! - The kubelet keys plugins by resource name, and when an old stream ends it drops whatever is
//!   registered under the name by then. So the old server ends before a new socket is made.
//! - With the plugin watcher it is the kubelet that tries again, and it waits up to two minutes for a
//!   path that failed. A socket that a dead agent left, and that the kubelet has dialled since, is
//!   therefore replaced by one of another name.
//! - A starting kubelet removes every socket in its device plugin directory.
//! - A kubelet that has dropped a pool says so to nobody: it closes its stream and keeps the resource
//!   at zero. A pool that is registered and that nobody watches is therefore registered again.

mod handler;
mod socket;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::Checkpoint;
use kubelet::deviceplugin::{DevicePluginOptions, Empty, REGISTER, RegisterRequest, VERSION};
use kubelet::{CallError, Stop, serve, stopper};
use model::{ResourceName, with_causes};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use handler::PoolHandler;
pub(crate) use handler::{Asker, Look, Shared};
use socket::{Identity, Socket, SocketError};

use crate::board::PoolBoard;
use crate::options::Registration;

/// First and longest wait before something is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long the kubelet may take to register: it dials back meanwhile, for which it has 10 s.
const REGISTER_DEADLINE: Duration = Duration::from_secs(20);

/// How long a registered pool may have no stream: a kubelet that restarts, and one that takes a new
/// registration, has none for a moment.
const UNWATCHED: Duration = Duration::from_secs(10);

/// One pool towards the kubelet.
pub(crate) struct Endpoint {
    pub(crate) resource: ResourceName,
    /// Does the pool choose among free devices? The kubelet asks once per registration.
    pub(crate) prefers: bool,
    pub(crate) registration: Registration,
    pub(crate) shared: Arc<Shared>,
    pub(crate) board: Arc<PoolBoard>,
    /// Changes when files around the sockets changed.
    pub(crate) poke: watch::Receiver<()>,
    pub(crate) stop: Stop,
}

/// Why a server ended.
enum Ended {
    Stopped,
    SocketGone,
    /// The plugin watcher has dropped the pool; only a new socket makes it look again.
    Dropped,
}

impl Endpoint {
    /// Serves until it is stopped; the socket is removed then.
    pub(crate) async fn run(mut self) {
        let mut retry = Retry::default();
        loop {
            match self.bind() {
                Ok(socket) => {
                    retry = Retry::default();
                    match self.serve(socket).await {
                        Ended::Stopped => return,
                        Ended::SocketGone => {
                            info!(resource = %self.resource, "socket vanished and is made again");
                        }
                        Ended::Dropped => {
                            warn!(resource = %self.resource, "the kubelet watches the pool no more; socket made again");
                        }
                    }
                }
                Err(error) => {
                    let fault = with_causes(&error);
                    if self.board.set_fault(Some(fault.clone())) {
                        warn!(resource = %self.resource, error = fault, "pool not served");
                    }
                    tokio::select! {
                        () = self.stop.stopped() => return,
                        _changed = self.poke.changed() => {}
                        () = sleep_until(retry.next()) => {}
                    }
                }
            }
        }
    }

    fn bind(&mut self) -> Result<Socket, SocketError> {
        // Whatever changed before is seen by binding.
        self.poke.mark_unchanged();
        let dirs = &self.shared.dirs;
        let checkpoints = self.shared.checkpoints.as_ref();
        let socket = match self.registration {
            Registration::Watcher => {
                let since = Identity::of(&dirs.kubelet_socket()).map(|socket| socket.changed);
                Socket::bind(&dirs.watched(), &self.resource, since, checkpoints)
            }
            Registration::Legacy | Registration::Auto => {
                Socket::bind(&dirs.device_plugins, &self.resource, None, checkpoints)
            }
        }?;
        self.board.set_fault(None);
        Ok(socket)
    }

    async fn serve(&mut self, mut socket: Socket) -> Ended {
        let Some(listener) = socket.listener.take() else {
            return Ended::SocketGone;
        };
        let (stopper, stop) = stopper();
        let streams = Arc::new(watch::Sender::new(0));
        let mut watching = streams.subscribe();
        let handler = PoolHandler {
            resource: self.resource.clone(),
            prefers: self.prefers,
            shared: Arc::clone(&self.shared),
            board: Arc::clone(&self.board),
            streams,
            stop: stop.clone(),
        };
        let mut server = JoinSet::new();
        server.spawn(serve(listener, handler, stop));
        let ended = self.watch(&socket, &mut server, &mut watching).await;
        drop(stopper);
        while server.join_next().await.is_some() {}
        self.board.registered.store(false, Ordering::Relaxed);
        if let Ended::Stopped | Ended::Dropped = ended {
            socket.remove();
        }
        ended
    }

    /// Keeps the pool registered while its server runs.
    async fn watch(
        &mut self,
        socket: &Socket,
        server: &mut JoinSet<()>,
        watching: &mut watch::Receiver<usize>,
    ) -> Ended {
        let legacy = self.registration != Registration::Watcher;
        let kubelet = self.shared.dirs.kubelet_socket();
        let mut known: Option<Identity> = None;
        let mut registering: Option<(Identity, Registering)> = None;
        let mut retry = Retry::default();
        // Who refused, and when it is asked again.
        let mut refused: Option<(Identity, Instant)> = None;
        let mut unwatched_until = None;
        loop {
            let registered = self.board.registered.load(Ordering::Relaxed);
            if *watching.borrow_and_update() > 0 || !registered {
                unwatched_until = None;
            } else if unwatched_until.is_none() {
                unwatched_until = Some(Instant::now() + UNWATCHED);
            }
            if legacy && registering.is_none() && refused.is_none() {
                registering = Identity::of(&kubelet)
                    .filter(|there| known.as_ref() != Some(there))
                    .map(|there| (there, self.register(socket)));
            }
            tokio::select! {
                () = self.stop.stopped() => return Ended::Stopped,
                _ended = server.join_next() => return Ended::SocketGone,
                _changed = self.poke.changed() => {
                    if !socket.is_there() {
                        return Ended::SocketGone;
                    }
                    // The kubelet that was called may be gone, and another one there.
                    let there = Identity::of(&kubelet);
                    refused = refused.filter(|(by, _)| there.as_ref() == Some(by));
                    registering = registering.filter(|(called, _)| there.as_ref() == Some(called));
                }
                () = at(refused.as_ref().map(|(_, until)| *until)), if refused.is_some() => refused = None,
                changed = watching.changed() => if changed.is_err() {
                    return Ended::SocketGone;
                },
                () = at(unwatched_until), if unwatched_until.is_some() => {
                    if !legacy {
                        return Ended::Dropped;
                    }
                    warn!(resource = %self.resource, "the kubelet watches the pool no more; registering again");
                    self.board.registered.store(false, Ordering::Relaxed);
                    known = None;
                }
                answer = finish(&mut registering), if registering.is_some() => {
                    let there = registering.take().map(|(there, _)| there);
                    match answer {
                        Ok(Empty {}) => {
                            self.shared.checkpoints.passed(Checkpoint::Registered);
                            known = there;
                            retry = Retry::default();
                            self.board.registrations.add();
                            self.board.registered.store(true, Ordering::Relaxed);
                            self.board.set_fault(None);
                            info!(resource = %self.resource, "registered with the kubelet");
                        }
                        Err(error) => {
                            self.board.refusals.add();
                            let fault = with_causes(&error);
                            if self.board.set_fault(Some(fault.clone())) {
                                warn!(resource = %self.resource, error = fault, "not registered");
                            }
                            refused = there.map(|there| (there, retry.next()));
                        }
                    }
                }
            }
        }
    }

    fn register(&self, socket: &Socket) -> Registering {
        self.shared.checkpoints.passed(Checkpoint::Registering);
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: socket.name(),
            resource_name: self.resource.to_string(),
            options: Some(DevicePluginOptions {
                pre_start_required: false,
                get_preferred_allocation_available: self.prefers,
            }),
        };
        let kubelet = self.shared.dirs.kubelet_socket();
        Box::pin(
            async move { kubelet::call(&kubelet, REGISTER, &request, REGISTER_DEADLINE).await },
        )
    }
}

type Registering = Pin<Box<dyn Future<Output = Result<Empty, CallError>> + Send>>;

async fn finish(registering: &mut Option<(Identity, Registering)>) -> Result<Empty, CallError> {
    match registering {
        Some((_, registering)) => registering.await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits that double.
struct Retry(Duration);

impl Default for Retry {
    fn default() -> Self {
        Self(RETRY.0)
    }
}

impl Retry {
    fn next(&mut self) -> Instant {
        let at = Instant::now() + self.0;
        self.0 = (self.0 * 2).min(RETRY.1);
        at
    }
}
