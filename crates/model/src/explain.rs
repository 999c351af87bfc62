//! Stable codes and remedies of errors that people see.

use std::error::Error;
use std::fmt;

/// Stable name of a kind of trouble, in kebab case, such as `vf-in-use`.
///
/// It is printed as `error[vf-in-use]` and becomes the CNI error detail, the condition reason and
/// the metric label, so a code is never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

impl Code {
    /// Names a code; it is written once, beside the error that has it.
    #[must_use]
    pub const fn new(code: &'static str) -> Self {
        Self(code)
    }

    /// Returns the code as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

/// An error that a person or a program outside acts on.
pub trait Explain: Error {
    /// Returns the stable code.
    fn code(&self) -> Code;

    /// Returns what the user can do, naming a command or a setting; `None` when there is nothing.
    fn remedy(&self) -> Option<String> {
        None
    }
}

/// Writes an error with its causes, as one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
