//! Which PFs were configured here, and what they had before: what a reset depends on.
//!
//! ```text
//! /etc/sriov-operator/pci/0000:3b:00.0    what the PF was given, in upstream's form ([`PfRecord`])
//! /var/lib/virtfn/pf/0000:3b:00.0.json    what it had at first; virtfn's own
//! /var/lib/virtfn/lost/0000:3b:00.0.json  what its VFs have, while they are made anew ([`lost`])
//! /tmp/sno-initial-node-state.json        what all had at first, as upstream kept it; only read
//! ```
//!
//! The first is the proof of ownership for virtfn and for upstream's daemon alike, so that a node can
//! be handed from one to the other with its VFs in use. What would surprise:
//!
//! - A record that cannot be believed is no proof: the PF is left alone, and that is said. Reading
//!   moves nothing; [`PfLedger::keep_aside`] does, when a plan is performed.
//! - What a PF had at first is noted when it has no record yet. Of a PF that upstream configured,
//!   upstream's own note counts, and only if the owner of the host's root wrote it: `/tmp` is
//!   everybody's. Of such a PF only autoprobe is noted, which upstream leaves alone.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use api::crd::{PfRecord, SriovNetworkNodeStateStatus};
use model::{Code, EswitchMode, Explain, Function, Mtu, PciAddress, PfDesired, SteeringMode};
use policy::{KeptVfs, Original, Owned};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::root::{AccessError, HostRoot};
use crate::state::{StateDir, StateError, keep_aside, write_atomic};

mod lost;
#[cfg(test)]
mod tests;

const DIR: &str = "/etc/sriov-operator/pci";
const INITIAL: &str = "/tmp/sno-initial-node-state.json";
/// Longest note of upstream that is read: 64 PFs with 256 VFs each take about 4 MiB.
const INITIAL_LIMIT: usize = 8 << 20;

/// The records of PFs of one host.
#[derive(Clone, Copy, Debug)]
pub struct PfLedger<'a> {
    root: &'a HostRoot,
    state: &'a StateDir,
}

/// What is on record.
#[derive(Debug, Default)]
pub struct OwnedPfs {
    /// The PFs that were configured, by address.
    pub pfs: BTreeMap<PciAddress, OwnedPf>,
    /// Records that cannot be believed, by address.
    pub damaged: Vec<DamagedPfRecord>,
    /// What VFs had by hand that an apply destroyed, and that they may not have again.
    pub lost: KeptVfs,
    /// Notes of that, or of what a PF had at first, which cannot be read.
    pub unread: Vec<StateError>,
}

/// One PF that was configured.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedPf {
    /// What it was given.
    pub record: PfRecord,
    /// What it had at first.
    pub original: Original,
}

impl OwnedPfs {
    /// Returns what [`policy::release`] decides on.
    #[must_use]
    pub fn owned(&self) -> BTreeMap<PciAddress, Owned> {
        let owned = |pf: &OwnedPf| Owned {
            externally_managed: pf.record.is_externally_managed(),
            given_mtu: pf.record.mtu(),
            given_eswitch: pf.record.eswitch(),
            original: pf.original,
        };
        let pfs = self.pfs.iter();
        pfs.map(|(address, pf)| (*address, owned(pf))).collect()
    }
}

