//! Word that something may have changed: from the kernel, and from files.
//!
//! Neither carries state: they only say "look again".

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{IfIndex, Inventory};
use netlink::{Event, Events};
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::sync::Notify;
use tracing::warn;

/// Longest wait for one event; there is no reason to wake up in between.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Subsystems whose devices matter.
const SUBSYSTEMS: [&str; 11] = [
    "pci",
    "net",
    "auxiliary",
    "vdpa",
    "vfio",
    "vfio-dev",
    "uio",
    "infiniband",
    "infiniband_cm",
    "infiniband_mad",
    "infiniband_verbs",
];

/// Interfaces whose changes matter: those of functions, and what they are ports of.
///
/// Pods come and go with interfaces of their own, many a second on a busy node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interests(Arc<Mutex<BTreeSet<IfIndex>>>);

impl Interests {
    /// Takes them from what was seen.
    pub(crate) fn follow(&self, seen: &Inventory) {
        let functions = seen
            .functions
            .values()
            .flat_map(|function| &function.netdevs);
        let parts = seen.sub_functions.values().flat_map(|part| &part.netdevs);
        let netdevs = functions.chain(parts);
        let indices = netdevs.flat_map(|netdev| [Some(netdev.index), netdev.master]);
        let indices = indices.flatten().chain(seen.node_uses.keys().copied());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = indices.collect();
    }

    fn has(&self, index: IfIndex) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&index)
    }

    /// Does an event say that something that matters may have changed?
    fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Overrun => true,
            Event::LinkChanged(index) | Event::LinkGone(index) | Event::AddressChanged(index) => {
                self.has(*index)
            }
            Event::Device(device) => {
                let virtual_netdev = device.devpath.starts_with("/devices/virtual/net/");
                let subsystem = device.subsystem.as_deref().unwrap_or_default();
                SUBSYSTEMS.contains(&subsystem) && !virtual_netdev
            }
        }
    }
}

/// Listens to the kernel on a thread of its own, which lives as long as the process.
pub(crate) fn listen_to_kernel(interests: Interests) -> Result<Arc<Notify>, io::Error> {
    let mut events = Events::open().map_err(io::Error::other)?;
    let changed = Arc::new(Notify::new());
    let told = Arc::clone(&changed);
    let listen = move || {
        loop {
            match events.wait(Instant::now() + A_DAY) {
                Ok(Some(event)) if interests.concerns(&event) => told.notify_one(),
                Ok(_) => {}
                Err(error) => {
                    // The scan of every minute goes on; this is no reason to give up serving.
                    warn!(%error, "no events of the kernel any more");
                    return;
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(listen)?;
    Ok(changed)
}

/// Watches directories, also before they exist, on a thread that lives as long as the process.
///
/// Which one changed is not told: inotify gives one watch for two paths to a directory, and looking at
/// all of them again costs a few system calls.
pub(crate) fn watch_files(dirs: Vec<PathBuf>) -> io::Result<Arc<Notify>> {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    arm(inotify.as_fd(), &dirs);
    let changed = Arc::new(Notify::new());
    let told = Arc::clone(&changed);
    let listen = move || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(_) => {
                    arm(inotify.as_fd(), &dirs);
                    told.notify_one();
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    // The look of every minute goes on; this is no reason to give up serving.
                    warn!(%error, "files are not watched any more");
                    return;
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("files".to_owned())
        .spawn(listen)?;
    Ok(changed)
}

/// Watches each directory, or what of its path exists. Doing so again changes nothing.
fn arm(inotify: BorrowedFd<'_>, dirs: &[PathBuf]) {
    let flags = inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::MOVE
        | inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::DELETE_SELF
        | inotify::WatchFlags::MOVE_SELF
        | inotify::WatchFlags::ONLYDIR;
    for path in dirs {
        let added = |dir: &Path| inotify::add_watch(inotify, dir, flags).is_ok();
        let _watched = path.ancestors().any(added);
    }
}
