//! The calls of the kubelet for one pool.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use host::{Checkpoint, Checkpoints, HostRoot};
use kubelet::deviceplugin::{
    ALLOCATE, AllocateRequest, AllocateResponse, ContainerAllocateResponse,
    ContainerPreferredAllocationResponse, DevicePluginOptions, Empty, LIST_AND_WATCH, OPTIONS,
    PRE_START, PREFERRED_ALLOCATION, PreferredAllocationRequest, PreferredAllocationResponse,
    VERSION,
};
use kubelet::registration::{
    DEVICE_PLUGIN, GET_INFO, NOTIFY, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use kubelet::{Code, Handler, Reply, Status, Stop};
use model::{DeviceId, PciAddress, ResourceName, with_causes};
use policy::pool::prefer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::board::PoolBoard;
use crate::grant::{Delivery, Grant, GrantError, grant};
use crate::options::Dirs;
use crate::outputs::write_for;
use crate::pods::Beliefs;
use crate::signals::Changed;
use crate::snapshot::Snapshot;

/// How long a call waits until the host was looked at again; a scan takes some ten milliseconds.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// How long the kubelet may leave an update unread before its stream is taken for dead.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// Asks the owner to look at the host again.
pub(crate) struct Look {
    /// What may have changed.
    pub(crate) changed: Changed,
    /// Who waits for it.
    pub(crate) asker: Asker,
}

/// Is told when the new snapshot is there.
pub(crate) type Asker = oneshot::Sender<()>;

/// What the servers of all pools share.
pub(crate) struct Shared {
    pub(crate) dirs: Dirs,
    pub(crate) delivery: Delivery,
    /// The host's files when it is this machine, to see whether a device is still as it was.
    pub(crate) root: Option<HostRoot>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) looks: mpsc::Sender<Look>,
    pub(crate) beliefs: Mutex<Beliefs>,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
}

impl Shared {
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    pub(crate) fn beliefs(&self) -> MutexGuard<'_, Beliefs> {
        // Nobody panics while holding it, and what is in it would still be true.
        self.beliefs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at devices again; what is known stays when that takes too long.
    async fn look_again(&self, devices: &[String]) {
        let functions = devices.iter().map(|id| match id.parse() {
            Ok(DeviceId::Pci(address)) => Some(address),
            Ok(DeviceId::Aux(_)) | Err(_) => None,
        });
        let functions: Option<BTreeSet<PciAddress>> = functions.collect();
        let changed = functions.map_or(Changed::Anything, Changed::Functions);
        let (asker, seen) = oneshot::channel();
        let looked = async {
            if self.looks.send(Look { changed, asker }).await.is_ok() {
                // An error means that the agent ends.
                let _ended = seen.await;
            }
        };
        if timeout(LOOK_DEADLINE, looked).await.is_err() {
            warn!("host not looked at in time");
        }
    }

    /// Is every device bound to the driver that it was seen with? One `readlink` each.
    fn is_current(&self, snapshot: &Snapshot, devices: &[String]) -> bool {
        let Some(root) = &self.root else {
            return true;
        };
        devices.iter().all(|id| {
            let Ok(DeviceId::Pci(address)) = id.parse() else {
                return true;
            };
            let bound = root.link_name(&format!("/sys/bus/pci/devices/{address}/driver"));
            let seen = snapshot.seen.get(address);
            let seen = seen.and_then(|function| function.driver.as_ref());
            bound.ok().as_deref() == seen.map(|driver| driver.as_str())
        })
    }
}

/// Answers the kubelet for one pool.
#[derive(Clone)]
pub(super) struct PoolHandler {
    pub(super) resource: ResourceName,
    pub(super) prefers: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) board: Arc<PoolBoard>,
    /// How many streams there are.
    pub(super) streams: Arc<watch::Sender<usize>>,
    pub(super) stop: Stop,
}

/// Counts a stream for as long as it lives.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(streams: &Arc<watch::Sender<usize>>) -> Self {
        streams.send_modify(|count| *count += 1);
        Self(Arc::clone(streams))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Handler for PoolHandler {
    async fn call(self, path: String, request: kubelet::Bytes, reply: Reply) {
        debug!(resource = %self.resource, method = path, "called");
        match path.as_str() {
            GET_INFO => reply.send(Ok(self.info())).await,
            NOTIFY => match decoded(request) {
                Ok(status) => {
                    self.notified(&status);
                    reply.send(Ok(RegistrationStatusResponse {})).await;
                }
                Err(status) => reply.send(Err::<Empty, _>(status)).await,
            },
            OPTIONS => {
                let options = DevicePluginOptions {
                    pre_start_required: false,
                    get_preferred_allocation_available: self.prefers,
                };
                reply.send(Ok(options)).await;
            }
            LIST_AND_WATCH => self.list_and_watch(reply).await,
            PREFERRED_ALLOCATION => {
                let answer = decoded(request).and_then(|request| self.preferred(&request));
                reply.send(answer).await;
            }
            ALLOCATE => {
                let answer = match decoded(request) {
                    Ok(request) => self.allocate(&request).await,
                    Err(status) => Err(status),
                };
                let counter = match answer {
                    Ok(_) => &self.board.allocations,
                    Err(_) => &self.board.failures,
                };
                counter.add();
                reply.send(answer).await;
            }
            PRE_START => reply.send(Ok(Empty {})).await,
            other => {
                let status = Status::new(Code::UNIMPLEMENTED, format!("no method {other}"));
                reply.send(Err::<Empty, _>(status)).await;
            }
        }
    }
}

fn decoded<M: kubelet::Message + Default>(request: kubelet::Bytes) -> Result<M, Status> {
    M::decode(request).map_err(|error| Status::new(Code::INVALID_ARGUMENT, error.to_string()))
}

