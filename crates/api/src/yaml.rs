//! YAML as a tree that knows its lines.
//!
//! Objects are read in two steps, text to tree and tree to type, because an error must name the
//! line *and* the field, and because all errors of a file are wanted, not only the first.
//! The reader is bounded: see the constants.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use crate::field::{FieldPath, Item};

/// Longest file in bytes: about two thousand policies; the API server takes 1.5 MiB per object.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Most documents in a file.
const MAX_DOCUMENTS: usize = 1024;
/// Most scalars, lists and maps in a file: a MiB of the densest YAML that anybody writes by hand.
const MAX_NODES: usize = 100_000;
/// Deepest nesting; the deepest field of any kind that is read is on level 7.
const MAX_DEPTH: usize = 24;
/// Most nodes that aliases may stand for in all.
const MAX_REPLAYED: usize = 20_000;

/// A value and the line on which it begins, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) value: Value,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// Not an integer, or too large for one.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u64,
    pub(crate) node: Node,
}

/// Text that is not YAML, or too much of it.
#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) line: u64,
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

/// Reads all documents; empty ones are left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(YamlError {
            line: 0,
            problem: format!("{} bytes are more than a file may have", text.len()),
            remedy: format!("split it into files of at most {MAX_BYTES} bytes"),
        });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: MAX_BYTES,
            max_merge_keys: 1_000,
            max_inclusion_depth: 0,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: 8,
        },
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options::<Spanned<Value>>(text, options)
        .map(|documents| documents.into_iter().map(Node::from).collect())
        .map_err(|error| explained(error.without_snippet()))
}

/// Says what is wrong with a text, in words for who wrote it rather than for who calls the reader.
fn explained(error: &Error) -> YamlError {
    let place = error.location();
    let cause = match error {
        Error::AliasError { error, .. } => error,
        error => error,
    };
    let (problem, remedy) = match cause {
        Error::DuplicateMappingKey { key, .. } => (
            format!("key {} is there twice", key.as_deref().unwrap_or("?")),
            "keep the one that is meant".to_owned(),
        ),
        Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => (
            "aliases stand for more than a file of this kind has".to_owned(),
            "write out what the aliases (`*name`) stand for".to_owned(),
        ),
        _ => (
            error.to_string(),
            match place {
                Some(place) => format!(
                    "look at line {}, column {}: usually indentation, a missing quote or a tab",
                    place.line(),
                    place.column()
                ),
                None => "check the file with a YAML linter".to_owned(),
            },
        ),
    };
    YamlError {
        line: place.map_or(0, |place| place.line()),
        problem: format!("not readable as YAML: {}", first_line(&problem)),
        remedy,
    }
}

/// Cuts a message to one line of bounded length, so that hostile input cannot flood a terminal.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

impl Node {
    /// Returns the value of `key`, when this is a map that has it and it is not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key)
            .map(|entry| &entry.node)
            .filter(|node| node.value != Value::Null)
    }

    /// Returns the text of `key`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the line of the deepest part of `path` that exists.
    pub(crate) fn line_of(&self, path: &FieldPath) -> u64 {
        let mut node = self;
        let mut line = self.line;
        for item in path.items() {
            let next = match (item, &node.value) {
                (Item::Key(key), Value::Map(_)) => {
                    node.entry(key).map(|entry| (entry.line, &entry.node))
                }
                (Item::Index(index), Value::List(items)) => {
                    items.get(*index).map(|item| (item.line, item))
                }
                _ => None,
            };
            let Some(next) = next else { break };
            (line, node) = next;
        }
        line
    }

    /// Returns the tree without its lines; null fields of a map are left out, as the API server
    /// prunes them.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(on) => Json::Bool(*on),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .filter(|entry| entry.node.value != Value::Null)
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }
}

impl Value {
    /// Names the kind of value for an error.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number that is not whole",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self {
            line: spanned.referenced.line(),
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, on: bool) -> Result<Value, E> {
        Ok(Value::Bool(on))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "no field takes numbers of this size; it is kept only to be refused"
    )]
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(Node::from(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        // The parser itself refuses a key that is given twice.
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = Node::from(map.next_value::<Spanned<Value>>()?);
            entries.push(Entry {
                key: key.value,
                line: key.referenced.line(),
                node,
            });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_items_know_their_lines() {
        let all = documents("# one\na: 1\nb:\n  c:\n    - x\n    - y\n---\n---\nd: ~\n").unwrap();
        assert_eq!(all.len(), 2, "{all:?}");
        let path = FieldPath::from(["b", "c"]);
        assert_eq!(all[0].line_of(&path), 4);
        assert_eq!(all[0].line_of(&path.index(1)), 6);
        assert_eq!(all[0].line_of(&path.key("gone")), 4);
        assert_eq!(all[1].line_of(&FieldPath::from(["d"])), 9);
        assert!(all[1].get("d").is_none());
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g"]
            .iter()
            .zip(["a", "b", "c", "d", "e", "f"])
        {
            let aliases = vec![format!("*{of}"); 9].join(",");
            laughs.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        for bad in [
            laughs,
            "[".repeat(5_000),
            "- ".repeat(5_000),
            "---\na: 1\n".repeat(2_000),
            " ".repeat(MAX_BYTES + 1),
            "a: 1\na: 2\n".to_owned(),
            "a:\n\t- b".to_owned(),
        ] {
            let error = documents(&bad).unwrap_err();
            assert!(error.problem.len() < 400, "{}", error.problem);
        }
    }

    #[test]
    fn the_way_out_is_that_of_the_problem() {
        let told = |text: &str| {
            let error = documents(text).unwrap_err();
            format!("{}: {}; {}", error.line, error.problem, error.remedy)
        };
        insta::assert_snapshot!(told("a: 1\nb: 2\na: 3\n"), @"3: not readable as YAML: key a is there twice; keep the one that is meant");
        let list = format!("a: &a [{}]\n", "x,".repeat(5_000));
        insta::assert_snapshot!(told(&format!("{list}b: [*a, *a, *a, *a, *a]\n")), @"2: not readable as YAML: aliases stand for more than a file of this kind has; write out what the aliases (`*name`) stand for");
        insta::assert_snapshot!(told("a: 'x\n"), @"2: not readable as YAML: invalid indentation in multiline quoted scalar at line 2, column 1; look at line 2, column 1: usually indentation, a missing quote or a tab");
    }
}
