//! One command: its process, its three streams, its end.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::proto::{self, CHUNK, Exec, Exit, Frame, Kind, WINDOW, cost};
use crate::serve::{Port, lock};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the host sends to a command, and what its threads wait for.
#[derive(Clone, Default)]
pub(crate) struct Inbox(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    input: VecDeque<Vec<u8>>,
    input_ended: bool,
    sent: HashMap<u8, usize>,
    group: Option<Pid>,
    terminal: Option<OwnedFd>,
    pending_signal: Option<Signal>,
    over: bool,
}

impl Inbox {
    /// Takes a frame without ever waiting.
    pub(crate) fn deliver(&self, frame: &Frame) {
        let (state, changed) = &*self.0;
        let mut state = lock(state);
        match frame.kind {
            Kind::Stdin if frame.payload.is_empty() => state.input_ended = true,
            Kind::Stdin => state.input.push_back(frame.payload.clone()),
            Kind::Credit => {
                if let Some((stream, cost)) = frame.as_credit() {
                    let sent = state.sent.entry(stream as u8).or_default();
                    *sent = sent.saturating_sub(cost);
                }
            }
            Kind::Signal => {
                let signal = frame
                    .payload
                    .first()
                    .and_then(|byte| Signal::from_named_raw((*byte).into()));
                match (state.group, signal) {
                    (Some(group), Some(signal)) => drop(kill_process_group(group, signal)),
                    (None, signal) => state.pending_signal = signal,
                    (Some(_), None) => {}
                }
            }
            Kind::Resize => {
                if let (Some(terminal), Some(size)) = (&state.terminal, proto::size(&frame.payload))
                {
                    tcsetwinsize(terminal, window(size)).ok();
                }
            }
            _ => {}
        }
        changed.notify_all();
    }

    /// Waits until `bytes` more may be sent on a stream; false when the command is over.
    fn reserve(&self, stream: Kind, bytes: usize) -> bool {
        let (state, changed) = &*self.0;
        let mut state = lock(state);
        while !state.over
            && state.sent.get(&(stream as u8)).copied().unwrap_or_default() + cost(bytes) > WINDOW
        {
            state = changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *state.sent.entry(stream as u8).or_default() += cost(bytes);
        !state.over
    }

    /// The next piece of input; `None` at its end.
    fn next_input(&self) -> Option<Vec<u8>> {
        let (state, changed) = &*self.0;
        let mut state = lock(state);
        loop {
            if state.over {
                return None;
            }
            if let Some(bytes) = state.input.pop_front() {
                return Some(bytes);
            }
            if state.input_ended {
                return None;
            }
            state = changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn started(&self, child: &Child, terminal: Option<OwnedFd>) {
        let mut state = lock(&self.0.0);
        state.group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        state.terminal = terminal;
        if let (Some(group), Some(signal)) = (state.group, state.pending_signal) {
            kill_process_group(group, signal).ok();
        }
    }

    fn finish(&self) {
        let mut state = lock(&self.0.0);
        state.over = true;
        state.group = None;
        state.terminal = None;
        self.0.1.notify_all();
    }
}

/// Runs the command to its end, with all of its output delivered.
pub(crate) fn run(id: u32, exec: &Exec, port: &Port, inbox: &Inbox) -> Exit {
    let exit = match start(exec) {
        Ok(started) => started.wait(id, port, inbox),
        Err(error) => not_started(exec, &error),
    };
    inbox.finish();
    exit
}

struct Started {
    child: Child,
    input: File,
    outputs: Vec<(Kind, File)>,
    terminal: Option<OwnedFd>,
}

fn start(exec: &Exec) -> io::Result<Started> {
    let argv: Vec<&OsStr> = exec.argv.iter().map(|arg| OsStr::from_bytes(arg)).collect();
    let (program, args) = argv
        .split_first()
        .ok_or_else(|| io::Error::other("no command given"))?;
    let directory = if exec.cwd.is_empty() {
        Path::new("/")
    } else {
        Path::new(OsStr::from_bytes(&exec.cwd))
    };
    if !directory.is_dir() {
        return Err(io::Error::other(format!(
            "no directory {}",
            directory.display()
        )));
    }
    match exec.tty {
        Some(size) => {
            // Through `terminal`, which takes the terminal and then becomes the command.
            let mut command = Command::new("/proc/self/exe");
            command.arg("terminal").arg(program).args(args);
            furnish(&mut command, exec, directory);
            on_terminal(command, size)
        }
        None => {
            let mut command = Command::new(program);
            command.args(args).process_group(0);
            furnish(&mut command, exec, directory);
            on_pipes(command)
        }
    }
}

fn furnish(command: &mut Command, exec: &Exec, directory: &Path) {
    command.current_dir(directory).env_clear();
    command
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("USER", "root")
        .env("LOGNAME", "root")
        .env("SHELL", "/bin/sh");
    for pair in &exec.env {
        let at = pair.iter().position(|byte| *byte == b'=');
        if let Some((name, value)) = at.and_then(|at| Some((pair.get(..at)?, pair.get(at + 1..)?)))
        {
            command.env(
                OsString::from_vec(name.to_vec()),
                OsString::from_vec(value.to_vec()),
            );
        }
    }
}

fn on_pipes(mut command: Command) -> io::Result<Started> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let lost = || io::Error::other("a pipe is missing");
    let input = File::from(OwnedFd::from(child.stdin.take().ok_or_else(lost)?));
    let stdout = File::from(OwnedFd::from(child.stdout.take().ok_or_else(lost)?));
    let stderr = File::from(OwnedFd::from(child.stderr.take().ok_or_else(lost)?));
    Ok(Started {
        child,
        input,
        outputs: vec![(Kind::Stdout, stdout), (Kind::Stderr, stderr)],
        terminal: None,
    })
}

fn on_terminal(mut command: Command, size: (u16, u16)) -> io::Result<Started> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&terminal)?;
    tcsetwinsize(&terminal, window(size))?;
    let far_end = rustix::pty::ioctl_tiocgptpeer(&terminal, flags)?;
    command
        .stdin(far_end.try_clone()?)
        .stdout(far_end.try_clone()?)
        .stderr(far_end);
    let child = command.spawn()?;
    // The command holds copies of the far end; while one is open here, reading never ends.
    drop(command);
    let input = File::from(terminal.try_clone()?);
    let output = File::from(terminal.try_clone()?);
    Ok(Started {
        child,
        input,
        outputs: vec![(Kind::Stdout, output)],
        terminal: Some(terminal),
    })
}

