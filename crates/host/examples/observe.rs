//! Shows what is seen of this machine, or records it: `observe [record | one ADDRESS]`.
//!
//! The recording is a tree as in `crates/fixtures/trees`; how a new fixture is made from a machine
//! of the lab is written in the README there.

#![expect(clippy::print_stdout, reason = "showing is all that it does")]

use std::error::Error;

use fixtures::inventory_text;
use host::Linux;
use model::{Host, Scope};

fn main() -> Result<(), Box<dyn Error>> {
    let mut linux = Linux::this_machine()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => print!("{}", inventory_text(&linux.observe(Scope::All)?)),
        ["one", address] => {
            let scope = Scope::Function(address.parse()?);
            print!("{}", inventory_text(&linux.observe(scope)?));
        }
        ["record"] => print!("{}", linux.record()?),
        _ => return Err("usage: observe [record | one ADDRESS]".into()),
    }
    Ok(())
}
