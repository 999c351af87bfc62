//! A QEMU process that cannot be left behind.
//!
//! Three things end it: [`Process::kill`]; the end of this process, however it comes (the kernel
//! kills the child, see `leash` in the init); and the end of the channel, at which the guest
//! powers off. The kernel ties the child to the *thread* that started it, so every process has a
//! thread of its own, which stays until the child has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Log;

/// Held while descriptors are open to be inherited, so that one machine's child does not get
/// another machine's.
static INHERITING: Mutex<()> = Mutex::new(());

/// A started QEMU.
#[derive(Debug)]
pub(crate) struct Process {
    shared: Arc<Shared>,
    serial: Log,
    errors: Log,
    started: Instant,
}

#[derive(Debug)]
struct Shared {
    pidfd: OwnedFd,
    ended: Mutex<Option<String>>,
    changed: Condvar,
}

impl Process {
    /// Starts `command`, whose standard output is the serial port, with `inherited` open in it.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        inherited: Vec<OwnedFd>,
        serial: Log,
        kill: &KillSwitch,
    ) -> Result<Self> {
        let (tell, told) = mpsc::sync_channel::<Result<Arc<Shared>>>(1);
        let errors = Log::default();
        let logs = (serial.clone(), errors.clone());
        let started = Instant::now();
        let keeper = thread::Builder::new().name(format!("qemu {name}"));
        let keep = move || {
            let result: Result<_> = (|| {
                let mut child = spawn(&mut command, &inherited)?;
                drop(inherited);
                let pid = i32::try_from(child.id())
                    .ok()
                    .and_then(Pid::from_raw)
                    .context("a process id")?;
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                    .context("open a handle of QEMU")?;
                let shared = Shared {
                    pidfd,
                    ended: Mutex::default(),
                    changed: Condvar::new(),
                };
                let streams = child
                    .stdout
                    .take()
                    .zip(child.stderr.take())
                    .context("QEMU without streams")?;
                Ok((child, Arc::new(shared), streams))
            })();
            let (mut child, shared, (stdout, stderr)) = match result {
                Ok(started) => started,
                Err(error) => return drop(tell.send(Err(error))),
            };
            tell.send(Ok(Arc::clone(&shared))).ok();
            let serial = thread::spawn(move || logs.0.fill(stdout));
            let errors = thread::spawn(move || logs.1.fill(stderr));
            let status = child.wait();
            serial.join().ok();
            errors.join().ok();
            *shared.lock() = Some(status.map_or_else(
                |error| error.to_string(),
                |status: ExitStatus| status.to_string(),
            ));
            shared.changed.notify_all();
        };
        keeper.spawn(keep).context("start a thread for QEMU")?;
        let shared = told
            .recv()
            .context("the thread of QEMU died")?
            .with_context(|| format!("start QEMU for {name}"))?;
        kill.register(&shared);
        Ok(Self {
            shared,
            serial,
            errors,
            started,
        })
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn serial(&self) -> &Log {
        &self.serial
    }

    pub(crate) fn errors(&self) -> &Log {
        &self.errors
    }

    /// Waits for the end; false when it did not come in time.
    pub(crate) fn await_end(&self, limit: Duration) -> bool {
        let ended = self.shared.lock();
        let wait = self
            .shared
            .changed
            .wait_timeout_while(ended, limit, |ended| ended.is_none());
        wait.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    pub(crate) fn kill(&self) {
        self.shared.kill();
    }

    /// How it ended, if it did, and the end of its logs, as more lines of an error message.
    pub(crate) fn last_words(&self) -> String {
        let mut text = match &*self.shared.lock() {
            Some(how) => format!("\nQEMU ended: {how}"),
            None => String::new(),
        };
        let console = self.serial.tail(500);
        if let Some((_, why)) = console.split_once("Kernel panic - not syncing: ") {
            text.push_str(&format!(
                "; its kernel panicked: {}",
                why.lines().next().unwrap_or_default()
            ));
        }
        for (title, log, lines) in [
            ("QEMU said", &self.errors, 8),
            ("last lines of the console", &self.serial, 15),
        ] {
            let tail = log.tail(lines);
            if !tail.is_empty() {
                text.push_str(&format!("\n{title}:\n{tail}"));
            }
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.await_end(Duration::from_secs(5));
    }
}

impl Shared {
    fn kill(&self) {
        // It may have ended already.
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).ok();
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills all machines of a lab at once, from any thread, also those that are about to start.
#[derive(Clone, Debug, Default)]
pub struct KillSwitch(Arc<Mutex<(bool, Vec<Arc<Shared>>)>>);

impl KillSwitch {
    /// Kills.
    pub fn throw(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        state.1.iter().for_each(|process| process.kill());
    }

    /// Whether it was thrown.
    pub fn is_thrown(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn register(&self, process: &Arc<Shared>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            process.kill();
        }
        state.1.push(Arc::clone(process));
    }
}

fn spawn(command: &mut Command, inherited: &[OwnedFd]) -> Result<std::process::Child> {
    let _guard = INHERITING.lock().unwrap_or_else(PoisonError::into_inner);
    for fd in inherited {
        rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::empty())
            .context("let QEMU inherit a socket")?;
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    for fd in inherited {
        rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC)
            .context("close a socket to others")?;
    }
    child.with_context(|| format!("run {}", command.get_program().display()))
}
