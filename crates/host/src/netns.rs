//! Network namespaces: finding them, and running something inside one.
//!
//! A namespace is known by its inode on nsfs, for as long as it lives; a path is only a way in, and
//! can come to name another one (`/proc/<pid>/ns/net` when the id is reused). So whoever enters one
//! compares the inode first.
//!
//! The thread of the caller never changes its namespace: work runs on a fresh thread that ends
//! afterwards, so that no early return can leave anything behind in a container. `/proc/self` and
//! `/proc/net` still show the main thread's namespace there; `/proc/sys/net` shows the thread's own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use model::{Code, Explain, NetnsTarget};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::HostRoot;

/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open network namespace, which lives at least as long as this does.
#[derive(Debug)]
pub struct OpenNetns {
    file: OwnedFd,
    path: String,
    inode: u64,
}

/// A network namespace could not be found or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is there, or it may not be opened.
    #[error("open network namespace {path}")]
    Open {
        /// Where it was looked for.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is there is no namespace.
    #[error("{path} is not a network namespace")]
    NotANetns {
        /// Where it was looked for.
        path: String,
    },
    /// Another namespace is there by now.
    #[error("{path} is network namespace {found} now, and was {expected}")]
    Another {
        /// Where it was looked for.
        path: String,
        /// The inode that it had.
        expected: u64,
        /// The inode that it has.
        found: u64,
    },
    /// It may not be entered.
    #[error("enter network namespace {path}")]
    Enter {
        /// Where it is.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be started to enter it.
    #[error("start a thread for network namespace {path}")]
    Thread {
        /// Where it is.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NetnsError {
    /// Is the namespace that was meant no longer there?
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Open { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
            // What `ip netns del` leaves when the mount is lazily gone is a plain empty file.
            Self::Another { .. } | Self::NotANetns { .. } => true,
            Self::Enter { .. } | Self::Thread { .. } => false,
        }
    }
}

impl Explain for NetnsError {
    fn code(&self) -> Code {
        match self {
            Self::Open { .. } if self.is_gone() => Code::new("netns-gone"),
            Self::Open { .. } | Self::Enter { .. } => Code::new("netns-not-accessible"),
            Self::NotANetns { .. } => Code::new("not-a-netns"),
            Self::Another { .. } => Code::new("netns-gone"),
            Self::Thread { .. } => Code::new("out-of-threads"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Open { .. } if self.is_gone() => Some(
                "list the namespaces with `ip netns`, make one with `ip netns add NAME`".to_owned(),
            ),
            Self::NotANetns { .. } => Some(
                "name a namespace of `ip netns`, a process id or a path such as /run/netns/blue"
                    .to_owned(),
            ),
            Self::Another { .. } => Some("name the namespace afresh".to_owned()),
            Self::Open { .. } | Self::Enter { .. } => Some("run virtfn as root".to_owned()),
            Self::Thread { .. } => None,
        }
    }
}

/// Opens a file beneath the root, so that `/var/run`, a link to `/run`, is the host's in a container.
///
/// `/proc/<pid>/ns/net` is a magic link, which the root refuses to follow, and so are links to it: those
/// are opened by the root's own path. A namespace is no file to be tricked into, because the caller
/// checks its magic. Opening a pipe does not wait for its other end.
fn open_beneath(root: &HostRoot, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match root.open_file(path, flags) {
        Err(Errno::LOOP | Errno::XDEV) => {
            let full = root.path().join(path.trim_start_matches('/'));
            rustix::fs::open(full, flags, Mode::empty())
        }
        opened => opened,
    }
}

impl OpenNetns {
    /// Opens whatever namespace `path` leads to.
    pub fn open(root: &HostRoot, path: &str) -> Result<Self, NetnsError> {
        let open = |source| NetnsError::Open {
            path: path.to_owned(),
            source,
        };
        let file = open_beneath(root, path).map_err(|errno| open(errno.into()))?;
        let on_nsfs = rustix::fs::fstatfs(&file)
            .map_err(|errno| open(errno.into()))
            .map(|stat| u64::try_from(stat.f_type) == Ok(NSFS_MAGIC))?;
        if !on_nsfs {
            return Err(NetnsError::NotANetns {
                path: path.to_owned(),
            });
        }
        let stat = rustix::fs::fstat(&file).map_err(|errno| open(errno.into()))?;
        let inode = stat.st_ino;
        Ok(Self {
            file,
            path: path.to_owned(),
            inode,
        })
    }

    /// Opens the namespace that `path` led to when it had `inode`, and no other.
    pub fn open_same(root: &HostRoot, path: &str, inode: u64) -> Result<Self, NetnsError> {
        let netns = Self::open(root, path)?;
        if netns.inode == inode {
            Ok(netns)
        } else {
            Err(NetnsError::Another {
                path: path.to_owned(),
                expected: inode,
                found: netns.inode,
            })
        }
    }

    /// Returns its inode on nsfs.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` inside it; see [`run`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        run(self.file.as_fd(), work).map_err(|fault| match fault {
            Fault::Enter(source) => NetnsError::Enter {
                path: self.path.clone(),
                source,
            },
            Fault::Thread(source) => NetnsError::Thread {
                path: self.path.clone(),
                source,
            },
        })
    }
}

