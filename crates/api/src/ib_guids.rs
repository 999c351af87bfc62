//! GUIDs of InfiniBand VFs: `/etc/sriov-operator/infiniband/guids`.
//!
//! ```json
//! [{"pciAddress": "0000:3b:00.0",
//!   "guidsRange": {"start": "02:00:00:00:00:aa:00:00", "end": "02:00:00:00:00:aa:00:1f"}},
//!  {"pfGuid": "b8:59:9f:03:00:a6:1b:10", "guids": ["02:00:00:00:00:bb:00:00"]}]
//! ```
//!
//! VF *i* gets the *i*-th. Upstream's guide writes `pci_address`, `pf_guid` and `guids_range`, which
//! upstream's code does not know; both spellings are read. `pfGuid` may be the 20 bytes that
//! `ip link` shows, which is all that upstream takes, or the 8 of them that are the port's GUID.

use model::{Code, Explain, Guid, GuidPf, GuidPool, GuidRule, ParseError};
use serde::Deserialize;

use crate::field::{FieldPath, FieldProblem};

/// Longest file in bytes: GUIDs for 32 PFs with 1,024 VFs, each listed.
const LONGEST: usize = 1 << 20;
/// Most problems that are kept.
const MOST_PROBLEMS: usize = 100;

/// A file of GUIDs that cannot be used. Its text has one line a problem.
#[derive(Debug, thiserror::Error)]
pub enum GuidFileError {
    /// It is longer than any.
    #[error("{0} bytes are more than a file of GUIDs may have")]
    TooLong(usize),
    /// It is not a list of objects.
    #[error("the file of GUIDs is not a JSON list of entries")]
    NotJson(#[source] serde_json::Error),
    /// Entries have values that mean nothing.
    #[error("{}", lines(.0))]
    Entries(Vec<FieldProblem>),
}

fn lines(problems: &[FieldProblem]) -> String {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl Explain for GuidFileError {
    fn code(&self) -> Code {
        Code::new("guid-file")
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::TooLong(_) => "give ranges instead of lists".to_owned(),
            Self::NotJson(_) => {
                "write [{\"pciAddress\": \"0000:3b:00.0\", \"guids\": [\"02:00:…\"]}]".to_owned()
            }
            Self::Entries(problems) => {
                let remedies: Vec<_> = problems
                    .iter()
                    .map(|problem| format!("{}: {}", problem.path, problem.remedy))
                    .collect();
                remedies.join("\n")
            }
        })
    }
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "pciAddress", alias = "pci_address")]
    pci_address: Option<String>,
    #[serde(rename = "pfGuid", alias = "pf_guid")]
    pf_guid: Option<String>,
    guids: Option<Vec<String>>,
    #[serde(rename = "guidsRange", alias = "guids_range")]
    range: Option<Range>,
}

#[derive(Deserialize)]
struct Range {
    start: Option<String>,
    end: Option<String>,
}

/// Reads the file; the entries are in its order.
pub fn read_guids(text: &str) -> Result<Vec<GuidRule>, GuidFileError> {
    if text.len() > LONGEST {
        return Err(GuidFileError::TooLong(text.len()));
    }
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(GuidFileError::NotJson)?;
    let mut found = Found::default();
    let rules: Vec<_> = entries
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| found.rule(entry, &FieldPath::default().index(index)))
        .collect();
    if found.0.is_empty() {
        Ok(rules)
    } else {
        Err(GuidFileError::Entries(found.0))
    }
}

/// Collects what is wrong while entries are read.
#[derive(Default)]
struct Found(Vec<FieldProblem>);

impl Found {
    fn problem(&mut self, path: FieldPath, problem: &dyn std::fmt::Display, remedy: &str) {
        if self.0.len() < MOST_PROBLEMS {
            self.0.push(FieldProblem {
                path,
                problem: problem.to_string(),
                remedy: remedy.to_owned(),
            });
        }
    }

    fn rule(&mut self, entry: &Entry, path: &FieldPath) -> Option<GuidRule> {
        let pf = self.pf(entry, path);
        let pool = self.pool(entry, path);
        Some(GuidRule {
            pf: pf?,
            pool: pool?,
        })
    }

    fn pf(&mut self, entry: &Entry, path: &FieldPath) -> Option<GuidPf> {
        match (&entry.pci_address, &entry.pf_guid) {
            (Some(text), None) => match text.parse() {
                Ok(address) => Some(GuidPf::Address(address)),
                Err(error) => {
                    let remedy = "write the PF's full address, with its domain (`virtfn list pf`)";
                    self.problem(path.key("pciAddress"), &error as &ParseError, remedy);
                    None
                }
            },
            (None, Some(text)) => {
                let guid = self.guid(port_guid(text), path.key("pfGuid"))?;
                Some(GuidPf::Port(guid))
            }
            (None, None) => {
                let remedy = "name the PF by pciAddress or by pfGuid";
                self.problem(path.clone(), &"no PF is named", remedy);
                None
            }
            (Some(_), Some(_)) => {
                let remedy = "keep pciAddress or pfGuid";
                self.problem(path.clone(), &"the PF is named twice", remedy);
                None
            }
        }
    }

