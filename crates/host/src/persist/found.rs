//! What is installed, read back from the files: for people who ask, nothing is changed.

use super::render::{MARKER, MODULES, NETWORKD, POLICIES, PRE, UDEV, UNIT_DIR, UNITS, VF_SETTINGS};
use super::{BootApply, Foreign, Installed, PersistError, installed};
use crate::files::{Entry, Files};
use crate::root::{AccessError, HostRoot};

/// What is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How much of it is there.
    pub installed: Installed,
    /// The directory of the policies, as a path on the host.
    pub policies: &'static str,
    /// The file of the settings of VFs, as a path on the host: see [`super::read_vf_settings`].
    pub vf_settings: &'static str,
    /// How they are applied at boot; `None` when the service is not there, or is somebody else's.
    pub boot: Option<BootApply>,
    /// Files with names of ours that are not ours any more, and what they are. Neither `install`
    /// nor `uninstall` touches them.
    pub edited: Vec<(String, Foreign)>,
}

/// Looks at what is installed.
pub fn look(root: &HostRoot) -> Result<Found, PersistError> {
    let look = |source| PersistError::Look { source };
    let files = Files::new(root);
    let boot = match files.entry(&format!("{UNIT_DIR}/{PRE}")).map_err(look)? {
        Entry::File(content) if content.starts_with(MARKER.as_bytes()) => {
            boot_of(&String::from_utf8_lossy(&content))
        }
        _ => None,
    };
    Ok(Found {
        installed: installed(root)?,
        policies: POLICIES,
        vf_settings: VF_SETTINGS,
        boot,
        edited: edited(&files).map_err(look)?,
    })
}

/// Returns the files with names of ours that are not ours, or not any more.
pub(super) fn edited(files: &Files<'_>) -> Result<Vec<(String, Foreign)>, AccessError> {
    let units = UNITS.map(|unit| format!("{UNIT_DIR}/{unit}"));
    let others = [UDEV, NETWORKD, MODULES, VF_SETTINGS].map(str::to_owned);
    let mut edited = Vec::new();
    for path in units.into_iter().chain(others) {
        let found = match files.entry(&path)? {
            Entry::Absent => continue,
            Entry::File(content) if content.starts_with(MARKER.as_bytes()) => continue,
            Entry::File(_) => Foreign::File,
            Entry::Link(target) if target == "/dev/null" => Foreign::Masked,
            Entry::Link(target) => Foreign::Link(target),
            Entry::Dir | Entry::Other => Foreign::Other,
        };
        edited.push((path, found));
    }
    Ok(edited)
}

/// Reads the command of a service as `render` writes it; `None` when somebody wrote another.
pub(crate) fn boot_of(unit: &str) -> Option<BootApply> {
    let mut lines = unit.lines();
    let line = lines.find_map(|line| line.strip_prefix("ExecStart="))?;
    let mut words = words(line)?.into_iter();
    let mut boot = BootApply {
        program: words.next()?.into(),
        node_labels: std::collections::BTreeMap::new(),
        allow_default_route: false,
    };
    if words.next()? != "apply" {
        return None;
    }
    while let Some(word) = words.next() {
        match word.as_str() {
            "--file" | "--vf-settings" => drop(words.next()?),
            "--node-label" => {
                let label = words.next()?;
                let (key, value) = label.split_once('=')?;
                boot.node_labels.insert(key.to_owned(), value.to_owned());
            }
            "--allow-default-route" => boot.allow_default_route = true,
            _ => return None,
        }
    }
    Some(boot)
}

/// Splits a command line as it is written here: plain words, and words in double quotes.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.next() {
        if first == ' ' {
            continue;
        }
        let mut word = String::new();
        if first == '"' {
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => word.push(chars.next()?),
                    // Doubled, they stand for themselves.
                    c @ ('%' | '$') => {
                        chars.next_if_eq(&c)?;
                        word.push(c);
                    }
                    c => word.push(c),
                }
            }
        } else {
            word.push(first);
            while let Some(c) = chars.next_if(|c| *c != ' ') {
                word.push(c);
            }
        }
        words.push(word);
    }
    Some(words)
}

/// Reads bytes as a service: what is read is read the same when it is written again.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(boot) = boot_of(&String::from_utf8_lossy(bytes)) else {
        return;
    };
    // A path or a label that no unit can have is refused; the others survive.
    if let Ok(line) = super::render::command(&boot) {
        assert_eq!(boot_of(&line), Some(boot), "the command did not survive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::render;

    #[test]
    fn a_command_is_read_as_it_was_written() {
        let boot = BootApply {
            program: "/usr/local/bin/virtfn".into(),
            node_labels: [("rack", "a"), ("b/c", "100% \"x\" \\ $y ä"), ("d", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            allow_default_route: true,
        };
        let unit = format!("[Service]\n{}\n", render::command(&boot).unwrap());
        assert_eq!(boot_of(&unit), Some(boot));
        for other in [
            "",
            "ExecStart=",
            "ExecStart=/bin/sh -c x",
            "ExecStart=/usr/bin/virtfn apply --unheard-of",
            "ExecStart=/usr/bin/virtfn apply --node-label \"a=b",
            "ExecStart=/usr/bin/virtfn apply --node-label \"a=%b\"",
        ] {
            assert_eq!(boot_of(other), None, "{other}");
        }
    }
}
