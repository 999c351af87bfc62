//! The network configuration on stdin, as far as all plugins share it.

use model::{Code, Explain, IfName};

use super::environment::{Command, ContainerId, is_identifier};
use super::error::ErrorNumber;
use super::json::{Fields, Json};
use super::result::{AddResult, ResultError};
use super::version::CniVersion;
use crate::field::FieldProblem;

/// Most bytes of a configuration: a list of 5,000 attachments for GC is half of it.
pub const STDIN_LIMIT: usize = 1024 * 1024;

/// A network configuration whose own fields are not looked at yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Name of the network.
    pub name: String,
    /// Version that the result is to be in.
    pub version: CniVersion,
    pub(super) json: Json,
}

/// One interface of one container, as GC names those that are in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The container.
    pub container: ContainerId,
    /// Its interface.
    pub interface: IfName,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It has more than [`STDIN_LIMIT`] bytes.
    #[error("the network config has more than {STDIN_LIMIT} bytes")]
    TooLong,
    /// It is no JSON object.
    #[error("error unmarshall network config")]
    NotJson(#[source] serde_json::Error),
    /// It is JSON, but no object.
    #[error("error unmarshall network config: it is no JSON object")]
    NotAnObject,
    /// The version is no text.
    #[error("error unmarshall network config: cniVersion is no text")]
    VersionNotText,
    /// It has no name.
    #[error("missing network name")]
    NoName,
    /// Its name cannot be one.
    #[error("invalid characters found in network name {0:?}")]
    BadName(String),
    /// Its version is not spoken.
    #[error("incompatible CNI versions; config is {:?}, plugin supports [{}]", .0, CniVersion::ALL.map(CniVersion::as_str).join(" "))]
    Version(String),
    /// Its version has no such command.
    #[error("config version does not allow {command}: it is {version}")]
    CommandNotInVersion {
        /// The command.
        command: Command,
        /// The version.
        version: CniVersion,
    },
    /// Fields are wrong: all that are.
    #[error("invalid network config: {}", List(.0))]
    Fields(Vec<FieldProblem>),
}

impl ConfigError {
    /// Returns the error's number.
    #[must_use]
    pub fn number(&self) -> ErrorNumber {
        match self {
            Self::NotJson(_) | Self::NotAnObject | Self::VersionNotText => ErrorNumber::DECODE,
            Self::Version(_) | Self::CommandNotInVersion { .. } => {
                ErrorNumber::INCOMPATIBLE_VERSION
            }
            Self::TooLong | Self::NoName | Self::BadName(_) | Self::Fields(_) => {
                ErrorNumber::BAD_CONFIG
            }
        }
    }
}

impl Explain for ConfigError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::TooLong => "config-too-long",
            Self::NotJson(_) | Self::NotAnObject | Self::VersionNotText => "config-not-json",
            Self::NoName | Self::BadName(_) => "bad-network-name",
            Self::Version(_) | Self::CommandNotInVersion { .. } => "incompatible-cni-version",
            Self::Fields(_) => "bad-config",
        })
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::TooLong => Some("make the network's configuration smaller".to_owned()),
            Self::NotJson(_) | Self::NotAnObject | Self::VersionNotText => {
                Some("correct spec.config of the NetworkAttachmentDefinition, or the file in the CNI directory".to_owned())
            }
            Self::NoName | Self::BadName(_) => {
                Some("give the network a name of letters, digits, '_', '.' and '-'".to_owned())
            }
            Self::Version(_) => Some(format!("set cniVersion to {}", CniVersion::NEWEST)),
            Self::CommandNotInVersion { command, .. } => Some(format!(
                "set cniVersion to {}",
                if *command == Command::Check { CniVersion::V0_4_0 } else { CniVersion::V1_1_0 }
            )),
            Self::Fields(problems) => {
                let mut remedies: Vec<&str> = problems.iter().map(|p| p.remedy.as_str()).collect();
                remedies.dedup();
                Some(remedies.join("; "))
            }
        }
    }
}

