//! Telling the programs that run now what was changed; at the next boot they read it anyway.
//!
//! A note in `/run` says that they are still to be told, so a run that was killed before it told
//! them is made good by the next. On another root than `/` nobody is told.

use std::path::Path;
use std::time::Duration;

use super::PersistError;
use super::edit::Edit;
use crate::files::{Entry, Files};
use crate::program::{Call, ProgramError, Programs, find};
use crate::root::AccessError;

const NOTE_DIR: &str = "/run/virtfn";
const NOTE: &str = "/run/virtfn/persist-untold";

/// systemd reads its thousand or so units again in one or two seconds on a slow machine; a bus that
/// hangs must not hang us.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who reads the files, by what is there while it runs.
const READERS: [(&str, &str, &[&str]); 3] = [
    ("/run/systemd/system", "systemctl", &["daemon-reload"]),
    ("/run/udev/control", "udevadm", &["control", "--reload"]),
    ("/run/systemd/netif", "networkctl", &["reload"]),
];

/// Is anybody to be told?
pub(super) fn needed(files: &Files<'_>, edits: &[Edit]) -> bool {
    let is_noted = || matches!(files.entry(NOTE), Ok(Entry::File(_)));
    files.root().path() == Path::new("/") && (!edits.is_empty() || is_noted())
}

/// Notes that somebody is to be told.
pub(super) fn note(files: &Files<'_>) -> Result<(), PersistError> {
    let note = || {
        files.make_dir(NOTE_DIR)?;
        files.replace(NOTE, b"")
    };
    note().map_err(|source: AccessError| PersistError::Change {
        done: Vec::new(),
        source,
    })
}

/// Tells everybody who runs, and returns whom it could not tell.
pub(super) fn tell(files: &Files<'_>, programs: &mut dyn Programs) -> Vec<ProgramError> {
    let mut untold = Vec::new();
    for (sign, program, arguments) in READERS {
        if !files.root().exists(sign) {
            continue;
        }
        let Some(path) = find(files.root(), program) else {
            continue;
        };
        let call = Call {
            program: &path,
            arguments,
            deadline: PATIENCE,
        };
        if let Err(error) = programs.run(&call) {
            untold.push(error);
        }
    }
    announce_vfs(files);
    if untold.is_empty() {
        // It is in `/run`, and at worst somebody is told twice.
        let _stays_until_reboot = files.remove(NOTE);
    }
    untold
}

/// Raises a `change` event for each netdev of a VF, and for no other device, so that udev's rules
/// are applied to those that exist.
fn announce_vfs(files: &Files<'_>) {
    let root = files.root();
    for name in files.list("/sys/class/net").unwrap_or_default() {
        let netdev = format!("/sys/class/net/{name}");
        if root.exists(&format!("{netdev}/device/physfn")) {
            // A VF that left meanwhile needs no event.
            let _gone = root.write(&format!("{netdev}/uevent"), "change");
        }
    }
}