/// A record of a PF that cannot be believed.
#[derive(Debug, thiserror::Error)]
#[error("record {} of a PF", path.display())]
pub struct DamagedPfRecord {
    /// The PF that the file is named for.
    pub pf: PciAddress,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Explain for DamagedPfRecord {
    fn code(&self) -> Code {
        Code::new("pf-record-damaged")
    }

    fn remedy(&self) -> Option<String> {
        Some(format!(
            "a PF that a policy wants gets a new record with the next apply; otherwise, if its VFs \
             are to go, write 0 to /sys/bus/pci/devices/{}/sriov_numvfs",
            self.pf
        ))
    }
}

/// The records of PFs cannot be read at all, so that nobody can tell what is owned.
#[derive(Debug, thiserror::Error)]
#[error("read which PFs were configured")]
pub struct ReadOwnedError(#[source] AccessError);

impl Explain for ReadOwnedError {
    fn code(&self) -> Code {
        Code::new("pf-records-unreadable")
    }

    fn remedy(&self) -> Option<String> {
        Some(format!("see that {DIR} is a directory that root can read"))
    }
}

impl<'a> PfLedger<'a> {
    /// Names the host and the place of virtfn's own notes.
    #[must_use]
    pub fn new(root: &'a HostRoot, state: &'a StateDir) -> Self {
        Self { root, state }
    }

    /// Reads all records. Nothing is changed, damaged records stay where they are.
    pub fn read(&self) -> Result<OwnedPfs, ReadOwnedError> {
        let (lost, unread) = self.lost();
        let mut owned = OwnedPfs {
            lost,
            unread,
            ..OwnedPfs::default()
        };
        let names = match self.root.list(DIR) {
            Ok(names) => names,
            Err(error) if error.is_gone() => return Ok(owned),
            Err(error) => return Err(ReadOwnedError(error)),
        };
        let mut upstreams = None;
        for name in names {
            // Anything else, as a file that is being replaced, is not a record.
            let Ok(pf) = name.parse::<PciAddress>() else {
                continue;
            };
            match self.record(pf) {
                Ok(Some(record)) => {
                    let noted = self.original(pf).unwrap_or_else(|error| {
                        owned.unread.push(error);
                        // What was given decides then.
                        Original::default()
                    });
                    let upstreams = upstreams.get_or_insert_with(|| self.upstreams_originals());
                    let theirs = upstreams.get(&pf).copied().unwrap_or_default();
                    let original = Original {
                        mtu: noted.mtu.or(theirs.mtu),
                        eswitch: noted.eswitch.or(theirs.eswitch),
                        ..noted
                    };
                    owned.pfs.insert(pf, OwnedPf { record, original });
                }
                Ok(None) => {}
                Err(damaged) => owned.damaged.push(damaged),
            }
        }
        Ok(owned)
    }

    /// Is there a record of a PF, believable or not?
    #[must_use]
    pub fn is_recorded(&self, pf: PciAddress) -> bool {
        self.root.exists(&record_path(pf))
    }

    /// Notes what a PF has before it is configured for the first time; later calls change nothing. Of a
    /// PF that upstream configured only autoprobe is as it was at first, because upstream never
    /// changes it.
    ///
    /// To be called before the first step on the PF.
    pub fn note_original(&self, pf: &Function) -> Result<(), StateError> {
        let path = self.state.original(pf.address);
        if path.exists() {
            return Ok(());
        }
        let mut original = Original::of(pf);
        if self.is_recorded(pf.address) {
            original = Original {
                autoprobe: original.autoprobe,
                ..Original::default()
            };
        }
        write_atomic(&path, &Note::of(original).to_bytes())
    }

    /// Records what a PF was given, unless that is on record already.
    ///
    /// To be called before the first step on the PF, so that whatever a kill leaves behind can be given
    /// back, and also when there is nothing to do to it.
    pub fn own(&self, given: &PfDesired) -> Result<(), StateError> {
        let record = PfRecord::from(given);
        match self.record(given.pf) {
            Ok(Some(former)) if former == record => Ok(()),
            _ => write_atomic(&self.host_path(given.pf), record.to_json().as_bytes()),
        }
    }

    /// Forgets a PF, once it was given back.
    pub fn disown(&self, pf: PciAddress) -> Result<(), StateError> {
        // In this order: without a record, an old note would be taken for a new one.
        lost::remove(&self.state.original(pf))?;
        lost::remove(&self.state.lost(pf))?;
        lost::remove(&self.host_path(pf))
    }

    /// Moves a damaged record out of the way, and returns where it is kept.
    pub fn keep_aside(&self, damaged: &DamagedPfRecord) -> Result<PathBuf, StateError> {
        let path = self.host_path(damaged.pf);
        // An address has a dot of its own, so this is no file extension.
        let kept = path.with_file_name(format!("{}.damaged", damaged.pf));
        keep_aside(&path, &kept)
    }

    fn record(&self, pf: PciAddress) -> Result<Option<PfRecord>, DamagedPfRecord> {
        let path = record_path(pf);
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| DamagedPfRecord {
            pf,
            path: PathBuf::from(&path),
            source,
        };
        match self.root.read(&path) {
            Ok(bytes) => match PfRecord::parse(pf, &bytes) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(damaged(error.into())),
            },
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(damaged(error.into())),
        }
    }

    /// Reads what a PF had at first; nothing when that was not noted.
    fn original(&self, pf: PciAddress) -> Result<Original, StateError> {
        let path = self.state.original(pf);
        let note = lost::read_note(&path).and_then(|bytes| {
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is no note of a PF");
            Note::parse(&bytes).ok_or_else(damaged)
        });
        match note {
            Ok(note) => Ok(note.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Original::default()),
            Err(error) => Err(StateError::new("read", &path, error)),
        }
    }

    /// Reads what upstream noted of all PFs when it first saw the host.
    fn upstreams_originals(&self) -> BTreeMap<PciAddress, Original> {
        self.is_roots(INITIAL)
            .then(|| self.root.read_bounded(INITIAL, INITIAL_LIMIT).ok())
            .flatten()
            .map(|bytes| initial(&bytes))
            .unwrap_or_default()
    }

    /// Is a file the property of who owns the root directory, and can nobody else write it?
    fn is_roots(&self, path: &str) -> bool {
        let stat = |path, flags| {
            let file = self.root.open_file(path, flags | OFlags::PATH).ok()?;
            rustix::fs::fstat(file).ok()
        };
        let (Some(root), Some(file)) = (stat("/", OFlags::DIRECTORY), stat(path, OFlags::NOFOLLOW))
        else {
            return false;
        };
        file.st_uid == root.st_uid && file.st_mode & 0o022 == 0
    }

    /// Returns a record's path for writing.
    fn host_path(&self, pf: PciAddress) -> PathBuf {
        let path = record_path(pf);
        self.root.path().join(path.trim_start_matches('/'))
    }
}

fn record_path(pf: PciAddress) -> String {
    format!("{DIR}/{pf}")
}

/// Reads upstream's `NodeState` of the first start, of which only the status is filled.
pub(crate) fn initial(bytes: &[u8]) -> BTreeMap<PciAddress, Original> {
    #[derive(Deserialize)]
    struct Initial {
        #[serde(default)]
        status: SriovNetworkNodeStateStatus,
    }
    let Ok(initial) = serde_json::from_slice::<Initial>(bytes) else {
        return BTreeMap::new();
    };
    let nics = initial.status.interfaces.into_iter();
    nics.filter_map(|nic| {
        let original = Original {
            mtu: nic.mtu.and_then(|mtu| Mtu::new(u32::try_from(mtu).ok()?)),
            eswitch: nic.eswitch_mode.and_then(|mode| mode.parse().ok()),
            autoprobe: None,
            tc_offload: None,
            steering: None,
        };
        Some((nic.pci_address.parse().ok()?, original))
    })
    .collect()
}

/// What a PF had at first, as a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<Mtu>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eswitch: Option<EswitchMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    autoprobe: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tc_offload: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steering: Option<SteeringMode>,
}

impl Note {
    const VERSION: u32 = 1;

    fn of(original: Original) -> Self {
        Self {
            version: Self::VERSION,
            mtu: original.mtu,
            eswitch: original.eswitch,
            autoprobe: original.autoprobe,
            tc_offload: original.tc_offload,
            steering: original.steering,
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let note: Self = serde_json::from_slice(bytes).ok()?;
        (note.version == Self::VERSION).then_some(note)
    }

    fn to_bytes(&self) -> Vec<u8> {
        // Numbers and words always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl From<Note> for Original {
    fn from(note: Note) -> Self {
        Self {
            mtu: note.mtu,
            eswitch: note.eswitch,
            autoprobe: note.autoprobe,
            tc_offload: note.tc_offload,
            steering: note.steering,
        }
    }
}

/// Reads bytes as a note of virtfn or of upstream.
pub(crate) fn fuzz_original(bytes: &[u8]) {
    lost::fuzz(bytes);
    drop(initial(bytes));
    if let Some(note) = Note::parse(bytes) {
        let original = Original::from(note);
        let again = Note::parse(&Note::of(original).to_bytes()).map(Original::from);
        assert_eq!(again, Some(original), "the note did not survive");
    }
}
