//! The difference between the files that should be there and those that are, as a list of edits.
//!
//! The order makes every beginning of the list harmless: the services are switched off before what
//! they apply changes, and on when all is in place.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::render::{self, File, MARKER, POLICIES, UNIT_DIR, WANTS_DIR};
use super::{Change, ChangeKind, Foreign, Kept, PersistError};
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::files::{Entry, Files, is_unnamed, refused};
use crate::root::AccessError;

/// Directories that did not exist before the first installation, one a line.
const DIRS_MADE: &str = "/etc/virtfn/persist.dirs";

/// Directories that are virtfn's, parents first; they go when they are empty.
const OWN_DIRS: [&str; 2] = ["/etc/virtfn", POLICIES];

/// Directories of others that files go to, parents first. A minimal image may lack some.
const SHARED_DIRS: [&str; 7] = [
    "/etc/modules-load.d",
    "/etc/systemd",
    "/etc/systemd/network",
    "/etc/systemd/system",
    WANTS_DIR,
    "/etc/udev",
    "/etc/udev/rules.d",
];

/// Where files of ours can be, the services first: what is removed first does the most.
const PLACES: [&str; 6] = [
    UNIT_DIR,
    "/etc/udev/rules.d",
    "/etc/systemd/network",
    "/etc/modules-load.d",
    POLICIES,
    "/etc/virtfn",
];

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    MakeDir(String),
    Write { file: File, is_new: bool },
    Remove(String),
    RemoveDir(String),
    Link { path: String, target: String },
    Unlink(String),
}

impl Edit {
    /// Returns the edit as people are told of it; directories are not worth telling.
    pub(super) fn change(&self) -> Option<Change> {
        let (kind, path) = match self {
            Self::MakeDir(_) | Self::RemoveDir(_) => return None,
            Self::Write { file, is_new: true } => (ChangeKind::Create, &file.path),
            Self::Write { file, .. } => (ChangeKind::Update, &file.path),
            Self::Remove(path) => (ChangeKind::Remove, path),
            Self::Link { path, .. } => (ChangeKind::Enable, path),
            Self::Unlink(path) => (ChangeKind::Disable, path),
        };
        Some(Change {
            kind,
            path: path.clone(),
        })
    }
}

/// Returns what is to be done so that `wanted` is kept.
pub(super) fn to_install(files: &Files<'_>, wanted: &Kept) -> Result<Vec<Edit>, PersistError> {
    if wanted.policies.is_empty() {
        return Err(PersistError::NoPolicies);
    }
    let targets = render::files(wanted)?;
    check_program(files, &wanted.boot.program)?;
    let writes = writes(files, &targets)?;
    let obsolete = obsolete(files, &targets)?;
    let mut enabled = Vec::new();
    let mut missing = Vec::new();
    for (path, target) in render::links() {
        match files.entry(&path).map_err(look)? {
            Entry::Absent => missing.push(Edit::Link { path, target }),
            Entry::Link(found) if is_ours(&found, &target) => {
                enabled.push((path, target));
            }
            other => return Err(in_the_way(path, other)),
        }
    }
    let matters = |path: &str| path.starts_with(POLICIES) || path.starts_with(UNIT_DIR);
    let is_disturbed = writes.iter().any(|(file, _)| matters(&file.path))
        || obsolete.iter().any(|path| matters(path));

    let mut edits = Vec::new();
    if is_disturbed {
        for (path, target) in enabled {
            edits.push(Edit::Unlink(path.clone()));
            missing.push(Edit::Link { path, target });
        }
    }
    if !writes.is_empty() || !missing.is_empty() {
        make_dirs(files, &targets, &mut edits)?;
    }
    edits.extend(
        writes
            .into_iter()
            .map(|(file, is_new)| Edit::Write { file, is_new }),
    );
    edits.extend(obsolete.into_iter().map(Edit::Remove));
    edits.extend(missing);
    Ok(edits)
}