impl Started {
    fn wait(mut self, id: u32, port: &Port, inbox: &Inbox) -> Exit {
        inbox.started(&self.child, self.terminal.take());
        {
            // Not joined: it may sit in a write to a daemon that the command left behind.
            let (port, inbox, input) = (port.clone(), inbox.clone(), self.input);
            thread::spawn(move || feed(id, input, &port, &inbox));
        }
        let pumps: Vec<_> = self
            .outputs
            .into_iter()
            .map(|(stream, output)| {
                let (port, inbox) = (port.clone(), inbox.clone());
                // The pump's end of a pipe that hangs up when the command is over.
                let (over, alive) = io::pipe()?;
                let pump = thread::spawn(move || pump(id, stream, output, &over, &port, &inbox));
                Ok::<_, io::Error>((pump, alive))
            })
            .collect();
        let status = self.child.wait();
        for (pump, alive) in pumps.into_iter().flatten() {
            drop(alive);
            pump.join().ok();
        }
        match status.map(|status| (status.code(), status.signal())) {
            Ok((Some(code), _)) => Exit::Code(code),
            Ok((None, Some(signal))) => Exit::Signal(signal),
            Ok((None, None)) => Exit::NotStarted(126, "no exit status".to_owned()),
            Err(error) => Exit::NotStarted(126, format!("wait for its end: {error}")),
        }
    }
}

fn feed(id: u32, mut input: File, port: &Port, inbox: &Inbox) {
    let mut open = true;
    while let Some(bytes) = inbox.next_input() {
        // The command may close its input early; the rest is taken and thrown away.
        open = open && input.write_all(&bytes).is_ok();
        if port
            .send(&Frame::credit(id, Kind::Stdin, bytes.len()))
            .is_err()
        {
            return;
        }
    }
}

/// Sends what the command writes, until it is over and nothing more is there to read.
///
/// A daemon that the command left behind may keep the stream open for good, so the stream's own
/// end is not waited for once the command is over.
fn pump(id: u32, stream: Kind, mut output: File, over: &PipeReader, port: &Port, inbox: &Inbox) {
    let mut buffer = vec![0; CHUNK];
    let mut command_over = false;
    loop {
        match ready(&output, over, command_over) {
            Ready::Output => {}
            Ready::CommandOver => {
                command_over = true;
                continue;
            }
            Ready::Nothing => return,
        }
        match output.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal ends with EIO when its last user is gone.
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                if !inbox.reserve(stream, count)
                    || port.send(&Frame::new(stream, id, bytes)).is_err()
                {
                    return;
                }
            }
        }
    }
}

enum Ready {
    Output,
    CommandOver,
    Nothing,
}

fn ready(output: &File, over: &PipeReader, command_over: bool) -> Ready {
    // A terminal hands output on from a kernel thread, a moment after it was written.
    let grace = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let mut polled = [
        PollFd::new(output, PollFlags::IN),
        PollFd::new(over, PollFlags::IN),
    ];
    let (polled, timeout) = if command_over {
        (&mut polled[..1], Some(&grace))
    } else {
        (&mut polled[..], None)
    };
    loop {
        match poll(polled, timeout) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return Ready::Nothing,
            Ok(_) => break,
        }
    }
    match polled.first() {
        Some(output) if !output.revents().is_empty() => Ready::Output,
        _ => Ready::CommandOver,
    }
}

fn window((rows, columns): (u16, u16)) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The status and words that a shell would have.
fn not_started(exec: &Exec, error: &io::Error) -> Exit {
    let program = exec
        .argv
        .first()
        .map(|program| String::from_utf8_lossy(program))
        .unwrap_or_default();
    match error.kind() {
        io::ErrorKind::NotFound => Exit::NotStarted(127, format!("{program}: command not found")),
        _ => Exit::NotStarted(126, format!("{program}: {error}")),
    }
}
