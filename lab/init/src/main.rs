//! The first process of a lab machine, and two small helpers that ride along in the same file.
//!
//! | Called as | Does |
//! |---|---|
//! | process 1 | boots ([`boot`]), starts `serve`, reaps orphans, powers off when `serve` ends |
//! | `serve keep` or `serve forget` | runs commands for the host ([`serve`]); its standard input is the virtio port. With `alone` it powers off itself, because process 1 is systemd by then |
//! | `terminal CMD…` | makes standard input the controlling terminal, then becomes CMD |
//! | `leash PARENT CMD…` | on the *host*: becomes CMD, to be killed when process PARENT ends |
//!
//! Reaping and serving are two processes on purpose: process 1 waits for anybody, and would
//! snatch the exit status of a command from the thread that waits for it.

#![forbid(unsafe_code)]

mod boot;
mod command;
#[path = "../../src/proto.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the host side, which uses the other half"
)]
mod proto;
mod serve;
mod systemd;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getpid, getppid};

fn main() -> ExitCode {
    if getpid() == Pid::INIT {
        boot::run();
    }
    let mut args = std::env::args_os().skip(1);
    let verb = args.next().unwrap_or_default();
    let result = match verb.to_str() {
        Some("serve") => {
            let served = serve::run(args.next().is_some_and(|arg| arg == "forget"));
            if args.next().is_some_and(|arg| arg == "alone") {
                boot::power_off();
            }
            served
        }
        Some("terminal") => terminal(args),
        Some("leash") => leash(args),
        _ => Err(io::Error::other(
            "called as none of: process 1, serve, terminal, leash",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; then there is nobody to tell.
            writeln!(io::stderr(), "{}: {error}", verb.display()).ok();
            // What a shell returns for a command that it could not start.
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            })
        }
    }
}

fn terminal(args: impl Iterator<Item = OsString>) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    become_command(args)
}

fn leash(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = args
        .next()
        .and_then(|arg| arg.to_str()?.parse().ok())
        .and_then(Pid::from_raw);
    // The parent may have died before the line above: then no signal will ever come.
    if parent.is_none() || getppid() != parent {
        return Err(io::Error::other(
            "the process that started this one is gone",
        ));
    }
    become_command(args)
}

fn become_command(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let program = args
        .next()
        .ok_or_else(|| io::Error::other("no command given"))?;
    let error = Command::new(&program).args(args).exec();
    Err(named(&program, error))
}

fn named(program: &OsStr, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", program.display()))
}
