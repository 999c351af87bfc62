//! Others that make VFs at boot: two managers of one PF fight, and the last one wins.
//!
//! This only looks, and says what it found; nothing is changed. It reads the formats no further
//! than to see who sets a number of VFs and, if that is written plainly, of which PF. A rival for a
//! PF that is surely not ours is left out; one that cannot be told is named with "perhaps".

use std::fmt;

use model::{Code, Explain, IfName, PciAddress};

use super::KeptPf;
use super::render::MARKER;
use crate::files::{Entry, Files};
use crate::root::HostRoot;

#[cfg(test)]
mod tests;

/// Most conflicts that are told: nobody reads more.
const MOST: usize = 64;

/// Somebody else who makes VFs at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub rival: Rival,
    /// In which file it is said.
    pub file: String,
    /// On which line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// For which PF; `None` when that cannot be told.
    pub pf: Option<PciAddress>,
}

/// Who makes VFs at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// The operator's `sriov-config.service`.
    Operator,
    /// systemd-udevd, by `SR-IOVVirtualFunctions=` or an `[SR-IOV]` section.
    Systemd,
    /// NetworkManager, by the `sriov` setting of a connection or `sriov-num-vfs` of a device.
    NetworkManager,
    /// The network scripts of RHEL, by `SRIOV_TOTAL_VFS`.
    Ifcfg,
    /// netplan, by `virtual-function-count`.
    Netplan,
    /// A driver, by its `max_vfs` parameter.
    ModuleParameter,
    /// A rule, a service or a script that writes `sriov_numvfs`.
    Script,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.rival {
            Rival::Operator => "the SR-IOV operator's boot service configures PFs too",
            Rival::Systemd => "systemd-udevd makes VFs too",
            Rival::NetworkManager => "NetworkManager makes VFs too",
            Rival::Ifcfg => "the network scripts make VFs too",
            Rival::Netplan => "netplan makes VFs too",
            Rival::ModuleParameter => "a driver makes VFs as it loads",
            Rival::Script => "sriov_numvfs is written here too",
        };
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        match (self.pf, self.rival) {
            (Some(pf), _) => write!(f, ": {who}, for PF {pf}"),
            (None, Rival::Operator) => write!(f, ": {who}"),
            (None, _) => write!(f, ": {who}, perhaps for a PF that virtfn keeps"),
        }
    }
}

impl std::error::Error for Conflict {}

impl Explain for Conflict {
    fn code(&self) -> Code {
        Code::new("another-manager-of-vfs")
    }

    fn remedy(&self) -> Option<String> {
        Some(match self.rival {
            Rival::Operator => "let one of the two do it: systemctl disable sriov-config.service \
                 sriov-config-post-network.service"
                .to_owned(),
            Rival::Systemd
            | Rival::NetworkManager
            | Rival::Ifcfg
            | Rival::Netplan
            | Rival::ModuleParameter
            | Rival::Script => format!(
                "let one of the two do it: remove the setting from {}, or say externallyManaged in \
                 the policy",
                self.file
            ),
        })
    }
}

/// Looks for others that make VFs of `pfs` at boot.
///
/// Files that cannot be read are passed over: whoever starts at boot reads them as root.
#[must_use]
pub fn conflicts(root: &HostRoot, pfs: &[KeptPf]) -> Vec<Conflict> {
    let files = Files::new(root);
    let mut found = operator(&files);
    for place in PLACES {
        for dir in place.dirs {
            for name in files.list(dir).unwrap_or_default() {
                if !place.takes(&name) {
                    continue;
                }
                let file = format!("{dir}/{name}");
                let Ok(Entry::File(content)) = files.entry(&file) else {
                    continue;
                };
                let text = String::from_utf8_lossy(&content);
                if text.starts_with(MARKER) {
                    continue;
                }
                found.extend((place.claims)(&text).into_iter().filter_map(|claim| {
                    Some(Conflict {
                        rival: place.rival,
                        file: file.clone(),
                        line: claim.line,
                        pf: claim.about.of(pfs)?,
                    })
                }));
            }
        }
    }
    found.truncate(MOST);
    found
}

