//! `virtfn-lab`: runs commands on machines with emulated SR-IOV devices.

mod bench;
mod cli;
mod demo;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
