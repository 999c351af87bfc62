//! A kubelet as its device manager and plugin watcher behave (1.36), without pods of its own.
//!
//! It keys clients by resource name only, and when a stream ends it drops whatever is registered under
//! the name by then; it takes the path where it found a socket when a plugin names none; when it starts
//! it removes every socket in its device plugin directory; the watcher looks at what it found until it
//! takes it, and waits longer after each failure, also for a new socket of the same path. Its waits are
//! shorter, so that tests are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kubelet::deviceplugin::{
    ALLOCATE, AllocateRequest, AllocateResponse, ContainerAllocateRequest,
    ContainerAllocateResponse, ContainerPreferredAllocationRequest, DevicePluginOptions, Empty,
    LIST_AND_WATCH, ListAndWatchResponse, OPTIONS, PREFERRED_ALLOCATION,
    PreferredAllocationRequest, PreferredAllocationResponse, REGISTER, RegisterRequest,
};
use kubelet::podresources::{
    ContainerDevices, ContainerResources, LIST, ListPodResourcesResponse, PodResources,
};
use kubelet::registration::{
    GET_INFO, InfoRequest, NOTIFY, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use kubelet::{
    Bytes, CallError, Code, Handler, Message as _, Reply, Status, Stopper, call, serve, stopper,
    subscribe,
};
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for anything; tests share the machine with builds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What is known of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// The devices of the last message, by id: are they healthy?
    pub(crate) devices: BTreeMap<String, bool>,
    /// NUMA nodes by id.
    pub(crate) numa: BTreeMap<String, i64>,
    pub(crate) socket: PathBuf,
    pub(crate) preferred: bool,
    /// How often it was registered.
    pub(crate) times: usize,
    client: usize,
}

type State = Arc<Mutex<BTreeMap<String, Known>>>;

/// What ends the stream of each resource.
type Cuts = Arc<Mutex<BTreeMap<String, Arc<Notify>>>>;

/// What a kubelet does differently in a test.
#[derive(Debug, Default)]
pub(crate) struct Moods {
    /// Tells plugins that they were not registered.
    pub(crate) refuses: AtomicBool,
    /// Answers nothing at `kubelet.sock`.
    pub(crate) hangs: AtomicBool,
    /// When registrations were refused.
    pub(crate) refusals: Mutex<Vec<Instant>>,
}

/// First and longest wait of the plugin watcher before it looks at a path again; the real ones are half
/// a second and two minutes.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

pub(crate) struct FakeKubelet {
    pub(crate) moods: Arc<Moods>,
    state: State,
    pods: Arc<Mutex<Vec<(String, String)>>>,
    cuts: Cuts,
    tasks: JoinSet<()>,
    stoppers: Vec<Stopper>,
}

impl FakeKubelet {
    /// Starts, as a kubelet does after a boot or a restart.
    pub(crate) fn start(dir: &Path) -> Self {
        let plugins = dir.join("device-plugins");
        for made in [
            &plugins,
            &dir.join("plugins_registry"),
            &dir.join("pod-resources"),
        ] {
            fs::create_dir_all(made).unwrap();
        }
        for socket in sockets(&plugins) {
            // An agent may take its own away meanwhile.
            let _gone = fs::remove_file(socket);
        }
        let mut kubelet = Self {
            moods: Arc::default(),
            state: Arc::default(),
            pods: Arc::default(),
            cuts: Arc::default(),
            tasks: JoinSet::new(),
            stoppers: Vec::new(),
        };
        let shared = Shared {
            plugins: plugins.clone(),
            state: Arc::clone(&kubelet.state),
            moods: Arc::clone(&kubelet.moods),
            pods: Arc::clone(&kubelet.pods),
            cuts: Arc::clone(&kubelet.cuts),
            streams: Arc::default(),
        };
        kubelet.listen(&plugins.join("kubelet.sock"), shared.clone());
        kubelet.listen(&dir.join("pod-resources/kubelet.sock"), shared.clone());
        kubelet
            .tasks
            .spawn(shared.watch(dir.join("plugins_registry")));
        kubelet
    }

    fn listen(&mut self, path: &Path, shared: Shared) {
        let _absent = fs::remove_file(path);
        let (stopper, stop) = stopper();
        let listener = UnixListener::bind(path).unwrap();
        self.tasks.spawn(serve(listener, shared, stop));
        self.stoppers.push(stopper);
    }

    /// Ends at once, as a process that is killed: its sockets stay.
    pub(crate) async fn kill(mut self) {
        self.stoppers.clear();
        self.tasks.shutdown().await;
    }

