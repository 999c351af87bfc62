//! Files of a host, reached beneath one directory descriptor.
//!
//! A container's `/host` and an unpacked recording are opened with `openat2` and `RESOLVE_IN_ROOT` (Linux
//! 5.6), so symbolic links, absolute ones and `..` included, resolve as if the directory were `/` and
//! nothing outside it can be reached. Beneath the real `/` every path resolves so anyway, and there the
//! plain calls do, on any kernel and below any seccomp filter.
//!
//! Paths are written as on the host, with or without the leading slash:
//! `root.read_text("/sys/bus/pci/devices/0000:3b:00.0/numa_node")`.
//!
//! This is for small files: sysfs, procfs and the few files of state that virtfn keeps. Reads are
//! bounded, because a container's `/host` and a recording are somebody else's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

/// Most bytes read of one file; an attribute of sysfs has at most a page, 4096.
pub(crate) const FILE_LIMIT: usize = 64 * 1024;

/// Most entries listed of one directory: 65,536 functions fit into one PCI domain.
const LIST_LIMIT: usize = 128 * 1024;

/// Room for the entries of one answer: a directory of a device fits, and memory that is touched for the
/// first time is dear.
const LIST_BUFFER: usize = 8 * 1024;

/// How often a path is looked up before it is given up: `openat2` answers `EAGAIN` when anything was
/// renamed or mounted on the whole machine while it took a `..`, which most links of sysfs have. A try
/// takes microseconds, and even beside somebody who does nothing but rename most succeed.
const OPEN_TRIES: u32 = 1000;

/// A host's root directory. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct HostRoot {
    dir: Arc<OwnedFd>,
    path: PathBuf,
    lookup: Lookup,
}

/// How paths are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// With `openat2`, beneath the directory.
    Beneath,
    /// With `openat`: the directory is `/` itself.
    Plain,
}

/// A file beneath a [`HostRoot`] could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}", path.display())]
pub struct AccessError {
    /// What was tried, such as `read`.
    pub attempt: &'static str,
    /// The path, as the host knows it.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl AccessError {
    pub(crate) fn new(attempt: &'static str, path: &str, source: impl Into<io::Error>) -> Self {
        Self {
            attempt,
            path: Path::new("/").join(path),
            source: source.into(),
        }
    }

    /// Is the file, or the device behind it, not there (any more)?
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.source
            .raw_os_error()
            .is_some_and(|errno| is_gone(Errno::from_raw_os_error(errno)))
    }
}

/// Is this what the kernel answers for a file of a device that is not there, or just left?
///
/// An attribute whose device is unbound while it is read answers `ENODEV` or `EIO`.
pub(crate) fn is_gone(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO | Errno::IO
    )
}

impl HostRoot {
    /// Opens this machine's `/`.
    pub fn this_machine() -> Result<Self, AccessError> {
        Self::open(Path::new("/"))
    }

