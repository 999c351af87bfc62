//! Running a program of the host: an argument list, a deadline, and what it said.
//!
//! No shell is involved. A program gets no input, a fixed environment, and a process group of its
//! own, which is killed as a whole when the deadline passes. What it says is kept up to a bound and
//! read all along, so that it never waits for us.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use model::{Code, Explain};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::root::HostRoot;

/// Where programs of a host are, as its own `PATH` would say.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Most bytes kept of each stream.
const SAID_LIMIT: usize = 64 * 1024;

/// One run of a program.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Absolute path on the host.
    pub program: &'a str,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// How long it may take.
    pub deadline: Duration,
}

/// Who runs programs: the host, or a test.
pub trait Programs {
    /// Runs a program to its end and returns its standard output, at most 64 KiB.
    fn run(&mut self, call: &Call<'_>) -> Result<Vec<u8>, ProgramError>;
}

/// A program could not be run, or did not do its work.
#[derive(Debug)]
pub struct ProgramError {
    /// The program with its arguments, for a reader.
    pub command: String,
    /// What went wrong.
    pub fault: ProgramFault,
}

/// What went wrong with a program.
#[derive(Debug)]
pub enum ProgramFault {
    /// It could not be started or watched.
    Start(io::Error),
    /// It did not end in time and was killed.
    Late(Duration),
    /// It ended with an error; the text is the end of what it said on standard error.
    Failed(ExitStatus, String),
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, fault } = self;
        match fault {
            ProgramFault::Start(_) => write!(f, "run `{command}`"),
            ProgramFault::Late(deadline) => {
                write!(f, "`{command}` did not end within {} s", deadline.as_secs())
            }
            ProgramFault::Failed(status, said) if said.is_empty() => {
                write!(f, "`{command}` failed with {status}")
            }
            ProgramFault::Failed(status, said) => {
                write!(f, "`{command}` failed with {status}: {said}")
            }
        }
    }
}

impl std::error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            ProgramFault::Start(error) => Some(error),
            ProgramFault::Late(_) | ProgramFault::Failed(..) => None,
        }
    }
}

