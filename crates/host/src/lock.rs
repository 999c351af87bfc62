//! Locks between processes: `flock` on a file per VF, per PF and for the one apply at a time.
//!
//! A lock is gone the instant its process is, and those that it is left to, so a free lock beside a half-done record *proves*
//! that whoever wrote the record died. Lock files are never removed: removing one while somebody
//! waits for it would let two processes lock two different files of one name.
//!
//! Who takes what, in this order, so that no two wait for each other:
//!
//! | | `apply` | VF | PF | PF's settings |
//! |---|---|---|---|---|
//! | apply | exclusive | – | exclusive, by address | – |
//! | attach, detach | – | exclusive | shared | exclusive, while VF attributes are set |
//!
//! Innermost, and by all of them, the autoprobe of a PF is locked while it is on for a moment.
//!
//! So an apply excludes attaches on the PFs that it changes and no others, and attaches on one PF
//! exclude each other only while they write through the PF, which some drivers need (`i40e`).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use model::{Code, Explain, PciAddress};

use crate::state::{StateDir, StateError, open_or_make_dir};

/// A lock; it is given back when this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    is_first: bool,
}

impl Lock {
    /// Leaves the lock to the processes that are started from now on, should this one be killed: it
    /// is held until they end as well. When this is dropped they have it no more.
    pub fn leave_to_children(&self) -> std::io::Result<()> {
        rustix::io::fcntl_setfd(&self.file, rustix::io::FdFlags::empty())?;
        Ok(())
    }

    /// Had nobody taken this lock since the host started? The files are gone with a reboot, and nobody
    /// removes them before.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing our file would not do while a process that was just started has it as well. It cannot
        // fail on a file that is locked.
        let _unlocked = self.file.unlock();
    }
}

/// What a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOf {
    /// The one apply that runs at a time.
    Apply,
    /// A VF: its record and its netdev.
    Vf(PciAddress),
    /// The VFs that a PF has, their drivers and the PF itself.
    Pf(PciAddress),
    /// The attributes of VFs that are set through a PF.
    PfSettings(PciAddress),
    /// The autoprobe of a PF, while it is on for a moment.
    Autoprobe(PciAddress),
}

impl LockOf {
    fn file_name(self) -> String {
        match self {
            Self::Apply => "apply".to_owned(),
            Self::Vf(vf) => format!("vf-{vf}"),
            Self::Pf(pf) => format!("pf-{pf}"),
            Self::PfSettings(pf) => format!("pf-{pf}-settings"),
            Self::Autoprobe(pf) => format!("pf-{pf}-autoprobe"),
        }
    }
}

impl std::fmt::Display for LockOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Apply => f.write_str("apply"),
            Self::Vf(vf) => write!(f, "VF {vf}"),
            Self::Pf(pf) => write!(f, "PF {pf}"),
            Self::PfSettings(pf) => write!(f, "the VF settings of PF {pf}"),
            Self::Autoprobe(pf) => write!(f, "autoprobe of PF {pf}"),
        }
    }
}

/// A lock was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The lock file could not be opened or locked.
    #[error("lock {of}")]
    Open {
        /// What the lock is for.
        of: LockOf,
        /// Which file, and why not.
        source: StateError,
    },
    /// Somebody else has it, and kept it for longer than we would wait.
    #[error("lock {of}: {} has it, for more than {} s", Holders(holders), waited.as_secs())]
    Held {
        /// What the lock is for.
        of: LockOf,
        /// Its file.
        path: PathBuf,
        /// The processes that took it, as far as `/proc` shows them.
        holders: Vec<LockHolder>,
        /// How long we waited.
        waited: Duration,
    },
}

/// A process that has a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Its id.
    pub pid: u32,
    /// Its name (`comm`); `None` when it ended, and left the lock to what it started.
    pub name: Option<String>,
}

struct Holders<'a>(&'a [LockHolder]);

impl std::fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("another process");
        }
        for (at, LockHolder { pid, name }) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            match name {
                Some(name) => write!(f, "{separator}{name} (process {pid})")?,
                None => write!(f, "{separator}something that process {pid} started")?,
            }
        }
        Ok(())
    }
}