    /// Opens the directory that is to be taken for `/`.
    pub fn open(path: &Path) -> Result<Self, AccessError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let error = |errno: Errno| AccessError {
            attempt: "open host root",
            path: path.to_owned(),
            source: errno.into(),
        };
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(error)?;
        let lookup = if path == Path::new("/") {
            Lookup::Plain
        } else {
            Lookup::Beneath
        };
        let root = Self {
            dir: Arc::new(dir),
            path: path.to_owned(),
            lookup,
        };
        if lookup == Lookup::Beneath {
            // An old kernel is told of now, not at each file.
            root.open_file(".", OFlags::PATH).map_err(error)?;
        }
        Ok(root)
    }

    /// Returns the directory that stands for `/`, as it was named to [`HostRoot::open`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of at most 64 KiB.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, AccessError> {
        self.read_bounded(path, FILE_LIMIT)
    }

    /// Reads a file of at most `limit` bytes; a larger one is an error, not a cut text.
    pub fn read_bounded(&self, path: &str, limit: usize) -> Result<Vec<u8>, AccessError> {
        let error = |errno: Errno| AccessError::new("read", path, errno);
        let file = self.open_file(path, OFlags::RDONLY).map_err(error)?;
        let mut bytes = Vec::new();
        read_all(file.as_fd(), limit, &mut bytes).map_err(error)?;
        Ok(bytes)
    }

    /// Reads a file of text without its trailing white space.
    pub fn read_text(&self, path: &str) -> Result<String, AccessError> {
        let mut text = String::from_utf8(self.read(path)?).map_err(|_| {
            let source = io::Error::new(io::ErrorKind::InvalidData, "the text is not UTF-8");
            AccessError::new("read", path, source)
        })?;
        text.truncate(text.trim_end().len());
        Ok(text)
    }

    /// Writes `bytes` to a file that exists, in one `write` as attributes of sysfs need it.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<(), AccessError> {
        let bytes = bytes.as_ref();
        let error = |errno: Errno| AccessError::new("write", path, errno);
        let file = self
            .open_file(path, OFlags::WRONLY | OFlags::TRUNC)
            .map_err(error)?;
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, bytes));
        if written.map_err(error)? == bytes.len() {
            Ok(())
        } else {
            let source = io::Error::new(io::ErrorKind::WriteZero, "only a part was taken");
            Err(AccessError::new("write", path, source))
        }
    }

    /// Returns the last component of a symbolic link's target: `igb` for `driver`.
    pub fn link_name(&self, path: &str) -> Result<String, AccessError> {
        let target = self.link_target(path)?;
        let name = target.rsplit('/').next().unwrap_or_default();
        Ok(name.to_owned())
    }

    /// Returns the target of a symbolic link as it is written.
    pub fn link_target(&self, path: &str) -> Result<String, AccessError> {
        let error = |errno: Errno| AccessError::new("read link", path, errno);
        let target = match self.lookup {
            Lookup::Plain => rustix::fs::readlinkat(&self.dir, relative(path), Vec::new()),
            Lookup::Beneath => self
                .open_file(path, OFlags::PATH | OFlags::NOFOLLOW)
                .and_then(|link| rustix::fs::readlinkat(link, "", Vec::new())),
        };
        let target = target.map_err(error)?;
        target.into_string().map_err(|_| error(Errno::ILSEQ))
    }

    /// Lists the names in a directory, sorted; names that are not UTF-8 are left out.
    pub fn list(&self, path: &str) -> Result<Vec<String>, AccessError> {
        let error = |errno: Errno| AccessError::new("list", path, errno);
        let dir = self
            .open_file(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(error)?;
        list_names(dir.as_fd()).map_err(error)
    }

    /// Is there a name in a directory that `fits`? It hears all of them, also those not of text.
    pub(crate) fn has_entry(&self, path: &str, fits: impl Fn(&[u8]) -> bool) -> bool {
        let Ok(dir) = self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return false;
        };
        let mut buffer = Vec::with_capacity(LIST_BUFFER);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && fits(name) {
                return true;
            }
        }
        false
    }

    /// Is there a file, directory or device behind `path`?
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.open_file(path, OFlags::PATH).is_ok()
    }

    /// Opens a directory for many reads of it.
    pub(crate) fn dir(&self, path: &str) -> Result<Dir, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok(Dir(self.open_file(path, flags)?))
    }

    /// Opens a file, as for `netns::run` the namespaces of `/run/netns`.
    pub(crate) fn open_file(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let relative = relative(path);
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT;
        let open = || match self.lookup {
            Lookup::Beneath => {
                rustix::fs::openat2(&self.dir, relative, flags, Mode::empty(), resolve)
            }
            Lookup::Plain => rustix::fs::openat(&self.dir, relative, flags, Mode::empty()),
        };
        for _ in 1..OPEN_TRIES {
            match open() {
                Err(Errno::INTR | Errno::AGAIN) => {}
                opened => return opened,
            }
        }
        open()
    }
}

