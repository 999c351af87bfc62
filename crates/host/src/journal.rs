//! What the last apply set out to do, and how far it came.
//!
//! The file has one JSON value per line: first the whole plan with what takes each step back, on the
//! disk before the first change; then a line per step begun, made or failed; last a line that says
//! that the apply ended. A file without that last line is of an apply that died, or still runs: the
//! lock tells which.
//!
//! It is no recipe. The next apply plans afresh from what it observes, so it converges whatever
//! this file says; the file is there to tell people what happened. That decides what a full disk
//! does: before the first change there must be room for all lines, or nothing is changed; a line that
//! cannot be written later stops nobody half way, and [`Journal::end`] tells of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use model::{PciAddress, PfPlan, PlannedStep, Step, StepError, with_causes};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ledger::{BootId, RecordedStep, now};
use crate::perform::NO_ROOM_FOR_VFS;
use crate::state::{StateDir, StateError, replace};

#[cfg(test)]
mod tests;

const VERSION: u32 = 1;

/// Most bytes of a journal: 1,024 VFs with 10 steps each, about 400 bytes a step and its lines.
const JOURNAL_LIMIT: u64 = 16 * 1024 * 1024;

/// Room that the lines of one step take at most: begun, and made or failed with a few causes.
const STEP_ROOM: u64 = 512;

/// The journal of an apply that runs.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    /// Why a line is missing, the first that is.
    fault: Option<io::Error>,
    /// Can the last line be torn? Then the next one begins behind a line break.
    is_torn: bool,
}

/// What the last apply did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastApply {
    /// The boot in which it ran.
    pub boot: BootId,
    /// Id of its process.
    pub pid: u32,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// What it set out to do to each PF.
    pub pfs: Vec<LastPf>,
    /// PFs for so many VFs of which the kernel had no memory space, then or in an apply before.
    pub starved: BTreeMap<PciAddress, u16>,
    /// Did it come to its end? Otherwise it died, or runs still.
    pub ended: Option<End>,
}

/// What an apply set out to do to one PF, and how far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastPf {
    /// The PF.
    pub pf: PciAddress,
    /// The steps in order.
    pub steps: Vec<RecordedStep>,
    /// How far it came: the steps before this one were made, but for those of VFs that failed and those
    /// that wait for a reboot.
    pub made: usize,
    /// Was the step behind those begun?
    pub begun: bool,
    /// The last step that failed.
    pub failed: Option<FailedStep>,
}

/// A step that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStep {
    /// Its place among the steps, from 0.
    pub at: usize,
    /// Why, with all causes.
    pub error: String,
}

/// How an apply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, in seconds since 1970.
    pub at: u64,
    /// How many PFs could not be configured.
    pub failed_pfs: u32,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    boot: BootId,
    pid: u32,
    began: u64,
    pfs: Vec<HeaderPf>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    starved: BTreeMap<PciAddress, u16>,
}

#[derive(Serialize, Deserialize)]
struct HeaderPf {
    pf: PciAddress,
    steps: Vec<RecordedStep>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Begin {
        pf: PciAddress,
        step: usize,
    },
    Made {
        pf: PciAddress,
        step: usize,
    },
    Failed {
        pf: PciAddress,
        step: usize,
        error: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    More {
        pf: PciAddress,
        steps: Vec<RecordedStep>,
    },
    End(End),
}

impl Journal {
    /// Writes the plan to the disk, in place of the former journal, and makes sure that there is room
    /// for the lines of its steps.
    pub(crate) fn begin(
        state: &StateDir,
        boot: &BootId,
        pfs: &[PfPlan],
    ) -> Result<Self, StateError> {
        let path = state.apply_journal();
        let header = Header {
            version: VERSION,
            boot: boot.clone(),
            pid: std::process::id(),
            began: now(),
            starved: starved_before(state, boot),
            pfs: pfs
                .iter()
                .map(|plan| HeaderPf {
                    pf: plan.pf,
                    steps: plan.steps.iter().map(RecordedStep::from).collect(),
                })
                .collect(),
        };
        let line = to_line(&header).map_err(|error| StateError::new("write", &path, error))?;
        let steps: usize = pfs.iter().map(|plan| plan.steps.len() + 1).sum();
        let room = STEP_ROOM.saturating_mul(steps.try_into().unwrap_or(u64::MAX));
        replace(&path, |file| {
            file.write_all(&line)?;
            make_room(file, line.len() as u64, room)
        })?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(|error| StateError::new("open", &path, error))?;
        Ok(Self::over(path, file))
    }

    /// Writes a journal whose plan is in `file` already.
    pub(crate) fn over(path: PathBuf, file: File) -> Self {
        let writer = Writer {
            file,
            fault: None,
            is_torn: false,
        };
        Self {
            path,
            writer: Mutex::new(writer),
        }
    }

    /// Says what else is to be done to a PF, behind what is to be done already.
    pub(crate) fn more(&self, pf: PciAddress, steps: &[PlannedStep]) {
        let steps = steps.iter().map(RecordedStep::from).collect();
        self.append(&Line::More { pf, steps });
    }

