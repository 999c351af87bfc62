//! Who has which VF: one record per VF, written before the VF is touched.
//!
//! ```text
//!            attach                    confirm
//!   free ───────────────▶ attaching ───────────▶ attached
//!    ▲  record: all steps     │                      │ detach
//!    │  and their undo        │ undo                 ▼
//!    └────────────────────────┴───────────────── detaching
//!                                   undo
//! ```
//!
//! A record in `attaching` or `detaching` whose VF lock is free belongs to a process that died;
//! its undo leads back to `free` from wherever that process stopped, because undoing what was never
//! done changes nothing.
//!
//! What would surprise:
//!
//! - A record is void after a reboot, because VFs are as new then, and so is everything that was set
//!   on them. So only a record that comes before a change is forced to the disk, and no mark of how far
//!   it came.
//! - A record that cannot be read says nothing of whose the VF is, and so the VF counts as somebody's
//!   until it is detached; the file is kept aside then with the ending `.damaged`. Only where nobody
//!   locked the VF since the host started, nobody can have written the record since: it is of a former
//!   boot, whatever it said, and void.

mod history;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use model::{Code, Explain, Gap, Holder, HolderKind, PciAddress};

pub(crate) use history::parse as parse_history;
pub use history::{Change, Happening, PastEvent};
use record::Mark;
pub use record::{Before, BootId, Claim, Record, RecordedStep, Stage};
pub(crate) use record::{ParseRecordError, parse};

use crate::lock::{LockOf, was_locked};
use crate::state::{StateDir, StateError, write_atomic, write_for_this_boot};

/// Most bytes of a record. One step is about 200 bytes, and an attach has some 20 of them.
const RECORD_LIMIT: u64 = 256 * 1024;

/// The records of all VFs of this host.
#[derive(Clone, Debug)]
pub struct Ledger {
    state: StateDir,
    boot: BootId,
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be read or written.
    #[error("keep the record of VF {vf}")]
    State {
        /// The VF.
        vf: PciAddress,
        /// Which file, and why not.
        source: StateError,
    },
    /// It is not what virtfn wrote.
    #[error("the record of VF {vf} in {} is damaged: {reason}", path.display())]
    Damaged {
        /// The VF.
        vf: PciAddress,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A later virtfn wrote it, and so it is not ours to judge.
    #[error("the record of VF {vf} in {} has version {version}, this virtfn knows {KNOWN}", path.display(), KNOWN = record::VERSION)]
    Later {
        /// The VF.
        vf: PciAddress,
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl Explain for LedgerError {
    fn code(&self) -> Code {
        match self {
            Self::State { source, .. } => source.code(),
            Self::Damaged { .. } => Code::new("record-damaged"),
            Self::Later { .. } => Code::new("state-of-later-version"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::State { source, .. } => source.remedy(),
            Self::Damaged { vf, .. } => Some(format!(
                "see where the VF is with `virtfn list vf`; `virtfn detach {vf}` brings it home and \
                 makes it free"
            )),
            Self::Later { .. } => {
                Some("use the later virtfn, or detach the VF with it first".to_owned())
            }
        }
    }
}

/// A record that could not be read, and was kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it is now.
    pub kept: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// Is it of a former boot, so that nobody can have the VF by it?
    pub is_void: bool,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a record that cannot be used was kept as {} ({})",
            self.kept.display(),
            self.reason
        )
    }
}

/// Who has what, as the records say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// The holder of each VF that has one.
    pub by_vf: BTreeMap<PciAddress, Holder>,
    /// Those that were moved to a namespace: one whose netdev is seen on the host came back without
    /// virtfn, and nobody has it.
    pub moved: BTreeSet<PciAddress>,
    /// VFs whose record cannot be read: somebody may have them.
    pub unknown: BTreeMap<PciAddress, Holder>,
    /// Whom any other VF may belong to, when the records cannot even be listed.
    pub unlisted: Option<Holder>,
    /// Records that could not be read.
    pub gaps: Vec<Gap>,
}

impl Holders {
    /// Returns who may have a VF of which nobody else was found to have it.
    #[must_use]
    pub fn unknown_of(&self, vf: PciAddress) -> Option<&Holder> {
        self.unknown.get(&vf).or(self.unlisted.as_ref())
    }
}

/// Somebody who cannot be told, and why not.
pub(crate) fn somebody(why: &str) -> Holder {
    Holder {
        kind: HolderKind::Unknown,
        id: why.to_owned(),
        interface: None,
    }
}

impl Ledger {
    /// Opens the records of the boot that runs; nothing need exist yet.
    #[must_use]
    pub fn new(state: StateDir, boot: BootId) -> Self {
        Self { state, boot }
    }