/// Returns what is to be done so that nothing of virtfn's is left. What cannot be seen is added to
/// `failures` and left alone.
pub(super) fn to_uninstall(files: &Files<'_>, failures: &mut Vec<AccessError>) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (path, target) in render::links() {
        match files.entry(&path) {
            Ok(Entry::Link(found)) if is_ours(&found, &target) => edits.push(Edit::Unlink(path)),
            Ok(_) => {}
            Err(error) => failures.push(error),
        }
    }
    for path in owned(files, failures) {
        edits.push(Edit::Remove(path));
    }
    let gone = |dirs: &[&str]| -> Vec<Edit> {
        let there = dirs.iter().rev().filter(|dir| files.is_dir(dir));
        there
            .map(|dir| Edit::RemoveDir((*dir).to_owned()))
            .collect()
    };
    match files.entry(DIRS_MADE) {
        Ok(Entry::File(content)) if is_marked(&content) => {
            // The note goes after what it names: whoever is killed before leaves it to the next.
            edits.extend(gone(&dirs_of(&content)));
            edits.push(Edit::Remove(DIRS_MADE.to_owned()));
        }
        Ok(_) => {}
        Err(error) => failures.push(error),
    }
    edits.extend(gone(&OWN_DIRS));
    edits
}

/// Makes all edits; an edit that fails ends it.
pub(super) fn perform(
    files: &Files<'_>,
    edits: &[Edit],
    checkpoints: &dyn Checkpoints,
) -> Result<Vec<Change>, PersistError> {
    let mut done = Vec::new();
    for edit in edits {
        checkpoints.passed(Checkpoint::FileToChange);
        match make(files, edit) {
            Ok(()) => done.extend(edit.change()),
            Err(source) => return Err(PersistError::Change { done, source }),
        }
    }
    Ok(done)
}

/// Makes one edit.
pub(super) fn make(files: &Files<'_>, edit: &Edit) -> Result<(), AccessError> {
    match edit {
        Edit::MakeDir(path) => files.make_dir(path),
        Edit::Write { file, .. } => files.replace(&file.path, file.text.as_bytes()),
        Edit::Remove(path) | Edit::Unlink(path) => files.remove(path),
        Edit::RemoveDir(path) => files.remove_dir(path),
        Edit::Link { path, target } => files.link(path, target),
    }
}

/// Refuses a program that others than root could replace, or that a reboot takes away.
pub(super) fn check_program(files: &Files<'_>, program: &Path) -> Result<(), PersistError> {
    let refuse = |why| {
        Err(PersistError::Program {
            program: program.to_owned(),
            why,
        })
    };
    let fleeting = ["/tmp", "/run", "/dev", "/proc", "/var/run", "/var/tmp"];
    if fleeting.iter().any(|dir| program.starts_with(dir)) {
        return refuse("its directory does not outlive a reboot");
    }
    let path = String::from_utf8_lossy(program.as_os_str().as_bytes());
    match files.mode(&path).map_err(look)? {
        None => refuse("there is no such file"),
        Some(mode) if mode & 0o170_000 != 0o100_000 => refuse("it is no file"),
        Some(mode) if mode & 0o111 == 0 => refuse("it is not executable"),
        Some(mode) if mode & 0o022 != 0 => refuse("others than its owner can write it"),
        Some(_) => Ok(()),
    }
}

/// Returns the files that must be written, each with "is it new?".
fn writes(files: &Files<'_>, targets: &[File]) -> Result<Vec<(File, bool)>, PersistError> {
    let mut writes = Vec::new();
    for file in targets {
        match files.entry(&file.path).map_err(look)? {
            Entry::Absent => writes.push((file.clone(), true)),
            Entry::File(content) if content == file.text.as_bytes() => {}
            Entry::File(content) if is_marked(&content) => writes.push((file.clone(), false)),
            other => return Err(in_the_way(file.path.clone(), other)),
        }
    }
    Ok(writes)
}

/// Returns the files of a former installation that are wanted no more.
fn obsolete(files: &Files<'_>, targets: &[File]) -> Result<Vec<String>, PersistError> {
    let mut failures = Vec::new();
    let mut owned = owned(files, &mut failures);
    if let Some(source) = failures.pop() {
        return Err(PersistError::Look { source });
    }
    owned.retain(|path| targets.iter().all(|file| file.path != *path));
    Ok(owned)
}

