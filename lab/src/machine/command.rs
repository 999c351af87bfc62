//! Commands in a machine, from one line to a terminal.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Channel, Machine};
use crate::proto::{self, CHUNK, Exec, Exit, Frame, Kind, WINDOW, cost};

/// How long a command may run unless told otherwise.
const LIMIT: Duration = Duration::from_secs(600);

/// A command to be run in a machine.
#[derive(Debug)]
pub struct Command<'m> {
    machine: &'m Machine,
    exec: Exec,
    stdin: Vec<u8>,
    limit: Duration,
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// Machine and command, for messages.
    pub what: String,
    /// How it ended.
    pub exit: Exit,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it complained.
    pub stderr: Vec<u8>,
}

/// A command did not end in time; it was killed.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not end within {limit:?}")]
pub struct TimedOut {
    what: String,
    limit: Duration,
}

/// What a running command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote to its standard output (or terminal).
    Stdout(Vec<u8>),
    /// It wrote to its standard error.
    Stderr(Vec<u8>),
    /// It ended; nothing comes after this.
    Exit(Exit),
}

/// A command that runs.
#[derive(Debug)]
pub struct Running<'m> {
    machine: &'m Machine,
    what: String,
    id: u32,
    frames: Receiver<Frame>,
    input: Arc<Input>,
}

/// Controls a running command.
#[derive(Clone, Debug)]
pub struct Control {
    channel: Arc<Channel>,
    id: u32,
}

#[derive(Debug, Default)]
struct Input {
    state: Mutex<InputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct InputState {
    ahead: usize,
    over: bool,
}

impl TimedOut {
    /// For a command that was given up.
    pub fn new(running: &Running<'_>, limit: Duration) -> Self {
        Self {
            what: running.what.clone(),
            limit,
        }
    }
}

impl<'m> Command<'m> {
    pub(crate) fn new<S: AsRef<OsStr>>(
        machine: &'m Machine,
        argv: impl IntoIterator<Item = S>,
    ) -> Self {
        let argv = argv
            .into_iter()
            .map(|arg| arg.as_ref().as_bytes().to_vec())
            .collect();
        Self {
            machine,
            exec: Exec {
                argv,
                ..Exec::default()
            },
            stdin: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Adds a variable to the machine's own small environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.exec
            .env
            .push([name.as_ref().as_bytes(), b"=", value.as_ref().as_bytes()].concat());
        self
    }

    /// Sets the working directory, `/` otherwise.
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<OsStr>) -> Self {
        self.exec.cwd = dir.as_ref().as_bytes().to_vec();
        self
    }

    /// Gives it something to read; an empty input otherwise.
    #[must_use]
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// Gives it a terminal of that many rows and columns.
    #[must_use]
    pub fn terminal(mut self, size: (u16, u16)) -> Self {
        self.exec.tty = Some(size);
        self
    }

