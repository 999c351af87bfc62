//! The socket file of a pool.

use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use host::{Checkpoint, Checkpoints};
use model::ResourceName;
use rustix::fs::{Mode, OFlags};
use tokio::net::UnixListener;

/// Longest path of a socket: `sun_path` has 108 bytes with the NUL at the end.
const LONGEST_PATH: usize = 107;

/// What tells one socket file from another of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// When it was made.
    pub(super) changed: SystemTime,
}

impl Identity {
    /// Looks at a socket; `None` when there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        found.file_type().is_socket().then(|| Self::new(&found))
    }

    fn new(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            changed: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    identity: Option<Identity>,
    /// Held while the pool is served, so that two agents do not take turns in replacing the socket.
    _lock: File,
    /// Taken by the server.
    pub(super) listener: Option<UnixListener>,
}

/// A socket could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("{attempt} {}", path.display())]
    Files {
        attempt: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("another agent of this node serves it; it has {} locked", lock.display())]
    Served { lock: PathBuf },
}

impl Socket {
    /// Makes the socket of `resource` in `dir`, in place of whatever a dead process left.
    ///
    /// `dialled` is since when a kubelet may have dialled what was left, in vain.
    pub(super) fn bind(
        dir: &Path,
        resource: &ResourceName,
        dialled: Option<SystemTime>,
        checkpoints: &dyn Checkpoints,
    ) -> Result<Self, SocketError> {
        let [usual, other] = names(dir, resource);
        let lock = lock(dir.join(format!(".{usual}.lock")))?;
        let [usual, other] = [usual, other].map(|name| dir.join(name));
        let usual_left = clear(&usual)?;
        clear(&other)?;
        checkpoints.passed(Checkpoint::SocketCleared);
        let in_vain = usual_left
            .zip(dialled)
            .is_some_and(|(left, dialled)| left.changed < dialled);
        let path = if in_vain { other } else { usual };
        let listener = UnixListener::bind(&path).map_err(|source| SocketError::Files {
            attempt: "listen on",
            path: path.clone(),
            source,
        })?;
        checkpoints.passed(Checkpoint::SocketMade);
        Ok(Self {
            identity: Identity::of(&path),
            _lock: lock,
            path,
            listener: Some(listener),
        })
    }

    /// Is the file still ours?
    pub(super) fn is_there(&self) -> bool {
        self.identity.is_some() && Identity::of(&self.path) == self.identity
    }

    /// Returns the name of the file.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Removes the file if it is still ours.
    pub(super) fn remove(self) {
        if self.is_there() {
            // One that cannot be removed is replaced by the next agent.
            let _left = fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock of a pool. The file stays: the kubelet passes over names that begin with a dot.
///
/// It is opened to be read, because one that was written is an event of its directory, upon which
/// whoever waits for the lock would try again at once.
fn lock(path: PathBuf) -> Result<File, SocketError> {
    let error = |attempt, source| SocketError::Files {
        attempt,
        path: path.clone(),
        source,
    };
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    let file = File::from(file.map_err(|errno| error("open", errno.into()))?);
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::Served { lock: path }),
        Err(TryLockError::Error(source)) => Err(error("lock", source)),
    }
}

/// Removes what is in the way, and returns the socket that was there.
fn clear(path: &Path) -> Result<Option<Identity>, SocketError> {
    let error = |source| SocketError::Files {
        attempt: "replace",
        path: path.to_owned(),
        source,
    };
    let found = match fs::symlink_metadata(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(error)?,
    };
    // A directory only when it is empty: it is not known what else it would be.
    let removed = if found.is_dir() {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(error)?;
    Ok(found.file_type().is_socket().then(|| Identity::new(&found)))
}

/// Returns upstream's name for a socket and another one; short ones when they do not fit.
fn names(dir: &Path, resource: &ResourceName) -> [String; 2] {
    let full = format!("{}_{}", resource.prefix(), resource.name());
    let fits = |stem: &str| dir.join(format!("{stem}-2.sock")).as_os_str().len() <= LONGEST_PATH;
    let stem = if fits(&full) {
        full
    } else {
        // FNV-1a; two pools of one node whose names collide would show as a fault.
        let hash = full.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("virtfn-{hash:016x}")
    };
    [format!("{stem}.sock"), format!("{stem}-2.sock")]
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as Left;
    use std::time::Duration;

    use host::Uninterrupted;

    use super::*;

    fn resource() -> ResourceName {
        "intel.com/sriov_a".parse().unwrap()
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_replaced_unless_it_is_somebodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intel.com_sriov_a.sock");
        let bind = || Socket::bind(dir.path(), &resource(), None, &Uninterrupted);
        for make in [
            |path: &Path| drop(Left::bind(path).unwrap()),
            |path: &Path| fs::write(path, "x").unwrap(),
            |path: &Path| fs::create_dir(path).unwrap(),
        ] {
            make(&path);
            let socket = bind().unwrap();
            assert!(socket.is_there() && socket.name() == "intel.com_sriov_a.sock");
            socket.remove();
            assert!(!path.exists());
        }
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        let error = bind().unwrap_err();
        assert!(error.to_string().starts_with("replace "), "{error}");
    }

    #[tokio::test]
    async fn two_agents_do_not_take_turns_in_replacing_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let bind = || Socket::bind(dir.path(), &resource(), None, &Uninterrupted);
        let first = bind().unwrap();
        let error = bind().unwrap_err();
        assert!(matches!(error, SocketError::Served { .. }), "{error}");
        assert!(first.is_there());
        first.remove();
        assert!(bind().unwrap().is_there());
    }

    #[tokio::test]
    async fn a_socket_that_was_dialled_in_vain_gets_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intel.com_sriov_a.sock");
        drop(Left::bind(&path).unwrap());
        let later = SystemTime::now() + Duration::from_secs(60);
        let socket = Socket::bind(dir.path(), &resource(), Some(later), &Uninterrupted).unwrap();
        assert_eq!(socket.name(), "intel.com_sriov_a-2.sock");
        assert!(!path.exists());
        // The next agent takes the usual name, and nothing of the other stays.
        drop(socket);
        let next = Socket::bind(dir.path(), &resource(), Some(later), &Uninterrupted).unwrap();
        assert_eq!(next.name(), "intel.com_sriov_a.sock");
        assert!(!dir.path().join("intel.com_sriov_a-2.sock").exists());
    }

    #[test]
    fn long_names_become_short_ones_that_differ() {
        let dir = Path::new("/var/lib/kubelet/plugins_registry");
        let long = |last: char| {
            let name = format!("example.com/{}{last}", "x".repeat(62));
            let [name, _] = names(dir, &name.parse().unwrap());
            assert!(dir.join(&name).as_os_str().len() <= LONGEST_PATH);
            name
        };
        assert_ne!(long('a'), long('b'));
    }
}
