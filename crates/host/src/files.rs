//! Configuration files beneath a host's root: looked at, replaced in one instant, removed.
//!
//! Every path is resolved beneath the root ([`HostRoot`]); the last component is never followed, so
//! a link where a file should be is seen as a link. New files and directories can be read by
//! everybody whatever the umask is, because udevd, networkd and people read them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::root::{AccessError, HostRoot};

/// Most bytes read of one file: what `api` takes as a file of policies, and the marker line.
const FILE_LIMIT: usize = (1 << 20) + 4096;

/// What a file that was written but not yet named is called: `.NAME` and this.
const UNNAMED: &str = ".virtfn-new";

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Absent,
    File(Vec<u8>),
    Link(String),
    Dir,
    /// A device, a pipe or a socket; it is not opened.
    Other,
}

/// The files of a host.
pub(crate) struct Files<'a> {
    root: &'a HostRoot,
    #[cfg(test)]
    pub(crate) killed_at: std::cell::Cell<Option<u32>>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(root: &'a HostRoot) -> Self {
        Self {
            root,
            #[cfg(test)]
            killed_at: std::cell::Cell::new(None),
        }
    }

    pub(crate) fn root(&self) -> &'a HostRoot {
        self.root
    }

    /// Looks at a path.
    pub(crate) fn entry(&self, path: &str) -> Result<Entry, AccessError> {
        let error = |errno: Errno| AccessError::new("read", path, errno);
        match self.file_type(path).map_err(error)? {
            None => Ok(Entry::Absent),
            Some(FileType::RegularFile) => {
                self.root.read_bounded(path, FILE_LIMIT).map(Entry::File)
            }
            Some(FileType::Symlink) => self.root.link_target(path).map(Entry::Link),
            Some(FileType::Directory) => Ok(Entry::Dir),
            Some(_) => Ok(Entry::Other),
        }
    }

    /// Returns the type and the permissions of what is at a path, behind links; `None` for nothing.
    pub(crate) fn mode(&self, path: &str) -> Result<Option<u32>, AccessError> {
        let look = || match self.root.open_file(path, OFlags::PATH) {
            Ok(file) => Ok(Some(rustix::fs::fstat(file.as_fd())?.st_mode)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        };
        look().map_err(|errno| AccessError::new("look at", path, errno))
    }

    /// Lists the names in a directory, sorted; none when it is not there.
    pub(crate) fn list(&self, dir: &str) -> Result<Vec<String>, AccessError> {
        match self.root.list(dir) {
            Err(error) if error.is_gone() => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Is there a directory, perhaps behind a link?
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.root
            .open_file(path, OFlags::PATH | OFlags::DIRECTORY)
            .is_ok()
    }

    /// Replaces a file, or makes it, in one instant. Its owner and mode stay; a new one is 0644.
    pub(crate) fn replace(&self, path: &str, content: &[u8]) -> Result<(), AccessError> {
        self.put(path, content)
            .map_err(|errno| AccessError::new("write", path, errno))
    }

    /// Makes a symbolic link, in one instant.
    pub(crate) fn link(&self, path: &str, target: &str) -> Result<(), AccessError> {
        let make = || {
            self.may_be_killed()?;
            let (dir, name) = self.parent(path)?;
            rustix::fs::symlinkat(target, &dir, name)?;
            rustix::fs::fsync(&dir)
        };
        make().map_err(|errno| AccessError::new("link", path, errno))
    }

    /// Removes a file or a link; one that is gone is fine.
    pub(crate) fn remove(&self, path: &str) -> Result<(), AccessError> {
        let remove = || {
            self.may_be_killed()?;
            let (dir, name) = self.parent(path)?;
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
            rustix::fs::fsync(&dir)
        };
        match remove() {
            Err(Errno::NOENT) => Ok(()),
            done => done.map_err(|errno| AccessError::new("remove", path, errno)),
        }
    }

    /// Makes a directory; its parent must be there. One that is there is fine.
    pub(crate) fn make_dir(&self, path: &str) -> Result<(), AccessError> {
        let make = || {
            self.may_be_killed()?;
            let (dir, name) = self.parent(path)?;
            match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => return Ok(()),
                made => made?,
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
            rustix::fs::fsync(&dir)
        };
        make().map_err(|errno| AccessError::new("create directory", path, errno))
    }

    /// Removes a directory; one that is gone, or that holds somebody's files, is fine.
    pub(crate) fn remove_dir(&self, path: &str) -> Result<(), AccessError> {
        let remove = || {
            self.may_be_killed()?;
            let (dir, name) = self.parent(path)?;
            rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?;
            rustix::fs::fsync(&dir)
        };
        match remove() {
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            done => done.map_err(|errno| AccessError::new("remove directory", path, errno)),
        }
    }

    fn put(&self, path: &str, content: &[u8]) -> Result<(), Errno> {
        self.may_be_killed()?;
        let (dir, name) = self.parent(path)?;
        let unnamed = format!(".{name}{UNNAMED}");
        let written = self.put_unnamed(&dir, name, &unnamed, content);
        if written.is_err() && written != Err(Errno::CANCELED) {
            // A full disk is the usual reason: the part that was written must not keep it full.
            let _nothing_was_written = rustix::fs::unlinkat(&dir, &*unnamed, AtFlags::empty());
        }
        written?;
        rustix::fs::fsync(&dir)
    }

    fn put_unnamed(
        &self,
        dir: &OwnedFd,
        name: &str,
        unnamed: &str,
        content: &[u8],
    ) -> Result<(), Errno> {
        // One left by a kill may be anything by now; a fresh one is surely ours.
        match rustix::fs::unlinkat(dir, unnamed, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, unnamed, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(old) => {
                let (owner, group) = (
                    rustix::process::Uid::from_raw(old.st_uid),
                    rustix::process::Gid::from_raw(old.st_gid),
                );
                rustix::fs::fchown(&file, Some(owner), Some(group))?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(old.st_mode & 0o7777))?;
            }
            Err(Errno::NOENT) => rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?,
            Err(errno) => return Err(errno),
        }
        rustix::fs::fsync(&file)?;
        self.may_be_killed()?;
        rustix::fs::renameat(dir, unnamed, dir, name)
    }

    /// Opens the directory of `path`, and returns it with the last component.
    fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str), Errno> {
        let (dir, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
        let dir = self
            .root
            .open_file(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok((dir, name))
    }

    fn file_type(&self, path: &str) -> Result<Option<FileType>, Errno> {
        let opened = self.root.open_file(path, OFlags::PATH | OFlags::NOFOLLOW);
        match opened {
            Ok(file) => {
                let stat = rustix::fs::fstat(file.as_fd())?;
                Ok(Some(FileType::from_raw_mode(stat.st_mode)))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Ends here in tests that kill a run between two changes: nothing is cleaned up then.
    #[cfg(test)]
    fn may_be_killed(&self) -> Result<(), Errno> {
        match self.killed_at.get() {
            Some(0) => Err(Errno::CANCELED),
            left => {
                self.killed_at.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests' twin needs it")]
    #[expect(clippy::unnecessary_wraps, reason = "the tests' twin fails")]
    fn may_be_killed(&self) -> Result<(), Errno> {
        Ok(())
    }
}

/// Is `name` a file of ours that was written but not yet named?
pub(crate) fn is_unnamed(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(UNNAMED)
}

/// Returns an error of ours in the place of the kernel's.
pub(crate) fn refused(attempt: &'static str, path: &str, why: &'static str) -> AccessError {
    AccessError::new(
        attempt,
        path,
        io::Error::new(io::ErrorKind::InvalidData, why),
    )
}