    /// Sets how long it may run: ten minutes otherwise.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end and collects what it writes.
    pub fn output(self) -> Result<Output> {
        let (limit, stdin) = (self.limit, self.stdin.clone());
        let running = self.start()?;
        running.feed(std::io::Cursor::new(stdin))?;
        let deadline = Instant::now() + limit;
        let mut output = Output {
            what: running.what.clone(),
            exit: Exit::Code(0),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        loop {
            match running.next(deadline)? {
                Some(Event::Stdout(bytes)) => output.stdout.extend(bytes),
                Some(Event::Stderr(bytes)) => output.stderr.extend(bytes),
                Some(Event::Exit(exit)) => {
                    output.exit = exit;
                    return Ok(output);
                }
                None => {
                    return Err(TimedOut {
                        what: running.what.clone(),
                        limit,
                    }
                    .into());
                }
            }
        }
    }

    /// Starts it and leaves the rest to the caller.
    pub fn start(self) -> Result<Running<'m>> {
        let program = self
            .exec
            .argv
            .iter()
            .map(|arg| String::from_utf8_lossy(arg))
            .collect::<Vec<_>>()
            .join(" ");
        let what = format!("{}: `{program}`", self.machine.name);
        let doing = || format!("start {what}");
        let (id, frames) = self.machine.channel.open().with_context(doing)?;
        self.machine
            .channel
            .send(&Frame::new(Kind::Exec, id, self.exec.encode()))
            .with_context(doing)?;
        Ok(Running {
            machine: self.machine,
            what,
            id,
            frames,
            input: Arc::default(),
        })
    }
}

impl Running<'_> {
    /// Waits for what the command does next; `None` when the deadline comes first.
    ///
    /// Data counts as consumed when it is returned, so a caller that does not come back stops
    /// the command, not the machine.
    pub fn next(&self, deadline: Instant) -> Result<Option<Event>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = match self.frames.recv_timeout(left) {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} was cut off: {}", self.what, self.machine.last_words());
                }
            };
            match frame.kind {
                Kind::Credit => {
                    let mut input = self
                        .input
                        .state
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    input.ahead = input
                        .ahead
                        .saturating_sub(frame.as_credit().map_or(0, |(_, cost)| cost));
                    self.input.changed.notify_all();
                }
                Kind::Stdout | Kind::Stderr => {
                    // When the machine is gone the next wait will say so.
                    self.machine
                        .channel
                        .send(&Frame::credit(self.id, frame.kind, frame.payload.len()))
                        .ok();
                    return Ok(Some(match frame.kind {
                        Kind::Stdout => Event::Stdout(frame.payload),
                        _ => Event::Stderr(frame.payload),
                    }));
                }
                Kind::Exit => {
                    let exit = Exit::decode(&frame.payload)
                        .context("the machine sent a malformed exit status")?;
                    return Ok(Some(Event::Exit(exit)));
                }
                _ => {}
            }
        }
    }

    /// Copies a stream to the command's input, on a thread of its own.
    ///
    /// The thread ends with the stream or the command; a stream that never ends, such as a
    /// terminal, keeps it until the process ends.
    pub fn feed(&self, mut stream: impl Read + Send + 'static) -> Result<()> {
        let (channel, input, id) = (
            Arc::clone(&self.machine.channel),
            Arc::clone(&self.input),
            self.id,
        );
        let copy = move || {
            let mut buffer = vec![0; CHUNK];
            loop {
                let count = match stream.read(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    result => result.unwrap_or(0),
                };
                let bytes = buffer.get(..count).unwrap_or_default();
                if !input.reserve(count)
                    || channel.send(&Frame::new(Kind::Stdin, id, bytes)).is_err()
                    || count == 0
                {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name(format!("input {id}"))
            .spawn(copy)
            .context("start a thread for input")?;
        Ok(())
    }

    /// A handle to control it from another thread.
    pub fn control(&self) -> Control {
        Control {
            channel: Arc::clone(&self.machine.channel),
            id: self.id,
        }
    }
}

impl Control {
    /// Sends a signal to the command and all that it started in its process group.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let signal = u8::try_from(signal).context("a signal's number")?;
        self.channel
            .send(&Frame::new(Kind::Signal, self.id, [signal]))
    }

    /// Tells the command's terminal its new size.
    pub fn resize(&self, size: (u16, u16)) -> Result<()> {
        self.channel
            .send(&Frame::new(Kind::Resize, self.id, proto::size_bytes(size)))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut input = self
            .input
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !input.over {
            input.over = true;
            self.input.changed.notify_all();
            drop(input);
            // Nobody waits for it any more. A command that has ended is not there to be killed.
            self.control()
                .signal(rustix::process::Signal::KILL.as_raw())
                .ok();
            self.machine.channel.close(self.id);
        }
    }
}

impl Input {
    /// Waits until so much more input may be sent; false when the command is over.
    fn reserve(&self, bytes: usize) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |state: &mut InputState| !state.over && state.ahead + cost(bytes) > WINDOW;
        let mut state = self
            .changed
            .wait_while(state, full)
            .unwrap_or_else(PoisonError::into_inner);
        if bytes > 0 {
            state.ahead += cost(bytes);
        }
        !state.over
    }
}

impl Output {
    /// Standard output as text, if the command succeeded.
    #[track_caller]
    pub fn check(self) -> Result<String> {
        let output = self.checked()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The output, if the command succeeded.
    pub fn checked(self) -> Result<Self> {
        match &self.exit {
            Exit::Code(0) => Ok(self),
            exit => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
                let (what, stdout, stderr) = (&self.what, text(&self.stdout), text(&self.stderr));
                bail!("{what} ended with {}\n{stdout}\n{stderr}", describe(exit))
            }
        }
    }

    /// Standard output and error as text, whatever the status.
    pub fn text(&self) -> String {
        format!(
            "{}{}",
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr)
        )
    }
}

/// How a command ended, in words.
pub(crate) fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("status {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::NotStarted(_, why) => why.clone(),
    }
}
