//! What the agent is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use host::{AccessError, Checkpoints, HostRoot, Linux};

/// Opens the host, on the thread that will own it.
pub type OpenHost = Box<dyn FnOnce() -> Result<Linux, AccessError> + Send>;

/// What the agent is told when it starts.
pub struct Options {
    /// The configuration of the device plugin.
    pub config: PathBuf,
    /// Prefix of resources whose pool has none.
    pub prefix: String,
    /// Are device nodes passed by CDI?
    pub cdi: bool,
    /// How the kubelet learns of the pools.
    pub registration: Registration,
    /// Directories that the kubelet and the container runtime share with us.
    pub dirs: Dirs,
    /// Where health, metrics and state are served.
    pub listen: Option<SocketAddr>,
    /// Is the host this machine, whose kernel tells what changes? A recording tells nothing.
    pub live: bool,
    /// The records of who holds which VF.
    pub ledger: PathBuf,
    /// The host's files, to look at a device before it is given away.
    pub root: HostRoot,
    /// The host.
    pub open_host: OpenHost,
    /// Told of what is done, for tests that end the process there.
    pub checkpoints: Arc<dyn Checkpoints>,
}

/// Directories that the kubelet and the container runtime share with us.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// The kubelet's root directory, with `plugins_registry` and `pod-resources`.
    pub kubelet: PathBuf,
    /// Where device plugins register, whatever the kubelet's root directory is.
    pub device_plugins: PathBuf,
    /// Device-info files.
    pub device_info: PathBuf,
    /// CDI specifications.
    pub cdi: PathBuf,
}

impl Default for Dirs {
    fn default() -> Self {
        Self {
            kubelet: "/var/lib/kubelet".into(),
            device_plugins: kubelet::deviceplugin::DIRECTORY.into(),
            device_info: api::device_info::DIRECTORY.into(),
            cdi: api::cdi::DIRECTORY.into(),
        }
    }
}

impl Dirs {
    /// Returns where the kubelet's plugin watcher looks.
    pub(crate) fn watched(&self) -> PathBuf {
        self.kubelet.join("plugins_registry")
    }

    /// Returns the kubelet's socket for registrations.
    pub(crate) fn kubelet_socket(&self) -> PathBuf {
        self.device_plugins
            .join(kubelet::deviceplugin::KUBELET_SOCKET)
    }
}

/// How the kubelet learns of the pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// By its plugin watcher when it has one, as upstream decides.
    #[default]
    Auto,
    /// It finds the sockets in `plugins_registry`.
    Watcher,
    /// It is called at `kubelet.sock`.
    Legacy,
}

impl Registration {
    /// Decides what [`Registration::Auto`] means now.
    pub(crate) fn decided(self, dirs: &Dirs) -> Self {
        match self {
            Self::Auto if dirs.watched().is_dir() => Self::Watcher,
            Self::Auto => Self::Legacy,
            decided => decided,
        }
    }
}
