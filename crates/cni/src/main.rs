//! Starts the CNI plugin; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(std::env::args_os())
}
