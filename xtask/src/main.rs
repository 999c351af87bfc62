//! Developer commands of the repository: `cargo xtask demo`, `cargo xtask test` and so on.
//!
//! Each one sets up what it needs and says what it does. The commands are thin: what can be shown
//! without this crate (`virtfn-lab demo`, `cargo test`) is called, not rewritten.
#![expect(
    clippy::print_stderr,
    reason = "a developer command talks to its developer"
)]

mod build;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of virtfn.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boots two machines with emulated SR-IOV NICs and takes VFs from policy to ping.
    Demo {
        /// Handed to `virtfn-lab demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs every check and every test, those in the lab included.
    Test(test::Selection),
    /// Measures in the lab what a user waits for, against floors: `list`, `apply`, `cni`.
    Bench {
        /// Which bench, and what is handed to it.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds `virtfn` and `virtfn-lab` as the demo and the lab tests run them.
    Build,
    /// Checks what the compiler does not: layers, pure crates, file sizes, forbidden text.
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo { arguments } => build::binaries().and_then(|built| built.demo(&arguments)),
        Command::Test(selection) => test::run(&selection),
        Command::Bench { arguments } => build::bench(&arguments),
        Command::Build => build::binaries().map(|built| eprintln!("{built}")),
        Command::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
