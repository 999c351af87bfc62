//! What a machine needs so that systemd, as it is on the host, runs it as process 1.
//!
//! Its own units come from the host; how the host is configured does not: which services are on, what
//! is mounted, what is cleaned up. What the machine itself is given later lies in the same places.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use rustix::io::Errno;

/// Debian's place, and everybody's where `/lib` is `/usr/lib`.
pub(crate) const PROGRAM: &str = "/lib/systemd/systemd";

/// Directories of which the machine sees nothing of the host's.
const HIDDEN: [&str; 9] = [
    "etc/init.d",
    "etc/modules-load.d",
    "etc/NetworkManager",
    "etc/network",
    "etc/systemd",
    "etc/tmpfiles.d",
    "etc/udev",
    "var/lib/systemd",
    "var/log",
];

/// Files of the host by which systemd takes the machine for a container, when the host is one.
const CONTAINER: [&str; 1] = [".dockerenv"];

/// Prepares the upper layer of the root; a second boot finds all of it done.
pub(crate) fn hide_configuration(upper: &Path) -> io::Result<()> {
    for name in HIDDEN {
        let dir = upper.join(name);
        if dir.exists() {
            continue;
        }
        fs::create_dir_all(&dir)?;
        // To the overlay it means: nothing shows through.
        setxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
    }
    for name in CONTAINER {
        // A device with number 0 is the overlay's word for "not there".
        let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
        match mknodat(CWD, upper.join(name), kind, mode, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fs::create_dir_all(upper.join("etc/systemd/system"))?;
    let etc = upper.join("etc");
    // /tmp holds the host's own files here, and is not to be emptied at boot.
    let tmp = etc.join("tmpfiles.d/tmp.conf");
    if !tmp.is_symlink() {
        std::os::unix::fs::symlink("/dev/null", tmp)?;
    }
    fs::write(etc.join("fstab"), "")?;
    let id = etc.join("machine-id");
    if !id.exists() {
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        fs::write(id, uuid.replace('-', ""))?;
    }
    Ok(())
}