/// Upstream's service counts when it is switched on.
fn operator(files: &Files<'_>) -> Vec<Conflict> {
    let links = ["sriov-config.service", "sriov-config-post-network.service"]
        .map(|unit| format!("/etc/systemd/system/multi-user.target.wants/{unit}"));
    let is_on = |link: &String| matches!(files.entry(link), Ok(Entry::Link(_) | Entry::File(_)));
    let on = links.into_iter().filter(is_on).map(|file| Conflict {
        rival: Rival::Operator,
        file,
        line: 0,
        pf: None,
    });
    on.collect()
}

/// A kind of file, where it is, and how it is read.
struct Place {
    rival: Rival,
    dirs: &'static [&'static str],
    /// Endings of its names, or whole names.
    names: &'static [&'static str],
    claims: fn(&str) -> Vec<Claim>,
}

impl Place {
    fn takes(&self, name: &str) -> bool {
        match self.rival {
            Rival::Ifcfg => name.starts_with("ifcfg-"),
            _ => self.names.iter().any(|ending| name.ends_with(ending)),
        }
    }
}

const PLACES: &[Place] = &[
    Place {
        rival: Rival::Systemd,
        dirs: &[
            "/etc/systemd/network",
            "/run/systemd/network",
            "/usr/local/lib/systemd/network",
            "/usr/lib/systemd/network",
        ],
        names: &[".link", ".network"],
        claims: systemd,
    },
    Place {
        rival: Rival::NetworkManager,
        dirs: &[
            "/etc/NetworkManager",
            "/etc/NetworkManager/conf.d",
            "/etc/NetworkManager/system-connections",
            "/run/NetworkManager/system-connections",
            "/usr/lib/NetworkManager/conf.d",
            "/usr/lib/NetworkManager/system-connections",
        ],
        names: &[".nmconnection", ".conf"],
        claims: network_manager,
    },
    Place {
        rival: Rival::Ifcfg,
        dirs: &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"],
        names: &[],
        claims: ifcfg,
    },
    Place {
        rival: Rival::Netplan,
        dirs: &["/etc/netplan", "/run/netplan", "/usr/lib/netplan"],
        names: &[".yaml"],
        claims: netplan,
    },
    Place {
        rival: Rival::ModuleParameter,
        dirs: &["/etc/modprobe.d", "/usr/lib/modprobe.d"],
        names: &[".conf"],
        claims: |text| mentions(text, "max_vfs="),
    },
    Place {
        rival: Rival::Script,
        dirs: &[
            "/etc/udev/rules.d",
            "/etc/systemd/system",
            "/etc/tmpfiles.d",
            "/etc/sysfs.d",
        ],
        names: &[".rules", ".service", ".conf"],
        claims: |text| mentions(text, "sriov_numvfs"),
    },
    Place {
        rival: Rival::Script,
        dirs: &["/etc", "/etc/rc.d"],
        names: &["rc.local", "sysfs.conf"],
        claims: |text| mentions(text, "sriov_numvfs"),
    },
];

/// A place in a text where a number of VFs is set.
struct Claim {
    line: usize,
    about: About,
}

/// Of which PF.
enum About {
    /// One of these: patterns with `*` and `?` of a name or of `pci-<address>`.
    Patterns(Vec<String>),
    /// The text around it, which may have a name or an address anywhere.
    Words(String),
    /// It cannot be told.
    Unknown,
}

impl About {
    /// Returns which of `pfs` it is about; `Some(None)` when that cannot be told, `None` when it is
    /// surely none of them.
    #[expect(clippy::option_option, reason = "the three answers of the doc")]
    fn of(&self, pfs: &[KeptPf]) -> Option<Option<PciAddress>> {
        let find =
            |is: &dyn Fn(&KeptPf) -> bool| pfs.iter().find(|pf| is(pf)).map(|pf| Some(pf.address));
        let name_of = |pf: &KeptPf| pf.name.as_ref().map(IfName::to_string).unwrap_or_default();
        match self {
            Self::Unknown => (!pfs.is_empty()).then_some(None),
            Self::Patterns(patterns) => find(&|pf| {
                let path = format!("pci-{}", pf.address);
                let name = name_of(pf);
                let is = |pattern: &String| matches(pattern, &name) || matches(pattern, &path);
                patterns.iter().any(is)
            }),
            Self::Words(words) => {
                let is_named = |pf: &KeptPf| {
                    let name = name_of(pf);
                    let mut parts = words.split(|c: char| !c.is_alphanumeric() && c != '_');
                    words.contains(&pf.address.to_string())
                        || (!name.is_empty() && parts.any(|word| word == name))
                };
                // A script may get its PF from anywhere.
                find(&is_named).or_else(|| (!pfs.is_empty()).then_some(None))
            }
        }
    }
}