impl Explain for LockError {
    fn code(&self) -> Code {
        match self {
            Self::Open { source, .. } => source.code(),
            Self::Held { .. } => Code::new("locked"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Open { source, .. } => source.remedy(),
            Self::Held { path, holders, .. } => Some(match holders.first() {
                Some(LockHolder { pid, name: Some(_) }) => format!(
                    "wait for process {pid} to finish, or see what it does with `ps -fp {pid}`"
                ),
                Some(LockHolder { name: None, .. }) | None => format!(
                    "wait for it to finish, or find it with `fuser -v {}`",
                    path.display()
                ),
            }),
        }
    }
}

/// Takes a lock that excludes every other.
pub fn exclusive(state: &StateDir, of: LockOf, patience: Duration) -> Result<Lock, LockError> {
    exclusive_at(&state.lock(&of.file_name()), of, patience)
}

/// Takes a lock that excludes exclusive ones only.
pub fn shared(state: &StateDir, of: LockOf, patience: Duration) -> Result<Lock, LockError> {
    shared_at(&state.lock(&of.file_name()), of, patience)
}

/// Returns the processes that apply now, as far as `/proc` shows them; none when none does. Nothing
/// is locked for it.
#[must_use]
pub fn who_applies(state: &StateDir) -> Vec<LockHolder> {
    let path = state.lock(&LockOf::Apply.file_name());
    std::fs::metadata(path).map_or_else(|_| Vec::new(), |metadata| holders(metadata.ino()))
}

/// Did anybody take this lock since the host started? In doubt somebody did.
///
/// Who takes the lock himself asks [`Lock::is_first`].
pub(crate) fn was_locked(state: &StateDir, of: LockOf) -> bool {
    let found = std::fs::symlink_metadata(state.lock(&of.file_name()));
    !found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Takes the lock if nobody has it.
pub(crate) fn if_free(state: &StateDir, of: LockOf) -> Result<Option<Lock>, LockError> {
    match exclusive(state, of, Duration::ZERO) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { .. }) => Ok(None),
        Err(error @ LockError::Open { .. }) => Err(error),
    }
}

/// Takes an exclusive lock on a file that another program locks too.
pub fn exclusive_at(path: &Path, of: LockOf, patience: Duration) -> Result<Lock, LockError> {
    take(path, of, patience, File::try_lock, File::lock)
}

/// Takes a lock on a file that another program locks exclusively.
pub fn shared_at(path: &Path, of: LockOf, patience: Duration) -> Result<Lock, LockError> {
    take(path, of, patience, File::try_lock_shared, File::lock_shared)
}

fn take(
    path: &Path,
    of: LockOf,
    patience: Duration,
    try_lock: fn(&File) -> Result<(), TryLockError>,
    lock: fn(&File) -> std::io::Result<()>,
) -> Result<Lock, LockError> {
    let open = |source| LockError::Open { of, source };
    let (file, is_first) = open_or_make(path).map_err(open)?;
    match try_lock(&file) {
        Ok(()) => return Ok(Lock { file, is_first }),
        Err(TryLockError::Error(error)) => {
            return Err(open(StateError::new("lock", path, error)));
        }
        Err(TryLockError::WouldBlock) => {}
    }
    let inode = file.metadata().map_or(0, |metadata| metadata.ino());
    match wait(file, patience, lock) {
        Some(Ok(file)) => Ok(Lock { file, is_first }),
        Some(Err(error)) => Err(open(StateError::new("lock", path, error))),
        None => Err(LockError::Held {
            of,
            path: path.to_owned(),
            holders: holders(inode),
            waited: patience,
        }),
    }
}

/// Opens a lock file; says whether it was made for that.
fn open_or_make(path: &Path) -> Result<(File, bool), StateError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Ok(file) => return Ok((file, false)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(error) => return Err(StateError::new("open", path, error)),
    }
    let mut making = options.clone();
    making.create_new(true).mode(0o600);
    match open_or_make_dir(path, &making) {
        Ok(file) => Ok((file, true)),
        // Somebody else made it just now, and so was here before.
        Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {
            let file = options.open(path);
            Ok((
                file.map_err(|error| StateError::new("open", path, error))?,
                false,
            ))
        }
        Err(error) => Err(error),
    }
}

/// Waits for a lock on a thread, because `flock` itself knows no deadline.
///
/// When the deadline passes, the thread stays until the lock is free, takes it, finds nobody to
/// give it to and so lets it go at once.
fn wait(
    file: File,
    patience: Duration,
    lock: fn(&File) -> std::io::Result<()>,
) -> Option<std::io::Result<File>> {
    if patience.is_zero() {
        return None;
    }
    let (done, waiting) = mpsc::channel();
    let thread = thread::Builder::new().name("lock".to_owned());
    let started = thread.spawn(move || {
        let locked = lock(&file).map(|()| file);
        // Nobody listens any more after the deadline; the lock goes with the file then.
        let _unheard = done.send(locked);
    });
    if let Err(error) = started {
        return Some(Err(error));
    }
    waiting.recv_timeout(patience).ok()
}

