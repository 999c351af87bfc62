//! `virtfn record`: what virtfn sees of a host, as a file that it can look at elsewhere.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use host::RecordError;
use model::{Code, Explain};

use crate::args::RecordArgs;
use crate::failure::Failure;
use crate::sight::Sight;
use crate::ui::Ui;
use crate::workplace::Site;

/// A host could not be recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordFileError {
    /// The host could not be read.
    #[error("record this host")]
    Record {
        /// Why.
        #[source]
        source: RecordError,
    },
    /// The file could not be written.
    #[error("write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Explain for RecordFileError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::Record { .. } => "recording-failed",
            Self::Write { .. } => "recording-not-written",
        })
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                Some("choose a name that does not exist yet".to_owned())
            }
            Self::Record { .. } | Self::Write { .. } => None,
        }
    }
}

/// Writes a recording of the host.
pub(crate) fn run(args: &RecordArgs, site: &Site, ui: &mut Ui) -> Result<(), Failure> {
    let mut sight = Sight::open(site)?;
    let tree = sight
        .linux()
        .record()
        .map_err(|source| Failure::failed(RecordFileError::Record { source }))?;
    let text = tree.to_string();
    // It names interfaces, processes and namespaces, so at first it is for its owner.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| {
            Failure::failed(RecordFileError::Write {
                path: args.file.clone(),
                source,
            })
        })?;
    ui.say(format_args!(
        "recorded {} lines in {}; look at it with `virtfn list --recorded {}`",
        text.lines().count(),
        args.file.display(),
        args.file.display()
    ));
    Ok(())
}
