//! Word that something may have changed: from the kernel, and from files.
//!
//! Neither carries state: they only say "look again", and at what.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use host::nearest_function;
use model::{IfIndex, Inventory, Netns, PciAddress};
use netlink::{Event, Events, Uevent, UeventAction};
use tokio::sync::Notify;
use tracing::warn;

pub(crate) use files::Files;

/// Longest wait for one event; there is no reason to wake up in between.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Subsystems whose devices matter. Groups of VFIO (`vfio`) are on no device; a function of theirs is
/// bound or unbound at the same time.
const SUBSYSTEMS: [&str; 10] = [
    "pci",
    "net",
    "auxiliary",
    "vdpa",
    "vfio-dev",
    "uio",
    "infiniband",
    "infiniband_cm",
    "infiniband_mad",
    "infiniband_verbs",
];

/// Most functions that are looked at one by one; of more the whole host is no dearer.
const MOST_FUNCTIONS: usize = 64;

/// Longest line that a recorded kernel tells.
const LONGEST_LINE: u64 = 4096;

/// What may have changed on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Nothing.
    #[default]
    Nothing,
    /// These functions, and what is on them.
    Functions(BTreeSet<PciAddress>),
    /// Anything.
    Anything,
}

impl Changed {
    pub(crate) fn function(address: PciAddress) -> Self {
        Self::Functions(BTreeSet::from([address]))
    }

    /// Takes what else may have changed.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (_, Self::Nothing) | (Self::Anything, _) => {}
            (Self::Functions(known), Self::Functions(more)) => {
                known.extend(more);
                if known.len() > MOST_FUNCTIONS {
                    *self = Self::Anything;
                }
            }
            (Self::Nothing, more) | (Self::Functions(_), more @ Self::Anything) => *self = more,
        }
    }
}

/// Word from a thread that listens, gathered until it is heard.
#[derive(Debug, Default)]
pub(crate) struct Word {
    changed: Mutex<Changed>,
    told: Notify,
}

impl Word {
    fn tell(&self, changed: Changed) {
        let known = self.changed.lock();
        known.unwrap_or_else(PoisonError::into_inner).add(changed);
        self.told.notify_one();
    }

    /// Waits for word; what was told twice may be heard once, and then as nothing.
    pub(crate) async fn heard(&self) -> Changed {
        self.told.notified().await;
        let mut known = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *known)
    }
}

/// Interfaces whose changes matter: those of functions, what they are ports of, and the node's own.
///
/// Pods come and go with interfaces of their own, many a second on a busy node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interests(Arc<Mutex<BTreeMap<IfIndex, Changed>>>);

impl Interests {
    /// Takes them from what was seen.
    pub(crate) fn follow(&self, seen: &Inventory) {
        let mut known = BTreeMap::new();
        // Another namespace counts its interfaces by itself.
        for function in seen.functions.values() {
            let own = function.netdevs.iter();
            for netdev in own.filter(|netdev| netdev.netns == Netns::Host) {
                known.insert(netdev.index, Changed::function(function.address));
                known.extend(netdev.master.map(|master| (master, Changed::Anything)));
            }
        }
        let parts = seen.sub_functions.values().flat_map(|part| &part.netdevs);
        let indices = parts.flat_map(|netdev| [Some(netdev.index), netdev.master]);
        let indices = indices.flatten().chain(seen.node_uses.keys().copied());
        known.extend(indices.map(|index| (index, Changed::Anything)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn of(&self, index: IfIndex) -> Changed {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&index).cloned().unwrap_or_default()
    }

    /// Returns what may have changed when an event is heard.
    fn concerned(&self, event: &Event) -> Changed {
        match event {
            Event::Overrun => Changed::Anything,
            Event::LinkChanged(index) | Event::LinkGone(index) => self.of(*index),
            // Addresses decide what the node uses itself, which is asked of all interfaces at once.
            Event::AddressChanged(index) => match self.of(*index) {
                Changed::Nothing => Changed::Nothing,
                Changed::Functions(_) | Changed::Anything => Changed::Anything,
            },
            Event::Device(device) => concerned(device),
        }
    }
}

/// Returns what may have changed when a device came, went or changed.
fn concerned(device: &Uevent) -> Changed {
    let subsystem = device.subsystem.as_deref().unwrap_or_default();
    if !SUBSYSTEMS.contains(&subsystem) || device.devpath.starts_with("/devices/virtual/") {
        return Changed::Nothing;
    }
    let stays = match device.action {
        UeventAction::Bind | UeventAction::Unbind | UeventAction::Change => true,
        UeventAction::Add | UeventAction::Remove | UeventAction::Move => subsystem != "pci",
    };
    let function = nearest_function(&device.devpath).filter(|_| stays && subsystem != "auxiliary");
    function.map_or(Changed::Anything, Changed::function)
}

/// Listens to the kernel on a thread of its own, which lives as long as the process.
pub(crate) fn listen_to_kernel(interests: Interests) -> Result<Arc<Word>, io::Error> {
    let mut events = Events::open().map_err(io::Error::other)?;
    listen(move || {
        loop {
            match events.wait(Instant::now() + A_DAY) {
                Ok(Some(event)) => match interests.concerned(&event) {
                    Changed::Nothing => {}
                    changed => return Some(changed),
                },
                Ok(None) => {}
                Err(error) => {
                    // The scan of every minute goes on; this is no reason to give up serving.
                    warn!(%error, "no events of the kernel any more");
                    return None;
                }
            }
        }
    })
}

/// Listens to the kernel of a recorded host, if somebody plays it: `netlink/events` is then a FIFO that
/// is told events of devices, in the form of the kernel and each ended by a new line.
pub(crate) fn listen_to_recorded(root: &Path) -> Result<Arc<Word>, io::Error> {
    // Open at both ends, so that it does not end when whoever plays does.
    let fifo = File::options()
        .read(true)
        .write(true)
        .open(root.join("netlink/events"));
    let mut lines = match fifo {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
        fifo => BufReader::new(fifo?),
    };
    listen(move || {
        let mut line = Vec::new();
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line);
        read.ok().filter(|bytes| *bytes > 0)?;
        let device = Uevent::parse(line.trim_ascii_end());
        Some(device.map_or(Changed::Nothing, |device| concerned(&device)))
    })
}

/// Passes on what `next` hears, on a thread that ends when it hears nothing any more.
fn listen(
    mut next: impl FnMut() -> Option<Changed> + Send + 'static,
) -> Result<Arc<Word>, io::Error> {
    let word = Arc::new(Word::default());
    let told = Arc::clone(&word);
    std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || {
            while let Some(changed) = next() {
                told.tell(changed);
            }
        })?;
    Ok(word)
}
