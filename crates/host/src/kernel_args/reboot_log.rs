//! The count of reboots that were asked for, on disk.
//!
//! A damaged file is set aside and said, and counting begins anew.

use std::collections::{BTreeMap, BTreeSet};

use model::{Code, Explain, RebootReason};
use policy::kernel::{RebootRefused, Reboots};
use serde::{Deserialize, Serialize};

use crate::files::{Entry, Files, refused};
use crate::root::{AccessError, HostRoot};

const DIR: &str = "/var/lib/virtfn";
const FILE: &str = "/var/lib/virtfn/reboots.json";
const ASIDE: &str = "/var/lib/virtfn/reboots.json.damaged";

/// Most causes and boots that are read: a file with more was not written by virtfn.
const MOST: usize = 256;

/// The reboots that were asked for on a host.
pub struct RebootLog<'a> {
    files: Files<'a>,
    boot: String,
    reboots: Reboots,
    /// Was the file damaged, and set aside?
    pub was_damaged: bool,
}

/// A reboot may not be asked for, or that could not be noted.
#[derive(Debug, thiserror::Error)]
pub enum RebootLogError {
    /// It was asked for too often.
    #[error(transparent)]
    Refused(#[from] RebootRefused),
    /// The file could not be used, and without it there would be no bound.
    #[error("count the reboots that were asked for")]
    File {
        /// Which file, and what the kernel said.
        source: AccessError,
    },
}

impl Explain for RebootLogError {
    fn code(&self) -> Code {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::File { .. } => Code::new("files-not-accessible"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Refused(refused) => refused.remedy(),
            Self::File { source } => {
                Some(format!("see that root can write {}", source.path.display()))
            }
        }
    }
}

/// The file. `version` is raised when its meaning changes.
#[derive(Deserialize, Serialize)]
struct Stored {
    version: u32,
    asked: BTreeMap<String, BTreeSet<String>>,
}

/// What is on record of reboots that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedReboots {
    /// Causes for which one was asked in this boot: it did not happen yet.
    pub pending: Vec<String>,
    /// Causes that former boots were to settle and did not, and how many boots that were.
    pub unsettled: Vec<(String, usize)>,
    /// Is the file damaged? Then nothing is known.
    pub is_damaged: bool,
}

/// Reads what is on record of reboots that were asked for; nothing is changed.
pub fn asked_reboots(root: &HostRoot) -> Result<AskedReboots, RebootLogError> {
    let content = match Files::new(root).entry(FILE).map_err(file)? {
        Entry::Absent => return Ok(AskedReboots::default()),
        Entry::File(content) => content,
        Entry::Link(_) | Entry::Dir | Entry::Other => {
            return Err(file(refused("read", FILE, "it is no file")));
        }
    };
    let boot = root
        .read_text("/proc/sys/kernel/random/boot_id")
        .map_err(file)?;
    let Some(reboots) = parse(&content) else {
        return Ok(AskedReboots {
            is_damaged: true,
            ..AskedReboots::default()
        });
    };
    let mut asked = AskedReboots::default();
    for (cause, boots) in reboots.asked {
        if boots.contains(&boot) {
            asked.pending.push(cause);
        } else {
            asked.unsettled.push((cause, boots.len()));
        }
    }
    Ok(asked)
}

impl<'a> RebootLog<'a> {
    /// Opens the log of a host.
    pub fn open(root: &'a HostRoot) -> Result<Self, RebootLogError> {
        let files = Files::new(root);
        let boot = root
            .read_text("/proc/sys/kernel/random/boot_id")
            .map_err(file)?;
        let (reboots, was_damaged) = match files.entry(FILE).map_err(file)? {
            Entry::Absent => (Reboots::default(), false),
            Entry::File(content) => match parse(&content) {
                Some(reboots) => (reboots, false),
                None => {
                    files.replace(ASIDE, &content).map_err(file)?;
                    files.remove(FILE).map_err(file)?;
                    (Reboots::default(), true)
                }
            },
            Entry::Link(_) | Entry::Dir | Entry::Other => {
                return Err(file(refused("read", FILE, "it is no file")));
            }
        };
        Ok(Self {
            files,
            boot,
            reboots,
            was_damaged,
        })
    }

    /// Asks for a reboot; it is on disk before this returns. Again in the same boot costs nothing.
    pub fn ask(&mut self, reason: &RebootReason) -> Result<(), RebootLogError> {
        let before = self.reboots.clone();
        self.reboots.ask(reason, &self.boot)?;
        if self.reboots == before {
            return Ok(());
        }
        self.save()
    }

    /// Forgets everything: nothing needs a reboot any more.
    pub fn settle(&mut self) -> Result<(), RebootLogError> {
        self.reboots.settle();
        self.files.remove(FILE).map_err(file)
    }

    fn save(&self) -> Result<(), RebootLogError> {
        let stored = Stored {
            version: 1,
            asked: self.reboots.asked.clone(),
        };
        let text = serde_json::to_vec(&stored).map_err(|error| {
            let source = AccessError::new("write", FILE, std::io::Error::other(error));
            file(source)
        })?;
        self.files.make_dir(DIR).map_err(file)?;
        self.files.replace(FILE, &text).map_err(file)
    }
}

fn file(source: AccessError) -> RebootLogError {
    RebootLogError::File { source }
}

/// Reads the file; `None` when it is damaged.
pub(crate) fn parse(content: &[u8]) -> Option<Reboots> {
    let stored: Stored = serde_json::from_slice(content).ok()?;
    let fits = stored.asked.len() <= MOST && stored.asked.values().all(|b| b.len() <= MOST);
    (stored.version == 1 && fits).then_some(Reboots {
        asked: stored.asked,
    })
}