/// One `key=value` of an INI text.
struct Setting<'a> {
    section: &'a str,
    key: &'a str,
    value: &'a str,
    line: usize,
}

fn settings(text: &str) -> Vec<Setting<'_>> {
    let mut section = "";
    let mut settings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            settings.push(Setting {
                section,
                key: key.trim(),
                value: value.trim().trim_matches(['"', '\'']),
                line: at + 1,
            });
        }
    }
    settings
}

/// One claim of a text, at the first setting that `is_claim`, about what `names` says.
fn first_claim(
    text: &str,
    is_claim: impl Fn(&Setting<'_>) -> bool,
    names: impl Fn(&Setting<'_>) -> bool,
) -> Vec<Claim> {
    let settings = settings(text);
    let Some(claim) = settings.iter().find(|setting| is_claim(setting)) else {
        return Vec::new();
    };
    let patterns: Vec<String> = settings
        .iter()
        .filter(|setting| names(setting))
        .flat_map(|setting| setting.value.split([' ', ',', ';']))
        .map(|name| name.trim_start_matches("interface-name:").to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    vec![Claim {
        line: claim.line,
        about: if patterns.is_empty() {
            About::Unknown
        } else {
            About::Patterns(patterns)
        },
    }]
}

fn systemd(text: &str) -> Vec<Claim> {
    first_claim(
        text,
        |s| s.section == "SR-IOV" || (s.section == "Link" && s.key == "SR-IOVVirtualFunctions"),
        |s| s.section == "Match" && matches!(s.key, "Path" | "OriginalName" | "Name"),
    )
}

fn network_manager(text: &str) -> Vec<Claim> {
    first_claim(
        text,
        |s| {
            (s.section == "sriov" && (s.key == "total-vfs" || s.key.starts_with("vf")))
                || (s.section.starts_with("device") && s.key == "sriov-num-vfs")
        },
        |s| {
            (s.section == "connection" && s.key == "interface-name")
                || (s.section == "match" && matches!(s.key, "interface-name" | "path"))
                || (s.section.starts_with("device")
                    && s.key == "match-device"
                    && s.value.starts_with("interface-name:"))
        },
    )
}

fn ifcfg(text: &str) -> Vec<Claim> {
    first_claim(text, |s| s.key == "SRIOV_TOTAL_VFS", |s| s.key == "DEVICE")
}

/// The name of an interface in netplan is the nearest key above with less indentation; it may be an
/// id that `match` gives a meaning to, so another name than the PF's proves nothing.
fn netplan(text: &str) -> Vec<Claim> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut claims = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if !line.trim_start().starts_with("virtual-function-count:") {
            continue;
        }
        let above = lines.iter().take(at).rev();
        let mut above = above.filter(|other| !other.trim().is_empty());
        let parent = above.find(|other| indent(other) < indent(line));
        claims.push(Claim {
            line: at + 1,
            about: About::Words(parent.map(|line| (*line).to_owned()).unwrap_or_default()),
        });
    }
    claims
}

fn mentions(text: &str, needle: &str) -> Vec<Claim> {
    let lines = text.lines().enumerate();
    let telling = lines
        .filter(|(_, line)| !line.trim_start().starts_with(['#', ';']) && line.contains(needle));
    telling
        .map(|(at, line)| Claim {
            line: at + 1,
            about: About::Words(line.to_owned()),
        })
        .collect()
}

/// Does a shell pattern with `*` and `?` match? Character classes are taken for "perhaps", so yes.
fn matches(pattern: &str, text: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    if pattern.contains('[') {
        let fixed = pattern.split(['[', '*', '?']).next().unwrap_or_default();
        return text.starts_with(fixed);
    }
    // Linear in the product: where the last `*` was, and how much it has eaten.
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(expected) if *expected == b'?' || expected == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, eaten)) => {
                    p = at + 1;
                    t = eaten + 1;
                    star = Some((at, eaten + 1));
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}
