//! Word that files may have changed, from a thread of its own.
//!
//! Directories are watched also before they exist. Which of them changed is not told: inotify gives one
//! watch for two paths to a directory, and looking at all of them again costs a few system calls. Records
//! of VFs among what changed name their functions.
//!
//! A node gives out few watchers (`fs.inotify.max_user_instances`), and others may have them all. The look
//! of every minute does without, so this is no reason not to serve, and tries again.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::PciAddress;
use rustix::fs::inotify;
use rustix::io::Errno;
use tracing::{info, warn};

use super::{Changed, Word};

/// Directories that are watched as far as the kernel lets us.
#[derive(Debug)]
pub(crate) struct Files {
    dirs: Vec<PathBuf>,
    told: Arc<Word>,
    /// Is there a thread that watches?
    watched: Arc<AtomicBool>,
}

impl Files {
    /// Watches directories, if that can be.
    pub(crate) fn watch(dirs: Vec<PathBuf>) -> Self {
        let files = Self::unwatched(dirs);
        if let Err(error) = files.begin(new_inotify()) {
            warn!(%error, "files are not watched, and looked at every minute");
        }
        files
    }

    fn unwatched(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            told: Arc::default(),
            watched: Arc::default(),
        }
    }

    /// Tries again what could not be before. What changed meanwhile is not told.
    pub(crate) fn watch_again(&self) {
        if !self.watched.load(Ordering::Acquire) && self.begin(new_inotify()).is_ok() {
            info!("files are watched");
        }
    }

    /// Waits for word, as [`Word::heard`] does.
    pub(crate) async fn heard(&self) -> Changed {
        self.told.heard().await
    }

    /// Begins to watch, on a thread that lives as long as the process.
    fn begin(&self, inotify: io::Result<OwnedFd>) -> io::Result<()> {
        let inotify = inotify?;
        let (dirs, told) = (self.dirs.clone(), Arc::clone(&self.told));
        let watched = Arc::clone(&self.watched);
        let armed = arm(inotify.as_fd(), &dirs);
        watched.store(true, Ordering::Release);
        let listen = move || {
            let error = listen(&inotify, &dirs, armed, &told);
            warn!(%error, "files are not watched any more, and looked at every minute");
            watched.store(false, Ordering::Release);
        };
        let thread = std::thread::Builder::new().name("files".to_owned());
        let started = thread.spawn(listen);
        started
            .map(drop)
            .inspect_err(|_| self.watched.store(false, Ordering::Release))
    }
}

fn new_inotify() -> io::Result<OwnedFd> {
    Ok(inotify::init(inotify::CreateFlags::CLOEXEC)?)
}

/// Tells what is heard, until nothing can be heard any more.
fn listen(inotify: &OwnedFd, dirs: &[PathBuf], mut armed: Vec<Option<i32>>, told: &Word) -> Errno {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(inotify, &mut buffer);
    loop {
        match events.next() {
            Ok(event) => {
                let lost = event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
                let name = event.file_name();
                let vf = name.and_then(|name| recorded_vf(name.to_bytes()));
                let before = std::mem::replace(&mut armed, arm(inotify.as_fd(), dirs));
                told.tell(if lost || before != armed {
                    Changed::Anything
                } else {
                    vf.map_or(Changed::Nothing, Changed::function)
                });
            }
            Err(Errno::INTR) => {}
            Err(error) => return error,
        }
    }
}

/// Returns the VF of a record by the name of its file, or by that of the next version of it.
fn recorded_vf(name: &[u8]) -> Option<PciAddress> {
    let (vf, _) = std::str::from_utf8(name).ok()?.split_once(".json")?;
    vf.parse().ok()
}

/// Watches each directory, or what of its path exists, and returns the watches. Doing so again changes
/// nothing.
fn arm(inotify: BorrowedFd<'_>, dirs: &[PathBuf]) -> Vec<Option<i32>> {
    let flags = inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::MOVE
        | inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::DELETE_SELF
        | inotify::WatchFlags::MOVE_SELF
        | inotify::WatchFlags::ONLYDIR;
    let added = |dir: &Path| inotify::add_watch(inotify, dir, flags).ok();
    let watch = |path: &PathBuf| path.ancestors().find_map(added);
    dirs.iter().map(watch).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_could_not_be_watched_at_first_is_watched_later() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::unwatched(vec![dir.path().to_owned()]);
        let none_left = || Err(io::Error::from(Errno::MFILE));
        assert!(files.begin(none_left()).is_err());
        files.watch_again();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(60), files.heard()).await;
        assert_eq!(heard.unwrap(), Changed::Nothing);
        assert_eq!(threads(), 1);
        files.watch_again();
        assert_eq!(threads(), 1, "it is watched twice");
    }

    /// Counts the threads of this process that watch files.
    fn threads() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")));
        names
            .filter(|name| name.as_deref().is_ok_and(|name| name == "files\n"))
            .count()
    }
}