impl PoolHandler {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            r#type: DEVICE_PLUGIN.to_owned(),
            name: self.resource.to_string(),
            // The kubelet then uses the path where it found the socket, in its own mount namespace.
            endpoint: String::new(),
            supported_versions: vec!["v1alpha1".to_owned(), VERSION.to_owned()],
        }
    }

    fn notified(&self, status: &RegistrationStatus) {
        let taken = status.plugin_registered;
        self.board.registered.store(taken, Ordering::Relaxed);
        if taken {
            self.shared.checkpoints.passed(Checkpoint::Registered);
            self.board.registrations.add();
            self.board.set_fault(None);
            info!(resource = %self.resource, "registered with the kubelet");
        } else {
            self.board.refusals.add();
            let error = status.error.clone();
            if self
                .board
                .set_fault(Some(format!("the kubelet refused it: {error}")))
            {
                warn!(resource = %self.resource, error, "refused by the kubelet, which will try again");
            }
        }
    }

    async fn list_and_watch(mut self, reply: Reply) {
        let Ok(mut updates) = reply.stream() else {
            return;
        };
        let _counted = Counted::new(&self.streams);
        let mut snapshots = self.shared.snapshot.clone();
        let mut sent = None;
        loop {
            let list = snapshots.borrow_and_update().list(&self.resource);
            if sent.as_ref() != Some(&list) {
                match timeout(SEND_DEADLINE, updates.send(&list)).await {
                    Ok(Ok(())) => self.board.updates.add(),
                    Ok(Err(_)) | Err(_) => return,
                }
                sent = Some(list);
            }
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() {
                    break;
                },
                () = updates.closed() => return,
                () = self.stop.stopped() => break,
            }
        }
        updates.end();
    }

    fn preferred(
        &self,
        request: &PreferredAllocationRequest,
    ) -> Result<PreferredAllocationResponse, Status> {
        let snapshot = self.shared.current();
        let (pool, offer) = snapshot
            .pool(&self.resource)
            .ok_or_else(|| self.no_pool())?;
        let mut response = PreferredAllocationResponse::default();
        for container in &request.container_requests {
            let ids = |texts: &[String]| -> Vec<DeviceId> {
                texts.iter().filter_map(|id| id.parse().ok()).collect()
            };
            let size = usize::try_from(container.allocation_size)
                .map_err(|_| Status::new(Code::INVALID_ARGUMENT, "a negative number of devices"))?;
            let chosen = match pool.preference {
                Some(preference) => prefer(
                    preference,
                    offer,
                    &ids(&container.available_device_ids),
                    &ids(&container.must_include_device_ids),
                    size,
                ),
                None => Vec::new(),
            };
            let device_ids = chosen.iter().map(ToString::to_string).collect();
            let answer = ContainerPreferredAllocationResponse { device_ids };
            response.container_responses.push(answer);
        }
        Ok(response)
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<AllocateResponse, Status> {
        let mut response = AllocateResponse::default();
        for container in &request.container_requests {
            let begun = Instant::now();
            let answer = self.allocate_container(&container.devices_ids).await?;
            info!(
                resource = %self.resource,
                devices = container.devices_ids.join(","),
                elapsed_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
                "devices given to a container"
            );
            response.container_responses.push(answer);
        }
        Ok(response)
    }

    async fn allocate_container(
        &self,
        devices: &[String],
    ) -> Result<ContainerAllocateResponse, Status> {
        let mut snapshot = self.shared.current();
        let mut granted = self.grant(&snapshot, devices)?;
        if granted.is_err() || !self.shared.is_current(&snapshot, devices) {
            self.shared.look_again(devices).await;
            snapshot = self.shared.current();
            granted = self.grant(&snapshot, devices)?;
        }
        let granted = granted.map_err(|error| {
            let code = match error {
                GrantError::Unknown { .. } => Code::NOT_FOUND,
                GrantError::Unwell { .. } | GrantError::Lacks { .. } => Code::FAILED_PRECONDITION,
            };
            warn!(resource = %self.resource, devices = devices.join(","), %error, "devices not given");
            Status::new(code, error.to_string())
        })?;
        let (pool, _) = snapshot
            .pool(&self.resource)
            .ok_or_else(|| self.no_pool())?;
        let delivery = self.shared.delivery;
        // Held from now on, so that no update in between takes them off the list.
        let ids: Vec<DeviceId> = granted.devices.iter().map(|(id, _)| id.clone()).collect();
        let now = Instant::now();
        self.shared.beliefs().gave(&self.resource, &ids, now);
        let checkpoints = self.shared.checkpoints.as_ref();
        checkpoints.passed(Checkpoint::Given);
        write_for(&self.shared.dirs, pool, &granted, &snapshot, checkpoints).map_err(|error| {
            let text = with_causes(&error);
            warn!(resource = %self.resource, devices = devices.join(","), error = text, "devices not given");
            Status::new(Code::INTERNAL, text)
        })?;
        checkpoints.passed(Checkpoint::Answering);
        Ok(granted.response(pool, delivery))
    }

    fn grant(
        &self,
        snapshot: &Snapshot,
        devices: &[String],
    ) -> Result<Result<Grant, GrantError>, Status> {
        let (pool, offer) = snapshot
            .pool(&self.resource)
            .ok_or_else(|| self.no_pool())?;
        Ok(grant(pool, offer, &snapshot.seen, snapshot.node, devices))
    }

    fn no_pool(&self) -> Status {
        let message = format!("{} is not configured any more", self.resource);
        Status::new(Code::NOT_FOUND, message)
    }
}
