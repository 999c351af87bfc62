//! Reads the host's apt sources, one-line and deb822, as far as finding its mirror needs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// An entry of the host that offers its own release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    uri: String,
    signed_by: Option<String>,
    suites: Vec<String>,
    components: Vec<String>,
}

impl Source {
    /// The first entry of the host for the release named `codename`.
    pub(crate) fn of_host(codename: &str) -> Result<Self> {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
            let mut more: Vec<_> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect();
            more.sort();
            files.extend(more);
        }
        let aliases = ["stable", "oldstable", "oldoldstable"];
        let sources: Vec<Self> = files.iter().flat_map(|file| read(file)).collect();
        let offers = |source: &&Self, suite: &str| source.suites.iter().any(|name| name == suite);
        std::iter::once(codename)
            .chain(aliases)
            .find_map(|suite| sources.iter().find(|source| offers(source, suite)))
            .cloned()
            .with_context(|| format!("no entry for {codename} in the apt sources of this host"))
    }

    /// A line for sources.list.
    pub(crate) fn line(&self, suite: &str) -> String {
        let options = self
            .signed_by
            .as_ref()
            .map(|keys| format!("[signed-by={keys}] "))
            .unwrap_or_default();
        format!("deb {options}{} {suite} main\n", self.uri)
    }

    fn is_useful(&self) -> bool {
        !self.uri.starts_with("cdrom:") && self.components.iter().any(|name| name == "main")
    }
}

fn read(file: &Path) -> Vec<Source> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("list") => one_line(&text),
        Some("sources") => deb822(&text),
        _ => Vec::new(),
    }
}

/// `deb [signed-by=…] URI SUITE COMPONENT…`
fn one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest
            .starts_with(char::is_whitespace)
            .then(|| rest.trim_start())?;
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Source {
            uri: words.next()?,
            signed_by: options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="))
                .map(str::to_owned),
            suites: vec![words.next()?],
            components: words.collect(),
        })
    };
    text.lines()
        .filter_map(parse)
        .filter(Source::is_useful)
        .collect()
}

/// Paragraphs of `Field: value`, continued on indented lines.
fn deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .filter_map(paragraph)
        .filter(Source::is_useful)
        .collect()
}

fn paragraph(lines: &[&str]) -> Option<Source> {
    let field = |name: &str| {
        let is_start = |line: &&str| {
            line.split_once(':')
                .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let at = lines.iter().position(is_start)?;
        let (first, more) = lines.get(at..)?.split_first()?;
        let mut value = first.split_once(':')?.1.trim().to_owned();
        for line in more.iter().take_while(|line| line.starts_with([' ', '\t'])) {
            value.push('\n');
            value.push_str(line.trim());
        }
        Some(value)
    };
    let words = |name| {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    if field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"))
        || !words("Types").contains(&"deb".into())
    {
        return None;
    }
    Some(Source {
        uri: words("URIs").into_iter().next()?,
        // A key may stand in the field itself, over many lines: then the host's own trusted
        // keyrings have to do.
        signed_by: field("Signed-By").filter(|keys| keys.starts_with('/') && !keys.contains('\n')),
        suites: words("Suites"),
        components: words("Components"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_give_the_same_source() {
        let wanted = "deb [signed-by=/k.gpg] mirror://x/debian bookworm main\n";
        let old = "# deb mirror://no bookworm main\ndeb-src mirror://no bookworm main\n\
                   deb [ arch=amd64 signed-by=/k.gpg ] mirror://x/debian bookworm main contrib # why\n";
        let new = "Types: deb deb-src\n# a remark\nURIs: mirror://x/debian\nSuites: bookworm\n bookworm-updates\n\
                   Components: main\nSigned-By: /k.gpg\n";
        for found in [one_line(old), deb822(new)] {
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].suites[0], "bookworm");
            assert_eq!(found[0].line("bookworm"), wanted);
        }
    }

    #[test]
    fn entries_that_cannot_serve_are_left_out() {
        for text in [
            "deb cdrom:[x] bookworm main",
            "deb mirror://x bookworm contrib",
            "deb",
            "deb [",
            "debbookworm",
        ] {
            assert_eq!(one_line(text), [], "{text}");
        }
        let key =
            "Types: deb\nURIs: m://x\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN\n .\n";
        assert_eq!(deb822(key)[0].signed_by, None);
        assert_eq!(
            deb822("Enabled: no\nTypes: deb\nURIs: m://x\nSuites: s\nComponents: main"),
            []
        );
        assert_eq!(
            deb822("Types: deb-src\nURIs: m://x\nSuites: s\nComponents: main"),
            []
        );
    }
}
