//! What fields a kind has, and the check of a tree against it.
//!
//! The checks are those that the API server makes with upstream's CRD: type, required, enum and
//! bounds. Unknown fields are pruned there; here they are reported, with a guess at what was meant.

use crate::field::{FieldPath, FieldProblem};
use crate::yaml::{Node, Value};

/// What a field holds.
#[derive(Debug)]
pub(crate) enum Kind {
    Text,
    OneOf(&'static [&'static str]),
    Bool,
    Integer {
        min: Option<i64>,
        max: Option<i64>,
    },
    TextList,
    /// Text to text.
    TextMap,
    Object(&'static [Field]),
    /// Objects that all have these fields.
    ObjectList(&'static [Field]),
    /// Anything: not looked into.
    Any,
}

/// One field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
}

/// Shorthand for an optional field.
pub(crate) const fn field(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: false,
    }
}

/// Shorthand for a required field.
pub(crate) const fn required(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: true,
    }
}

/// A field that the schema does not have.
#[derive(Debug, PartialEq)]
pub(crate) struct Unknown {
    pub(crate) path: FieldPath,
    /// What was probably meant.
    pub(crate) guess: Option<String>,
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<FieldProblem>,
    pub(crate) unknown: Vec<Unknown>,
}

/// Checks an object against its fields, and finds everything that is wrong.
pub(crate) fn check(object: &Node, fields: &'static [Field]) -> Findings {
    let mut check = Check {
        root: fields,
        found: Findings::default(),
    };
    check.object(object, fields, &FieldPath::default());
    check.found
}

struct Check {
    root: &'static [Field],
    found: Findings,
}

impl Check {
    fn object(&mut self, node: &Node, fields: &'static [Field], path: &FieldPath) {
        let Value::Map(entries) = &node.value else {
            return self.mistyped(node, "an object", path, "indent its fields below it");
        };
        for field in fields {
            if field.required && node.get(field.name).is_none() {
                self.problem(
                    &path.key(field.name),
                    "is required".to_owned(),
                    format!("add `{}`", field.name),
                );
            }
        }
        for entry in entries {
            let at = path.key(&entry.key);
            match fields.iter().find(|field| field.name == entry.key) {
                None => self.found.unknown.push(Unknown {
                    guess: guess(&entry.key, fields, self.root),
                    path: at,
                }),
                // The API server prunes null before it looks at the type.
                Some(_) if entry.node.value == Value::Null => {}
                Some(field) => self.value(&entry.node, &field.kind, &at),
            }
        }
    }

    fn value(&mut self, node: &Node, kind: &'static Kind, path: &FieldPath) {
        match kind {
            Kind::Any => {}
            Kind::Text => self.text(node, path),
            Kind::OneOf(words) => match &node.value {
                Value::Text(text) if words.contains(&text.as_str()) => {}
                Value::Text(text) => self.problem(
                    path,
                    format!("{:?} is not one of {}", shorten(text), words.join(", ")),
                    format!("write one of {}", words.join(", ")),
                ),
                _ => self.text(node, path),
            },
            Kind::Bool => {
                if !matches!(node.value, Value::Bool(_)) {
                    self.mistyped(node, "true or false", path, "write true or false, unquoted");
                }
            }
            Kind::Integer { min, max } => self.integer(node, *min, *max, path),
            Kind::TextList => match &node.value {
                Value::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.text(item, &path.index(index));
                    }
                }
                _ => self.mistyped(node, "a list of texts", path, "write each item behind `- `"),
            },
            Kind::TextMap => match &node.value {
                Value::Map(entries) => {
                    for entry in entries {
                        self.text(&entry.node, &path.key(&entry.key));
                    }
                }
                _ => self.mistyped(node, "an object of texts", path, "write `key: \"value\"`"),
            },
            Kind::Object(fields) => self.object(node, fields, path),
            Kind::ObjectList(fields) => match &node.value {
                Value::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.object(item, fields, &path.index(index));
                    }
                }
                _ => self.mistyped(node, "a list of objects", path, "write each behind `- `"),
            },
        }
    }

    fn text(&mut self, node: &Node, path: &FieldPath) {
        match &node.value {
            Value::Text(_) => {}
            Value::Integer(number) => {
                self.mistyped(
                    node,
                    "text",
                    path,
                    &format!("put it in quotes: \"{number}\""),
                );
            }
            Value::Bool(on) => {
                self.mistyped(node, "text", path, &format!("put it in quotes: \"{on}\""));
            }
            _ => self.mistyped(
                node,
                "text",
                path,
                "write text, in quotes when it is a number",
            ),
        }
    }

    fn integer(&mut self, node: &Node, min: Option<i64>, max: Option<i64>, path: &FieldPath) {
        let Value::Integer(number) = node.value else {
            return self.mistyped(node, "a whole number", path, "write a number, unquoted");
        };
        let low = min.filter(|min| number < *min);
        let high = max.filter(|max| number > *max);
        let bounds = match (min, max) {
            (Some(min), Some(max)) => format!("a number from {min} to {max}"),
            (Some(min), None) => format!("a number of at least {min}"),
            (None, Some(max)) => format!("a number of at most {max}"),
            (None, None) => return,
        };
        if low.is_some() || high.is_some() {
            self.problem(
                path,
                format!("{number} is not {bounds}"),
                format!("write {bounds}"),
            );
        }
    }

    fn mistyped(&mut self, node: &Node, wanted: &str, path: &FieldPath, remedy: &str) {
        let got = match &node.value {
            Value::Integer(number) => format!("{number} is {}", node.value.kind()),
            Value::Float(number) => format!("{number} is {}", node.value.kind()),
            Value::Bool(on) => format!("{on} is {}", node.value.kind()),
            Value::Text(text) => format!("{:?} is {}", shorten(text), node.value.kind()),
            Value::Null | Value::List(_) | Value::Map(_) => format!("is {}", node.value.kind()),
        };
        self.problem(path, format!("{got}, not {wanted}"), remedy.to_owned());
    }

    fn problem(&mut self, path: &FieldPath, problem: String, remedy: String) {
        self.found.problems.push(FieldProblem {
            path: path.clone(),
            problem,
            remedy,
        });
    }
}

