//! Kernel arguments: what the kernel and the machine offer, and writing arguments for the next boot.
//!
//! What is needed is decided in [`policy::kernel`]; this sees the facts ([`kernel_facts`]), writes
//! arguments with the means of the host's boot loader ([`write_kernel_arguments`]) and keeps the
//! count of reboots that were asked for ([`RebootLog`]).
//!
//! | Host | Means |
//! |---|---|
//! | rpm-ostree (CoreOS, Silverblue) | `rpm-ostree kargs --append-if-missing=…` |
//! | RHEL, Fedora and kin, with BLS or without | `grubby --update-kernel=ALL --args=…` |
//! | Debian, Ubuntu | `GRUB_CMDLINE_LINUX` in `/etc/default/grub`, then `update-grub` |
//! | SUSE, Arch | the same file, then `grub2-mkconfig` or `grub-mkconfig` |
//! | others | nothing is written; the error says what to add |
//!
//! Nothing is written before what is there was read and understood, and everything is read again
//! afterwards: an argument that the boot loader did not take is an error. virtfn never reboots.

mod facts;
mod file;
mod grub;
mod reboot_log;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use model::{Code, Explain};
use policy::kernel::{KernelArgument, Presence, presence};

use crate::files::Files;
use crate::program::{Call, ProgramError, Programs, find};
use crate::root::{AccessError, HostRoot};

pub use facts::{kernel_facts, starved_pfs};
pub(crate) use file::{GrubFile, words_of};
pub use file::{GrubFileError, GrubFileProblem};
pub(crate) use reboot_log::parse as parse_reboots;
pub use reboot_log::{AskedReboots, RebootLog, RebootLogError, asked_reboots};

/// rpm-ostree makes a whole deployment for one argument.
const OSTREE_PATIENCE: Duration = Duration::from_secs(600);

/// grubby reads and writes one small file per kernel.
const GRUBBY_PATIENCE: Duration = Duration::from_secs(60);

/// `grub-mkconfig` may look for other systems on every disk.
const MKCONFIG_PATIENCE: Duration = Duration::from_secs(300);

/// How a host's kernel arguments are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootLoader {
    /// By `rpm-ostree kargs`; the path of the program.
    RpmOstree(String),
    /// By `grubby`; the path of the program.
    Grubby(String),
    /// By `/etc/default/grub` and a program that makes `grub.cfg` of it: the program and its
    /// arguments.
    Grub(Vec<String>),
}

impl BootLoader {
    /// Looks which one the host has; `None` for one that virtfn does not know.
    #[must_use]
    pub fn of(root: &HostRoot) -> Option<Self> {
        if root.exists("/run/ostree-booted") {
            // `grubby` may be there too and would change what the next deployment overwrites.
            return find(root, "rpm-ostree").map(Self::RpmOstree);
        }
        if let Some(grubby) = find(root, "grubby") {
            return Some(Self::Grubby(grubby));
        }
        if !root.exists(grub::DEFAULTS) {
            return None;
        }
        if let Some(update) = find(root, "update-grub") {
            return Some(Self::Grub(vec![update]));
        }
        let made = grub::made_config(root)?;
        let mkconfig = find(root, "grub2-mkconfig").or_else(|| find(root, "grub-mkconfig"))?;
        Some(Self::Grub(vec![mkconfig, "-o".to_owned(), made.to_owned()]))
    }
}

impl fmt::Display for BootLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RpmOstree(_) => f.write_str("rpm-ostree"),
            Self::Grubby(_) => f.write_str("grubby"),
            Self::Grub(_) => f.write_str(grub::DEFAULTS),
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// With which means.
    pub by: BootLoader,
    /// The arguments that were not there before; none when nothing was changed.
    pub added: Vec<KernelArgument>,
}

/// Kernel arguments could not be written.
#[derive(Debug, thiserror::Error)]
pub enum KernelArgumentError {
    /// The host has a boot loader that virtfn does not know. Nothing was changed.
    #[error("this host's boot loader is not one that virtfn can configure")]
    UnknownBootLoader {
        /// What would have been added.
        wanted: Vec<KernelArgument>,
    },
    /// A file of grub's could not be understood. Nothing was changed.
    #[error("add kernel arguments to {path}")]
    Grub {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: GrubFileError,
    },
    /// A file could not be read or written.
    #[error("add kernel arguments with {by}")]
    File {
        /// The means.
        by: BootLoader,
        /// Which file, and what the kernel said.
        source: AccessError,
    },
    /// A program failed. `/etc/default/grub` was put back as it was.
    #[error("add kernel arguments with {by}")]
    Program {
        /// The means.
        by: BootLoader,
        /// Which program, and what it said.
        source: ProgramError,
    },
    /// The next boot would have the opposite. Nothing was changed.
    #[error("{wanted} is contradicted by {present}, which {by} has")]
    Contradicted {
        /// What was to be added.
        wanted: KernelArgument,
        /// What is there.
        present: String,
        /// Where.
        by: BootLoader,
    },
    /// All was done, and the next boot would still not have it.
    #[error("{argument} was written with {by}, and is not in what the next boot starts with")]
    NotTaken {
        /// The argument.
        argument: KernelArgument,
        /// The means.
        by: BootLoader,
    },
}

