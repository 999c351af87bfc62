//! `virtfn topology`: reads the machines of a drawing.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::{Code, Explain};

use super::WithNames;
use crate::args::TopologyArgs;
use crate::failure::Failure;
use crate::topology::{Cable, Machine, TopologyError, draw};
use crate::ui::Ui;
use crate::view::{HostView, SCHEMA};
use crate::workplace::Site;

/// Largest view that is read: 16 PFs with 256 VFs each have about 4 MB.
const VIEW_LIMIT: u64 = 64 * 1024 * 1024;

/// What `virtfn topology` is asked for.
#[derive(Debug)]
pub(crate) struct TopologyCommand {
    /// The machines, by name and file; none for this host.
    pub(crate) machines: Vec<(String, PathBuf)>,
    /// The cables.
    pub(crate) cables: Vec<Cable>,
}

/// A drawing cannot be made of what was given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopologyInputError {
    /// The text of `--from` has not the form of a machine.
    #[error("--from {text:?} is not a machine and its view, such as lab0=lab0.json")]
    From {
        /// The text.
        text: String,
    },
    /// Two machines have one name.
    #[error("--from: two machines are called {name:?}")]
    Twice {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not the view of a host.
    #[error("{} is not the output of `virtfn list -o json`", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file has a version of the view that this virtfn does not know.
    #[error("{} has the format {schema:?}, and this virtfn reads {SCHEMA:?}", .path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        schema: String,
    },
    /// A cable is wrong.
    #[error(transparent)]
    Cable(#[from] TopologyError),
}

impl Explain for TopologyInputError {
    fn code(&self) -> Code {
        match self {
            Self::From { .. } | Self::Twice { .. } => Code::new("bad-option"),
            Self::Read { .. } => Code::new("view-unreadable"),
            Self::Parse { .. } | Self::Schema { .. } => Code::new("view-invalid"),
            Self::Cable(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Parse { .. } => {
                Some("write it with `virtfn list -o json` on that machine".to_owned())
            }
            Self::Cable(error) => error.remedy(),
            Self::From { .. } | Self::Twice { .. } | Self::Read { .. } | Self::Schema { .. } => {
                None
            }
        }
    }
}

/// Draws what was asked for.
pub(crate) fn run(args: &TopologyArgs, site: &Site, ui: &mut Ui) -> Result<(), Failure> {
    let command = TopologyCommand::new(&args.from, &args.join).map_err(Failure::input)?;
    let machines = if command.machines.is_empty() {
        let (_, view) = super::see(&super::site(&args.state, site), WithNames::No)?;
        vec![Machine {
            name: view.host.clone().unwrap_or_else(|| "host".to_owned()),
            view,
        }]
    } else {
        read_machines(&command.machines).map_err(Failure::input)?
    };
    let unicode = ui.unicode() && !args.ascii;
    let drawing = draw(&machines, &command.cables, unicode).map_err(Failure::input)?;
    ui.result(&drawing);
    Ok(())
}

impl TopologyCommand {
    /// Reads the options.
    pub(crate) fn new(from: &[String], join: &[String]) -> Result<Self, TopologyInputError> {
        let mut machines: Vec<(String, PathBuf)> = Vec::new();
        for text in from {
            let (name, path) = text
                .split_once('=')
                .filter(|(name, path)| !name.is_empty() && !path.is_empty())
                .ok_or_else(|| TopologyInputError::From { text: text.clone() })?;
            if machines.iter().any(|(known, _)| known == name) {
                return Err(TopologyInputError::Twice {
                    name: name.to_owned(),
                });
            }
            machines.push((name.to_owned(), PathBuf::from(path)));
        }
        let cables = join
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, TopologyError>>()?;
        Ok(Self { machines, cables })
    }
}

/// Reads the machines that were named.
pub(crate) fn read_machines(
    named: &[(String, PathBuf)],
) -> Result<Vec<Machine>, TopologyInputError> {
    named
        .iter()
        .map(|(name, path)| {
            Ok(Machine {
                name: name.clone(),
                view: read_view(path)?,
            })
        })
        .collect()
}

fn read_view(path: &Path) -> Result<HostView, TopologyInputError> {
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(VIEW_LIMIT)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| TopologyInputError::Read {
        path: path.to_owned(),
        source,
    })?;
    let view: HostView =
        serde_json::from_slice(&bytes).map_err(|source| TopologyInputError::Parse {
            path: path.to_owned(),
            source,
        })?;
    if view.schema == SCHEMA {
        Ok(view)
    } else {
        Err(TopologyInputError::Schema {
            path: path.to_owned(),
            schema: view.schema,
        })
    }
}
