//! What happened to each VF: one line of JSON per event, appended to one file per VF.
//!
//! It is for people ([`Ledger::history`]), and nothing is decided by it. So it is no part of the record,
//! which is read and written while somebody waits for a VF; and an event that cannot be written stops
//! nobody. A line begins with its line break, so that one that was cut short spoils no other.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use model::{Holder, PciAddress};
use serde::{Deserialize, Serialize};

use super::record::RecordedStep;
use super::{Ledger, LedgerError, now, read};
use crate::state::{StateError, open_or_make_dir, write_for_this_boot};

/// How many events are told; an attach and a detach make two.
const EVENTS: usize = 16;

/// How long a file grows before all but the last events are taken from it: some 200 events.
const LONGEST: u64 = 64 * 1024;

/// One thing that happened to a VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastEvent {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// One change that was made, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What was done, such as `vf 0: set vlan 100`.
    pub done: String,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

impl From<&RecordedStep> for Change {
    fn from(recorded: &RecordedStep) -> Self {
        Self {
            done: recorded.step.to_string(),
            before: recorded.before.clone(),
        }
    }
}

/// What can happen to a VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Happening {
    /// It was given to somebody.
    Attached {
        /// To whom.
        holder: Holder,
        /// What was changed for it.
        #[serde(default)]
        changes: Vec<Change>,
    },
    /// It was taken back.
    Detached {
        /// From whom.
        holder: Holder,
    },
    /// An attach or a detach was found half done, and was taken back.
    Healed {
        /// For whom it was.
        holder: Holder,
    },
    /// The namespace that it was in is gone, so it was taken back.
    Deserted {
        /// Who had it.
        holder: Holder,
    },
    /// Its claim was of a former boot.
    VoidAfterReboot,
    /// Its record could not be read.
    Damaged,
    /// Something that a later virtfn wrote.
    #[serde(other)]
    Unknown,
}

impl Ledger {
    /// Returns what happened to a VF, the oldest first; at most 16 events.
    pub fn history(&self, vf: PciAddress) -> Result<Vec<PastEvent>, LedgerError> {
        let path = self.state.history(vf);
        let bytes = read(&path).map_err(|error| {
            let source = StateError::new("read", &path, error);
            LedgerError::State { vf, source }
        })?;
        let mut events = parse(&bytes.unwrap_or_default());
        if self.is_void(vf)? {
            // Whoever opens the record next writes it down.
            let what = Happening::VoidAfterReboot;
            events.push(PastEvent { at: now(), what });
        }
        // Who died between the end of a claim and the end of its record is told of twice.
        let can_repeat = |what: &Happening| matches!(what, Happening::Healed { .. });
        events.dedup_by(|later, first| later.what == first.what && !can_repeat(&later.what));
        Ok(events)
    }

    /// Notes what happened to a VF, whose lock the caller has.
    pub(crate) fn note(&self, vf: PciAddress, what: Happening) {
        let path = self.state.history(vf);
        if let Err(error) = append(&path, &PastEvent { at: now(), what }) {
            tracing::warn!(pci = %vf, %error, "history not written");
        }
    }
}

fn append(path: &Path, event: &PastEvent) -> Result<(), StateError> {
    let error = |error| StateError::new("write", path, error);
    let mut line = vec![b'\n'];
    serde_json::to_writer(&mut line, event).map_err(|source| error(source.into()))?;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let mut file = open_or_make_dir(path, &options)?;
    file.write_all(&line).map_err(error)?;
    if file
        .metadata()
        .is_ok_and(|metadata| metadata.len() > LONGEST)
    {
        shorten(path)?;
    }
    Ok(())
}

/// Leaves only what is told of a file.
fn shorten(path: &Path) -> Result<(), StateError> {
    let error = |error| StateError::new("shorten", path, error);
    let bytes = read(path).map_err(error)?.unwrap_or_default();
    let mut kept = Vec::new();
    for event in parse(&bytes) {
        kept.push(b'\n');
        serde_json::to_writer(&mut kept, &event).map_err(|source| error(source.into()))?;
    }
    write_for_this_boot(path, &kept)
}

/// Reads the last events. A line that is cut short tells nothing, and is passed over.
pub(crate) fn parse(bytes: &[u8]) -> Vec<PastEvent> {
    let lines = bytes.rsplit(|byte| *byte == b'\n');
    let events = lines.filter_map(|line| serde_json::from_slice(line).ok());
    let mut events: Vec<PastEvent> = events.take(EVENTS).collect();
    events.reverse();
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history/a.jsonl");
        let event = |at| PastEvent {
            at,
            what: Happening::Damaged,
        };
        append(&path, &event(1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\n{\"at\":2,\"ev").unwrap();
        append(&path, &event(3)).unwrap();
        assert_eq!(parse(&std::fs::read(&path).unwrap()), [event(1), event(3)]);
    }

    #[test]
    fn a_history_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let what = Happening::Healed {
            holder: super::super::somebody(&"x".repeat(1000)),
        };
        for at in 0..200 {
            let what = what.clone();
            append(&path, &PastEvent { at, what }).unwrap();
        }
        assert!(path.metadata().unwrap().len() <= LONGEST);
        let events = parse(&std::fs::read(&path).unwrap());
        assert_eq!((events.len(), events[15].at), (16, 199));
    }
}
