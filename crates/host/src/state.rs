//! Where virtfn keeps what must outlive a process, and the one way to write a file there.
//!
//! ```text
//! /var/lib/virtfn/ledger/0000:3b:02.1.json   who has a VF, and how to take it back (`ledger`)
//! /var/lib/virtfn/history/0000:3b:02.1.jsonl what happened to a VF (`ledger`)
//! /var/lib/virtfn/memo/0000:3b:02.1          what is to be finished for whoever has a VF (`memo`)
//! /var/lib/virtfn/journal/apply.jsonl        what the last apply did (`journal`)
//! /var/lib/virtfn/pf/0000:3b:00.0.json       what a PF had before virtfn configured it (`owned`)
//! /var/lib/virtfn/lost/0000:3b:00.0.json     what VFs have that are made anew just now (`owned`)
//! /run/virtfn/lock/…                         locks (`lock`); gone with a reboot, as their owners
//! /run/virtfn/autoprobe/0000:3b:00.0         this PF's autoprobe is on for a moment (`autoprobe`)
//! ```
//!
//! Nothing here is read by anybody but virtfn; upstream's own files are the `api` crate's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::{Code, Explain, PciAddress};

/// The directories of virtfn's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    lasting: PathBuf,
    fleeting: PathBuf,
}

impl Default for StateDir {
    /// `/var/lib/virtfn` and `/run/virtfn`.
    fn default() -> Self {
        Self::new(
            PathBuf::from("/var/lib/virtfn"),
            PathBuf::from("/run/virtfn"),
        )
    }
}

impl StateDir {
    /// Keeps records below `lasting` and locks below `fleeting`, which a reboot should empty.
    ///
    /// Neither need exist; whatever processes share VFs must share both.
    #[must_use]
    pub fn new(lasting: PathBuf, fleeting: PathBuf) -> Self {
        Self { lasting, fleeting }
    }

    /// Returns the directory of the records, one per VF.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.lasting.join("ledger")
    }

    /// Returns the file of the record of `vf`.
    pub(crate) fn record(&self, vf: PciAddress) -> PathBuf {
        self.ledger().join(format!("{vf}.json"))
    }

    /// Returns the file of what happened to `vf`.
    pub(crate) fn history(&self, vf: PciAddress) -> PathBuf {
        self.lasting.join("history").join(format!("{vf}.jsonl"))
    }

    /// Can records be written?
    pub fn check(&self) -> Result<(), StateError> {
        check_dir(&self.ledger())
    }

    /// Returns the directory of the memos, one per VF.
    pub(crate) fn memos(&self) -> PathBuf {
        self.lasting.join("memo")
    }

    /// Returns the file of the memo of `vf`.
    pub(crate) fn memo(&self, vf: PciAddress) -> PathBuf {
        self.memos().join(vf.to_string())
    }

    /// Returns the file that tells what `pf` had before it was configured.
    pub(crate) fn original(&self, pf: PciAddress) -> PathBuf {
        self.lasting.join("pf").join(format!("{pf}.json"))
    }

    /// Returns the directory of the notes of what VFs have that are made anew, one per PF.
    pub(crate) fn all_lost(&self) -> PathBuf {
        self.lasting.join("lost")
    }

    /// Returns the file that tells what VFs of `pf` have that are made anew.
    pub(crate) fn lost(&self, pf: PciAddress) -> PathBuf {
        self.all_lost().join(format!("{pf}.json"))
    }

    /// Returns the file that tells what the last apply did.
    pub(crate) fn apply_journal(&self) -> PathBuf {
        self.lasting.join("journal/apply.jsonl")
    }

    /// Returns the directory of the notes of PFs whose autoprobe is on for a moment.
    pub(crate) fn autoprobes(&self) -> PathBuf {
        self.fleeting.join("autoprobe")
    }

    /// Returns the note that autoprobe of `pf` is on for a moment.
    pub(crate) fn autoprobe(&self, pf: PciAddress) -> PathBuf {
        self.autoprobes().join(pf.to_string())
    }

    /// Returns a lock file.
    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.fleeting.join("lock").join(name)
    }
}

/// What is tried with a file that cannot be believed.
const KEEP_ASIDE: &str = "keep aside";

/// A file of virtfn's state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}", path.display())]
pub struct StateError {
    /// What was tried, such as `write`.
    pub attempt: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl StateError {
    pub(crate) fn new(attempt: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            attempt,
            path: path.to_owned(),
            source,
        }
    }
}

impl Explain for StateError {
    fn code(&self) -> Code {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::new("state-full"),
            io::ErrorKind::PermissionDenied => Code::new("state-not-permitted"),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Code::new("state-damaged"),
            _ => Code::new("state-not-accessible"),
        }
    }

    fn remedy(&self) -> Option<String> {
        let dir = self.path.parent().unwrap_or(&self.path).display();
        if self.attempt == KEEP_ASIDE && is_of_another_kind(&self.source) {
            let what = "what was kept there before, with `.damaged` in its name";
            return Some(format!("see {dir}, and remove {what}"));
        }
        Some(match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("free space on the file system of {dir}")
            }
            io::ErrorKind::PermissionDenied => "run virtfn as root".to_owned(),
            io::ErrorKind::ReadOnlyFilesystem => format!("make {dir} writable"),
            io::ErrorKind::IsADirectory => {
                format!("remove {}: it should be a file", self.path.display())
            }
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                "`virtfn apply` keeps it aside, and goes on from what it sees".to_owned()
            }
            _ => format!("see that {dir} is a directory that root can write"),
        })
    }
}

