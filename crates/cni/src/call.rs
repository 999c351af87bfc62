//! One CNI call: what comes in, and the one answer that goes out.

use std::io::{self, Read, Write};

use api::cni::{ConfigError, ContainerId, Environment, ErrorNumber, NetworkConfig, STDIN_LIMIT};
use model::{Holder, HolderKind, IfName};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

use crate::failure::Failure;
use crate::plugin::Plugin;

/// Numbers of `/dev/null` (`Documentation/admin-guide/devices.txt`).
const NULL_DEVICE: (u32, u32) = (1, 3);

/// What the runtime asks for.
pub(crate) struct Call {
    /// Which plugin is called.
    pub(crate) plugin: Plugin,
    /// The environment.
    pub(crate) environment: Environment,
    /// Stdin as it came: IPAM plugins get the same bytes.
    pub(crate) stdin: Vec<u8>,
    /// What it says, as far as all plugins share it.
    pub(crate) config: NetworkConfig,
}

/// What the runtime is told when all went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing, which is success for all commands but ADD.
    Silent,
    /// The result of an ADD.
    Result(String),
}

impl Call {
    /// Reads stdin.
    pub(crate) fn read(plugin: Plugin, environment: Environment) -> Result<Self, Failure> {
        let mut stdin = Vec::new();
        let most = u64::try_from(STDIN_LIMIT)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut stdin)
            .map_err(|error| {
                Failure::new(
                    "stdin",
                    format!("read the network config from stdin: {error}"),
                    "let the runtime write the network's configuration to stdin",
                )
            })?;
        Self::new(plugin, environment, stdin)
    }

    /// Takes what was read of both.
    pub(crate) fn new(
        plugin: Plugin,
        environment: Environment,
        stdin: Vec<u8>,
    ) -> Result<Self, Failure> {
        let config = NetworkConfig::parse(&stdin, environment.command)
            .map_err(|error: ConfigError| Failure::of(error.number(), &error))?;
        Ok(Self {
            plugin,
            environment,
            stdin,
            config,
        })
    }

    /// Returns container and interface; ADD, DEL and CHECK have them.
    pub(crate) fn attachment(&self) -> Result<(&ContainerId, &IfName), Failure> {
        let Environment {
            container,
            interface,
            ..
        } = &self.environment;
        match (container, interface) {
            (Some(container), Some(interface)) => Ok((container, interface)),
            // The environment was read for this command, so it has both.
            _ => Err(Failure::new(
                "bad-environment",
                format!("{} without a container", self.environment.command),
                "let the runtime name container and interface",
            )
            .with_number(ErrorNumber::BAD_ENVIRONMENT)),
        }
    }

    /// Returns who gets the VF.
    pub(crate) fn holder(&self) -> Result<Holder, Failure> {
        let (container, interface) = self.attachment()?;
        Ok(holder(container, interface))
    }
}

/// Names the holder of a VF that a container has as an interface.
pub(crate) fn holder(container: &ContainerId, interface: &IfName) -> Holder {
    Holder {
        kind: HolderKind::Cni,
        id: container.to_string(),
        interface: Some(interface.clone()),
    }
}

/// Sees that somebody could read an answer, before anything is changed for it.
///
/// A reader that is gone shows as an error of the pipe. When there was no stdout at all, the standard
/// library has opened `/dev/null` in its place, for reading and writing; a shell that throws an answer
/// away opens it for writing only, and that is its right.
pub(crate) fn see_stdout() -> Result<(), Failure> {
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let is_broken = poll(&mut watched, Some(&at_once)).is_ok()
        && watched[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::NVAL);
    let is_placeholder = fcntl_getfl(&stdout)
        .is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
        && fstat(&stdout).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && (major(stat.st_rdev), minor(stat.st_rdev)) == NULL_DEVICE
        });
    if is_broken || is_placeholder {
        return Err(Failure::unheard(&io::ErrorKind::BrokenPipe.into()));
    }
    Ok(())
}

/// Prints the one answer and sees that it left.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}