    /// Returns where the records are.
    pub(crate) fn state(&self) -> &StateDir {
        &self.state
    }

    /// Returns who has which VF, for an inventory.
    ///
    /// It takes no lock: a record is replaced in one instant, so a reader sees an old or a new one.
    #[must_use]
    pub fn holders(&self) -> Holders {
        let mut found = Holders::default();
        let recorded = self.recorded().unwrap_or_else(|error| {
            let object = self.state.ledger().display().to_string();
            let reason = format!("the records of who has which VF were not read: {error}");
            found.gaps.push(Gap { object, reason });
            // Whoever may not look here cannot change anything either.
            if error.kind() != io::ErrorKind::PermissionDenied {
                found.unlisted = Some(somebody("the records of VFs cannot be read"));
            }
            Vec::new()
        });
        self.add_holders(recorded, &mut found);
        found
    }

    /// Reads the records of these VFs only.
    pub(crate) fn holders_of(&self, vfs: &BTreeSet<PciAddress>) -> Holders {
        let mut found = Holders::default();
        self.add_holders(vfs.iter().copied(), &mut found);
        found
    }

    fn add_holders(&self, vfs: impl IntoIterator<Item = PciAddress>, found: &mut Holders) {
        for vf in vfs {
            match self.look(vf) {
                Ok(record) => {
                    let claim = record.and_then(|record| record.claim);
                    if let Some(claim) = claim {
                        if claim.stage == Stage::Attached && claim.netns.is_some() {
                            found.moved.insert(vf);
                        }
                        found.by_vf.insert(vf, claim.holder);
                    }
                }
                Err(error) => self.hole(vf, &error, found),
            }
        }
    }

    /// Tells of a record that says nothing.
    fn hole(&self, vf: PciAddress, error: &LedgerError, found: &mut Holders) {
        let mut reason = error.to_string();
        if let LedgerError::State { source, .. } = error {
            reason.push_str(&format!(": {source}: {}", source.source));
        }
        if self.is_of_former_boot(vf) {
            reason.push_str("; it is of a former boot, and so void");
        } else {
            let why = match error {
                LedgerError::State { .. } => "its record cannot be read",
                LedgerError::Damaged { .. } => "its record is damaged",
                LedgerError::Later { .. } => "its record is of a later virtfn",
            };
            found.unknown.insert(vf, somebody(why));
            if let Some(remedy) = error.remedy() {
                reason.push_str(&format!("; {remedy}"));
            }
        }
        let object = vf.to_string();
        found.gaps.push(Gap { object, reason });
    }

    /// Is a record that cannot be read surely of a former boot? Its writer had the VF's lock, whose
    /// file a reboot takes away.
    fn is_of_former_boot(&self, vf: PciAddress) -> bool {
        !was_locked(&self.state, LockOf::Vf(vf))
    }

    /// Returns the record of a VF as it is, without repairing anything; `None` when there is none, as
    /// nobody has the VF. A claim of a former boot is none.
    pub fn look(&self, vf: PciAddress) -> Result<Option<Record>, LedgerError> {
        let record = self.on_disk(vf)?;
        Ok(record.map(|record| self.without_former_boot(record)))
    }

    /// Has a VF a claim of a former boot?
    fn is_void(&self, vf: PciAddress) -> Result<bool, LedgerError> {
        let record = self.on_disk(vf)?;
        Ok(record.is_some_and(|record| self.is_claim_void(&record)))
    }

    fn on_disk(&self, vf: PciAddress) -> Result<Option<Record>, LedgerError> {
        let state = |source| LedgerError::State { vf, source };
        let path = self.state.record(vf);
        let Some(bytes) =
            read(&path).map_err(|error| state(StateError::new("read", &path, error)))?
        else {
            return Ok(None);
        };
        match parse(&bytes, vf) {
            Ok(record) => Ok(Some(record)),
            Err(ParseRecordError::Later { version }) => {
                Err(LedgerError::Later { vf, path, version })
            }
            Err(ParseRecordError::Damaged { reason }) => {
                Err(LedgerError::Damaged { vf, path, reason })
            }
        }
    }

    /// Returns the VFs that have a record, claimed or not, by address.
    pub(crate) fn recorded(&self) -> io::Result<Vec<PciAddress>> {
        let entries = match fs::read_dir(self.state.ledger()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut vfs = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let vf = name.to_str().and_then(|name| name.strip_suffix(".json"));
            vfs.extend(vf.and_then(|vf| vf.parse::<PciAddress>().ok()));
        }
        vfs.sort_unstable();
        Ok(vfs)
    }

