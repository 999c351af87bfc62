//! What VFs had that no policy says, as a file: see [`policy::keep`].
//!
//! ```text
//! # virtfn-persist: …
//! {"version": 1, "pfs": {
//!   "0000:3b:00.0": {
//!     "0": {"mac":"02:00:00:00:00:01","vlan":{"id":"100","pcp":"0","proto":"802.1q"}}
//! }}}
//! ```
//!
//! One VF is one line, so that people can read it and change a VLAN in it. It is JSON behind lines
//! that begin with `#`.

use std::collections::BTreeMap;

use model::{Code, Explain, PciAddress, VfIndex, VfState};
use policy::KeptVfs;
use serde::{Deserialize, Serialize};

use super::PersistError;
use crate::files::{Entry, Files, refused};
use crate::root::{AccessError, HostRoot};

const VERSION: u32 = 1;

/// The settings of VFs that are kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VfSettingsError {
    /// The file cannot be read.
    #[error("read the settings of VFs that are kept")]
    Read {
        /// Which file, and what the kernel said.
        source: AccessError,
    },
    /// The file is damaged.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        source: serde_json::Error,
    },
    /// A later virtfn wrote the file.
    #[error("{path} is of version {version}, which this virtfn does not know")]
    Later {
        /// The file.
        path: String,
        /// Its version.
        version: u32,
    },
}

impl Explain for VfSettingsError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::Read { .. } => "vf-settings-unreadable",
            Self::Damaged { .. } => "vf-settings-damaged",
            Self::Later { .. } => "vf-settings-unknown-version",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Read { source } => format!("see that root can read {}", source.path.display()),
            Self::Damaged { .. } | Self::Later { .. } => {
                "VFs come without the MACs and VLANs that they had; give them to the VFs again, and \
                 run `virtfn apply --persist` with the policies"
                    .to_owned()
            }
        })
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    pfs: KeptVfs,
}

/// Reads the settings that are kept in the file at `path` on the host; none when there is no file.
pub fn read_vf_settings(root: &HostRoot, path: &str) -> Result<KeptVfs, VfSettingsError> {
    let entry = Files::new(root).entry(path);
    match entry.map_err(|source| VfSettingsError::Read { source })? {
        Entry::Absent => Ok(KeptVfs::new()),
        Entry::File(content) => parse(path, &content),
        Entry::Link(_) | Entry::Dir | Entry::Other => Err(VfSettingsError::Read {
            source: refused("read", path, "it is no file"),
        }),
    }
}

/// Reads the content of a file.
fn parse(path: &str, content: &[u8]) -> Result<KeptVfs, VfSettingsError> {
    let damaged = |source| VfSettingsError::Damaged {
        path: path.to_owned(),
        source,
    };
    let mut rest = content;
    while rest.first() == Some(&b'#') {
        let end = rest.iter().position(|byte| *byte == b'\n');
        rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or_default();
    }
    let Version { version } = serde_json::from_slice(rest).map_err(damaged)?;
    if version != VERSION {
        return Err(VfSettingsError::Later {
            path: path.to_owned(),
            version,
        });
    }
    let stored: Stored = serde_json::from_slice(rest).map_err(damaged)?;
    Ok(stored.pfs)
}

/// Writes settings behind `head`.
pub(super) fn text(head: &str, kept: &KeptVfs) -> Result<String, PersistError> {
    let line = |state: &VfState| serde_json::to_string(state);
    let of_pf = |(pf, vfs): (&PciAddress, &BTreeMap<VfIndex, VfState>)| {
        let lines = vfs
            .iter()
            .map(|(index, state)| Ok(format!("    \"{}\": {}", index.0, line(state)?)));
        let lines = lines.collect::<serde_json::Result<Vec<_>>>()?.join(",\n");
        Ok(format!("  \"{pf}\": {{\n{lines}\n  }}"))
    };
    let pfs = kept.iter().map(of_pf);
    let pfs = pfs.collect::<serde_json::Result<Vec<_>>>();
    let pfs = pfs.map_err(|error| PersistError::Look {
        source: AccessError::new("write", "settings of VFs", std::io::Error::other(error)),
    })?;
    let body = pfs.join(",\n");
    let end = if body.is_empty() { "" } else { "\n" };
    Ok(format!(
        "{head}{{\"version\": {VERSION}, \"pfs\": {{{end}{body}{end}}}}}\n"
    ))
}

/// Reads bytes as settings: what is read is read the same when it is written again.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(kept) = parse("file", bytes) {
        let text = text("# x\n", &kept).unwrap_or_default();
        let again = parse("file", text.as_bytes()).ok();
        assert_eq!(again, Some(kept), "the settings did not survive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Pcp, VlanProto, VlanTag};

    #[test]
    fn settings_are_read_as_they_were_written() {
        let tag = VlanTag {
            id: "100".parse().unwrap(),
            pcp: Pcp::new(3).unwrap(),
            proto: VlanProto::Dot1q,
        };
        let state = VfState {
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            vlan: Some(Some(tag)),
            max_rate_mbps: Some(500),
            spoof_check: Some(true),
            ..VfState::default()
        };
        let none = VfState {
            vlan: Some(None),
            ..VfState::default()
        };
        let vfs = BTreeMap::from([(VfIndex(0), state), (VfIndex(10), none)]);
        for kept in [
            KeptVfs::new(),
            KeptVfs::from([("0000:3b:00.0".parse().unwrap(), vfs)]),
        ] {
            let text = text("# head\n# more\n", &kept).unwrap();
            assert_eq!(parse("x", text.as_bytes()).unwrap(), kept, "{text}");
        }
    }

    #[test]
    fn damage_and_later_versions_are_told_apart() {
        let code = |text: &str| parse("x", text.as_bytes()).unwrap_err().code().as_str();
        assert_eq!(code(""), "vf-settings-damaged");
        assert_eq!(code("# only a head"), "vf-settings-damaged");
        assert_eq!(code("{\"version\": 1, \"pfs\": {"), "vf-settings-damaged");
        assert_eq!(code("{\"version\": 2}"), "vf-settings-unknown-version");
    }
}