    pub(crate) fn step_begun(&self, pf: PciAddress, step: usize) {
        self.append(&Line::Begin { pf, step });
    }

    pub(crate) fn step_made(&self, pf: PciAddress, step: usize) {
        self.append(&Line::Made { pf, step });
    }

    pub(crate) fn step_failed(&self, pf: PciAddress, step: usize, fault: &StepError) {
        self.append(&Line::Failed {
            pf,
            step,
            error: with_causes(fault),
            code: Some(fault.code.to_string()),
        });
    }

    /// Says that the apply ended, and returns why a line is missing, if one is.
    pub(crate) fn end(self, failed_pfs: u32) -> Option<StateError> {
        let at = now();
        self.append(&Line::End(End { at, failed_pfs }));
        let writer = self.writer.into_inner();
        let fault = writer.unwrap_or_else(PoisonError::into_inner).fault?;
        Some(StateError::new("write", &self.path, fault))
    }

    /// Appends a line in one write. It is not forced to the disk: after a power cut the boot is
    /// another one, and after a kill the kernel still has it.
    fn append(&self, line: &Line) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer {
            file,
            fault,
            is_torn,
        } = &mut *writer;
        let written = to_line(line).and_then(|mut line| {
            if *is_torn {
                line.insert(0, b'\n');
            }
            file.write_all(&line)
        });
        *is_torn = written.is_err();
        if let Err(error) = written {
            fault.get_or_insert(error);
        }
    }
}

/// Takes room on the disk behind what is written. Where a file system cannot do that, the lines are
/// written without.
fn make_room(file: &File, behind: u64, room: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, behind, room) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        taken => Ok(taken?),
    }
}

/// Reads what the last apply did; `None` when there was none.
pub fn last_apply(state: &StateDir) -> Result<Option<LastApply>, StateError> {
    let path = state.apply_journal();
    let wrong = |error| StateError::new("read", &path, error);
    match read(&path) {
        Ok(bytes) => parse(&bytes)
            .map(Some)
            .map_err(|error| wrong(io::Error::new(io::ErrorKind::InvalidData, error))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(error)),
    }
}

/// Returns the PFs for which the kernel had no memory space in this boot, with the number of VFs that
/// was asked for. What cannot be read is none: the kernel will say it again.
#[must_use]
pub fn starved_before(state: &StateDir, boot: &BootId) -> BTreeMap<PciAddress, u16> {
    let last = last_apply(state).ok().flatten();
    last.filter(|last| last.boot == *boot)
        .map(|last| last.starved)
        .unwrap_or_default()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(JOURNAL_LIMIT)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn to_line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a journal. A line that is cut short or unknown tells nothing, and is passed over.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<LastApply> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let header: Header = serde_json::from_slice(lines.next().unwrap_or_default())?;
    let mut last = LastApply {
        boot: header.boot,
        pid: header.pid,
        began: header.began,
        starved: header.starved,
        pfs: header
            .pfs
            .into_iter()
            .map(|HeaderPf { pf, steps }| LastPf {
                pf,
                steps,
                made: 0,
                begun: false,
                failed: None,
            })
            .collect(),
        ended: None,
    };
    for line in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
        last.follow(line);
    }
    Ok(last)
}

impl LastApply {
    /// Did it die in this boot before it came to its end? (The caller has the lock of apply.)
    pub(crate) fn was_interrupted(&self, boot: &BootId) -> bool {
        self.ended.is_none() && self.boot == *boot
    }

    fn follow(&mut self, line: Line) {
        match line {
            Line::Begin { pf: address, step } => {
                if let Some(pf) = self.pf_mut(address) {
                    pf.begun = step >= pf.made;
                }
            }
            Line::Made { pf: address, step } => {
                if let Some(pf) = self.pf_mut(address).filter(|pf| step < pf.steps.len()) {
                    pf.made = step + 1;
                    pf.begun = false;
                }
                if self.vfs_of(address, step).is_some_and(|count| count > 0) {
                    self.starved.remove(&address);
                }
            }
            Line::Failed {
                pf: address,
                step,
                error,
                code,
            } => {
                if let Some(pf) = self.pf_mut(address) {
                    pf.failed = Some(FailedStep { at: step, error });
                }
                if code.as_deref() == Some(NO_ROOM_FOR_VFS)
                    && let Some(count) = self.vfs_of(address, step)
                {
                    self.starved.insert(address, count);
                }
            }
            Line::More { pf: address, steps } => {
                if let Some(pf) = self.pf_mut(address) {
                    pf.steps.extend(steps);
                }
            }
            Line::End(end) => self.ended = Some(end),
        }
    }

    /// Returns how many VFs a step gives to a PF.
    fn vfs_of(&self, pf: PciAddress, step: usize) -> Option<u16> {
        let pf = self.pfs.iter().find(|last| last.pf == pf)?;
        match pf.steps.get(step)?.step {
            Step::SetNumVfs { count, .. } => Some(count),
            _ => None,
        }
    }

    fn pf_mut(&mut self, address: PciAddress) -> Option<&mut LastPf> {
        self.pfs.iter_mut().find(|pf| pf.pf == address)
    }
}
