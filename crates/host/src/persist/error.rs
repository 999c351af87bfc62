//! Why a host cannot be made to keep what was applied, or to forget it.

use std::fmt;
use std::path::PathBuf;

use model::{Code, Explain};

use super::{Change, Outcome};
use crate::root::AccessError;

/// A host could not be made to keep what was applied.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// There is nothing to apply at boot.
    #[error("there are no policies to keep")]
    NoPolicies,
    /// A file that is not virtfn's is in the way. Nothing was changed.
    #[error("{path} is in the way: {found}")]
    InTheWay {
        /// The file.
        path: String,
        /// What is there.
        found: Foreign,
    },
    /// The program that would run at boot as root cannot be trusted with it. Nothing was changed.
    #[error("{} cannot be run at boot: {why}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Something cannot be written into a unit file. Nothing was changed.
    #[error("{text:?} cannot be part of a systemd unit")]
    NotForUnit {
        /// The text, shortened.
        text: String,
    },
    /// What is there could not be seen. Nothing was changed.
    #[error("look at what is installed")]
    Look {
        /// Which file, and what the kernel said.
        source: AccessError,
    },
    /// A change failed. Those before it were made; the next run goes on from there.
    #[error("keep what was applied ({} changes made before)", done.len())]
    Change {
        /// The changes made before.
        done: Vec<Change>,
        /// Which file, and what the kernel said.
        source: AccessError,
    },
}

/// What is found in the place of a file of virtfn's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A file without virtfn's marker.
    File,
    /// A link to `/dev/null`: somebody masked the unit.
    Masked,
    /// Another link.
    Link(String),
    /// A directory, a device, a pipe or a socket.
    Other,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("it is a file that virtfn did not write"),
            Self::Masked => f.write_str("the unit is masked"),
            Self::Link(target) => write!(f, "it is a link to {target}"),
            Self::Other => f.write_str("it is no file"),
        }
    }
}

impl Explain for PersistError {
    fn code(&self) -> Code {
        match self {
            Self::NoPolicies => Code::new("nothing-to-keep"),
            Self::InTheWay { .. } => Code::new("file-in-the-way"),
            Self::Program { .. } | Self::NotForUnit { .. } => Code::new("not-for-boot"),
            Self::Look { .. } | Self::Change { .. } => Code::new("files-not-accessible"),
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoPolicies => {
                "name policies with --file, or stop keeping them with --unpersist".to_owned()
            }
            Self::InTheWay {
                path,
                found: Foreign::Masked,
            } => {
                let unit = path.rsplit('/').next().unwrap_or(path);
                format!("run systemctl unmask {unit}, or leave the host without --persist")
            }
            Self::InTheWay { path, .. } => {
                format!("move {path} away if nobody needs it, and run again")
            }
            Self::Program { .. } => {
                "install virtfn where only root can write, such as /usr/local/bin, and run that one"
                    .to_owned()
            }
            Self::NotForUnit { .. } => {
                "use a path and labels without control characters".to_owned()
            }
            Self::Look { source } | Self::Change { source, .. } => remedy_of(source)?,
        })
    }
}

/// Some files could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(failures))]
pub struct UninstallError {
    /// Each file, and what the kernel said; never empty.
    pub failures: Vec<AccessError>,
    /// What was done all the same.
    pub outcome: Outcome,
}

impl Explain for UninstallError {
    fn code(&self) -> Code {
        Code::new("files-not-accessible")
    }

    fn remedy(&self) -> Option<String> {
        self.failures.iter().find_map(remedy_of)
    }
}

fn lines(failures: &[AccessError]) -> String {
    let line = |error: &AccessError| format!("{error}: {}", error.source);
    failures.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn remedy_of(error: &AccessError) -> Option<String> {
    let path = error.path.display();
    match error.source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Some(format!("free space on the file system of {path}"))
        }
        std::io::ErrorKind::PermissionDenied => Some("run virtfn as root".to_owned()),
        std::io::ErrorKind::ReadOnlyFilesystem => Some(format!(
            "make the file system of {path} writable; on an image-based host put the files into the image"
        )),
        _ => None,
    }
}