    /// Opens the record of a VF, whose lock the caller has, to change it.
    ///
    /// A claim of a former boot is void, and removed. A damaged record is kept aside, and stays in its
    /// place too until another is written: that the VF may be somebody's must not be forgotten before.
    /// With `is_void` whatever cannot be read is of a former boot, and removed at once: the lock of the VF
    /// is the first since.
    pub(crate) fn open(
        &self,
        vf: PciAddress,
        is_void: bool,
    ) -> Result<(Record, Option<Damage>), LedgerError> {
        let state = |source| LedgerError::State { vf, source };
        let path = self.state.record(vf);
        let bytes = read(&path).map_err(|error| state(StateError::new("read", &path, error)))?;
        let Some(bytes) = bytes else {
            return Ok((Record::free(vf, self.boot.clone()), None));
        };
        match parse(&bytes, vf) {
            Ok(record) => {
                if self.is_claim_void(&record) {
                    self.free(vf, [Happening::VoidAfterReboot])?;
                }
                Ok((self.without_former_boot(record), None))
            }
            Err(ParseRecordError::Later { version }) if !is_void => {
                Err(LedgerError::Later { vf, path, version })
            }
            Err(error) => {
                let kept = path.with_extension("json.damaged");
                keep(&path, &kept)
                    .map_err(|error| state(StateError::new("keep aside", &path, error)))?;
                if is_void {
                    // The lock file that told so is there from now on.
                    self.free(vf, [Happening::Damaged])?;
                }
                let damage = Damage {
                    kept,
                    reason: error.to_string(),
                    is_void,
                };
                Ok((Record::free(vf, self.boot.clone()), Some(damage)))
            }
        }
    }

    /// Writes a record to the disk, before anything is changed that it tells how to take back.
    pub(crate) fn write(&self, record: &Record) -> Result<(), LedgerError> {
        self.put(record, write_atomic)
    }

    /// Writes a record anew of which less is true by now. It is not forced to the disk: every process
    /// sees it, and after a power cut the record is of a former boot, and void.
    pub(crate) fn amend(&self, record: &Record) -> Result<(), LedgerError> {
        self.put(record, write_for_this_boot)
    }

    fn put(
        &self,
        record: &Record,
        write: fn(&Path, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), LedgerError> {
        let vf = record.vf;
        let path = self.state.record(vf);
        let written = record
            .to_bytes()
            .map_err(|error| StateError::new("write", &path, io::Error::other(error)))
            .and_then(|bytes| write(&path, &bytes));
        written.map_err(|source| LedgerError::State { vf, source })
    }

    /// Notes how far something came that is on record, behind the record; not forced to the disk either.
    pub(crate) fn mark(&self, vf: PciAddress, stage: Stage) -> Result<(), LedgerError> {
        let path = self.state.record(vf);
        let write = || {
            let line = Mark { stage }.to_bytes()?;
            let mut file = OpenOptions::new().append(true).open(&path)?;
            file.write_all(&line)
        };
        write().map_err(|error| {
            let source = StateError::new("write", &path, error);
            LedgerError::State { vf, source }
        })
    }

    /// Says that a VF is free, and before that why: it has no record then, not even on a full disk.
    ///
    /// Who dies between the two is told of once more by the next one.
    pub(crate) fn free(
        &self,
        vf: PciAddress,
        why: impl IntoIterator<Item = Happening>,
    ) -> Result<(), LedgerError> {
        for what in why {
            self.note(vf, what);
        }
        let path = self.state.record(vf);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let source = StateError::new("remove", &path, error);
                Err(LedgerError::State { vf, source })
            }
            _ => Ok(()),
        }
    }

    fn is_claim_void(&self, record: &Record) -> bool {
        record.claim.is_some() && record.boot != self.boot
    }

    fn without_former_boot(&self, mut record: Record) -> Record {
        if record.boot != self.boot {
            record.claim = None;
            record.boot = self.boot.clone();
        }
        record
    }
}

/// Returns the seconds since 1970 for a record; a clock before that counts as 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Gives a file a second name, in place of what had it.
fn keep(path: &Path, kept: &Path) -> io::Result<()> {
    let _may_not_be_there = fs::remove_file(kept);
    // A file system without second names has to do with another name.
    fs::hard_link(path, kept).or_else(|_| fs::rename(path, kept))
}

/// Reads a file of at most [`RECORD_LIMIT`] bytes; what is longer is cut, and then does not parse.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => {
            // Most records fit: without a size to begin with, the reads would begin at 32 bytes.
            let mut bytes = Vec::with_capacity(8 * 1024);
            file.take(RECORD_LIMIT).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