impl Explain for ProgramError {
    fn code(&self) -> Code {
        Code::new(match self.fault {
            ProgramFault::Start(_) => "program-not-started",
            ProgramFault::Late(_) => "program-too-slow",
            ProgramFault::Failed(..) => "program-failed",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(format!("run `{}` by hand to see why", self.command))
    }
}

/// Looks for a program of the host in its standard directories.
pub(crate) fn find(root: &HostRoot, name: &str) -> Option<String> {
    PATH.split(':')
        .map(|dir| format!("{dir}/{name}"))
        .find(|path| root.exists(path))
}

/// Runs the programs of a host; on another root than `/` inside that root, by `chroot`.
#[derive(Clone, Debug)]
pub struct HostPrograms {
    root: PathBuf,
}

impl HostPrograms {
    /// Runs the programs beneath `root`.
    #[must_use]
    pub fn new(root: &HostRoot) -> Self {
        Self {
            root: root.path().to_owned(),
        }
    }

    fn command(&self, call: &Call<'_>) -> Command {
        let mut command = if self.root == Path::new("/") {
            Command::new(call.program)
        } else {
            let mut command = Command::new("chroot");
            command.arg("--").arg(&self.root).arg(call.program);
            command
        };
        command
            .args(call.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Programs for HostPrograms {
    fn run(&mut self, call: &Call<'_>) -> Result<Vec<u8>, ProgramError> {
        let error = |fault| ProgramError {
            command: in_words(call),
            fault,
        };
        let start = |source| error(ProgramFault::Start(source));
        let mut child = self.command(call).spawn().map_err(start)?;
        let mut said = Said::default();
        let is_done = listen(&mut child, &mut said, call.deadline).map_err(start)?;
        if !is_done {
            kill(&child);
            // Reaped when it lets go; one that hangs in the kernel must not hang us.
            let _not_yet = child.try_wait();
            return Err(error(ProgramFault::Late(call.deadline)));
        }
        let status = child.wait().map_err(start)?;
        tracing::debug!(command = %in_words(call), %status, "program ended");
        if status.success() {
            Ok(said.out)
        } else {
            Err(error(ProgramFault::Failed(status, last_words(&said.err))))
        }
    }
}

fn in_words(call: &Call<'_>) -> String {
    let words = std::iter::once(call.program).chain(call.arguments.iter().copied());
    words.collect::<Vec<_>>().join(" ")
}

#[derive(Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
}

/// Reads what the program says until it ends; `false` when the deadline passes before.
///
/// The end is that of the program, not of its streams: a daemon that it started may keep those.
fn listen(child: &mut Child, said: &mut Said, deadline: Duration) -> io::Result<bool> {
    let end = Instant::now() + deadline;
    let pidfd = pidfd_of(child)?;
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (mut ended, mut has_out, mut has_err) = (false, false, false);
        {
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            fds.extend(out.as_ref().map(|out| PollFd::new(out, PollFlags::IN)));
            fds.extend(err.as_ref().map(|err| PollFd::new(err, PollFlags::IN)));
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
            ended |= ready.next().unwrap_or_default();
            has_out |= out.is_some() && ready.next().unwrap_or_default();
            has_err |= err.is_some() && ready.next().unwrap_or_default();
        }
        if has_out {
            take(&mut out, &mut said.out)?;
        }
        if has_err {
            take(&mut err, &mut said.err)?;
        }
        if ended && !has_out && !has_err {
            return Ok(true);
        }
    }
}

/// Reads what a stream has now, and drops the stream at its end.
fn take<S: Read>(stream: &mut Option<S>, said: &mut Vec<u8>) -> io::Result<()> {
    let Some(open) = stream else { return Ok(()) };
    let mut chunk = [0; 4096];
    match open.read(&mut chunk) {
        Ok(0) => *stream = None,
        Ok(read) => {
            let room = SAID_LIMIT.saturating_sub(said.len());
            said.extend(chunk.iter().take(read.min(room)));
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    let raw = i32::try_from(child.id()).map_err(io::Error::other)?;
    Pid::from_raw(raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(pid_of(child)?, PidfdFlags::empty())?)
}

fn kill(child: &Child) {
    if let Ok(pid) = pid_of(child) {
        // Gone in between is fine.
        let _gone = kill_process_group(pid, Signal::KILL);
    }
}

/// Returns the end of a text in one line: programs say last why they gave up.
fn last_words(said: &[u8]) -> String {
    const WORDS: usize = 400;
    let tail = said.get(said.len().saturating_sub(WORDS)..).unwrap_or(said);
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, arguments: &[&str], deadline: Duration) -> Result<Vec<u8>, ProgramError> {
        let root = HostRoot::this_machine().unwrap();
        let program = find(&root, program).unwrap();
        let call = Call {
            program: &program,
            arguments,
            deadline,
        };
        HostPrograms::new(&root).run(&call)
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn output_is_returned_and_bounded() {
        assert_eq!(
            run("echo", &["a b", "$HOME"], LONG).unwrap(),
            b"a b $HOME\n"
        );
        let much = run("head", &["-c", "1000000", "/dev/zero"], LONG).unwrap();
        assert_eq!(much.len(), SAID_LIMIT);
    }

    #[test]
    fn a_failure_is_told_with_its_last_words() {
        let error = run("ls", &["/virtfn-no-such-file"], LONG).unwrap_err();
        assert_eq!(error.code(), Code::new("program-failed"));
        assert!(error.to_string().contains("No such file"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_children() {
        let started = Instant::now();
        let script = "sleep 1000 & exec sleep 1000";
        let error = run("sh", &["-c", script], Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.code(), Code::new("program-too-slow"));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_daemon_that_keeps_the_streams_does_not_keep_us() {
        let script = "sleep 20 & echo started";
        assert_eq!(run("sh", &["-c", script], LONG).unwrap(), b"started\n");
    }
}
