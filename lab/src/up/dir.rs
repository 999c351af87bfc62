//! The directory of a lab that is up: `lock socket info keeper.log labN.serial.log`.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::assets::Cache;

/// Name of a lab that stays up: letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// Text that is no name for a lab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name for a lab such as default or node-2 (letters, digits and dashes, at most 40)"
)]
pub struct ParseNameError(String);

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=40).contains(&text.len()) && !text.starts_with('-');
        if fits
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a keeper says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Its process.
    pub pid: i32,
    /// How many machines it has; 0 while they boot.
    pub machines: usize,
    /// Their devices, for people.
    pub devices: String,
}

/// Where a lab that is up keeps its things.
#[derive(Clone, Debug)]
pub struct Dir {
    name: Name,
    path: PathBuf,
}

impl Dir {
    /// The place for a lab of that name, whether it is up or not.
    pub fn of(name: &Name) -> Result<Self> {
        Ok(Self {
            name: name.clone(),
            path: base()?.join(&name.0),
        })
    }

    /// All labs that are up. What killed keepers left behind is removed.
    pub fn all() -> Result<Vec<Self>> {
        let base = base()?;
        let entries = fs::read_dir(&base).with_context(|| format!("list {}", base.display()))?;
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", base.display()))?;
            let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let dir = Self {
                name,
                path: entry.path(),
            };
            if dir.is_up() {
                all.push(dir);
            } else {
                dir.remove()?;
            }
        }
        all.sort_by(|one, other| one.name.0.cmp(&other.name.0));
        Ok(all)
    }

    /// Name of the lab.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the keeper says about itself.
    pub fn info(&self) -> Info {
        let text = fs::read_to_string(self.path.join("info")).unwrap_or_default();
        let mut lines = text.lines();
        let mut number = || {
            lines
                .next()
                .and_then(|line| line.parse::<i32>().ok())
                .unwrap_or_default()
        };
        let (pid, machines) = (number(), number());
        let devices = lines.next().unwrap_or_default().to_owned();
        Info {
            pid,
            machines: usize::try_from(machines).unwrap_or_default(),
            devices,
        }
    }

    /// Whether a keeper lives here.
    pub fn is_up(&self) -> bool {
        File::open(self.path.join("lock")).is_ok_and(|lock| lock.try_lock_shared().is_err())
    }

    /// Makes the directory and takes its lock, which is held until the file is dropped.
    pub(crate) fn take(&self) -> Result<File> {
        let path = self.path.join("lock");
        loop {
            // For nobody else: whoever can connect commands a machine that sees our files.
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.path);
            made.with_context(|| format!("make {}", self.path.display()))?;
            let lock = File::options()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path);
            let lock = lock.with_context(|| format!("open {}", path.display()))?;
            if lock.try_lock().is_err() {
                bail!(
                    "lab {0} is up already; `virtfn-lab down --name {0}` ends it",
                    self.name
                );
            }
            // Somebody who took the directory for a leftover may have removed it meanwhile.
            let (held, there) = (lock.metadata(), path.metadata());
            if held.is_ok_and(|held| there.is_ok_and(|there| held.ino() == there.ino())) {
                return Ok(lock);
            }
        }
    }

    pub(crate) fn write_info(&self, info: &Info) -> Result<()> {
        let text = format!("{}\n{}\n{}\n", info.pid, info.machines, info.devices);
        crate::assets::write_atomic(&self.path.join("info"), text.as_bytes(), 0o600)
            .with_context(|| format!("write the info of lab {}", self.name))
    }

    pub(crate) fn listen(&self) -> Result<UnixListener> {
        let path = self.path.join("socket");
        fs::remove_file(&path).ok();
        let doing = || format!("listen at {}", path.display());
        let dir = File::open(&self.path).with_context(doing)?;
        UnixListener::bind(short(&dir)).with_context(doing)
    }

    pub(crate) fn connect(&self) -> Result<UnixStream> {
        if !self.is_up() {
            bail!(
                "lab {0} is not up; `virtfn-lab up --name {0}` boots it",
                self.name
            );
        }
        let doing = || format!("connect to lab {}", self.name);
        let dir = File::open(&self.path).with_context(doing)?;
        UnixStream::connect(short(&dir)).with_context(doing)
    }

    /// Waits until no keeper lives here.
    pub(crate) fn await_free(&self, deadline: Instant) -> Result<bool> {
        while self.is_up() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            // A lock cannot be waited for with a deadline.
            thread::park_timeout(Duration::from_millis(50));
        }
        Ok(true)
    }

    pub(crate) fn kill_keeper(&self) -> Result<()> {
        let doing = || format!("kill the keeper of lab {}", self.name);
        let pid = Pid::from_raw(self.info().pid).with_context(doing)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).with_context(doing)?;
        // The number may be another process's by now: the lock says that the keeper lives.
        if self.is_up() {
            rustix::process::pidfd_send_signal(&process, Signal::KILL).with_context(doing)?;
        }
        Ok(())
    }

    /// Removes the directory of a lab that is not up.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// `$XDG_RUNTIME_DIR/virtfn-lab`, else below the cache.
fn base() -> Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir());
    let base = match runtime {
        Some(dir) => Path::new(&dir).join("virtfn-lab"),
        None => Cache::open()?.path("up"),
    };
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&base);
    made.with_context(|| format!("make {}", base.display()))?;
    Ok(base)
}

/// A socket's path holds 107 bytes; through the open directory any depth is short.
fn short(dir: &File) -> String {
    format!("/proc/self/fd/{}/socket", dir.as_raw_fd())
}