/// Cuts a quotation to a bounded length.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Guesses which field was meant by `name`: a near miss beside it, or the same name elsewhere.
fn guess(name: &str, siblings: &[Field], root: &'static [Field]) -> Option<String> {
    if name.len() > 40 {
        return None;
    }
    let lower = name.to_lowercase();
    let near = siblings
        .iter()
        .map(|field| (distance(&lower, &field.name.to_lowercase()), field.name))
        .filter(|(distance, field)| distance * 3 <= field.len())
        .min();
    near.map(|(_, field)| field.to_owned())
        .or_else(|| find(&lower, root, &FieldPath::default()))
}

fn find(lower: &str, fields: &'static [Field], path: &FieldPath) -> Option<String> {
    fields.iter().find_map(|field| {
        let at = path.key(field.name);
        if field.name.to_lowercase() == lower {
            return Some(at.to_string());
        }
        match &field.kind {
            Kind::Object(fields) | Kind::ObjectList(fields) => find(lower, fields, &at),
            _ => None,
        }
    })
}

/// Counts the insertions, deletions and replacements between two short texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.chars().zip(row.iter().skip(1)) {
            left = (left + 1)
                .min(above + 1)
                .min(diagonal + usize::from(x != y));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    static FIELDS: [Field; 3] = [
        required(
            "numVfs",
            Kind::Integer {
                min: Some(0),
                max: None,
            },
        ),
        field(
            "nicSelector",
            Kind::Object(&[field("pfNames", Kind::TextList)]),
        ),
        field("linkType", Kind::OneOf(&["eth", "ib"])),
    ];

    #[track_caller]
    fn findings(text: &str) -> (Vec<String>, Vec<Option<String>>) {
        let found = check(&yaml::documents(text).unwrap()[0], &FIELDS);
        (
            found.problems.iter().map(ToString::to_string).collect(),
            found
                .unknown
                .into_iter()
                .map(|unknown| unknown.guess)
                .collect(),
        )
    }

    #[test]
    fn everything_wrong_is_found_at_once() {
        let (problems, _) =
            findings("numVfs: -1\nnicSelector: {pfNames: [1, a, ~]}\nlinkType: wifi\n");
        assert_eq!(
            problems,
            [
                "numVfs: -1 is not a number of at least 0",
                "nicSelector.pfNames[0]: 1 is a whole number, not text",
                "nicSelector.pfNames[2]: is nothing, not text",
                "linkType: \"wifi\" is not one of eth, ib",
            ]
        );
        assert_eq!(findings("numVfs: ~").0, ["numVfs: is required"]);
        assert_eq!(findings("- 1").0, [": is a list, not an object"]);
    }

    #[test]
    fn a_misspelled_field_is_guessed() {
        let (_, guesses) =
            findings("numVfs: 1\nnumVFS: 2\nnicselector: {pfName: [a]}\npfNames: []\nzzz: 1\n");
        let guesses: Vec<_> = guesses.iter().map(Option::as_deref).collect();
        assert_eq!(
            guesses,
            [
                Some("numVfs"),
                Some("nicSelector"),
                Some("nicSelector.pfNames"),
                None
            ]
        );
    }
}