/// Returns all files of ours, units first, with those that a kill left unnamed.
fn owned(files: &Files<'_>, failures: &mut Vec<AccessError>) -> Vec<String> {
    let mut owned = Vec::new();
    for dir in PLACES {
        let names = files.list(dir).unwrap_or_else(|error| {
            failures.push(error);
            Vec::new()
        });
        for name in names {
            let path = format!("{dir}/{name}");
            let is_unnamed = is_unnamed(&name);
            // Only what can be ours is read: the directories hold a lot of others' files.
            let may_be_ours = is_unnamed || OWN_DIRS.contains(&dir) || name.contains("virtfn");
            if path == DIRS_MADE || !may_be_ours {
                continue;
            }
            match files.entry(&path) {
                Ok(Entry::File(_)) if is_unnamed => owned.push(path),
                Ok(Entry::File(content)) if is_marked(&content) => owned.push(path),
                Ok(_) => {}
                Err(error) => failures.push(error),
            }
        }
    }
    owned
}

/// Adds the directories that are missing, and first of all the note of them.
fn make_dirs(
    files: &Files<'_>,
    targets: &[File],
    edits: &mut Vec<Edit>,
) -> Result<(), PersistError> {
    let (note, is_new, mut made) = match files.entry(DIRS_MADE).map_err(look)? {
        Entry::Absent => (Vec::new(), true, Vec::new()),
        Entry::File(content) if is_marked(&content) => {
            let made = dirs_of(&content);
            (content, false, made)
        }
        other => return Err(in_the_way(DIRS_MADE.to_owned(), other)),
    };
    let is_used = |dir: &str| {
        let below = |path: &str| {
            path.strip_prefix(dir)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        targets.iter().any(|file| below(&file.path)) || dir == WANTS_DIR
    };
    let missing: Vec<&str> = SHARED_DIRS
        .into_iter()
        .filter(|dir| is_used(dir) && !files.is_dir(dir))
        .collect();
    made.extend(&missing);
    let mut text = format!("{MARKER} directories that did not exist before; they go when empty.\n");
    for dir in SHARED_DIRS.iter().filter(|dir| made.contains(dir)) {
        text.push_str(dir);
        text.push('\n');
    }

    let mut make = |dir: &str| {
        if !files.is_dir(dir) {
            edits.push(Edit::MakeDir(dir.to_owned()));
        }
    };
    OWN_DIRS.iter().for_each(|dir| make(dir));
    if note != text.as_bytes() && !made.is_empty() {
        let file = File {
            path: DIRS_MADE.to_owned(),
            text,
        };
        edits.push(Edit::Write { file, is_new });
    }
    edits.extend(missing.into_iter().map(|dir| Edit::MakeDir(dir.to_owned())));
    Ok(())
}

/// Reads the note of directories; only those that virtfn can have made count.
fn dirs_of(content: &[u8]) -> Vec<&'static str> {
    let text = String::from_utf8_lossy(content);
    let is_named = |dir: &&str| text.lines().any(|line| line == *dir);
    SHARED_DIRS.into_iter().filter(is_named).collect()
}

fn is_marked(content: &[u8]) -> bool {
    content.starts_with(MARKER.as_bytes())
}

/// Is this a link that switches one of our units on, as `systemctl enable` writes it or relative?
fn is_ours(found: &str, target: &str) -> bool {
    found == target
        || target
            .rsplit('/')
            .next()
            .is_some_and(|unit| found.strip_prefix("../") == Some(unit))
}

fn look(source: AccessError) -> PersistError {
    PersistError::Look { source }
}

fn in_the_way(path: String, entry: Entry) -> PersistError {
    let found = match entry {
        Entry::Absent => return look(refused("read", &path, "it vanished")),
        Entry::File(_) => Foreign::File,
        Entry::Link(target) if target == "/dev/null" => Foreign::Masked,
        Entry::Link(target) => Foreign::Link(target),
        Entry::Dir | Entry::Other => Foreign::Other,
    };
    PersistError::InTheWay { path, found }
}