impl AsFd for OpenNetns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Finds the namespace that a user names: by the name that `ip netns` gives it, by a path, or by the
/// id of a process in it. This process's own is [`NetnsTarget::Host`].
pub fn find(root: &HostRoot, text: &str) -> Result<NetnsTarget, NetnsError> {
    let named = format!("/run/netns/{text}");
    let path = if text.contains('/') {
        text.to_owned()
    } else if text.bytes().all(|b| b.is_ascii_digit()) && !root.exists(&named) {
        format!("/proc/{text}/ns/net")
    } else {
        named
    };
    let inode = OpenNetns::open(root, &path)?.inode();
    Ok(if inode == own_inode(root)? {
        NetnsTarget::Host
    } else {
        NetnsTarget::Path { path, inode }
    })
}

/// Does `target` still lead to the namespace that it was made for?
#[must_use]
pub fn lives(root: &HostRoot, target: &NetnsTarget) -> bool {
    match target {
        NetnsTarget::Host => true,
        NetnsTarget::Path { path, inode } => OpenNetns::open_same(root, path, *inode).is_ok(),
    }
}

/// Returns the inode of the calling thread's namespace.
fn own_inode(root: &HostRoot) -> Result<u64, NetnsError> {
    let own = root.path().join("proc/thread-self/ns/net");
    let stat = rustix::fs::stat(&own).map_err(|errno| NetnsError::Open {
        path: own.display().to_string(),
        source: errno.into(),
    })?;
    Ok(stat.st_ino)
}

enum Fault {
    Enter(io::Error),
    Thread(io::Error),
}

/// Runs `work` on a fresh thread inside the namespace and returns what it returned.
fn run<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Fault> {
    let inside = || {
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .map_err(|errno| Fault::Enter(errno.into()))?;
        Ok(work())
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, inside)
            .map_err(Fault::Thread)?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> HostRoot {
        HostRoot::this_machine().unwrap()
    }

    #[test]
    fn the_own_namespace_is_the_hosts() {
        let pid = std::process::id().to_string();
        assert_eq!(find(&root(), &pid).unwrap(), NetnsTarget::Host);
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        let error = find(&root(), "/proc/self/status").unwrap_err();
        assert_eq!(error.code(), Code::new("not-a-netns"));
        let error = find(&root(), "no-such-namespace-of-virtfn").unwrap_err();
        assert_eq!(error.code(), Code::new("netns-gone"));
        assert!(error.to_string().contains("/run/netns/no-such"), "{error}");
    }

    #[test]
    fn links_of_a_container_lead_to_the_hosts_namespaces_and_a_pipe_is_no_trap() {
        let dir = tempfile::tempdir().unwrap();
        let netns = dir.path().join("run/netns");
        std::fs::create_dir_all(&netns).unwrap();
        std::fs::create_dir(dir.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/run", dir.path().join("var/run")).unwrap();
        std::fs::write(netns.join("cni-1"), "").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, netns.join("pipe"), 0o600.into()).unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        for name in ["cni-1", "pipe"] {
            // Found, and seen to be no namespace: nobody may mount in a test.
            let error = OpenNetns::open(&root, &format!("/var/run/netns/{name}")).unwrap_err();
            assert_eq!(error.code(), Code::new("not-a-netns"), "{name}");
        }
    }

    #[test]
    fn a_link_to_the_namespace_of_a_process_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("docker");
        std::os::unix::fs::symlink("/proc/self/ns/net", &link).unwrap();
        let found = find(&root(), link.to_str().unwrap()).unwrap();
        assert_eq!(found, NetnsTarget::Host);
    }

    #[test]
    fn another_inode_is_another_namespace() {
        let target = NetnsTarget::Path {
            path: "/proc/self/ns/net".to_owned(),
            inode: 1,
        };
        assert!(!lives(&root(), &target));
        let error = OpenNetns::open_same(&root(), "/proc/self/ns/net", 1).unwrap_err();
        assert!(error.is_gone(), "{error}");
    }
}