/// Writes a path as it is looked up from the directory that stands for `/`.
fn relative(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        relative => relative,
    }
}

/// A directory whose files are read by name, with one path component looked up per file.
///
/// Links are read, never followed, so a name cannot lead out of the directory; the exception is
/// [`Dir::open_magic_link`], which only makes sense in a real procfs.
pub(crate) struct Dir(OwnedFd);

impl Dir {
    /// Reads the file `name` into `buffer`, which keeps its allocation from file to file.
    pub(crate) fn read<'b>(&self, name: &str, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            rustix::io::retry_on_intr(|| rustix::fs::openat(&self.0, name, flags, Mode::empty()))?;
        buffer.clear();
        read_all(file.as_fd(), FILE_LIMIT, buffer)?;
        Ok(buffer)
    }

    /// Returns the last component of the target of the link `name`.
    pub(crate) fn link_name<'b>(
        &self,
        name: &str,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Errno> {
        let target = self.link_target(name, buffer)?;
        Ok(target.rsplit(|byte| *byte == b'/').next().unwrap_or(target))
    }

    /// Returns the target of the link `name`.
    pub(crate) fn link_target<'b>(
        &self,
        name: &str,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Errno> {
        let target = rustix::fs::readlinkat(&self.0, name, std::mem::take(buffer))?;
        *buffer = target.into_bytes();
        Ok(buffer)
    }

    /// Is there a `name` in the directory?
    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::accessat(&self.0, name, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// Opens what a magic link of procfs, such as `net` in `/proc/self/ns`, stands for.
    pub(crate) fn open_magic_link(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::io::retry_on_intr(|| rustix::fs::openat(&self.0, name, flags, Mode::empty()))
    }

    /// Lists the names in the sub-directory `name`, sorted.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        list_names(rustix::fs::openat(&self.0, name, flags, Mode::empty())?.as_fd())
    }
}

/// Appends what `file` holds, at most `limit` bytes; more is `EFBIG`.
///
/// A short read ends it: sysfs hands out an attribute in one read when the buffer has a page, so
/// a second read, which would return 0, is a system call for nothing.
fn read_all(file: BorrowedFd<'_>, limit: usize, buffer: &mut Vec<u8>) -> Result<(), Errno> {
    const PAGE: usize = 4096;
    loop {
        buffer.reserve(PAGE);
        let room = buffer.capacity() - buffer.len();
        let read = rustix::io::retry_on_intr(|| {
            rustix::io::read(file, rustix::buffer::spare_capacity(buffer))
        })?;
        if buffer.len() > limit {
            return Err(Errno::FBIG);
        }
        if read < room {
            return Ok(());
        }
    }
}

