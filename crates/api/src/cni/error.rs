//! The error object that a plugin prints on stdout.

use serde::{Deserialize, Serialize};

use super::version::CniVersion;

/// Number of an error, as the CNI specification gives them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorNumber(pub u32);

impl ErrorNumber {
    /// The version of the configuration is not one of the plugin's.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A field of the configuration is one that the plugin cannot honour.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// An environment variable is missing or wrong.
    pub const BAD_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub const IO: Self = Self(5);
    /// Something is not the JSON that it should be.
    pub const DECODE: Self = Self(6);
    /// The configuration is JSON, but makes no sense.
    pub const BAD_CONFIG: Self = Self(7);
    /// The network namespace is not one, or is the plugin's own (a number of the Go library).
    pub const BAD_NETNS: Self = Self(8);
    /// Later it may work.
    pub const TRY_AGAIN: Self = Self(11);
    /// STATUS: the plugin cannot serve an ADD.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// Anything else; the only one that upstream's SR-IOV plugins give.
    pub const INTERNAL: Self = Self(999);
}

/// An error as it is printed.
///
/// `details` holds virtfn's stable code, a colon, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// Version of the configuration; the Go library leaves it out although the specification asks
    /// for it.
    #[serde(
        rename = "cniVersion",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub cni_version: Option<String>,
    /// Number.
    pub code: ErrorNumber,
    /// What failed, with its causes.
    #[serde(default)]
    pub msg: String,
    /// More.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl ErrorObject {
    /// Makes the object.
    #[must_use]
    pub fn new(version: CniVersion, code: ErrorNumber, msg: String, details: String) -> Self {
        Self {
            cni_version: Some(version.to_string()),
            code,
            msg,
            details,
        }
    }

    /// Reads what a delegate printed; `None` when it is no error object.
    #[must_use]
    pub fn parse(stdout: &[u8]) -> Option<Self> {
        serde_json::from_slice(stdout).ok()
    }

    /// Writes it as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_object() {
        let error = ErrorObject::new(
            CniVersion::V1_0_0,
            ErrorNumber::TRY_AGAIN,
            "VF 0000:01:10.0 is in use".to_owned(),
            "vf-in-use: take another".to_owned(),
        );
        assert_eq!(
            error.to_json(),
            r#"{"cniVersion":"1.0.0","code":11,"msg":"VF 0000:01:10.0 is in use","details":"vf-in-use: take another"}"#
        );
        assert_eq!(ErrorObject::parse(error.to_json().as_bytes()), Some(error));
        assert_eq!(ErrorObject::parse(b"panic: x"), None);
    }
}
