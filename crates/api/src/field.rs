//! Where in an object something is, and what is wrong with it.

use std::fmt;

/// Path of a field in an object, written `spec.nicSelector.pfNames[2]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<Item>);

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Key(String),
    Index(usize),
}

impl FieldPath {
    /// Returns the path of field `key` of the object at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Item::Key(key.to_owned()))
    }

    /// Returns the path of item `index` of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Item::Index(index))
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.0
    }

    fn with(&self, item: Item) -> Self {
        let mut items = self.0.clone();
        items.push(item);
        Self(items)
    }
}

impl<const N: usize> From<[&str; N]> for FieldPath {
    fn from(keys: [&str; N]) -> Self {
        Self(keys.map(|key| Item::Key(key.to_owned())).into())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().enumerate() {
            match item {
                Item::Index(index) => write!(f, "[{index}]")?,
                Item::Key(key) if key.contains(['.', '[']) => write!(f, "[{key:?}]")?,
                Item::Key(key) if at == 0 => f.write_str(key)?,
                Item::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// Something wrong with one field of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FieldProblem {
    /// The field.
    pub path: FieldPath,
    /// What is wrong, quoting the value.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}
