//! Arguments of the kernel, and whether a command line has one.

use std::fmt;
use std::str::FromStr;

/// An argument such as `intel_iommu=on`.
///
/// It holds no space, quote, dollar or backslash, so it means itself in every file that a boot
/// loader reads, quoted or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelArgument(String);

/// Text that is not an argument that virtfn writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a kernel argument such as intel_iommu=on")]
pub struct ParseKernelArgumentError;

impl KernelArgument {
    pub(super) fn intel_iommu() -> Self {
        Self("intel_iommu=on".to_owned())
    }

    pub(super) fn iommu_pt() -> Self {
        Self("iommu=pt".to_owned())
    }

    pub(crate) fn pci_realloc() -> Self {
        Self("pci=realloc".to_owned())
    }

    /// Returns the argument as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (&str, Option<&str>) {
        split(&self.0)
    }
}

impl fmt::Display for KernelArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for KernelArgument {
    type Err = ParseKernelArgumentError;

    fn from_str(text: &str) -> Result<Self, ParseKernelArgumentError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.,:=/+-".contains(&b);
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if starts && text.len() <= 256 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseKernelArgumentError)
        }
    }
}

/// Does a command line have an argument?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Yes, perhaps among others of its key: `intel_iommu=on,sm_on`.
    Present,
    /// No.
    Absent,
    /// It has one that means the opposite: this one.
    Contradicted(String),
}

/// Words that mean the opposite of an argument.
const OPPOSITES: [(&str, &[&str]); 3] = [
    ("intel_iommu=on", &["intel_iommu=off", "iommu=off"]),
    (
        "iommu=pt",
        &["iommu=nopt", "iommu=off", "iommu.passthrough=0"],
    ),
    ("pci=realloc", &["pci=realloc=off", "pci=off"]),
];

/// Words that mean the same as an argument.
const SYNONYMS: [(&str, &[&str]); 2] = [
    ("iommu=pt", &["iommu.passthrough=1"]),
    ("pci=realloc", &["pci=realloc=on"]),
];

/// Says whether a command line has an argument. Of several words about it the last one counts, as
/// the kernel reads them; `-` and `_` are the same in a key.
pub fn presence<'w, W>(words: impl IntoIterator<Item = &'w W>, wanted: &KernelArgument) -> Presence
where
    W: AsRef<str> + ?Sized + 'w,
{
    let of = |table: &[(&str, &'static [&'static str])]| -> &'static [&'static str] {
        let row = table
            .iter()
            .find(|(argument, _)| *argument == wanted.as_str());
        row.map_or(&[], |(_, words)| words)
    };
    let (opposites, synonyms) = (of(&OPPOSITES), of(&SYNONYMS));
    let mut presence = Presence::Absent;
    for word in words {
        let word = word.as_ref();
        if has(word, wanted.parts()) || synonyms.iter().any(|other| has(word, split(other))) {
            presence = Presence::Present;
        }
        if opposites.iter().any(|other| has(word, split(other))) {
            presence = Presence::Contradicted(word.to_owned());
        }
    }
    presence
}

/// Does a word say `key=value`, perhaps in a list of values?
fn has(word: &str, (key, value): (&str, Option<&str>)) -> bool {
    let (found, values) = split(word.trim_matches('"'));
    if found.replace('-', "_") != key.replace('-', "_") {
        return false;
    }
    match (value, values) {
        (None, _) => true,
        (Some(value), Some(values)) => values.split(',').any(|found| found == value),
        (Some(_), None) => false,
    }
}

fn split(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    }
}
