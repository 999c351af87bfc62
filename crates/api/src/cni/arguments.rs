//! `CNI_ARGS`: `K=V;K=V`, as the Go library reads it for the SR-IOV plugin.

use model::{Code, Explain};

/// What `CNI_ARGS` says to the SR-IOV plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `MAC`, which beats the configuration's `mac`.
    pub mac: Option<String>,
}

/// `CNI_ARGS` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentsError {
    /// A part is not one key and one value.
    #[error("CNI_ARGS: {0:?} is not one KEY=VALUE")]
    NotAPair(String),
    /// A key that the plugin does not know, and `IgnoreUnknown=1` is not there.
    #[error("CNI_ARGS: unknown args {}", .0.join(", "))]
    Unknown(Vec<String>),
}

impl Explain for ArgumentsError {
    fn code(&self) -> Code {
        Code::new("bad-cni-args")
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NotAPair(_) => "write CNI_ARGS as KEY=VALUE;KEY=VALUE".to_owned(),
            Self::Unknown(_) => "add IgnoreUnknown=1 to CNI_ARGS".to_owned(),
        })
    }
}

/// Most of a bad text that an error quotes, in characters.
const QUOTED: usize = 80;

impl Arguments {
    /// Reads the variable; empty is none at all.
    pub fn parse(text: &str) -> Result<Self, ArgumentsError> {
        let mut arguments = Self::default();
        let mut unknown = Vec::new();
        let mut ignores_unknown = false;
        if text.is_empty() {
            return Ok(arguments);
        }
        for pair in text.split(';') {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| ArgumentsError::NotAPair(quoted(pair)))?;
            match key {
                "MAC" => arguments.mac = Some(value.to_owned()).filter(|mac| !mac.is_empty()),
                "IgnoreUnknown" => {
                    ignores_unknown = match value.to_ascii_lowercase().as_str() {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(ArgumentsError::NotAPair(quoted(pair))),
                    }
                }
                _ => unknown.push(quoted(pair)),
            }
        }
        if unknown.is_empty() || ignores_unknown {
            Ok(arguments)
        } else {
            unknown.truncate(4);
            Err(ArgumentsError::Unknown(unknown))
        }
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_arguments_are_read() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=;MAC=02:00:00:00:00:01";
        let arguments = Arguments::parse(text).unwrap();
        assert_eq!(arguments.mac.as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!(Arguments::parse("").unwrap(), Arguments::default());
        assert_eq!(Arguments::parse("MAC=").unwrap().mac, None);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in [
            "MAC",
            "MAC=a=b",
            "MAC=a;",
            ";",
            "K8S_POD_NAME=x",
            "mac=02:00:00:00:00:01",
            "IgnoreUnknown=x",
        ] {
            assert!(Arguments::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Arguments::parse("X=1;IgnoreUnknown=TRUE").is_ok());
    }
}
