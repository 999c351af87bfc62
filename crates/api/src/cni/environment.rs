//! The environment of a CNI call.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use model::{Code, Explain, IfName, ParseError};

use super::error::ErrorNumber;

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container to a network.
    Add,
    /// Take it off again.
    Del,
    /// See whether it is as ADD left it.
    Check,
    /// Could an ADD be served now?
    Status,
    /// Take back what no container has any more.
    Gc,
    /// Which versions are spoken?
    Version,
}

impl Command {
    const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Status,
        Self::Gc,
        Self::Version,
    ];

    /// Returns the command as `CNI_COMMAND` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    fn requires(self, variable: &str) -> bool {
        match variable {
            "CNI_CONTAINERID" | "CNI_IFNAME" => matches!(self, Self::Add | Self::Del | Self::Check),
            "CNI_NETNS" => matches!(self, Self::Add | Self::Check),
            "CNI_PATH" => self != Self::Version,
            _ => false,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Id of a container: letters, digits, `_`, `.` and `-`, beginning with a letter or a digit.
///
/// It is part of a file name together with an interface name, so it has at most 239 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Returns the id as text; it is one safe path component.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if is_identifier(text) && text.len() <= 239 {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(
                text,
                "a container id (letters, digits, '_', '.' and '-', at most 239)",
            ))
        }
    }
}

/// Is `text` what the specification allows as the name of a network or the id of a container?
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Directories in which plugins are looked for, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchPath(pub Vec<PathBuf>);

/// The environment of a call. What a command does not require may be absent with any command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The command.
    pub command: Command,
    /// `CNI_CONTAINERID`.
    pub container: Option<ContainerId>,
    /// `CNI_NETNS`; `None` when empty.
    pub netns: Option<String>,
    /// `CNI_IFNAME`.
    pub interface: Option<IfName>,
    /// `CNI_ARGS` as it is, `""` when absent; see [`super::Arguments`].
    pub args: String,
    /// `CNI_PATH`.
    pub path: SearchPath,
    /// May the container's namespace be the plugin's own (`CNI_NETNS_OVERRIDE`)?
    pub allows_own_netns: bool,
}

