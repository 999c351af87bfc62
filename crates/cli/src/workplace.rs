//! What commands that change a host work with: its files, virtfn's records and locks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{
    AccessError, BootId, Checkpoints, Engine, HostRoot, Ledger, Linux, StateDir, Uninterrupted,
};
use model::DiscoverError;

use crate::args::Cli;
use crate::sight::{Place, SightError};

/// Where virtfn works, and where it keeps what it did.
pub(crate) struct Workplace {
    /// The host's files.
    pub(crate) root: HostRoot,
    /// Where records and locks are.
    pub(crate) state: StateDir,
    /// Which boot this is.
    pub(crate) boot: BootId,
    /// Who has what.
    pub(crate) ledger: Ledger,
    /// Where tests may kill the process.
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
}

/// Where a workplace is, as the command line says it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The host.
    pub(crate) place: Place,
    state_dir: Option<PathBuf>,
    kill_at: u32,
}

impl Site {
    /// Reads the options that all commands have.
    pub(crate) fn new(cli: &Cli) -> Self {
        Self {
            place: match &cli.root {
                Some(dir) => Place::Beneath(dir.clone()),
                None => Place::Here,
            },
            state_dir: cli.state_dir.clone(),
            #[cfg(feature = "kill-points")]
            kill_at: cli.kill_at,
            #[cfg(not(feature = "kill-points"))]
            kill_at: 0,
        }
    }

    /// Returns the site of a recording.
    pub(crate) fn recorded(&self, path: &Path) -> Self {
        Self {
            place: Place::Recording(path.to_owned()),
            ..self.clone()
        }
    }

    /// Returns what is told of each checkpoint.
    pub(crate) fn checkpoints(&self) -> Arc<dyn Checkpoints> {
        checkpoints(self.kill_at)
    }

    /// Returns where records and locks are: beside the host's files, unless said otherwise.
    pub(crate) fn state(&self) -> StateDir {
        match (&self.state_dir, &self.place) {
            (Some(dir), _) => StateDir::new(dir.clone(), dir.join("run")),
            (None, Place::Beneath(root)) => {
                StateDir::new(root.join("var/lib/virtfn"), root.join("run/virtfn"))
            }
            (None, Place::Here | Place::Recording(_)) => StateDir::default(),
        }
    }

    /// Returns the name of the host; a recorded one has none.
    pub(crate) fn host_name(&self) -> Option<String> {
        match &self.place {
            Place::Recording(_) => None,
            Place::Here | Place::Beneath(_) => host_name(&self.root().ok()?),
        }
    }

    /// Opens the host's files.
    pub(crate) fn root(&self) -> Result<HostRoot, AccessError> {
        match &self.place {
            Place::Here | Place::Recording(_) => HostRoot::this_machine(),
            Place::Beneath(dir) => HostRoot::open(dir),
        }
    }
}

impl Workplace {
    /// Opens a workplace; nothing is created before something is changed.
    pub(crate) fn open(site: &Site) -> Result<Self, SightError> {
        let root = site.root()?;
        let state = site.state();
        let boot = BootId::read(&root)?;
        Ok(Self {
            ledger: Ledger::new(state.clone(), boot.clone()),
            root,
            state,
            boot,
            checkpoints: checkpoints(site.kill_at),
        })
    }

    /// Opens the host once more: each thread has its own.
    pub(crate) fn linux(&self) -> Result<Linux, AccessError> {
        let root = HostRoot::open(self.root.path())?;
        Ok(Linux::at(root)
            .with_ledger(self.ledger.clone())
            .with_checkpoints(Arc::clone(&self.checkpoints)))
    }

    /// Opens the host once more, for a caller that expects an observation to fail.
    pub(crate) fn observer(&self) -> Result<Linux, DiscoverError> {
        self.linux().map_err(|source| DiscoverError {
            attempt: "open the host's files".to_owned(),
            source: Box::new(source),
            code: model::Code::new("host-not-accessible"),
            remedy: None,
        })
    }

    /// Puts the engine to work on `linux`.
    pub(crate) fn engine<'a>(&'a self, linux: &'a mut Linux) -> Engine<'a, Linux> {
        Engine {
            host: linux,
            ground: &self.root,
            state: &self.state,
            ledger: &self.ledger,
            checkpoints: self.checkpoints.as_ref(),
        }
    }
}

/// Returns the name of the host that runs here.
pub(crate) fn host_name(root: &HostRoot) -> Option<String> {
    let name = root.read_text("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(feature = "kill-points")]
fn checkpoints(kill_at: u32) -> Arc<dyn Checkpoints> {
    match kill_at {
        0 => Arc::new(Uninterrupted),
        nth => Arc::new(host::KillAt::new(nth)),
    }
}

#[cfg(not(feature = "kill-points"))]
fn checkpoints(_kill_at: u32) -> Arc<dyn Checkpoints> {
    Arc::new(Uninterrupted)
}
