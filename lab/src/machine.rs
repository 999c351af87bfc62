//! One running machine: its process, its channel, and commands in it.

mod channel;
mod command;
mod log;
mod process;
pub(crate) mod qemu;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use channel::Channel;
pub use command::{Command, Control, Event, Output, Running, TimedOut};
pub(crate) use log::Log;
pub use process::KillSwitch;
pub(crate) use process::Process;

use crate::proto::{Frame, Kind};

/// How long a machine may take to power off before it is killed. Nothing is lost by killing:
/// all that was written is in its memory.
const POWER_OFF: Duration = Duration::from_secs(10);

/// Where the time of a boot went, since the process was started.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// Until the first command could start.
    pub ready: Duration,
    /// Seconds that the machine itself had counted by then.
    pub guest_uptime: String,
}

/// A machine that takes commands.
#[derive(Debug)]
pub struct Machine {
    name: String,
    pub(crate) channel: Arc<Channel>,
    process: Option<Process>,
    timing: Timing,
    off: AtomicBool,
}

impl Machine {
    /// Waits until the machine is ready for its first command.
    pub(crate) fn await_boot(
        name: &str,
        process: Process,
        channel: Arc<Channel>,
        config: &Frame,
        deadline: Instant,
    ) -> Result<Self> {
        let started = process.started();
        let events = channel
            .machine_events()
            .context("boot events are taken twice")?;
        channel
            .send(config)
            .with_context(|| format!("configure {name}"))?;
        let limit = deadline.saturating_duration_since(Instant::now());
        let frame = match events.recv_timeout(limit) {
            Ok(frame) => frame,
            Err(RecvTimeoutError::Timeout) => {
                let (after, words) = (started.elapsed(), process.last_words());
                bail!("{name} was not ready after {after:.0?}{words}");
            }
            Err(RecvTimeoutError::Disconnected) => {
                process.await_end(Duration::from_secs(5));
                let (why, words) = (channel.why_closed(), process.last_words());
                bail!("{name} ended while it booted ({why}){words}");
            }
        };
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        if frame.kind != Kind::Ready {
            bail!("{name} did not boot: {text}{}", process.last_words());
        }
        let timing = Timing {
            ready: started.elapsed(),
            guest_uptime: text,
        };
        Ok(Self {
            name: name.to_owned(),
            channel,
            process: Some(process),
            timing,
            off: AtomicBool::new(false),
        })
    }

    /// A machine that another process keeps.
    pub(crate) fn remote(name: &str, channel: Arc<Channel>) -> Self {
        let timing = Timing::default();
        Self {
            name: name.to_owned(),
            channel,
            process: None,
            timing,
            off: AtomicBool::new(false),
        }
    }

    /// Its host name, such as `lab0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its boot went.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// A command to run: program and arguments.
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Command<'_> {
        Command::new(self, argv)
    }

    /// Runs a line of shell and collects what it writes.
    pub fn run(&self, line: &str) -> Result<Output> {
        self.command(["/bin/sh", "-c", line]).output()
    }

    /// Reads a file of the machine.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        Ok(self
            .command(["cat", "--", path])
            .output()?
            .checked()?
            .stdout)
    }

    /// Writes a file of the machine; the host's file of that name stays as it is.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let command = self.command(["/bin/sh", "-c", "cat > \"$0\"", path]);
        command.stdin(content).output()?.checked().map(drop)
    }

    /// Waits until systemd, as process 1, has started what there is to start; services that failed are
    /// an error.
    pub fn await_services(&self, limit: Duration) -> Result<()> {
        // Its socket comes first, and until then nobody can be asked.
        let line = "until test -S /run/systemd/private; do sleep 0.1; done; \
                    systemctl is-system-running --wait || \
                    { systemctl list-units --failed --no-pager --plain; systemctl list-jobs; exit 1; }";
        let command = self.command(["/bin/sh", "-c", line]).limit(limit);
        command.output()?.checked().map(drop)
    }

    /// What the kernel wrote to the console.
    pub fn serial_log(&self) -> Vec<u8> {
        self.process
            .as_ref()
            .map(|process| process.serial().bytes())
            .unwrap_or_default()
    }

    /// What QEMU itself had to say.
    pub(crate) fn qemu_log(&self) -> Vec<u8> {
        self.process
            .as_ref()
            .map(|process| process.errors().bytes())
            .unwrap_or_default()
    }

    /// Whether it still runs, as far as this process knows.
    pub fn is_running(&self) -> bool {
        self.channel.is_open()
    }

    /// Why it no longer runs, with the end of its log.
    pub(crate) fn last_words(&self) -> String {
        let process = self.process.as_ref().map(|process| {
            process.await_end(Duration::from_secs(2));
            process.last_words()
        });
        format!(
            "{}{}",
            self.channel.why_closed(),
            process.unwrap_or_default()
        )
    }

    /// Asks the machine to power off; [`Machine::await_off`] waits for it.
    pub(crate) fn ask_off(&self) {
        if !self.off.swap(true, Ordering::Relaxed) {
            // A machine that cannot be asked is killed by the wait.
            self.channel.send(&Frame::new(Kind::PowerOff, 0, [])).ok();
        }
    }

    /// Waits for the end of a machine that nobody asked to end.
    pub(crate) fn await_own_end(&self, deadline: Instant) -> Result<()> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let limit = deadline.saturating_duration_since(Instant::now());
        if process.await_end(limit) {
            return Ok(());
        }
        bail!("{} is still on{}", self.name, process.last_words());
    }

    /// Waits for the end of the machine, and kills it when that takes too long.
    pub(crate) fn await_off(&self) {
        if let Some(process) = &self.process
            && !process.await_end(POWER_OFF)
        {
            process.kill();
            process.await_end(POWER_OFF);
        }
    }
}
