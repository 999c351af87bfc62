//! `config.json` of the SR-IOV network device plugin, in all forms that are in the field.
//!
//! ```text
//! bytes ─ json ─▶ names and values ─ wire ─▶ what was written ─ meaning ─▶ model::Pool
//! ```
//!
//! What would surprise:
//!
//! - Keys are matched without regard to case, as Go's `encoding/json` does; the operator relies on it
//!   (`IsRdma`). Of a repeated key the last value counts, a `null` never does.
//! - A pool that is wrong is [`Refused`] alone; upstream refuses the whole file or dies.
//! - What upstream takes and silently never matches is a [`Config::notes`] entry.
//! - The form of the first generation (`rootDevices`, `sriovMode` and `deviceType: vfio` on the pool),
//!   which KubeVirt's documentation still shows, becomes the pool that serves the same devices.

mod json;
mod meaning;
mod wire;

use model::{Code, Explain, Pool};

use crate::{FieldPath, FieldProblem};
use json::Json;

/// Largest file: a ConfigMap has at most 1 MiB.
const LARGEST: usize = 1024 * 1024;

/// Most pools of a file. The kubelet has one connection for each.
const MOST_POOLS: usize = 1024;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The pools that can be served, in the order of the file, which decides who gets a device.
    pub pools: Vec<Pool>,
    /// The pools that cannot.
    pub refused: Vec<Refused>,
    /// What is taken, but does not do what it seems to.
    pub notes: Vec<FieldProblem>,
}

/// A pool that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in `resourceList`, from 0.
    pub index: usize,
    /// Its resource name as far as it can be told.
    pub resource: Option<String>,
    /// Everything that is wrong with it.
    pub problems: Vec<FieldProblem>,
}

/// The file says nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadConfigError {
    /// It is larger than any ConfigMap.
    #[error("the configuration has {size} bytes, {LARGEST} is the most")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// It is not JSON.
    #[error("line {line}, column {column}: no JSON")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// It is JSON of another shape.
    #[error(transparent)]
    Shape(#[from] FieldProblem),
}

impl Explain for ReadConfigError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::TooLarge { .. } => "config-too-large",
            Self::NotJson { .. } => "config-not-json",
            Self::Shape(_) => "config-invalid",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::TooLarge { .. } => "split the pools over several nodes' files".to_owned(),
            Self::NotJson { .. } => {
                "write strict JSON: no comments, and no comma behind the last item".to_owned()
            }
            Self::Shape(problem) => problem.remedy.clone(),
        })
    }
}

/// Reads a file. `default_prefix` is that of pools without `resourcePrefix`.
pub fn read_config(bytes: &[u8], default_prefix: &str) -> Result<Config, ReadConfigError> {
    if bytes.len() > LARGEST {
        return Err(ReadConfigError::TooLarge { size: bytes.len() });
    }
    let root = Json::parse(bytes).map_err(|source| ReadConfigError::NotJson {
        line: source.line(),
        column: source.column(),
        source,
    })?;
    let path = FieldPath::default().key("resourceList");
    let shape = |problem: String| FieldProblem {
        path: path.clone(),
        problem,
        remedy: r#"write {"resourceList": [{"resourceName": "sriov_a", "selectors": {…}}]}"#
            .to_owned(),
    };
    let Json::Object(fields) = &root else {
        return Err(shape(format!("the file is {}, not an object", root.kind())).into());
    };
    let mut config = Config::default();
    match json::field(fields, "resourceList") {
        None => config
            .notes
            .push(shape("it is missing, so no device is offered".to_owned())),
        Some(Json::List(pools)) if pools.len() > MOST_POOLS => {
            let count = pools.len();
            return Err(shape(format!("{count} pools, {MOST_POOLS} are the most")).into());
        }
        Some(Json::List(pools)) => {
            for (index, pool) in pools.iter().enumerate() {
                config.add(index, pool, &path.index(index), default_prefix);
            }
        }
        Some(other) => return Err(shape(format!("it is {}, not a list", other.kind())).into()),
    }
    Ok(config)
}

impl Config {
    fn add(&mut self, index: usize, json: &Json, path: &FieldPath, default_prefix: &str) {
        let mut problems = Vec::new();
        let written = wire::PoolSpec::read(json, path, &mut problems);
        let mut notes = Vec::new();
        let pool = meaning::pool(&written, path, default_prefix, &mut problems, &mut notes);
        if let Some(pool) = &pool
            && let Some(first) = self.pools.iter().find(|p| p.resource == pool.resource)
        {
            problems.push(FieldProblem {
                path: path.key("resourceName"),
                problem: format!("{} is the name of an earlier pool too", first.resource),
                remedy: "join the two with a list of selectors, or rename one".to_owned(),
            });
        }
        match pool.filter(|_| problems.is_empty()) {
            Some(pool) => {
                self.pools.push(pool);
                self.notes.extend(notes);
            }
            None => self.refused.push(Refused {
                index,
                resource: written.full_name(default_prefix),
                problems,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