struct List<'a>(&'a [FieldProblem]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl NetworkConfig {
    /// Reads what came on stdin, and sees that its version has `command`.
    pub fn parse(bytes: &[u8], command: Command) -> Result<Self, ConfigError> {
        if bytes.len() > STDIN_LIMIT {
            return Err(ConfigError::TooLong);
        }
        let json: Json = serde_json::from_slice(bytes).map_err(ConfigError::NotJson)?;
        if !matches!(json, Json::Object(_)) {
            return Err(ConfigError::NotAnObject);
        }
        let version = match json.get("cniVersion") {
            None => CniVersion::V0_1_0,
            Some(Json::Text(text)) => text
                .parse()
                .map_err(|_| ConfigError::Version(shortened(text)))?,
            Some(_) => return Err(ConfigError::VersionNotText),
        };
        let name = match json.get("name") {
            Some(Json::Text(name)) if !name.is_empty() => name.clone(),
            _ => return Err(ConfigError::NoName),
        };
        if !is_identifier(&name) {
            return Err(ConfigError::BadName(shortened(&name)));
        }
        let first = match command {
            Command::Add | Command::Del | Command::Version => CniVersion::V0_1_0,
            Command::Check => CniVersion::V0_4_0,
            Command::Status | Command::Gc => CniVersion::V1_1_0,
        };
        if version < first {
            return Err(ConfigError::CommandNotInVersion { command, version });
        }
        Ok(Self {
            name,
            version,
            json,
        })
    }

    /// Returns the file name of the IPAM plugin; `None` when no addresses are asked for.
    pub fn ipam(&self) -> Result<Option<&str>, ConfigError> {
        let mut fields = Fields::of(&self.json);
        let ipam = fields.inner_text("ipam", "type");
        if let Some(name) = ipam {
            let plain = !name.contains(['/', '\0']) && name != "." && name != "..";
            if !plain || name.len() > 255 {
                fields.problem(
                    "ipam",
                    format!("type {:?} is no file name", shortened(name)),
                    "name an IPAM plugin such as host-local",
                );
            }
        }
        problems(fields.problems).map(|()| ipam)
    }

    /// Do both get their addresses from the same place: for the same network, with the same `ipam`?
    #[must_use]
    pub fn shares_addresses_with(&self, other: &Self) -> bool {
        let ipam = |config: &Self| config.json.get("ipam").map(Json::to_value);
        self.name == other.name && ipam(self) == ipam(other)
    }

    /// Returns `deviceID` as it is; `None` when absent or no text.
    #[must_use]
    pub fn device_id(&self) -> Option<&str> {
        Fields::of(&self.json).text("deviceID")
    }

    /// Reads `prevResult`; `None` when there is none.
    pub fn prev_result(&self) -> Result<Option<AddResult>, ResultError> {
        let found = self.json.get("prevResult");
        found
            .map(|json| AddResult::from_value(json.to_value(), self.version))
            .transpose()
    }

    /// Returns the attachments that GC must leave alone; an error when the list is not there,
    /// because an absent list must not read as "none is in use".
    pub fn valid_attachments(&self) -> Result<Vec<Attachment>, ConfigError> {
        const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let mut fields = Fields::of(&self.json);
        let Some(key) = KEYS.into_iter().find(|key| self.json.has(key)) else {
            fields.problem(
                KEYS[0],
                "it is missing".to_owned(),
                "let the runtime say which attachments are valid",
            );
            return Err(ConfigError::Fields(fields.problems));
        };
        let attachments = match self.json.get(key) {
            None => Some(Vec::new()),
            Some(Json::List(items)) => items.iter().map(attachment).collect(),
            Some(_) => None,
        };
        attachments.ok_or_else(|| {
            fields.problem(
                key,
                "it is no list of attachments".to_owned(),
                "write [{\"containerID\": …, \"ifname\": …}]",
            );
            ConfigError::Fields(fields.problems)
        })
    }
}

fn attachment(json: &Json) -> Option<Attachment> {
    let mut fields = Fields::of(json);
    Some(Attachment {
        container: fields.text("containerID")?.parse().ok()?,
        interface: fields.text("ifname")?.parse().ok()?,
    })
}

pub(super) fn problems(problems: Vec<FieldProblem>) -> Result<(), ConfigError> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ConfigError::Fields(problems))
    }
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