/// Finds who has a lock on the file with `inode`: `/proc/locks` has a line such as
/// `1: FLOCK  ADVISORY  WRITE 4711 00:18:1234 0 EOF`.
///
/// The device is not compared: a stacked file system shows another one there than `stat` does.
fn holders(inode: u64) -> Vec<LockHolder> {
    let locks = std::fs::read_to_string(PathBuf::from("/proc/locks")).unwrap_or_default();
    pids(&locks, inode)
        .into_iter()
        .map(|pid| LockHolder {
            pid,
            name: std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .ok()
                .map(|name| name.trim_end().to_owned()),
        })
        .collect()
}

fn pids(locks: &str, inode: u64) -> Vec<u32> {
    let pid = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        // A waiter's line has `->` here and is thereby no FLOCK line.
        if words.next()? != "FLOCK" {
            return None;
        }
        let pid = words.nth(2)?.parse().ok()?;
        let file = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
        (file == inode).then_some(pid)
    };
    locks.lines().filter_map(pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
        (dir, state)
    }

    fn vf() -> LockOf {
        LockOf::Vf("0000:01:10.0".parse().unwrap())
    }

    #[test]
    fn who_has_a_lock_is_named() {
        let (_dir, state) = state();
        let _mine = exclusive(&state, vf(), LONG).unwrap();
        let error = exclusive(&state, vf(), Duration::from_millis(10)).unwrap_err();
        let LockError::Held { holders, .. } = &error else {
            panic!("{error:?}");
        };
        // Beside others, maybe: files of other file systems have the same numbers.
        assert!(holders.iter().any(|by| by.pid == std::process::id()));
        assert_eq!(error.code(), Code::new("locked"));
        assert!(error.to_string().starts_with("lock VF 0000:01:10.0: "));
    }

    #[test]
    fn a_lock_given_back_wakes_who_waits_for_it() {
        let (_dir, state) = state();
        let mine = exclusive(&state, vf(), LONG).unwrap();
        let other = {
            let state = state.clone();
            thread::spawn(move || exclusive(&state, vf(), LONG).map(|_| ()))
        };
        drop(mine);
        other.join().unwrap().unwrap();
    }

    #[test]
    fn a_waiter_that_gave_up_does_not_keep_the_lock() {
        let (_dir, state) = state();
        let mine = exclusive(&state, vf(), LONG).unwrap();
        exclusive(&state, vf(), Duration::from_millis(10)).unwrap_err();
        drop(mine);
        exclusive(&state, vf(), LONG).unwrap();
    }

    #[test]
    fn a_lock_left_to_children_is_not_theirs_once_it_is_given_back() {
        let (_dir, state) = state();
        let lock = exclusive(&state, vf(), LONG).unwrap();
        lock.leave_to_children().unwrap();
        let mut cat = std::process::Command::new("cat");
        let mut child = cat.stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(if_free(&state, vf()).unwrap().is_none());
        drop(lock);
        assert!(if_free(&state, vf()).unwrap().is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn only_the_first_to_take_a_lock_is_told_so() {
        let (_dir, state) = state();
        assert!(!was_locked(&state, vf()));
        assert!(exclusive(&state, vf(), LONG).unwrap().is_first());
        assert!(was_locked(&state, vf()));
        assert!(!exclusive(&state, vf(), LONG).unwrap().is_first());
    }

    #[test]
    fn shared_locks_exclude_exclusive_ones_only() {
        let (_dir, state) = state();
        let pf = LockOf::Pf("0000:01:00.0".parse().unwrap());
        let one = shared(&state, pf, LONG).unwrap();
        let _two = shared(&state, pf, LONG).unwrap();
        assert!(if_free(&state, pf).unwrap().is_none());
        drop(one);
        assert!(if_free(&state, pf).unwrap().is_none());
    }

    #[test]
    fn only_lines_of_the_file_count() {
        let locks = "1: FLOCK  ADVISORY  WRITE 4711 00:18:77 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 4712 00:18:77 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 4713 00:18:77 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 4714 00:18:78 0 EOF\nx\n";
        assert_eq!(pids(locks, 77), [4711]);
    }
}