    /// Drops the client of a resource and tells nobody, as the kubelet does when an older stream of the
    /// same name ends.
    pub(crate) fn drop_client(&self, resource: &str) {
        self.cuts.lock().unwrap()[resource].notify_one();
    }

    /// Says that a pod has a device.
    pub(crate) fn pod_has(&self, resource: &str, device: &str) {
        let mut pods = self.pods.lock().unwrap();
        pods.push((resource.to_owned(), device.to_owned()));
    }

    pub(crate) fn no_pods(&self) {
        self.pods.lock().unwrap().clear();
    }

    /// Returns what is known of a resource.
    pub(crate) fn known(&self, resource: &str) -> Option<Known> {
        self.state.lock().unwrap().get(resource).cloned()
    }

    /// Waits until what is known of `resource` is as wanted.
    #[track_caller]
    pub(crate) fn until<'a>(
        &'a self,
        resource: &'a str,
        wanted: impl Fn(&Known) -> bool + 'a,
    ) -> impl Future<Output = Known> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let known = self.known(resource);
                if let Some(known) = known.clone().filter(|known| wanted(known)) {
                    return known;
                }
                assert!(
                    Instant::now() < deadline,
                    "{caller}: {resource} is {known:#?}"
                );
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits until a resource is not known any more.
    pub(crate) async fn until_gone(&self, resource: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.known(resource).is_some() {
            assert!(Instant::now() < deadline, "{resource} is still there");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn allocate(
        &self,
        resource: &str,
        devices: &[&str],
    ) -> Result<ContainerAllocateResponse, CallError> {
        let socket = self.known(resource).unwrap().socket;
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                devices_ids: devices.iter().map(ToString::to_string).collect(),
            }],
        };
        let response: AllocateResponse = call(&socket, ALLOCATE, &request, PATIENCE).await?;
        Ok(response.container_responses.into_iter().next().unwrap())
    }

    pub(crate) async fn prefer(
        &self,
        resource: &str,
        available: &[&str],
        must: &[&str],
        size: i32,
    ) -> Vec<String> {
        let texts = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        let socket = self.known(resource).unwrap().socket;
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: texts(available),
                must_include_device_ids: texts(must),
                allocation_size: size,
            }],
        };
        let answer: PreferredAllocationResponse =
            call(&socket, PREFERRED_ALLOCATION, &request, PATIENCE)
                .await
                .unwrap();
        answer.container_responses[0].device_ids.clone()
    }
}

/// Lists the sockets in a directory.
pub(crate) fn sockets(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
    sockets
        .map(|entry| entry.path())
        .filter(|path| !hidden(path))
        .collect()
}

#[derive(Clone)]
struct Shared {
    plugins: PathBuf,
    state: State,
    moods: Arc<Moods>,
    pods: Arc<Mutex<Vec<(String, String)>>>,
    cuts: Cuts,
    /// Streams of legacy registrations; the map drops one when another takes its place.
    streams: Arc<Mutex<JoinSet<()>>>,
}

impl Handler for Shared {
    async fn call(self, path: String, request: Bytes, reply: Reply) {
        if self.moods.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        match path.as_str() {
            REGISTER => {
                let request = RegisterRequest::decode(request).unwrap();
                if self.moods.refuses.load(Ordering::SeqCst) {
                    self.moods.refusals.lock().unwrap().push(Instant::now());
                    let status = Status::new(Code::UNKNOWN, "not today");
                    return reply.send(Err::<Empty, _>(status)).await;
                }
                assert_eq!(request.version, "v1beta1");
                let socket = self.plugins.join(&request.endpoint);
                let answer = self.begin(&request.resource_name, &socket).await;
                let answer = answer.map(|stream| {
                    self.streams.lock().unwrap().spawn(stream);
                    Empty {}
                });
                reply
                    .send(answer.map_err(|error| Status::new(Code::UNKNOWN, error.to_string())))
                    .await;
            }
            LIST => {
                let pods = self.pods.lock().unwrap().clone();
                let pod = |(resource_name, device): (String, String)| PodResources {
                    name: "pod".to_owned(),
                    namespace: "default".to_owned(),
                    containers: vec![ContainerResources {
                        name: "main".to_owned(),
                        devices: vec![ContainerDevices {
                            resource_name,
                            device_ids: vec![device],
                        }],
                    }],
                };
                let pod_resources = pods.into_iter().map(pod).collect();
                reply
                    .send(Ok(ListPodResourcesResponse { pod_resources }))
                    .await;
            }
            other => {
                let status = Status::new(Code::UNIMPLEMENTED, other);
                reply.send(Err::<Empty, _>(status)).await;
            }
        }
    }
}

