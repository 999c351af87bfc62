//! What the last apply set out to do, and how far it came.
//!
//! The file has one JSON value per line: first the whole plan with what takes each step back, on the
//! disk before the first change; then a line per step begun, made or failed; last a line that says
//! that the apply ended. A file without that last line is of an apply that died, or still runs: the
//! lock tells which.
//!
//! It is no recipe. The next apply plans afresh from what it observes, so it converges whatever
//! this file says; the file is there to tell people what happened.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use model::{PciAddress, PfPlan, PlannedStep};
use serde::{Deserialize, Serialize};

use crate::ledger::{BootId, RecordedStep, now};
use crate::state::{StateDir, StateError, write_atomic};

const VERSION: u32 = 1;

/// Most bytes of a journal: 1,024 VFs with 10 steps each, about 400 bytes a step and its lines.
const JOURNAL_LIMIT: u64 = 16 * 1024 * 1024;

/// The journal of an apply that runs.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
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
    /// Why the last step that failed could not be made.
    pub failed: Option<String>,
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
    },
    More {
        pf: PciAddress,
        steps: Vec<RecordedStep>,
    },
    End(End),
}

impl Journal {
    /// Writes the plan to the disk, in place of the former journal.
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
            pfs: pfs
                .iter()
                .map(|plan| HeaderPf {
                    pf: plan.pf,
                    steps: plan.steps.iter().map(RecordedStep::from).collect(),
                })
                .collect(),
        };
        let line = to_line(&header).map_err(|error| StateError::new("write", &path, error))?;
        write_atomic(&path, &line)?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(|error| StateError::new("open", &path, error))?;
        Ok(Self {
            path,
            file: Mutex::new(file),
        })
    }

    /// Says what else is to be done to a PF, behind what is to be done already.
    pub(crate) fn more(&self, pf: PciAddress, steps: &[PlannedStep]) -> Result<(), StateError> {
        let steps = steps.iter().map(RecordedStep::from).collect();
        self.append(&Line::More { pf, steps })
    }

    pub(crate) fn step_begun(&self, pf: PciAddress, step: usize) -> Result<(), StateError> {
        self.append(&Line::Begin { pf, step })
    }

    pub(crate) fn step_made(&self, pf: PciAddress, step: usize) -> Result<(), StateError> {
        self.append(&Line::Made { pf, step })
    }

    pub(crate) fn step_failed(
        &self,
        pf: PciAddress,
        step: usize,
        error: String,
    ) -> Result<(), StateError> {
        self.append(&Line::Failed { pf, step, error })
    }

    pub(crate) fn end(&self, failed_pfs: u32) -> Result<(), StateError> {
        let at = now();
        self.append(&Line::End(End { at, failed_pfs }))
    }

    /// Appends a line in one write. It is not forced to the disk: after a power cut the boot is
    /// another one, and after a kill the kernel still has it.
    fn append(&self, line: &Line) -> Result<(), StateError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        to_line(line)
            .and_then(|line| file.write_all(&line))
            .map_err(|error| StateError::new("write", &self.path, error))
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
            }
            Line::Failed {
                pf: address, error, ..
            } => {
                if let Some(pf) = self.pf_mut(address) {
                    pf.failed = Some(error);
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

    fn pf_mut(&mut self, address: PciAddress) -> Option<&mut LastPf> {
        self.pfs.iter_mut().find(|pf| pf.pf == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Price, Step};

    fn plan() -> PfPlan {
        let pf = "0000:01:00.0".parse().unwrap();
        let have = |count| Step::SetNumVfs { pf, count };
        let planned = |step, undo| PlannedStep {
            step,
            before: None,
            undo,
            price: Price::default(),
        };
        PfPlan {
            pf,
            name: None,
            vfs: std::collections::BTreeMap::new(),
            is_cut: false,
            steps: vec![
                planned(have(0), Some(have(4))),
                planned(have(7), Some(have(0))),
            ],
        }
    }

    fn journal() -> (tempfile::TempDir, StateDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
        let journal = Journal::begin(&state, &BootId::new("b"), &[plan()]).unwrap();
        (dir, state, journal)
    }

    #[test]
    fn an_apply_that_died_tells_how_far_it_came() {
        let (_dir, state, journal) = journal();
        journal.step_begun(plan().pf, 0).unwrap();
        journal.step_made(plan().pf, 0).unwrap();
        journal.step_begun(plan().pf, 1).unwrap();
        let last = last_apply(&state).unwrap().unwrap();
        assert!(last.was_interrupted(&BootId::new("b")));
        assert!(!last.was_interrupted(&BootId::new("c")));
        assert_eq!((last.pfs[0].made, last.pfs[0].begun), (1, true));
        assert_eq!(last.pfs[0].steps[1].undo, plan().steps[1].undo);
        journal.end(0).unwrap();
        let last = last_apply(&state).unwrap().unwrap();
        assert!(!last.was_interrupted(&BootId::new("b")));
    }

    #[test]
    fn a_torn_line_hides_only_itself() {
        let (_dir, state, journal) = journal();
        journal.step_made(plan().pf, 0).unwrap();
        let path = state.apply_journal();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"made\":{\"pf\":\"0000:0");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(last_apply(&state).unwrap().unwrap().pfs[0].made, 1);
        std::fs::write(&path, b"").unwrap();
        assert!(last_apply(&state).is_err());
    }
}
