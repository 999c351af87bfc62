//! Hosts whose `grub.cfg` is made from `/etc/default/grub`.
//!
//! The file is put back as it was when `grub.cfg` could not be made from it. A run that was killed
//! in between is noticed by the next: `grub.cfg` lacks the argument although the file has it.

use policy::kernel::{KernelArgument, Presence, presence};

use super::{
    BootLoader, GrubFile, GrubFileError, GrubFileProblem, KernelArgumentError, MKCONFIG_PATIENCE,
    missing, words_of,
};
use crate::files::{Entry, Files};
use crate::program::{Call, Programs};
use crate::root::{AccessError, HostRoot};

pub(super) const DEFAULTS: &str = "/etc/default/grub";

/// Debian's `grub-mkconfig` sources these after it.
const DROP_INS: &str = "/etc/default/grub.d";

/// Where `grub.cfg` is; some distributions keep the file in `/boot/grub2`.
const MADE: [&str; 2] = ["/boot/grub2/grub.cfg", "/boot/grub/grub.cfg"];

/// A `grub.cfg` has some 20 KB for each kernel.
const MADE_LIMIT: usize = 4 << 20;

/// Returns the path of `grub.cfg`.
pub(super) fn made_config(root: &HostRoot) -> Option<&'static str> {
    MADE.into_iter().find(|path| root.exists(path))
}

/// Adds arguments to `/etc/default/grub` and makes `grub.cfg`, unless both have them.
pub(super) fn write(
    files: &Files<'_>,
    wanted: &[KernelArgument],
    update: &[String],
    by: &BootLoader,
    programs: &mut dyn Programs,
) -> Result<Vec<KernelArgument>, KernelArgumentError> {
    let access = |source| KernelArgumentError::File {
        by: by.clone(),
        source,
    };
    let old = regular(files, DEFAULTS).map_err(access)??;
    let file = understood(DEFAULTS, &old)?;
    let drop_ins = drop_ins(files).map_err(access)??;
    let words = GrubFile::words(std::iter::once(&file).chain(&drop_ins));
    let to_add = missing(wanted, &[words], by)?;
    let is_made = || is_made(files.root(), wanted);
    if to_add.is_empty() && is_made().map_err(access)? != Some(false) {
        return Ok(Vec::new());
    }
    if !to_add.is_empty() {
        let new = file.with(&old, &to_add);
        let words = GrubFile::words(std::iter::once(&understood(DEFAULTS, &new)?).chain(&drop_ins));
        // A drop-in may set the variable anew: then the file is the wrong place.
        super::verify(wanted, &[words], by)?;
        files.replace(DEFAULTS, &new).map_err(access)?;
    }
    let put_back = || {
        if to_add.is_empty() {
            Ok(())
        } else {
            files.replace(DEFAULTS, &old).map_err(access)
        }
    };
    if let Err(source) = make(update, programs) {
        put_back()?;
        return Err(KernelArgumentError::Program {
            by: by.clone(),
            source,
        });
    }
    if is_made().map_err(access)? == Some(false) {
        put_back()?;
        if let Some(argument) = wanted.first().cloned() {
            return Err(KernelArgumentError::NotTaken {
                argument,
                by: by.clone(),
            });
        }
    }
    Ok(to_add)
}

fn make(
    update: &[String],
    programs: &mut dyn Programs,
) -> Result<(), crate::program::ProgramError> {
    let words: Vec<&str> = update.iter().map(String::as_str).collect();
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let call = Call {
        program,
        arguments,
        deadline: MKCONFIG_PATIENCE,
    };
    programs.run(&call).map(drop)
}

/// Reads a file that must be one: a link may lead to where an edit would do harm.
fn regular(
    files: &Files<'_>,
    path: &str,
) -> Result<Result<Vec<u8>, KernelArgumentError>, AccessError> {
    Ok(match files.entry(path)? {
        Entry::File(content) => Ok(content),
        Entry::Absent | Entry::Link(_) | Entry::Dir | Entry::Other => {
            Err(KernelArgumentError::Grub {
                path: path.to_owned(),
                source: GrubFileError {
                    line: 1,
                    problem: GrubFileProblem::NoFile,
                },
            })
        }
    })
}

fn understood(path: &str, content: &[u8]) -> Result<GrubFile, KernelArgumentError> {
    GrubFile::read(content).map_err(|source| KernelArgumentError::Grub {
        path: path.to_owned(),
        source,
    })
}

/// Reads the drop-ins in their order. One that cannot be understood matters if it has to do with
/// the kernel's command line.
fn drop_ins(files: &Files<'_>) -> Result<Result<Vec<GrubFile>, KernelArgumentError>, AccessError> {
    let mut read = Vec::new();
    for name in files.list(DROP_INS)? {
        if !name.ends_with(".cfg") {
            continue;
        }
        let path = format!("{DROP_INS}/{name}");
        let content = match files.root().read(&path) {
            Ok(content) => content,
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(error),
        };
        match understood(&path, &content) {
            Ok(file) => read.push(file),
            Err(error) => {
                let needle = b"GRUB_CMDLINE_LINUX";
                if content.windows(needle.len()).any(|window| window == needle) {
                    return Ok(Err(error));
                }
            }
        }
    }
    Ok(Ok(read))
}

/// Does a kernel of `grub.cfg` start with all of `wanted`? `None` when there is no `grub.cfg`.
fn is_made(root: &HostRoot, wanted: &[KernelArgument]) -> Result<Option<bool>, AccessError> {
    let Some(path) = made_config(root) else {
        return Ok(None);
    };
    let made = root.read_bounded(path, MADE_LIMIT)?;
    let made = String::from_utf8_lossy(&made);
    let mut kernels = made.lines().map(words_of).filter(|words| {
        words
            .first()
            .is_some_and(|word| matches!(word.as_str(), "linux" | "linuxefi" | "linux16"))
    });
    let has_all = |words: Vec<String>| {
        wanted
            .iter()
            .all(|argument| presence(&words, argument) == Presence::Present)
    };
    Ok(Some(kernels.any(has_all)))
}
