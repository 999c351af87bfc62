//! What VFs have by hand that an apply is about to destroy, on the disk until they have it again.
//!
//! After the first step nobody could observe it any more: without this file an apply that is killed
//! there would have lost it. A note of a former boot is void, as the VFs are. It is virtfn's own, one file
//! per PF beside what the PF had at first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::{PciAddress, VfIndex, VfState};
use policy::KeptVfs;
use serde::{Deserialize, Serialize};

use super::PfLedger;
use crate::ledger::BootId;
use crate::state::{StateError, write_atomic};

/// Most bytes of a note: 256 VFs with all attributes take about 80 KiB.
const LIMIT: u64 = 1 << 20;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lost {
    version: u32,
    boot: BootId,
    vfs: BTreeMap<VfIndex, VfState>,
}

impl PfLedger<'_> {
    /// Notes what VFs of a PF have, before the first step that destroys them.
    pub(crate) fn note_lost(
        &self,
        pf: PciAddress,
        boot: &BootId,
        vfs: &BTreeMap<VfIndex, VfState>,
    ) -> Result<(), StateError> {
        let lost = Lost {
            version: 1,
            boot: boot.clone(),
            vfs: vfs.clone(),
        };
        let path = self.state.lost(pf);
        let bytes = serde_json::to_vec(&lost);
        let bytes = bytes.map_err(|error| StateError::new("write", &path, error.into()))?;
        write_atomic(&path, &bytes)
    }

    /// Returns the file that tells what a VF had, while that is not set again.
    pub(crate) fn note_of_lost(&self, pf: PciAddress, vf: VfIndex) -> Option<PathBuf> {
        let path = self.state.lost(pf);
        let note = read_note(&path).and_then(|bytes| parse(&bytes)).ok()?;
        note.vfs.contains_key(&vf).then_some(path)
    }

    /// Forgets it, once the VFs have it again or nobody wants them any more.
    pub(crate) fn forget_lost(&self, pf: PciAddress) -> Result<(), StateError> {
        remove(&self.state.lost(pf))
    }

    /// Reads what VFs had that were destroyed in this boot, and which notes cannot be read.
    pub(super) fn lost(&self) -> (KeptVfs, Vec<StateError>) {
        let (mut lost, mut damaged) = (KeptVfs::new(), Vec::new());
        let dir = fs::read_dir(self.state.all_lost()).into_iter().flatten();
        let names = dir.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // Anything else, as a file that is being replaced, is no note.
        let pfs = names.filter_map(|name| name.strip_suffix(".json")?.parse().ok());
        let pfs: Vec<PciAddress> = pfs.collect();
        if pfs.is_empty() {
            return (lost, damaged);
        }
        let boot = BootId::read(self.root).ok();
        for pf in pfs {
            let path = self.state.lost(pf);
            match read_note(&path).and_then(|bytes| parse(&bytes)) {
                Ok(note) if Some(&note.boot) == boot.as_ref() => {
                    lost.insert(pf, note.vfs);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    damaged.push(StateError::new("read", &path, error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        (lost, damaged)
    }
}

/// Removes a file that need not be there.
pub(super) fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::new("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Reads a note, or as much of it as any note has.
pub(super) fn read_note(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> io::Result<Lost> {
    let lost: Lost = serde_json::from_slice(bytes)?;
    match lost.version {
        1 => Ok(lost),
        version => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("version {version} is not known"),
        )),
    }
}

/// Reads bytes as such a note: what is read is read the same when it is written again.
pub(super) fn fuzz(bytes: &[u8]) {
    if let Ok(lost) = parse(bytes) {
        let again = serde_json::to_vec(&lost).map(|bytes| parse(&bytes).ok());
        assert_eq!(again.ok().flatten(), Some(lost), "the note did not survive");
    }
}