fn list_names(dir: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let mut buffer = Vec::with_capacity(LIST_BUFFER);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name != "." && name != ".." {
            if names.len() == LIST_LIMIT {
                return Err(Errno::FBIG);
            }
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, HostRoot) {
        let temp = tempfile::tempdir().unwrap();
        let device = temp.path().join("sys/devices/pci0000:00/0000:01:00.0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::create_dir_all(temp.path().join("sys/bus/pci/devices")).unwrap();
        std::fs::write(device.join("numa_node"), "-1\n").unwrap();
        symlink("../../../bus/pci/drivers/igb", device.join("driver")).unwrap();
        symlink(
            "../../../devices/pci0000:00/0000:01:00.0",
            temp.path().join("sys/bus/pci/devices/0000:01:00.0"),
        )
        .unwrap();
        let root = HostRoot::open(temp.path()).unwrap();
        (temp, root)
    }

    #[test]
    fn links_of_sysfs_resolve_within_the_root() {
        let (_temp, root) = tree();
        let device = "/sys/bus/pci/devices/0000:01:00.0";
        assert_eq!(
            root.read_text(&format!("{device}/numa_node")).unwrap(),
            "-1"
        );
        assert_eq!(root.link_name(&format!("{device}/driver")).unwrap(), "igb");
        assert_eq!(root.list("sys/bus/pci/devices").unwrap(), ["0000:01:00.0"]);
        assert_eq!(root.list(device).unwrap(), ["driver", "numa_node"]);
        assert!(root.exists(device) && !root.exists("/sys/bus/usb"));
    }

    #[test]
    fn nothing_outside_the_root_is_reached() {
        let (temp, root) = tree();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        symlink(outside.path(), temp.path().join("absolute")).unwrap();
        symlink("../../../../../../../../etc", temp.path().join("dots")).unwrap();
        assert!(root.read("/absolute/secret").unwrap_err().is_gone());
        assert!(root.read("/dots/hostname").unwrap_err().is_gone());
        assert!(
            root.read("/../../../../../../etc/hostname")
                .unwrap_err()
                .is_gone()
        );
    }

    /// A busy node mounts and renames all the time; `openat2` then answers `EAGAIN` for paths with `..`.
    #[test]
    fn renames_elsewhere_hide_no_device() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (temp, root) = tree();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (one, other) = (temp.path().join("one"), temp.path().join("other"));
                std::fs::write(&one, "").unwrap();
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(&one, &other).unwrap();
                    std::fs::rename(&other, &one).unwrap();
                }
            });
            let hidden = (0..30_000)
                .filter(|_| !root.exists("/sys/bus/pci/devices/0000:01:00.0/numa_node"))
                .count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(hidden, 0);
        });
    }

    #[test]
    fn the_real_root_is_read_as_if_it_were_any_directory() {
        let plain = HostRoot::this_machine().unwrap();
        let mut beneath = plain.clone();
        beneath.lookup = Lookup::Beneath;
        let path = "/proc/sys/kernel/osrelease";
        assert_eq!(plain.read(path).unwrap(), beneath.read(path).unwrap());
        assert_eq!(plain.list("/").unwrap(), beneath.list("/").unwrap());
        let link = "/sys/class/net/lo";
        let target = plain.link_target(link).unwrap();
        assert_eq!(target, beneath.link_target(link).unwrap());
        assert!(plain.link_target(path).is_err() && beneath.link_target(path).is_err());
    }

    #[test]
    fn a_directory_does_not_follow_a_link_as_a_file() {
        let (temp, root) = tree();
        symlink("/etc/hostname", temp.path().join("sys/link")).unwrap();
        let dir = root.dir("/sys").unwrap();
        assert_eq!(dir.read("link", &mut Vec::new()), Err(Errno::LOOP));
        assert_eq!(dir.link_name("link", &mut Vec::new()), Ok(&b"hostname"[..]));
    }

    #[test]
    fn a_write_replaces_and_never_creates() {
        let (_temp, root) = tree();
        let path = "/sys/devices/pci0000:00/0000:01:00.0/numa_node";
        root.write(path, "0").unwrap();
        assert_eq!(root.read(path).unwrap(), b"0");
        let error = root.write("/sys/absent", "0").unwrap_err();
        assert_eq!(error.to_string(), "write /sys/absent");
        assert!(error.is_gone() && !root.exists("/sys/absent"));
    }

    #[test]
    fn large_files_are_refused_not_cut() {
        let (temp, root) = tree();
        std::fs::write(temp.path().join("exact"), vec![b'x'; FILE_LIMIT]).unwrap();
        std::fs::write(temp.path().join("large"), vec![b'x'; FILE_LIMIT + 1]).unwrap();
        assert_eq!(root.read("/exact").unwrap().len(), FILE_LIMIT);
        let error = root.read("/large").unwrap_err();
        assert_eq!(
            error.source.raw_os_error(),
            Some(Errno::FBIG.raw_os_error())
        );
    }
}
