//! The CNI plugin: what a container runtime starts to give a VF to a container.
//!
//! One small program, started anew for each call. The name that it is called under says which plugin
//! it is ([`run`]). Everything that lasts is on the disk: virtfn's own record of each VF
//! (`host::Ledger`), and the files of upstream's plugin, which are read and written so that a node
//! can change between the two with pods running.
//!
//! | Part | Does |
//! |---|---|
//! | `call` | reads environment and stdin, writes the one answer |
//! | `sriov` | ADD, DEL, CHECK, STATUS and GC of the plugins that give VFs: `sriov`, `ib-sriov` |
//! | `rdma` | the same of the plugin that moves the RDMA device of a VF |
//! | `ipam` | runs the IPAM plugin that the network names |
//! | `memo` | keeps the call that addresses were reserved for |
//! | `upstream` | upstream's cache, allocation, state and lock files |
//! | `install` | copies this program into the runtime's plugin directory |
//!
//! It decides little: what is done to a VF is planned by `policy` and done by `host`. What would
//! surprise: a runtime ends a call that takes too long with SIGKILL, and then no code of ours runs.
//! So nothing here relies on cleaning up after itself; it only makes it likelier.

mod call;
mod failure;
mod install;
mod ipam;
mod log;
mod memo;
mod place;
mod plugin;
mod rdma;
mod sriov;
mod upstream;

use std::ffi::OsString;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::ExitCode;

use api::cni::{Command, Environment, versions_json};

use call::{Answer, Call};
use failure::Failure;
use place::{Machine, Place};
use plugin::Plugin;

/// Runs the program: `words` are its name and its arguments.
///
/// Called as `sriov`, `ib-sriov` or `rdma` it is that plugin; under any other name it installs itself.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words = words.into_iter();
    let called = words.next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    match Plugin::of(name) {
        Some(plugin) => call(plugin, words),
        None => install::run(words),
    }
}

/// Makes one CNI call.
fn call(plugin: Plugin, mut words: impl Iterator<Item = OsString>) -> ExitCode {
    if words.any(|word| word == "--version" || word == "-v") {
        return say(&format!("virtfn-cni {}", env!("CARGO_PKG_VERSION")));
    }
    let environment = match Environment::read(|name| std::env::var_os(name)) {
        Ok(environment) => environment,
        Err(error) => return refuse(&Failure::of(error.number(), &error), None),
    };
    if environment.command == Command::Version {
        return say(&versions_json());
    }
    let call = match Call::read(plugin, environment) {
        Ok(call) => call,
        Err(failure) => return refuse(&failure, None),
    };
    log::start(&call);
    let place = call::see_stdout().and_then(|()| Place::this_machine());
    // The process ends with the call, and then the kernel closes and frees all at once.
    let place = place.map(ManuallyDrop::new);
    let outcome = place.and_then(|mut place| match serve(&call, &mut place)? {
        Answer::Silent => Ok(()),
        Answer::Result(text) => call::print(&text).map_err(|error| {
            let unheard = Failure::unheard(&error);
            match abandon(&call, &mut place) {
                Ok(()) => unheard,
                Err(undo) => unheard.and(&undo),
            }
        }),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(code = %failure.code(), "{}", failure.message());
            refuse(&failure, Some(&call))
        }
    }
}

/// Serves a call.
fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<Answer, Failure> {
    match call.plugin {
        Plugin::Sriov | Plugin::IbSriov => sriov::serve(call, place),
        Plugin::Rdma => rdma::serve(call, place),
    }
}

/// Takes back an ADD whose result nobody took.
fn abandon<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    match call.plugin {
        Plugin::Sriov | Plugin::IbSriov => sriov::abandon(call, place),
        Plugin::Rdma => rdma::abandon(call, place),
    }
}

/// Prints one line; a reader that is gone is no reason to fail here.
fn say(text: &str) -> ExitCode {
    match call::print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refuse(failure: &Failure, call: Option<&Call>) -> ExitCode {
    let version = call.map(|call| call.config.version);
    let is_del = call.is_some_and(|call| call.environment.command == Command::Del);
    let text = failure.to_object(version, is_del).to_json();
    if call::print(&text).is_err() {
        // Nobody reads the answer; stderr may still go to the runtime's log.
        let _unheard = writeln!(std::io::stderr(), "{text}");
    }
    ExitCode::FAILURE
}
