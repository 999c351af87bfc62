//! Files of policies, as the user names them: files, directories and `-` for stdin.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use api::crd::{NodeStateDocument, PolicyFileError, read_documents};
use model::{Code, Explain, NodePolicy, NodePool};

use crate::ui::Ui;

/// Largest file of policies; Kubernetes takes objects of 1.5 MB.
const FILE_LIMIT: u64 = 4 * 1024 * 1024;
/// A file that wants nothing: PFs of former policies are given back.
const NOTHING: &str = r#"{"apiVersion": "v1", "kind": "List", "items": []}"#;
/// Most files that are read of a directory.
const MOST_FILES: usize = 10_000;

/// Policies could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoliciesError {
    /// The file cannot be read.
    #[error("read policies from {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no text.
    #[error("{} is not text in UTF-8", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where it is not.
        #[source]
        source: FromUtf8Error,
    },
    /// The file is larger than policies can be.
    #[error("{} has more than {} MiB, which no file of policies has", .path.display(), FILE_LIMIT >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The directory has no file of policies.
    #[error("no file in {} ends in .yaml, .yml or .json", .path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has more files than are read.
    #[error("{} has more than {MOST_FILES} files", .path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// What is in the file is wrong.
    #[error(transparent)]
    File(#[from] PolicyFileError),
    /// A label has not the form of one.
    #[error("--node-label {text:?} is not a label such as rack=a")]
    Label {
        /// The text.
        text: String,
    },
}

impl Explain for PoliciesError {
    fn code(&self) -> Code {
        match self {
            Self::Read { .. } | Self::NotText { .. } => Code::new("policy-unreadable"),
            Self::TooLarge { .. } | Self::TooMany { .. } => Code::new("policy-too-large"),
            Self::Empty { .. } => Code::new("policy-file-empty"),
            Self::File(error) => error.code(),
            Self::Label { .. } => Code::new("bad-option"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run virtfn as root, or make the file readable".to_owned())
            }
            Self::Read { .. } => Some(
                "see that it is there: -f takes files, directories of them and - for stdin"
                    .to_owned(),
            ),
            Self::File(error) => error.remedy(),
            Self::Empty { path } => Some(format!(
                "put policies there; if no PF is to have VFs any more, write `{NOTHING}` into {}",
                path.join("none.json").display()
            )),
            Self::NotText { .. }
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::Label { .. } => None,
        }
    }
}

/// What files hold, in the order of the files.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) policies: Vec<NodePolicy>,
    pub(crate) states: Vec<NodeStateDocument>,
    pub(crate) pools: Vec<NodePool>,
}

/// Reads all policies and node states, and tells what in them has no effect.
pub(crate) fn read(paths: &[PathBuf], ui: &mut Ui) -> Result<Documents, PoliciesError> {
    let mut documents = Documents::default();
    for path in paths {
        for file in files(path)? {
            let text = read_file(&file)?;
            let read = read_documents(&text, &file.display().to_string())?;
            for warning in &read.warnings {
                ui.warn(warning);
            }
            documents.policies.extend(read.policies);
            documents.states.extend(read.node_states);
            documents.pools.extend(read.node_pools);
        }
    }
    Ok(documents)
}

/// Returns the files with their texts, as [`read`] reads them.
pub(crate) fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, PoliciesError> {
    let mut texts = Vec::new();
    for path in paths {
        for file in files(path)? {
            texts.push((file.display().to_string(), read_file(&file)?));
        }
    }
    Ok(texts)
}

/// Reads the labels of this node.
pub(crate) fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, PoliciesError> {
    texts
        .iter()
        .map(|text| {
            text.split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| PoliciesError::Label { text: text.clone() })
        })
        .collect()
}

/// Returns the files that a path stands for: a directory's own policies, in order of their names,
/// without what an editor or a package left beside them.
fn files(path: &Path) -> Result<Vec<PathBuf>, PoliciesError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |source| PoliciesError::Read {
        path: path.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let ours = [".yaml", ".yml", ".json"]
            .iter()
            .any(|ending| name.ends_with(ending));
        if !ours || name.starts_with('.') {
            continue;
        }
        // A link to nowhere is an error: without its policies VFs would be taken back.
        let unreadable = |source| PoliciesError::Read {
            path: file.clone(),
            source,
        };
        let kind = fs::metadata(&file).map_err(unreadable)?.file_type();
        if kind.is_file() {
            files.push(file);
        } else if !kind.is_dir() {
            return Err(unreadable(io::Error::other("it is no file")));
        }
        if files.len() > MOST_FILES {
            return Err(PoliciesError::TooMany {
                path: path.to_owned(),
            });
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(PoliciesError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<String, PoliciesError> {
    let unreadable = |source| PoliciesError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let limit = FILE_LIMIT + 1;
    if path == Path::new("-") {
        io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    }
    .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(PoliciesError::TooLarge {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|source| PoliciesError::NotText {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_in_order_and_without_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "20-b.yml",
            "10-a.yaml",
            ".10-a.yaml",
            "10-a.yaml~",
            "README.md",
            "c.json",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("d.yaml")).unwrap();
        let names: Vec<String> = files(dir.path())
            .unwrap()
            .iter()
            .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["10-a.yaml", "20-b.yml", "c.json"]);
    }

    #[test]
    fn a_file_that_is_there_and_cannot_be_read_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let remedy = files(dir.path()).unwrap_err().remedy().unwrap();
        assert!(remedy.contains("none.json"), "{remedy}");
        fs::write(dir.path().join("a.yaml"), "").unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("b.yaml")).unwrap();
        let error = files(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("/b.yaml"), "{error}");
        fs::remove_file(dir.path().join("b.yaml")).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("b.yaml")).unwrap();
        assert!(files(dir.path()).is_err());
    }

    #[test]
    fn labels_have_a_key() {
        let read = labels(&["rack=a".to_owned(), "role=".to_owned()]).unwrap();
        assert_eq!(read["rack"], "a");
        assert_eq!(read["role"], "");
        assert!(labels(&["rack".to_owned()]).is_err());
        assert!(labels(&["=a".to_owned()]).is_err());
    }
}