/// The environment is not that of a CNI call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// The command is none.
    #[error("unknown CNI_COMMAND: {0}")]
    UnknownCommand(String),
    /// Variables that the command requires are not there.
    #[error("required env variables [{}] missing", .0.join(","))]
    Missing(Vec<&'static str>),
    /// A variable is not text.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    /// The container id is none.
    #[error("invalid CNI_CONTAINERID")]
    Container(#[source] ParseError),
    /// The interface name is none.
    #[error("invalid CNI_IFNAME")]
    Interface(#[source] ParseError),
}

impl EnvironmentError {
    /// Returns the error's number.
    #[must_use]
    pub fn number(&self) -> ErrorNumber {
        ErrorNumber::BAD_ENVIRONMENT
    }
}

impl Explain for EnvironmentError {
    fn code(&self) -> Code {
        Code::new("bad-environment")
    }

    fn remedy(&self) -> Option<String> {
        Some(
            match self {
                Self::UnknownCommand(_) | Self::Missing(_) => {
                    "this is a CNI plugin, which a container runtime calls; to give a VF to a namespace by hand use `virtfn attach`"
                }
                Self::NotText(_) | Self::Container(_) | Self::Interface(_) => {
                    "correct it in the runtime or in the pod's network annotation"
                }
            }
            .to_owned(),
        )
    }
}

impl Environment {
    /// Reads the environment; `variable` returns the value of a variable.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, EnvironmentError> {
        let text = |name: &'static str| match variable(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) if text.is_empty() => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(EnvironmentError::NotText(name)),
        };
        let Some(word) = text("CNI_COMMAND")? else {
            return Err(EnvironmentError::Missing(vec!["CNI_COMMAND"]));
        };
        let command = Command::ALL
            .into_iter()
            .find(|command| command.as_str() == word)
            .ok_or_else(|| EnvironmentError::UnknownCommand(word.chars().take(80).collect()))?;
        let container = text("CNI_CONTAINERID")?;
        let netns = text("CNI_NETNS")?;
        let interface = text("CNI_IFNAME")?;
        let path = text("CNI_PATH")?;
        let missing: Vec<&'static str> = [
            ("CNI_CONTAINERID", container.is_none()),
            ("CNI_NETNS", netns.is_none()),
            ("CNI_IFNAME", interface.is_none()),
            ("CNI_PATH", path.is_none()),
        ]
        .into_iter()
        .filter(|(name, is_missing)| *is_missing && command.requires(name))
        .map(|(name, _)| name)
        .collect();
        if !missing.is_empty() {
            return Err(EnvironmentError::Missing(missing));
        }
        // Values that a command does not use are not judged, as the Go library does not.
        let uses = command.requires("CNI_CONTAINERID");
        let parsed_container = container.filter(|_| uses).map(|text| text.parse());
        let parsed_interface = interface.filter(|_| uses).map(|text| text.parse());
        let dirs = path.as_deref().unwrap_or_default();
        Ok(Self {
            command,
            container: parsed_container
                .transpose()
                .map_err(EnvironmentError::Container)?,
            netns,
            interface: parsed_interface
                .transpose()
                .map_err(EnvironmentError::Interface)?,
            args: text("CNI_ARGS")?.unwrap_or_default(),
            path: SearchPath(
                dirs.split(':')
                    .filter(|dir| !dir.is_empty())
                    .map(PathBuf::from)
                    .collect(),
            ),
            allows_own_netns: text("CNI_NETNS_OVERRIDE")?
                .is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        Environment::read(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    const ADD: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/blue"),
        ("CNI_IFNAME", "net1"),
        ("CNI_PATH", "/opt/cni/bin::/usr/lib/cni"),
    ];

    #[test]
    fn an_add_is_read() {
        let environment = read(&ADD).unwrap();
        assert_eq!(environment.command, Command::Add);
        assert_eq!(environment.path.0.len(), 2);
        assert_eq!(environment.netns.as_deref(), Some("/run/netns/blue"));
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let error = |pairs: &[_]| read(pairs).unwrap_err().to_string();
        assert_eq!(
            error(&ADD[..1]),
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
        );
        assert_eq!(error(&[]), "required env variables [CNI_COMMAND] missing");
        assert_eq!(error(&[("CNI_COMMAND", "add")]), "unknown CNI_COMMAND: add");
    }

    #[test]
    fn each_command_asks_only_for_what_it_uses() {
        assert!(read(&[("CNI_COMMAND", "VERSION")]).is_ok());
        assert!(read(&[("CNI_COMMAND", "STATUS"), ADD[4]]).is_ok());
        assert!(read(&[("CNI_COMMAND", "GC"), ADD[4], ("CNI_CONTAINERID", "../x")]).is_ok());
        let del = [
            ("CNI_COMMAND", "DEL"),
            ADD[1],
            ("CNI_NETNS", ""),
            ADD[3],
            ADD[4],
        ];
        assert_eq!(read(&del).unwrap().netns, None);
        assert!(read(&[("CNI_COMMAND", "CHECK"), ADD[1], ADD[3], ADD[4]]).is_err());
    }

    #[test]
    fn tricks_with_paths_are_refused() {
        for id in ["../x", "a/b", ".", "-a", "a b", "é", &"x".repeat(240)] {
            let mut add = ADD;
            add[1].1 = id;
            assert!(read(&add).is_err(), "{id:?} was accepted");
        }
        for name in ["../x", "a/b", ".", "..", "a b", "a:1", "a234567890123456"] {
            let mut add = ADD;
            add[3].1 = name;
            assert!(read(&add).is_err(), "{name:?} was accepted");
        }
    }
}
