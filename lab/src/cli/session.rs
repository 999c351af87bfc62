//! One command in a machine, tied to this process's streams, terminal and signals.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use lab::{Command, Control, Event, Exit, KillSwitch, Machine, TimedOut};

/// A command and how it is run.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) terminal: bool,
    pub(crate) limit: Duration,
}

/// Signals to this process, and what they do: kill the machines, or go on to the command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caught {
    first: Arc<AtomicI32>,
    controls: Arc<Mutex<Vec<Control>>>,
}

impl Caught {
    /// Catches signals from now on. Those that end this process throw the switch; without one
    /// they are handed to the command, and only a second one ends this process.
    pub(crate) fn new(kill: Option<KillSwitch>) -> Result<Self> {
        let caught = Self::default();
        let mut signals =
            Signals::new([SIGHUP, SIGINT, SIGTERM, SIGWINCH]).context("catch signals")?;
        let told = caught.clone();
        let wait = move || {
            for signal in &mut signals {
                told.take(signal, kill.as_ref());
            }
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)
            .context("start a thread for signals")?;
        Ok(caught)
    }

    /// The first signal that came, 0 for none.
    pub(crate) fn signal(&self) -> i32 {
        self.first.load(Ordering::Relaxed)
    }

    fn take(&self, signal: i32, kill: Option<&KillSwitch>) {
        let controls = self
            .controls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if signal == SIGWINCH {
            // A machine that is gone has no terminal either.
            controls
                .iter()
                .for_each(|control| drop(control.resize(terminal_size())));
            return;
        }
        let before = self.first.swap(signal, Ordering::Relaxed);
        match kill {
            Some(kill) => kill.throw(),
            None if before == 0 && !controls.is_empty() => {
                controls
                    .iter()
                    .for_each(|control| drop(control.signal(signal)));
            }
            None => drop(signal_hook::low_level::emulate_default_handler(signal)),
        }
    }
}

impl Session {
    /// The command in a machine, not yet started.
    pub(crate) fn command<'m>(&self, machine: &'m Machine) -> Result<Command<'m>> {
        let mut command = machine.command(&self.argv).limit(self.limit);
        if let Some(cwd) = &self.cwd {
            command = command.cwd(cwd);
        }
        for pair in &self.env {
            let (name, value) = pair
                .split_once('=')
                .with_context(|| format!("{pair:?} is not NAME=VALUE"))?;
            command = command.env(name, value);
        }
        if self.terminal {
            command = command.terminal(terminal_size());
        }
        Ok(command)
    }

    /// Runs it; output goes to this process's streams, with `prefix` before each line if there is one.
    pub(crate) fn run(
        &self,
        machine: &Machine,
        caught: &Caught,
        prefix: Option<&str>,
    ) -> Result<Exit> {
        let deadline = Instant::now() + self.limit;
        let running = self.command(machine)?.start()?;
        let raw = self.terminal.then(RawTerminal::enter).flatten();
        caught
            .controls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(running.control());
        match prefix {
            None => running.feed(io::stdin())?,
            Some(_) => running.feed(io::empty())?,
        }
        let (mut stdout, mut stderr) = (Lines::new(prefix), Lines::new(prefix));
        let exit = loop {
            let written = match running.next(deadline)? {
                Some(Event::Stdout(bytes)) => stdout.write(&bytes, &mut io::stdout()),
                Some(Event::Stderr(bytes)) => stderr.write(&bytes, &mut io::stderr()),
                Some(Event::Exit(exit)) => break exit,
                None => return Err(TimedOut::new(&running, self.limit).into()),
            };
            match written {
                // As the command itself would have ended, had it written to that pipe.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(Exit::Signal(13));
                }
                written => written.context("write the output of the command")?,
            }
        };
        drop(raw);
        stdout
            .end(&mut io::stdout())
            .and_then(|()| stderr.end(&mut io::stderr()))
            .ok();
        Ok(exit)
    }
}

/// Puts a prefix before each line; without one, bytes pass as they are.
struct Lines {
    prefix: Option<String>,
    held: Vec<u8>,
}

impl Lines {
    /// A longer line is broken, so that a flood without newlines is not kept.
    const LONGEST: usize = 64 * 1024;

    fn new(prefix: Option<&str>) -> Self {
        Self {
            prefix: prefix.map(|prefix| format!("{prefix}| ")),
            held: Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8], to: &mut dyn Write) -> io::Result<()> {
        let Some(prefix) = &self.prefix else {
            return to.write_all(bytes).and_then(|()| to.flush());
        };
        let mut out = Vec::new();
        for byte in bytes {
            self.held.push(*byte);
            if *byte == b'\n' || self.held.len() >= Self::LONGEST {
                out.extend(prefix.as_bytes());
                out.append(&mut self.held);
            }
        }
        to.write_all(&out).and_then(|()| to.flush())
    }

    fn end(&mut self, to: &mut dyn Write) -> io::Result<()> {
        if self.held.is_empty() {
            Ok(())
        } else {
            self.write(b"\n", to)
        }
    }
}

/// This process's terminal, passing every key on; put back when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}

/// Whether input and output are a terminal.
pub(crate) fn on_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn terminal_size() -> (u16, u16) {
    tcgetwinsize(io::stdout()).map_or((24, 80), |size| (size.ws_row, size.ws_col))
}
