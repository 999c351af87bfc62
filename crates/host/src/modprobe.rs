//! Loading a kernel module with the host's own `modprobe`, the only program that virtfn runs.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::root::HostRoot;

/// A module loads in milliseconds; its initialisation may probe devices that are there already.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most bytes kept of what it says.
const WORDS_LIMIT: u64 = 4096;

/// A module could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModprobeError {
    #[error("run /sbin/modprobe {module}")]
    Run { module: String, source: io::Error },
    #[error("modprobe {module} did not end within {} s", PATIENCE.as_secs())]
    Late { module: String },
    #[error("modprobe {module}: {words}")]
    Refused { module: String, words: String },
}

/// Loads a module by its name or by an alias of a device.
pub(crate) fn modprobe(root: &HostRoot, module: &str) -> Result<(), ModprobeError> {
    let module = module.to_owned();
    let mut command = Command::new("/sbin/modprobe");
    if root.path() != std::path::Path::new("/") {
        command.arg("--dirname").arg(root.path());
    }
    // Behind `--` nothing is an option, and no shell sees it.
    command.arg("--").arg(&module);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let run = |source| ModprobeError::Run {
        module: module.clone(),
        source,
    };
    let mut child = command.spawn().map_err(run)?;
    if !ended(&child).map_err(run)? {
        // Its result no longer matters; a process in the kernel's hands dies when the kernel lets go.
        let _late = child.kill();
        return Err(ModprobeError::Late { module });
    }
    let status = child.wait().map_err(run)?;
    if status.success() {
        return Ok(());
    }
    let words = words(&mut child);
    Err(ModprobeError::Refused { module, words })
}

/// Waits for the end of a process; `false` when the deadline passes before.
fn ended(child: &Child) -> io::Result<bool> {
    let raw = i32::try_from(child.id()).map_err(io::Error::other)?;
    let pid = Pid::from_raw(raw).ok_or(io::ErrorKind::InvalidData)?;
    let fd = pidfd_open(pid, PidfdFlags::empty())?;
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience)))?;
    Ok(ready > 0)
}

fn words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = &mut child.stderr {
        // What cannot be read is not said.
        let _unread = stderr.take(WORDS_LIMIT).read_to_end(&mut words);
    }
    let words = String::from_utf8_lossy(&words);
    words.trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_does_not_exist_is_not_loaded() {
        let root = HostRoot::this_machine().unwrap();
        let error = modprobe(&root, "virtfn-no-such-module").unwrap_err();
        assert!(
            error.to_string().contains("virtfn-no-such-module"),
            "{error}"
        );
    }
}
