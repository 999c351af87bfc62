//! The emulator: QEMU for x86-64 with the `igb` device (8.0 and later).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::apt::{Apt, Suite};
use super::{Cache, Choice, on_host};

/// Tree in the cache.
pub(crate) const NAME: &str = "qemu";
const PROGRAM: &str = "qemu-system-x86_64";

/// A program that emulates machines, and where it finds its own files.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// Root of the tree it was unpacked in; `None` for an installed one.
    pub root: Option<PathBuf>,
}

impl Qemu {
    /// Arguments that let it find its firmware.
    pub(crate) fn firmware_args(&self) -> Vec<OsString> {
        let dirs = self
            .root
            .iter()
            .flat_map(|root| ["usr/share/qemu", "usr/share/seabios"].map(|dir| root.join(dir)));
        dirs.flat_map(|dir| [OsString::from("-L"), dir.into()])
            .collect()
    }

    /// Value for `LD_LIBRARY_PATH` that lets it find its libraries.
    pub(crate) fn library_path(&self) -> Option<OsString> {
        let root = self.root.as_ref()?;
        let dirs = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir));
        std::env::join_paths(dirs).ok()
    }

    /// Whether it runs and has the devices.
    fn check(&self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["-device", "help"]).stdin(Stdio::null());
        if let Some(libraries) = self.library_path() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let output = command
            .output()
            .with_context(|| format!("start {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "{} -device help: {}",
                self.program.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        if !String::from_utf8_lossy(&output.stdout).contains("name \"igb\"") {
            bail!(
                "{} has no igb device: it must be QEMU 8.0 or later",
                self.program.display()
            );
        }
        Ok(())
    }
}

/// Finds or fetches the emulator.
pub(crate) fn find(choice: &Choice, cache: &Cache, apt: &mut Apt<'_>) -> Result<Qemu> {
    if let Some(program) = &choice.qemu {
        let qemu = Qemu {
            program: program.clone(),
            root: None,
        };
        qemu.check()
            .context("use the QEMU given by --qemu or VIRTFN_LAB_QEMU")?;
        return Ok(qemu);
    }
    let cached = Qemu {
        program: cache.path(NAME).join("usr/bin").join(PROGRAM),
        root: Some(cache.path(NAME)),
    };
    // Started as well as looked at: the host may have lost a library since.
    if cache.whole(NAME).is_some() && cached.check().is_ok() {
        return Ok(cached);
    }
    let installed = on_host(PROGRAM).map(|program| Qemu {
        program,
        root: None,
    });
    let reason = match &installed {
        None => format!("{PROGRAM} is not installed"),
        Some(qemu) => match qemu.check() {
            Ok(()) => return Ok(qemu.clone()),
            Err(error) => format!("{error:#}"),
        },
    };
    if !Apt::usable() {
        bail!(
            "no usable QEMU: {reason}. Install QEMU 8.0 or later for x86-64 \
             (package qemu-system-x86 or qemu-system-x86-core), or name one with --qemu PATH"
        );
    }
    apt.say(&format!(
        "{reason}; fetching QEMU into {}",
        cache.path("").display()
    ));
    cache
        .make(NAME, "qemu", |root| fetch(apt, root))
        .context("get QEMU")?;
    cached.check().context("try the QEMU just unpacked")?;
    Ok(cached)
}

fn fetch(apt: &mut Apt<'_>, root: &Path) -> Result<()> {
    let suite: Suite = Apt::suite_for_lab();
    apt.unpack(&["qemu-system-x86"], suite, root)
}
