//! What somebody who gave a VF away must know later to finish: one memo per VF.
//!
//! It is opaque here. The CNI plugin keeps the call that it reserved addresses for, so that whoever
//! finds the VF deserted can give the addresses back. It is no part of the record, because it must
//! outlast what a record does not: a reboot frees every VF, but no address.
//!
//! The caller has the VF to itself while it writes or removes the memo.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use model::PciAddress;

use crate::state::{StateDir, StateError, write_atomic};

/// Most bytes of a memo: a CNI configuration has at most 1 MiB, and as JSON text up to twice that.
const MEMO_LIMIT: u64 = 2 * 1024 * 1024 + 64 * 1024;

/// The memos of all VFs of this host.
#[derive(Clone, Debug)]
pub struct Memos {
    state: StateDir,
}

impl Memos {
    /// Opens the memos; nothing need exist yet.
    #[must_use]
    pub fn new(state: StateDir) -> Self {
        Self { state }
    }

    /// Returns the VFs that have a memo, by address.
    #[must_use]
    pub fn vfs(&self) -> Vec<PciAddress> {
        let Ok(entries) = fs::read_dir(self.state.memos()) else {
            return Vec::new();
        };
        let mut vfs: Vec<PciAddress> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        vfs.sort_unstable();
        vfs
    }

    /// Returns the file of a VF's memo, whether it is there or not.
    #[must_use]
    pub fn path(&self, vf: PciAddress) -> PathBuf {
        self.state.memo(vf)
    }

    /// Returns the memo of a VF; `None` when it has none.
    pub fn read(&self, vf: PciAddress) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.state.memo(vf);
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?
                .take(MEMO_LIMIT)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::new("read", &path, error)),
        }
    }

    /// Writes the memo of a VF to the disk.
    pub fn write(&self, vf: PciAddress, memo: &[u8]) -> Result<(), StateError> {
        write_atomic(&self.state.memo(vf), memo)
    }

    /// Removes the memo of a VF, if it has one.
    pub fn remove(&self, vf: PciAddress) -> Result<(), StateError> {
        let path = self.state.memo(vf);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::new("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_kept_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
        let memos = Memos::new(state);
        let vf: PciAddress = "0000:01:10.0".parse().unwrap();
        assert_eq!(memos.read(vf).unwrap(), None);
        memos.remove(vf).unwrap();
        memos.write(vf, b"one").unwrap();
        memos.write(vf, b"two").unwrap();
        assert_eq!(memos.vfs(), [vf]);
        assert_eq!(memos.read(vf).unwrap().unwrap(), b"two");
        memos.remove(vf).unwrap();
        assert_eq!(memos.vfs(), []);
    }
}