    fn pool(&mut self, entry: &Entry, path: &FieldPath) -> Option<GuidPool> {
        match (&entry.guids, &entry.range) {
            (Some(list), None) => {
                let path = path.key("guids");
                let mut guids: Vec<Guid> = Vec::with_capacity(list.len());
                for (index, text) in list.iter().enumerate() {
                    guids.push(self.guid(text, path.index(index))?);
                }
                self.distinct(&guids, &path);
                Some(GuidPool::List(guids))
            }
            (None, Some(range)) => self.range(range, &path.key("guidsRange")),
            (None, None) => {
                let remedy = "give guids or guidsRange";
                self.problem(path.clone(), &"no GUIDs are given", remedy);
                None
            }
            (Some(_), Some(_)) => {
                let remedy = "keep guids or guidsRange";
                self.problem(path.clone(), &"GUIDs are given twice", remedy);
                None
            }
        }
    }

    fn distinct(&mut self, guids: &[Guid], path: &FieldPath) {
        let mut known = std::collections::BTreeSet::new();
        for (index, guid) in guids.iter().enumerate() {
            if !known.insert(*guid) {
                let problem = format!("{guid} is there twice");
                self.problem(
                    path.index(index),
                    &problem,
                    "give each VF a GUID of its own",
                );
            }
        }
    }

    fn range(&mut self, range: &Range, path: &FieldPath) -> Option<GuidPool> {
        let mut end = |key: &str, text: &Option<String>| match text {
            Some(text) => self.guid(text, path.key(key)),
            None => {
                let remedy = "give start and end, both included";
                self.problem(path.key(key), &"is required", remedy);
                None
            }
        };
        let (first, last) = (end("start", &range.start), end("end", &range.end));
        let (first, last) = (first?, last?);
        if last < first {
            let problem = format!("{last} is before the start, {first}");
            self.problem(path.key("end"), &problem, "write the lower GUID first");
            return None;
        }
        Some(GuidPool::Range { first, last })
    }

    fn guid(&mut self, text: &str, path: FieldPath) -> Option<Guid> {
        let remedy = "write 8 bytes, such as 02:00:00:00:00:aa:00:00";
        match text.parse::<Guid>() {
            Ok(guid) if guid.is_zero() => {
                self.problem(path, &"a GUID of zeros is none", remedy);
                None
            }
            Ok(guid) => Some(guid),
            Err(error) => {
                self.problem(path, &error, remedy);
                None
            }
        }
    }
}

/// Cuts the 20 bytes of an InfiniBand hardware address to the 8 that are the port's GUID.
fn port_guid(text: &str) -> &str {
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    if colons == 19 && text.len() == 59 {
        text.get(36..).unwrap_or(text)
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use model::VfIndex;

    use super::*;

    #[test]
    fn the_documented_file_is_read_in_both_spellings() {
        let rules = read_guids(include_str!("../corpus/ib_guids/both.json")).unwrap();
        let [range, list, long] = rules.as_slice() else {
            panic!("{rules:?}")
        };
        assert_eq!(range.pf, GuidPf::Address("0000:3b:00.0".parse().unwrap()));
        assert_eq!(range.pool.len(), 32);
        let last = range.pool.get(VfIndex(31)).unwrap();
        assert_eq!(last.to_string(), "02:00:00:00:00:aa:00:1f");
        assert_eq!(list.pool.len(), 2);
        assert_eq!(list.pf, long.pf, "20 bytes name the port as 8 do");
        assert_eq!(read_guids("[]").unwrap(), []);
    }

    #[test]
    fn everything_wrong_is_found_at_once() {
        let text = r#"[{}, {"pciAddress": "3b:00.0", "guids": []},
            {"pciAddress": "0000:3b:00.0", "pfGuid": "x", "guids": [], "guidsRange": {}},
            {"pfGuid": "x", "guidsRange": {"start": "02:00:00:00:00:aa:00:00"}},
            {"pciAddress": "0000:3b:00.0", "guidsRange": {"start": "02:00:00:00:00:aa:00:01", "end": "02:00:00:00:00:aa:00:00"}},
            {"pciAddress": "0000:3b:00.0", "guids": ["02:00:00:00:00:aa:00:00", "02:00:00:00:00:aa:00:00", "0"]},
            {"pciAddress": "0000:3b:00.0", "guids": ["00:00:00:00:00:00:00:00"]}]"#;
        insta::assert_snapshot!(read_guids(text).unwrap_err(), @r#"
        [0]: no PF is named
        [0]: no GUIDs are given
        [1].pciAddress: "3b:00.0" is not a PCI address such as 0000:3b:00.1
        [2]: the PF is named twice
        [2]: GUIDs are given twice
        [3].pfGuid: "x" is not a GUID such as 00:02:c9:03:00:2f:b1:10
        [3].guidsRange.end: is required
        [4].guidsRange.end: 02:00:00:00:00:aa:00:00 is before the start, 02:00:00:00:00:aa:00:01
        [5].guids[2]: "0" is not a GUID such as 00:02:c9:03:00:2f:b1:10
        [6].guids[0]: a GUID of zeros is none
        "#);
    }

    #[test]
    fn what_is_no_list_is_said_plainly() {
        let error = read_guids("{}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file of GUIDs is not a JSON list of entries"
        );
        assert_eq!(error.code(), Code::new("guid-file"));
    }
}