impl Explain for KernelArgumentError {
    fn code(&self) -> Code {
        match self {
            Self::UnknownBootLoader { .. } => Code::new("boot-loader-unknown"),
            Self::Grub { .. } => Code::new("grub-file-not-understood"),
            Self::File { .. } => Code::new("files-not-accessible"),
            Self::Program { source, .. } => source.code(),
            Self::Contradicted { .. } => Code::new("kernel-argument-contradicted"),
            Self::NotTaken { .. } => Code::new("kernel-argument-not-taken"),
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::UnknownBootLoader { wanted } => format!(
                "add `{}` to the kernel's command line by the means of this host, and reboot",
                in_line(wanted)
            ),
            Self::Grub { path, source } => format!("{}: {path}", source.problem.remedy()),
            Self::File { source, .. } => match source.source.kind() {
                std::io::ErrorKind::PermissionDenied => "run virtfn as root".to_owned(),
                _ => format!("see why {} cannot be used", source.path.display()),
            },
            Self::Program { source, .. } => return source.remedy(),
            Self::Contradicted { present, .. } => format!(
                "virtfn does not overrule what somebody wrote: remove {present} if it is not needed"
            ),
            Self::NotTaken { argument, by } => format!(
                "find out which other file sets the command line after {by}, and add {argument} there"
            ),
        })
    }
}

/// Makes the next boot have `wanted`, by the means of the host's boot loader.
///
/// Arguments that are there already are not touched, so a second call changes nothing.
pub fn write_kernel_arguments(
    root: &HostRoot,
    wanted: &[KernelArgument],
    programs: &mut dyn Programs,
) -> Result<Written, KernelArgumentError> {
    let Some(by) = BootLoader::of(root) else {
        return Err(KernelArgumentError::UnknownBootLoader {
            wanted: wanted.to_vec(),
        });
    };
    let added = match &by {
        BootLoader::RpmOstree(program) => with_lister(
            wanted,
            &by,
            programs,
            &Lister {
                program,
                patience: OSTREE_PATIENCE,
                list: &["kargs"],
                entries: |said| vec![words_of(said)],
                add: |missing| {
                    let flags = missing.iter().map(|a| format!("--append-if-missing={a}"));
                    std::iter::once("kargs".to_owned()).chain(flags).collect()
                },
            },
        )?,
        BootLoader::Grubby(program) => with_lister(
            wanted,
            &by,
            programs,
            &Lister {
                program,
                patience: GRUBBY_PATIENCE,
                list: &["--info=ALL"],
                entries: grubby_entries,
                add: |missing| {
                    vec![
                        "--update-kernel=ALL".to_owned(),
                        format!("--args={}", in_line(missing)),
                    ]
                },
            },
        )?,
        BootLoader::Grub(update) => grub::write(&Files::new(root), wanted, update, &by, programs)?,
    };
    Ok(Written { by, added })
}

/// A program that lists the arguments of the boot entries and adds to them.
struct Lister<'a> {
    program: &'a str,
    patience: Duration,
    list: &'a [&'a str],
    entries: fn(&str) -> Vec<Vec<String>>,
    add: fn(&[KernelArgument]) -> Vec<String>,
}

fn with_lister(
    wanted: &[KernelArgument],
    by: &BootLoader,
    programs: &mut dyn Programs,
    lister: &Lister<'_>,
) -> Result<Vec<KernelArgument>, KernelArgumentError> {
    let mut run = |arguments: &[&str]| {
        let call = Call {
            program: lister.program,
            arguments,
            deadline: lister.patience,
        };
        programs
            .run(&call)
            .map_err(|source| KernelArgumentError::Program {
                by: by.clone(),
                source,
            })
    };
    let said = run(lister.list)?;
    let entries = (lister.entries)(&String::from_utf8_lossy(&said));
    let missing = missing(wanted, &entries, by)?;
    if missing.is_empty() {
        return Ok(missing);
    }
    let add = (lister.add)(&missing);
    run(&add.iter().map(String::as_str).collect::<Vec<_>>())?;
    let said = run(lister.list)?;
    let entries = (lister.entries)(&String::from_utf8_lossy(&said));
    verify(wanted, &entries, by)?;
    Ok(missing)
}

/// Returns the arguments that an entry lacks, or that no entry shows when there is none.
fn missing(
    wanted: &[KernelArgument],
    entries: &[Vec<String>],
    by: &BootLoader,
) -> Result<Vec<KernelArgument>, KernelArgumentError> {
    let mut missing = Vec::new();
    for argument in wanted {
        let mut is_missing = entries.is_empty();
        for words in entries {
            match presence(words, argument) {
                Presence::Present => {}
                Presence::Absent => is_missing = true,
                Presence::Contradicted(present) => {
                    return Err(KernelArgumentError::Contradicted {
                        wanted: argument.clone(),
                        present,
                        by: by.clone(),
                    });
                }
            }
        }
        if is_missing {
            missing.push(argument.clone());
        }
    }
    Ok(missing)
}

fn verify(
    wanted: &[KernelArgument],
    entries: &[Vec<String>],
    by: &BootLoader,
) -> Result<(), KernelArgumentError> {
    match missing(wanted, entries, by)?.into_iter().next() {
        None => Ok(()),
        Some(argument) => Err(KernelArgumentError::NotTaken {
            argument,
            by: by.clone(),
        }),
    }
}

/// Reads what `grubby --info=ALL` says: a line `args="…"` for each entry that has a kernel.
pub(crate) fn grubby_entries(said: &str) -> Vec<Vec<String>> {
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("args="))
        .map(|args| words_of(args.trim_matches('"')))
        .collect()
}

fn in_line(arguments: &[KernelArgument]) -> String {
    let words: Vec<&str> = arguments.iter().map(KernelArgument::as_str).collect();
    words.join(" ")
}
