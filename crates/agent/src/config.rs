//! The configuration in force: the last good one, and what is wrong with the newest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::deviceplugin::{Config, read_config};
use model::{Explain as _, Pool, ResourceName, with_causes};
use rustix::fs::{Mode, OFlags};
use tracing::{info, warn};

use crate::grant::Delivery;

/// Most bytes that are read of a configuration; `api` says what is too much.
pub const CONFIGURATION_LIMIT: u64 = 2 * 1024 * 1024;

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Configuration {
    path: PathBuf,
    prefix: String,
    delivery: Delivery,
    /// The file as it was read last, or why it could not be.
    last: Option<Result<Vec<u8>, io::ErrorKind>>,
    /// The pools, in order.
    pub(crate) pools: Arc<Vec<Pool>>,
    /// What is wrong with the file.
    pub(crate) problems: Vec<String>,
}

impl Configuration {
    pub(crate) fn new(path: PathBuf, prefix: String, delivery: Delivery) -> Self {
        Self {
            path,
            prefix,
            delivery,
            last: None,
            pools: Arc::default(),
            problems: Vec::new(),
        }
    }

    /// Reads the file again. Returns whether it changed.
    pub(crate) fn reload(&mut self) -> bool {
        let read = read_configuration(&self.path);
        let now = read.as_ref().map(Vec::clone).map_err(io::Error::kind);
        if self.last.as_ref() == Some(&now) {
            return false;
        }
        self.last = Some(now);
        self.problems.clear();
        let file = self.path.display();
        match read {
            Err(error) => self.problems.push(format!("read {file}: {error}")),
            Ok(bytes) => match read_config(&bytes, &self.prefix) {
                Err(error) => {
                    let remedy = error.remedy().unwrap_or_default();
                    let problem = format!("{file}: {}; {remedy}", with_causes(&error));
                    self.problems.push(problem);
                }
                Ok(config) => self.take(config),
            },
        }
        for problem in &self.problems {
            warn!(
                problem,
                "configuration is wrong; what was good before stays in force"
            );
        }
        true
    }

    /// Takes the pools of a file. While one of them is refused, no pool that was good before goes:
    /// the refused one stays as it was, and so does any that the file does not have any more, because
    /// it may be the one whose name was lost.
    fn take(&mut self, config: Config) {
        for note in &config.notes {
            warn!(note = %note, remedy = note.remedy, "configuration may surprise");
        }
        let file = self.path.display();
        let mut pools = Vec::new();
        for pool in config.pools {
            if self.delivery == Delivery::Cdi && !api::cdi::is_vendor(&pool.resource) {
                let problem = format!(
                    "{file}: {}: with CDI a prefix begins with a letter; set resourcePrefix",
                    pool.resource
                );
                self.problems.push(problem);
            } else {
                pools.push(pool);
            }
        }
        for refused in &config.refused {
            let problems = refused.problems.iter();
            let problems = problems.map(|problem| format!("{file}: {problem}; {}", problem.remedy));
            self.problems.extend(problems);
            let before = self.pools.iter().find(|pool| {
                refused.resource.as_deref() == Some(pool.resource.as_str())
                    && pools.iter().all(|new: &Pool| new.resource != pool.resource)
            });
            if let Some(before) = before {
                let at = refused.index.min(pools.len());
                pools.insert(at, before.clone());
            }
        }
        if !self.problems.is_empty() {
            let named: BTreeSet<&ResourceName> = pools.iter().map(|pool| &pool.resource).collect();
            let lost = self.pools.iter();
            let lost = lost.filter(|pool| !named.contains(&pool.resource));
            let lost: Vec<Pool> = lost.cloned().collect();
            pools.extend(lost);
        }
        info!(pools = pools.len(), "configuration read");
        self.pools = Arc::new(pools);
    }
}

/// Reads a file of the device plugin's configuration, and no more of it than one can have. What is no file
/// is refused: a FIFO would keep whoever reads it waiting for whoever writes to it.
pub fn read_configuration(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(CONFIGURATION_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_good_stays_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let delivery = Delivery::Nodes;
        let mut config = Configuration::new(path.clone(), "intel.com".to_owned(), delivery);
        let mut after = |text: Option<&str>| {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            assert!(config.reload() && !config.reload());
            let names = config.pools.iter().map(|pool| pool.resource.name());
            (
                names.collect::<Vec<_>>().join(" "),
                config.problems.join("\n"),
            )
        };
        let two = r#"{"resourceList": [{"resourceName": "a", "selectors": {}}, {"resourceName": "b", "selectors": {}}]}"#;
        assert_eq!(after(Some(two)), ("a b".to_owned(), String::new()));
        let (pools, problems) = after(Some("{"));
        assert_eq!(pools, "a b");
        assert!(problems.contains("line 1, column 1: no JSON"), "{problems}");
        let one_bad = r#"{"resourceList": [{"resourceName": "a", "selectors": 5}, {"resourceName": "c", "selectors": {}}]}"#;
        let (pools, problems) = after(Some(one_bad));
        assert_eq!(pools, "a c b");
        assert!(
            problems.contains("resourceList[0].selectors: it is a number"),
            "{problems}"
        );
        let (pools, problems) = after(None);
        assert_eq!(pools, "a c b");
        assert!(problems.starts_with("read "), "{problems}");
        assert_eq!(
            after(Some(r#"{"resourceList": []}"#)),
            (String::new(), String::new())
        );
    }

    /// Every pool that `api` refuses, alone in a file after a good one.
    #[test]
    fn no_malformed_pool_takes_away_what_was_offered() {
        let wrong = include_str!("../../api/corpus/deviceplugin/wrong.json");
        let wrong: serde_json::Value = serde_json::from_str(wrong).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let mut tried = 0;
        for pool in wrong["resourceList"].as_array().unwrap() {
            if pool["resourceName"] == "good" {
                continue;
            }
            let delivery = Delivery::Nodes;
            let mut config = Configuration::new(path.clone(), "intel.com".to_owned(), delivery);
            std::fs::write(
                &path,
                r#"{"resourceList": [{"resourceName": "a", "selectors": {}}, {"resourceName": "b", "selectors": {}}]}"#,
            )
            .unwrap();
            config.reload();
            let good = Arc::clone(&config.pools);
            let text = serde_json::json!({"resourceList": [pool]}).to_string();
            std::fs::write(&path, &text).unwrap();
            assert!(config.reload());
            assert_eq!(config.pools, good, "{text}");
            let problem = config.problems.first().unwrap();
            assert!(problem.contains(": resourceList[0]"), "{text}: {problem}");
            tried += 1;
        }
        assert!(tried > 20);
    }
}
