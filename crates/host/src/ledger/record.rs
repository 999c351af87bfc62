//! The record of one VF, and its form on the disk.
//!
//! The form is JSON with a `version`; fields are added, never renamed, and a reader skips those
//! that it does not know. A higher version is one that this reader must not touch. Behind it are marks of
//! how far it came since, a line each; the last one counts.

use model::{DriverName, Holder, IfName, MacAddr, NetnsTarget, PciAddress, Step, VfState};
use serde::{Deserialize, Serialize};
use serde_json::Deserializer;

use crate::{AccessError, HostRoot};

/// The version that this virtfn writes.
pub(super) const VERSION: u32 = 1;

/// Which boot of the host: what was set on VFs does not outlive it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// Reads the kernel's (`/proc/sys/kernel/random/boot_id`).
    pub fn read(root: &HostRoot) -> Result<Self, AccessError> {
        root.read_text("/proc/sys/kernel/random/boot_id").map(Self)
    }

    /// Returns the kernel's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names a boot, for a host that is played.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// What is recorded of one VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The VF.
    pub vf: PciAddress,
    /// The boot in which it was written.
    pub boot: BootId,
    /// Who has the VF; `None` while it is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// Who has a VF, and how to take it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its PF.
    pub pf: PciAddress,
    /// Who has it.
    pub holder: Holder,
    /// How far it came.
    pub stage: Stage,
    /// The namespace that it was moved to, or that the holder of a device lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsTarget>,
    /// What was asked for, in words that are equal when the request was.
    pub asked: String,
    /// When, in seconds since 1970.
    pub since: u64,
    /// What the VF was like before.
    pub before: Before,
    /// What was to be done, in this order, each with what takes it back.
    pub steps: Vec<RecordedStep>,
}

/// How far an attach or a detach came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Some of its steps may be made.
    Attaching,
    /// All of its steps are made.
    Attached,
    /// Some of its steps may be taken back.
    Detaching,
}

/// What a VF was like before it was attached, for a reader; the steps' undo says what to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Before {
    /// Its driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverName>,
    /// Name of its netdev.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<IfName>,
    /// Address of its netdev.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// MTU of its netdev in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What the PF reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<VfState>,
}

/// A step, and what takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedStep {
    /// What is done.
    pub step: Step,
    /// What takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Step>,
    /// What was there before, for a reader; `None` when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

impl From<&model::PlannedStep> for RecordedStep {
    fn from(planned: &model::PlannedStep) -> Self {
        Self {
            step: planned.step.clone(),
            undo: planned.undo.clone(),
            before: planned.before.clone(),
        }
    }
}

impl Record {
    /// Makes the record of a VF that nobody has.
    pub(crate) fn free(vf: PciAddress, boot: BootId) -> Self {
        Self {
            version: VERSION,
            vf,
            boot,
            claim: None,
        }
    }

    /// Returns the claim if it is of this boot.
    #[must_use]
    pub fn claim_of(&self, boot: &BootId) -> Option<&Claim> {
        self.claim.as_ref().filter(|_| self.boot == *boot)
    }

    pub(super) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// How far a claim came since its record was written.
#[derive(Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) stage: Stage,
}

impl Mark {
    /// A line that begins with its line break, so that one that was cut short spoils none behind it.
    pub(super) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, self)?;
        Ok(line)
    }
}

/// Bytes that are not a record that we can use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseRecordError {
    #[error("version {version} is of a later virtfn")]
    Later { version: u32 },
    #[error("{reason}")]
    Damaged { reason: String },
}

/// Reads the record of `vf`.
pub(crate) fn parse(bytes: &[u8], vf: PciAddress) -> Result<Record, ParseRecordError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |reason: String| ParseRecordError::Damaged { reason };
    let mut values = Deserializer::from_slice(bytes).into_iter::<Record>();
    let read = values.next();
    let version = match &read {
        Some(Ok(record)) => Some(record.version),
        // A later virtfn may write something else, and still tells its version.
        _ => {
            let mut values = Deserializer::from_slice(bytes).into_iter::<Versioned>();
            let first = values.next().and_then(Result::ok);
            first.map(|Versioned { version }| version)
        }
    };
    if let Some(version) = version.filter(|version| *version > VERSION) {
        return Err(ParseRecordError::Later { version });
    }
    let read = read.ok_or_else(|| damaged("it is empty".to_owned()))?;
    let mut record = read.map_err(|error| damaged(error.to_string()))?;
    if record.vf != vf {
        return Err(damaged(format!("it is about {}", record.vf)));
    }
    let marks = bytes.get(values.byte_offset()..).unwrap_or_default();
    for mark in marks.split(|byte| *byte == b'\n') {
        match (serde_json::from_slice(mark), &mut record.claim) {
            (Ok(Mark { stage }), Some(claim)) => claim.stage = stage,
            (Ok(_), None) => {}
            // Nothing, or a mark that was cut short: whoever wrote it came no further.
            (Err(error), _) if error.is_eof() => {}
            (Err(error), _) => return Err(damaged(error.to_string())),
        }
    }
    Ok(record)
}
