//! JSON read as Go reads it into a struct: keys without case, the last of several wins.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::field::{FieldPath, FieldProblem};

/// A JSON value whose objects keep their order and their repeated keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Returns the value of the last key that equals `key` without case; `null` is as if absent.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else {
            return None;
        };
        entries
            .iter()
            .rev()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
            .filter(|value| **value != Self::Null)
    }

    /// Is the key there, even with `null`?
    pub(super) fn has(&self, key: &str) -> bool {
        matches!(self, Self::Object(entries) if entries.iter().any(|(name, _)| name.eq_ignore_ascii_case(key)))
    }

    /// Returns it with the last of equal keys only.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.clone()),
            Self::List(list) => Value::Array(list.iter().map(Self::to_value).collect()),
            Self::Object(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.to_value()))
                    .collect(),
            ),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads fields of an object and collects all that is wrong with them.
pub(super) struct Fields<'a> {
    pub(super) object: &'a Json,
    pub(super) path: FieldPath,
    pub(super) problems: Vec<FieldProblem>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(object: &'a Json) -> Self {
        Self {
            object,
            path: FieldPath::default(),
            problems: Vec::new(),
        }
    }

    /// Returns a text; an empty one is as if absent.
    pub(super) fn text(&mut self, key: &str) -> Option<&'a str> {
        match self.object.get(key)? {
            Json::Text(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
            other => {
                self.mistyped(key, other, "a text");
                None
            }
        }
    }

    pub(super) fn integer(&mut self, key: &str) -> Option<i64> {
        match self.object.get(key)? {
            Json::Number(number) if number.is_i64() => number.as_i64(),
            other => {
                self.mistyped(key, other, "a whole number, without quotes");
                None
            }
        }
    }

    /// Returns a switch.
    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.object.get(key)? {
            Json::Bool(on) => Some(*on),
            other => {
                self.mistyped(key, other, "true or false, without quotes");
                None
            }
        }
    }

    /// Reads a text of `args.cni`, where a pod's annotation comes in.
    pub(super) fn argument(&mut self, key: &str) -> Option<&'a str> {
        let mut fields = self.arguments()?;
        let text = fields.text(key);
        self.problems.append(&mut fields.problems);
        text
    }

    /// Is `args.cni.debug` on? Anything but a boolean is as good as absent.
    pub(super) fn verbose(&mut self) -> bool {
        let found = self
            .arguments()
            .and_then(|fields| fields.object.get("debug"));
        matches!(found, Some(Json::Bool(true)))
    }

    fn arguments(&mut self) -> Option<Fields<'a>> {
        let args = self.object("args")?;
        let mut outer = Fields {
            object: args,
            path: self.path.key("args"),
            problems: Vec::new(),
        };
        let inner = outer.object("cni");
        self.problems.append(&mut outer.problems);
        inner.map(|object| Fields {
            object,
            path: self.path.key("args").key("cni"),
            problems: Vec::new(),
        })
    }

    /// Returns an object.
    pub(super) fn object(&mut self, key: &str) -> Option<&'a Json> {
        match self.object.get(key)? {
            object @ Json::Object(_) => Some(object),
            other => {
                self.mistyped(key, other, "an object");
                None
            }
        }
    }

    /// Reads a text of the object under `key`.
    pub(super) fn inner_text(&mut self, key: &str, inner: &str) -> Option<&'a str> {
        let object = self.object(key)?;
        let mut fields = Fields {
            object,
            path: self.path.key(key),
            problems: Vec::new(),
        };
        let text = fields.text(inner);
        self.problems.append(&mut fields.problems);
        text
    }

    pub(super) fn problem(&mut self, key: &str, problem: String, remedy: &str) {
        self.problems.push(FieldProblem {
            path: self.path.key(key),
            problem,
            remedy: remedy.to_owned(),
        });
    }

    fn mistyped(&mut self, key: &str, found: &Json, wanted: &str) {
        let problem = format!("it is {}", found.kind());
        self.problem(key, problem, &format!("write {wanted}"));
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Json, E> {
        Ok(Json::Bool(bool))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Object(entries))
    }
}
