//! Words for the user. A closed stream is no reason to fail.

use std::io::{self, Write};

/// Says something about the lab itself.
pub(crate) fn say(text: &str) {
    writeln!(io::stderr(), "virtfn-lab: {text}").ok();
}

/// Writes a result.
pub(crate) fn out(text: &str) {
    io::stdout().write_all(text.as_bytes()).ok();
}