/// Can files be written in a directory? It is tried with one that is removed again; others may try at
/// the same time.
pub fn check_dir(dir: &Path) -> Result<(), StateError> {
    let path = dir.join(".check");
    create_parent(&path)?;
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    };
    fs::write(&path, b"x")
        .and_then(|()| fs::remove_file(&path).or_else(gone))
        .map_err(|error| StateError::new("write", &path, error))
}

/// Names that are tried for what is kept aside. Only directories use up more than the first.
const ASIDE_NAMES: u32 = 9;

/// Moves what cannot be believed out of the way, to `kept`, and returns where it is.
///
/// What was kept there before is replaced, but for a directory with something in it, which somebody made:
/// then the name gets a number.
pub(crate) fn keep_aside(path: &Path, kept: &Path) -> Result<PathBuf, StateError> {
    let mut place = kept.to_owned();
    let mut number = 1;
    loop {
        let Err(error) = fs::rename(path, &place) else {
            return Ok(place);
        };
        number += 1;
        if number > ASIDE_NAMES || !is_of_another_kind(&error) {
            return Err(StateError::new(KEEP_ASIDE, path, error));
        }
        let mut name = kept.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{number}"));
        place = kept.with_file_name(name);
    }
}

/// Cannot one of the two take the other's place, as only one is a directory, or has something in it?
fn is_of_another_kind(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
    )
}

/// Replaces a file in one instant: whoever reads it, now or after a crash, sees all of the old
/// content or all of the new.
///
/// The new content is on the disk before this returns. When it fails, the old content stands.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<(), StateError> {
    replace(path, |file| file.write_all(content))
}

/// Does the same with what `fill` writes.
pub(crate) fn replace(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), StateError> {
    put(path, |file| fill(file).and_then(|()| file.sync_all()))?;
    sync_dir(path).map_err(|error| StateError::new("write", path, error))
}

/// Replaces a file in one instant that nobody will believe after a power cut: then it may have the old
/// content, or none.
pub(crate) fn write_for_this_boot(path: &Path, content: &[u8]) -> Result<(), StateError> {
    put(path, |file| file.write_all(content))
}

fn put(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), StateError> {
    // The caller holds the lock of what the file is about, so one name per file is enough, and a
    // file left by a kill is overwritten rather than collected.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = open_or_make_dir(&new, &options)?;
    fill(&mut file)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| {
            let _nothing_to_remove_is_fine = fs::remove_file(&new);
            StateError::new("write", path, error)
        })
}

/// Opens a file, whose directory is created when it is not there.
pub(crate) fn open_or_make_dir(path: &Path, options: &OpenOptions) -> Result<File, StateError> {
    let opened = match options.open(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            create_parent(path)?;
            options.open(path)
        }
        opened => opened,
    };
    opened.map_err(|error| StateError::new("open", path, error))
}

/// Creates the directory of `path`, readable by root only: records name pods and namespaces.
pub(crate) fn create_parent(path: &Path) -> Result<(), StateError> {
    let Some(dir) = path.parent() else {
        return Ok(());
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| StateError::new("create directory", dir, error))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_runs_out_of_space_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger/a.json");
        write_atomic(&path, b"old").unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert_eq!(error.code(), Code::new("state-full"));
        assert!(error.remedy().unwrap().contains("free space"), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "the half-written file stayed");
    }

    #[test]
    fn a_directory_is_checked_by_many_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join("ledger");
        let often = || (0..500).try_for_each(|_| check_dir(&ledger));
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(often)).collect();
            for one in all {
                one.join().unwrap().unwrap();
            }
        });
        assert_eq!(fs::read_dir(&ledger).unwrap().count(), 0);
    }

    #[test]
    fn a_half_written_file_of_a_killed_process_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(
            dir.path().join("a.json.new"),
            "a long text that was never renamed",
        )
        .unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn directories_are_kept_aside_again_and_again_and_at_last_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("apply.jsonl");
        let kept = dir.path().join("apply.damaged");
        let keep_dir = || {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("somebody's"), "").unwrap();
            keep_aside(&path, &kept)
        };
        fs::write(&path, "of a file").unwrap();
        assert_eq!(keep_aside(&path, &kept).unwrap(), kept);
        for number in 2..=ASIDE_NAMES {
            let name = format!("apply.damaged.{number}");
            assert_eq!(keep_dir().unwrap(), dir.path().join(name));
        }
        let error = keep_dir().unwrap_err();
        assert!(path.join("somebody's").exists(), "it was lost");
        assert!(error.remedy().unwrap().contains("remove"), "{error:?}");
        // A file takes the place of the last one.
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "of another").unwrap();
        assert_eq!(keep_aside(&path, &kept).unwrap(), kept);
        assert_eq!(fs::read(&kept).unwrap(), b"of another");
    }

    #[test]
    fn a_file_where_the_directory_should_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ledger"), "").unwrap();
        let error = write_atomic(&dir.path().join("ledger/a.json"), b"x").unwrap_err();
        assert!(error.to_string().ends_with("/ledger"), "{error}");
        assert_eq!(error.code(), Code::new("state-not-accessible"));
    }
}
