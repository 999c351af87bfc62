//! Running the IPAM plugin that a network names.
//!
//! It is found in `CNI_PATH`, and gets the environment and the very bytes of the call; only
//! `CNI_COMMAND` differs when we call it for something else. The variables are set from the call and
//! not just passed on, because the call may be a former one whose addresses are given back now
//! (`memo`). What would surprise: it has a deadline,
//! shorter than any runtime's, because a runtime that loses patience kills us with SIGKILL, and then
//! nobody takes back what was done. Should we be killed all the same while addresses are reserved, the
//! plugin has the lock of the VF until it ends, so that none are reserved behind the back of a DEL.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use api::cni::{AddResult, Command, ErrorNumber, ErrorObject, SearchPath};
use host::Lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::call::Call;
use crate::failure::Failure;
use crate::plugin::Plugin;

/// kubelet gives an ADD four minutes in all, by default; the DHCP plugin tries for 208 s.
const ADD_PATIENCE: Duration = Duration::from_secs(210);

/// CRI-O gives a DEL one minute, and does not come back.
const OTHER_PATIENCE: Duration = Duration::from_secs(40);

/// How long output may follow the end of the plugin, from children that it left behind.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a plugin may be in the making, as long as upstream's library waits for it.
const COPY_PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of an answer.
const ANSWER_LIMIT: u64 = 1024 * 1024;

/// Code of an IPAM plugin that is none: it never reserved anything.
pub(crate) const NO_IPAM: &str = "not-an-ipam-plugin";

/// The IPAM plugin of a call.
pub(crate) struct Ipam<'a> {
    call: &'a Call,
    name: &'a str,
    program: PathBuf,
}

impl<'a> Ipam<'a> {
    /// Finds the plugin; `None` when the network has none.
    pub(crate) fn of(call: &'a Call) -> Result<Option<Self>, Failure> {
        let name = call
            .config
            .ipam()
            .map_err(|error| Failure::of(error.number(), &error))?;
        let Some(name) = name else {
            return Ok(None);
        };
        if Plugin::of(name.as_ref()).is_some() {
            // It would call itself without end.
            return Err(Failure::new(
                NO_IPAM,
                format!("ipam type {name:?} is no IPAM plugin but one that gives VFs"),
                "name an IPAM plugin such as host-local",
            )
            .with_number(ErrorNumber::BAD_CONFIG));
        }
        match find(&call.environment.path, name) {
            Some(program) => Ok(Some(Self {
                call,
                name,
                program,
            })),
            None => Err(Failure::new(
                "ipam-missing",
                format!(
                    "failed to find plugin {name:?} in path {:?}",
                    call.environment.path.0
                ),
                "install the IPAM plugin into the runtime's CNI directory",
            )),
        }
    }

    /// Returns the plugin's name.
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    /// Asks for addresses for who has this lock.
    pub(crate) fn add(&self, lock: &Lock) -> Result<AddResult, Failure> {
        if let Err(error) = lock.leave_to_children() {
            tracing::warn!(%error, "lock not left to the ipam plugin");
        }
        let stdout = self.run(Command::Add, ADD_PATIENCE)?;
        let result = AddResult::parse(&stdout, self.call.config.version).map_err(|error| {
            Failure::of(error.number(), &error).during(
                &format!("answer of IPAM plugin {}", self.name),
                "see what the IPAM plugin prints, and whether its version fits",
            )
        })?;
        if result.ips.is_empty() {
            return Err(Failure::new(
                "ipam-answer",
                format!("IPAM plugin {} returned missing IP config", self.name),
                "give the network's ipam a range or addresses",
            )
            .with_number(ErrorNumber::INTERNAL));
        }
        Ok(result)
    }

    /// Makes any other call, which has no answer.
    pub(crate) fn call(&self, command: Command) -> Result<(), Failure> {
        self.run(command, OTHER_PATIENCE).map(|_| ())
    }

