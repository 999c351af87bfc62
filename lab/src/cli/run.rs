//! `virtfn-lab run` and `virtfn-lab shell`: one boot, one command.

use std::ffi::OsString;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use lab::{Boot, Exit, Lab, TimedOut};

use super::session::{Caught, Session, on_terminal};
use super::topology::{TopologyArgs, parse_time};
use super::{ui, unseen};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    topology: TopologyArgs,
    /// Machine that runs the command: a number from 0, or all (output then carries names)
    #[arg(long, value_name = "K|all", default_value = "0")]
    on: On,
    /// Stop after this time with status 124, such as 90s or 10m
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    timeout: Duration,
    /// Set a variable for the command
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the command a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// Keep no logs of a command that fails
    #[arg(long)]
    no_bundle: bool,
    /// Say where the time went
    #[arg(long)]
    timing: bool,
    /// Command to run as root, in the current directory
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    topology: TopologyArgs,
}

/// Which machines run a command.
#[derive(Clone, Copy, Debug)]
enum On {
    One(usize),
    All,
}

impl FromStr for On {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            _ => text
                .parse()
                .map(Self::One)
                .map_err(|_| "not a machine's number or all".to_owned()),
        }
    }
}

pub(crate) fn shell(args: ShellArgs) -> Result<ExitCode> {
    ensure!(
        on_terminal(),
        "shell needs a terminal; `virtfn-lab run -- CMD` does not"
    );
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    run(&RunArgs {
        topology: args.topology,
        on: On::One(0),
        // As long as somebody sits there; a year is the longest that can be said.
        timeout: Duration::from_secs(365 * 24 * 3600),
        env: Vec::new(),
        tty: true,
        no_bundle: true,
        timing: false,
        command: vec![shell],
    })
}

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let start = Instant::now();
    let topology = args.topology.topology()?;
    if let On::One(index) = args.on {
        ensure!(
            index < topology.machines,
            "--on {index}: there are {} machines, counted from 0",
            topology.machines
        );
    }
    let (boot, caught) = prepared(&args.topology)?;
    let result = boot.boot(&topology).and_then(|lab| {
        let booted = start.elapsed();
        let result = commands(&lab, args, &caught);
        let ended = start.elapsed();
        if caught.signal() == 0 && !args.no_bundle {
            keep_logs(&lab, &result);
        }
        let details = timing(&lab);
        if caught.signal() == 0 {
            lab.power_off();
        }
        if args.timing {
            let (command, off) = (ended - booted, start.elapsed() - ended);
            let total = start.elapsed();
            ui::say(&format!(
                "boot {booted:.2?}, command {command:.2?}, power off {off:.2?}, all {total:.2?}"
            ));
            ui::say(&details);
        }
        result
    });
    ended(&caught, result)
}

/// Returns how to boot machines of which a signal to this process is the end.
pub(crate) fn prepared(options: &TopologyArgs) -> Result<(Boot<'static>, Caught)> {
    unseen::warn();
    let boot = Boot {
        choice: options.choice(),
        say: &ui::say,
        ..Boot::default()
    };
    let caught = Caught::new(Some(boot.kill.clone()))?;
    Ok((boot, caught))
}

/// Returns the status of this process, which signals and time may have ended.
pub(crate) fn ended(caught: &Caught, result: Result<Exit>) -> Result<ExitCode> {
    match (caught.signal(), result) {
        (0, Ok(exit)) => Ok(ui::exit_code(exit.status())),
        (0, Err(error)) if error.is::<TimedOut>() => {
            ui::say(&format!("{error:#}"));
            Ok(ExitCode::from(124))
        }
        (0, Err(error)) => Err(error),
        (signal, _) => Ok(ui::exit_code(128 + signal)),
    }
}

fn commands(lab: &Lab, args: &RunArgs, caught: &Caught) -> Result<Exit> {
    let session = Session {
        argv: args.command.clone(),
        env: ui::environment(&args.env, args.tty),
        cwd: std::env::current_dir().ok(),
        terminal: args.tty,
        limit: args.timeout,
    };
    let exit = match args.on {
        On::One(index) => session.run(&lab[index], caught, None)?,
        On::All => thread::scope(|scope| {
            let each = lab.machines().iter().map(|machine| {
                let session = &session;
                scope.spawn(move || session.run(machine, caught, Some(machine.name())))
            });
            let each: Vec<_> = each.collect();
            let results = each
                .into_iter()
                .map(|thread| thread.join().ok().context("a thread died")?);
            let exits = results.collect::<Result<Vec<_>>>()?;
            Ok::<_, anyhow::Error>(
                exits
                    .into_iter()
                    .find(|exit| !exit.success())
                    .unwrap_or(Exit::Code(0)),
            )
        })?,
    };
    if let Exit::NotStarted(_, why) = &exit {
        ui::say(why);
    }
    Ok(exit)
}

fn keep_logs(lab: &Lab, result: &Result<Exit>) {
    let why = match result {
        Ok(exit) if exit.success() => return,
        // A command that is not there says nothing about the machine.
        Ok(Exit::NotStarted(..)) => return,
        Ok(exit) => format!("the command ended with {exit:?}"),
        Err(error) => format!("{error:#}"),
    };
    ui::say_logs(&lab.bundle(&why));
}

fn timing(lab: &Lab) -> String {
    let each = lab.machines().iter().map(|machine| {
        let timing = machine.timing();
        let (ready, kernel) = (timing.ready.as_secs_f32(), &timing.guest_uptime);
        format!(
            "{} ready {ready:.2}s after its start, {kernel}s by its own clock",
            machine.name()
        )
    });
    let by = if lab.is_accelerated() {
        "KVM"
    } else {
        "emulated"
    };
    format!("{by}; {}", each.collect::<Vec<_>>().join("; "))
}
