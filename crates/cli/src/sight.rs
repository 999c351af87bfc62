//! The host that a command looks at: this one, one beneath another root, or a recording.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use host::{AccessError, Linux, PciNames, Tree, TreeError, UnpackError, pci_names};
use model::{Code, DiscoverError, Explain, Host, Inventory, PciId, Scope};

use crate::failure::Failure;
use crate::workplace::{Site, Workplace, host_name};

/// Largest recording that is read; one of 1,024 VFs has about 5 MB.
const RECORDING_LIMIT: u64 = 256 * 1024 * 1024;

/// Which host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The machine that virtfn runs on.
    Here,
    /// The machine that virtfn runs on, with its files beneath this directory.
    Beneath(PathBuf),
    /// A recording: a file, or a directory that one was unpacked into.
    Recording(PathBuf),
}

/// The host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SightError {
    /// Its files cannot be reached.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The recording cannot be read.
    #[error("read recording {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no recording.
    #[error("{} is not a recording of `virtfn record`", .path.display())]
    Tree {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// The recording has no host in it.
    #[error("{} is not a recording of a host", .path.display())]
    NoHost {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: DiscoverError,
    },
    /// The recording cannot be unpacked.
    #[error("unpack recording {}", .path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The host cannot be observed.
    #[error(transparent)]
    Observe(#[from] DiscoverError),
}

impl Explain for SightError {
    fn code(&self) -> Code {
        match self {
            Self::Access(_) => Code::new("host-not-accessible"),
            Self::Read { .. } => Code::new("recording-unreadable"),
            Self::Tree { .. } | Self::NoHost { .. } => Code::new("recording-invalid"),
            Self::Unpack { .. } => Code::new("recording-not-unpacked"),
            Self::Observe(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Access(_) | Self::Read { .. } | Self::Unpack { .. } => None,
            Self::Tree { .. } | Self::NoHost { .. } => {
                Some("write one with `virtfn record FILE`".to_owned())
            }
            Self::Observe(error) => error.remedy(),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        SightError::from(error).into()
    }
}

impl From<SightError> for Failure {
    fn from(error: SightError) -> Self {
        match error {
            SightError::Read { .. } | SightError::Tree { .. } | SightError::NoHost { .. } => {
                Self::input(error)
            }
            SightError::Access(_) | SightError::Unpack { .. } | SightError::Observe(_) => {
                Self::failed(error)
            }
        }
    }
}

/// A host that can be looked at.
pub(crate) struct Sight {
    linux: Linux,
    /// The recording that it is, if it is one.
    recording: Option<PathBuf>,
    /// Where a recording was unpacked; removed when the sight ends.
    _unpacked: Option<Unpacked>,
}

impl Sight {
    /// Opens a host.
    pub(crate) fn open(site: &Site) -> Result<Self, SightError> {
        let (linux, unpacked) = match &site.place {
            Place::Here | Place::Beneath(_) => (Workplace::open(site)?.linux()?, None),
            Place::Recording(path) => {
                let unpacked = Unpacked::open(path)?;
                (Linux::recorded(&unpacked.dir)?, Some(unpacked))
            }
        };
        Ok(Self {
            linux,
            recording: match &site.place {
                Place::Recording(path) => Some(path.clone()),
                Place::Here | Place::Beneath(_) => None,
            },
            _unpacked: unpacked,
        })
    }

    /// Returns the host itself.
    pub(crate) fn linux(&mut self) -> &mut Linux {
        &mut self.linux
    }

    /// Sees all of the host.
    pub(crate) fn inventory(&mut self) -> Result<Inventory, SightError> {
        self.linux
            .observe(Scope::All)
            .map_err(|source| match &self.recording {
                Some(path) => SightError::NoHost {
                    path: path.clone(),
                    source,
                },
                None => SightError::Observe(source),
            })
    }

    /// Returns the names of the vendors and devices of `inventory`.
    #[must_use]
    pub(crate) fn names(&self, inventory: &Inventory) -> BTreeMap<PciId, PciNames> {
        let ids = inventory.functions.values().map(|function| function.id);
        pci_names(self.linux.root(), ids)
    }

    /// Returns the host's name; a recording has none.
    #[must_use]
    pub(crate) fn host_name(&self) -> Option<String> {
        if self.recording.is_some() {
            return None;
        }
        host_name(self.linux.root())
    }
}

/// A recording as a directory; one that was unpacked for this is removed with its content.
pub(crate) struct Unpacked {
    dir: PathBuf,
    /// Was it made for this, or given?
    ours: bool,
}

impl Unpacked {
    /// Unpacks a recording, or takes the directory that it was unpacked into.
    pub(crate) fn open(path: &Path) -> Result<Self, SightError> {
        if path.is_dir() {
            return Ok(Self {
                dir: path.to_owned(),
                ours: false,
            });
        }
        unpack(path)
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What cannot be removed is a few small files in the directory for temporary ones.
        if self.ours {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

fn unpack(path: &Path) -> Result<Unpacked, SightError> {
    let unreadable = |source| SightError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(RECORDING_LIMIT).read_to_string(&mut text))
        .map_err(unreadable)?;
    let tree = Tree::parse(&text).map_err(|source| SightError::Tree {
        path: path.to_owned(),
        source,
    })?;
    let unpacked = Unpacked {
        dir: private_dir().map_err(unreadable)?,
        ours: true,
    };
    tree.unpack(&unpacked.dir)
        .map_err(|source| SightError::Unpack {
            path: path.to_owned(),
            source,
        })?;
    Ok(unpacked)
}

/// Creates a directory that only this user can enter. A name that is taken, perhaps by somebody who
/// guessed it, is never used: the next one is tried.
fn private_dir() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    let process = std::process::id();
    for attempt in 0..1000_u32 {
        let dir = base.join(format!("virtfn-recording-{process}-{attempt}"));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