impl Shared {
    /// Dials back, asks for options and returns what follows the stream.
    async fn begin(
        &self,
        resource: &str,
        socket: &Path,
    ) -> Result<impl Future<Output = ()> + Send + 'static, CallError> {
        let options: DevicePluginOptions = call(socket, OPTIONS, &Empty {}, PATIENCE).await?;
        let mut stream = subscribe(socket, LIST_AND_WATCH, &Empty {}, PATIENCE).await?;
        let client = {
            let mut state = self.state.lock().unwrap();
            let known = state.entry(resource.to_owned()).or_default();
            known.socket = socket.to_owned();
            known.preferred = options.get_preferred_allocation_available;
            known.times += 1;
            known.client += 1;
            known.client
        };
        let cut = Arc::new(Notify::new());
        let mut cuts = self.cuts.lock().unwrap();
        cuts.insert(resource.to_owned(), Arc::clone(&cut));
        let (state, resource) = (Arc::clone(&self.state), resource.to_owned());
        Ok(async move {
            loop {
                let list = tokio::select! {
                    list = stream.next::<ListAndWatchResponse>() => list,
                    () = cut.notified() => None,
                };
                let Some(list) = list else { break };
                let mut state = state.lock().unwrap();
                let Some(known) = state.get_mut(&resource).filter(|k| k.client == client) else {
                    return;
                };
                let devices = list.devices.iter();
                known.devices = devices
                    .clone()
                    .map(|device| (device.id.clone(), device.health == "Healthy"))
                    .collect();
                known.numa = devices
                    .filter_map(|device| {
                        Some((
                            device.id.clone(),
                            device.topology.as_ref()?.nodes.first()?.id,
                        ))
                    })
                    .collect();
            }
            // The kubelet's own race: whoever is registered under the name by now is dropped.
            let mut state = state.lock().unwrap();
            if let Some(known) = state.get_mut(&resource) {
                known
                    .devices
                    .values_mut()
                    .for_each(|healthy| *healthy = false);
            }
        })
    }

    /// Plays the plugin watcher.
    async fn watch(self, dir: PathBuf) {
        let mut taken: BTreeMap<PathBuf, (u64, Option<String>)> = BTreeMap::new();
        let mut back_offs: BTreeMap<PathBuf, (Instant, Duration)> = BTreeMap::new();
        let mut streams = JoinSet::new();
        loop {
            let there = sockets(&dir);
            // Sockets that went, or were made again, are unregistered first.
            let identity = |path: &PathBuf| {
                let found = fs::symlink_metadata(path).ok()?;
                Some(found.ino() ^ u64::try_from(found.mtime_nsec()).unwrap())
            };
            taken.retain(|path, (known, resource)| {
                let stays = identity(path) == Some(*known);
                if let (false, Some(resource)) = (stays, resource) {
                    self.state.lock().unwrap().remove(resource);
                }
                stays
            });
            for path in there {
                if taken.contains_key(&path) {
                    continue;
                }
                let Some(identity) = identity(&path) else {
                    continue;
                };
                let now = Instant::now();
                let back_off = back_offs.entry(path.clone()).or_insert((now, BACK_OFF.0));
                if now < back_off.0 {
                    continue;
                }
                // It is forgotten when the socket is taken.
                *back_off = (now + back_off.1, (back_off.1 * 2).min(BACK_OFF.1));
                let info = call::<PluginInfo>(&path, GET_INFO, &InfoRequest {}, PATIENCE).await;
                let Ok(info) = info else { continue };
                assert_eq!(info.r#type, "DevicePlugin");
                assert!(info.supported_versions.contains(&"v1beta1".to_owned()));
                assert_eq!(
                    info.endpoint, "",
                    "only the path where it was found always works"
                );
                let refuses = self.moods.refuses.load(Ordering::SeqCst);
                let stream = if refuses {
                    self.moods.refusals.lock().unwrap().push(Instant::now());
                    None
                } else {
                    self.begin(&info.name, &path).await.ok()
                };
                let status = RegistrationStatus {
                    plugin_registered: stream.is_some(),
                    error: if refuses { "not today" } else { "" }.to_owned(),
                };
                let told =
                    call::<RegistrationStatusResponse>(&path, NOTIFY, &status, PATIENCE).await;
                if let (Some(stream), Ok(_)) = (stream, told) {
                    streams.spawn(stream);
                    back_offs.remove(&path);
                    taken.insert(path, (identity, Some(info.name)));
                }
            }
            let _ended = timeout(Duration::from_millis(50), async {
                while streams.join_next().await.is_some() {}
                std::future::pending::<()>().await;
            })
            .await;
        }
    }
}
