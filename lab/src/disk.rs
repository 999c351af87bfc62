//! The disk on which a machine keeps what it writes: a sparse file with an ext4 file system.
//!
//! `mke2fs` makes it on the host, so that a machine needs no tools before it has a root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::assets::on_host;

/// Room for what tests write; a sparse file takes what is used.
const SIZE: u64 = 1 << 30;

/// Returns the disk of the machine `name`, made when it is not there.
pub(crate) fn ready(dir: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let path = dir.join(format!("{name}.img"));
    if path.exists() {
        return Ok(path);
    }
    // Under its name only when it is whole.
    let part = dir.join(format!("{name}.img.part"));
    let doing = || format!("make the disk {}", part.display());
    let file = File::create(&part).with_context(doing)?;
    file.set_len(SIZE).with_context(doing)?;
    drop(file);
    let mke2fs = on_host("mke2fs").context(
        "a machine that keeps what it writes needs mke2fs on the host: install e2fsprogs",
    )?;
    let made = Command::new(mke2fs)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-J",
            "size=8",
            "-E",
            "nodiscard",
        ])
        .arg(&part)
        .stdin(Stdio::null())
        .output()
        .with_context(doing)?;
    ensure!(
        made.status.success(),
        "{}: {}",
        doing(),
        String::from_utf8_lossy(&made.stderr).trim()
    );
    fs::rename(&part, &path).with_context(doing)?;
    Ok(path)
}
