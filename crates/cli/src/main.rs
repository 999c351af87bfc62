//! virtfn.

fn main() {}