    fn run(&self, command: Command, patience: Duration) -> Result<Vec<u8>, Failure> {
        let begun = Instant::now();
        let failed = |attempt: &str, error: &io::Error| {
            Failure::new(
                "ipam-failed",
                format!("{attempt} IPAM plugin {}: {error}", self.program.display()),
                "see that the IPAM plugin is an executable of this machine",
            )
        };
        let mut process = Process::new(&self.program);
        process.env("CNI_COMMAND", command.as_str());
        let environment = &self.call.environment;
        let netns = environment.netns.clone().unwrap_or_default();
        let dirs = environment.path.0.iter().map(|dir| dir.as_os_str());
        let path = dirs.collect::<Vec<_>>().join(OsStr::new(":"));
        if let (Some(container), Some(interface)) = (&environment.container, &environment.interface)
        {
            process.env("CNI_CONTAINERID", container.as_str());
            process.env("CNI_IFNAME", interface.as_str());
            process.env("CNI_NETNS", netns);
            process.env("CNI_ARGS", &environment.args);
            process.env("CNI_PATH", path);
        }
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = start(&mut process).map_err(|error| failed("start", &error))?;
        let output = converse(&mut child, self.call.stdin.clone()).map_err(|error| {
            let _it_may_have_ended = child.kill().and_then(|()| child.wait());
            failed("start a thread for", &error)
        })?;
        let ended = wait(&mut child, patience).map_err(|error| failed("wait for", &error))?;
        let Some(status) = ended else {
            return Err(Failure::new(
                "ipam-timeout",
                format!(
                    "IPAM plugin {} did not answer {command} within {} s",
                    self.name,
                    patience.as_secs()
                ),
                "see what the IPAM plugin or its daemon waits for",
            )
            .with_number(ErrorNumber::TRY_AGAIN));
        };
        let stdout = all_of(&output);
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(ipam = self.name, %command, elapsed_ms, %status, "ipam plugin called");
        if status.success() {
            return Ok(stdout);
        }
        Err(match ErrorObject::parse(&stdout) {
            Some(error) => {
                let message = format!("IPAM plugin {} failed {command}: {}", self.name, error.msg);
                Failure::delegated(error, message)
            }
            None => Failure::new(
                "ipam-failed",
                format!("IPAM plugin {} failed {command} with {status}", self.name),
                "see the runtime's log for what the IPAM plugin wrote to stderr",
            ),
        })
    }
}

fn find(path: &SearchPath, name: &str) -> Option<PathBuf> {
    let mut candidates = path.0.iter().map(|dir| dir.join(name));
    candidates.find(|candidate: &PathBuf| Path::is_file(candidate))
}

/// Starts the plugin, also when somebody is just copying a new one over it, as upstream does.
///
/// Nothing tells when a file is not open for writing any more, so it is tried again and again.
fn start(process: &mut Process) -> io::Result<Child> {
    let deadline = Instant::now() + COPY_PATIENCE;
    let between = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    loop {
        match process.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline =>
            {
                poll(&mut [], Some(&between))?;
            }
            started => return started,
        }
    }
}

/// Returns what a plugin that ended has said, without waiting long for who else has its stdout.
fn all_of(output: &mpsc::Receiver<Vec<u8>>) -> Vec<u8> {
    let deadline = Instant::now() + OUTPUT_PATIENCE;
    let left = || deadline.saturating_duration_since(Instant::now());
    iter::from_fn(|| output.recv_timeout(left()).ok())
        .flatten()
        .collect()
}

/// Writes stdin and reads stdout at once, each on a thread, so that neither blocks the other.
fn converse(child: &mut Child, stdin: Vec<u8>) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (done, output) = mpsc::channel();
    if let Some(mut pipe) = child.stdin.take() {
        // A plugin that does not read its stdin ends the writing with EPIPE, and that is its right.
        thread::Builder::new().spawn(move || pipe.write_all(&stdin))?;
    }
    if let Some(pipe) = child.stdout.take() {
        thread::Builder::new().spawn(move || {
            let mut pipe = pipe.take(ANSWER_LIMIT);
            let mut chunk = vec![0; 8192];
            loop {
                match pipe.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // What came before an error counts.
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        let said = chunk.iter().take(read).copied().collect();
                        if done.send(said).is_err() {
                            return;
                        }
                    }
                }
            }
        })?;
    }
    Ok(output)
}

/// Waits for the end of a process; when it does not end in time it is killed, and `None` returned.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return child.wait().map(Some);
    };
    let watched = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&watched, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
