//! Versions of the CNI specification.

use std::fmt;
use std::str::FromStr;

use model::ParseError;
use serde_json::json;

/// A version of the specification that a configuration or a result is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CniVersion {
    /// 0.1.0, also meant by an empty or absent version.
    V0_1_0,
    /// 0.2.0.
    V0_2_0,
    /// 0.3.0, whose results everybody writes as those of 0.3.1.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0, the first with CHECK.
    V0_4_0,
    /// 1.0.0.
    V1_0_0,
    /// 1.1.0, the first with STATUS and GC.
    V1_1_0,
}

impl CniVersion {
    /// All versions that virtfn speaks, the oldest first: all that there are.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest version.
    pub const NEWEST: Self = Self::V1_1_0;

    /// Returns the version as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for CniVersion {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| ParseError::new(text, "a CNI version from 0.1.0 to 1.1.0"))
    }
}

/// Returns the answer to VERSION.
#[must_use]
pub fn versions_json() -> String {
    json!({
        "cniVersion": CniVersion::NEWEST.as_str(),
        "supportedVersions": CniVersion::ALL.map(CniVersion::as_str),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_version_is_the_first() {
        assert_eq!("".parse::<CniVersion>().unwrap(), CniVersion::V0_1_0);
        for version in CniVersion::ALL {
            assert_eq!(version.to_string().parse::<CniVersion>().unwrap(), version);
        }
        for bad in ["1.2.0", "1.1", "v1.0.0", "1.0.0 ", "0.3.2"] {
            assert!(bad.parse::<CniVersion>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_answer_to_version_is_libcnis() {
        assert_eq!(
            versions_json(),
            r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }
}
