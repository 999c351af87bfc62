//! `up`, `exec`, `down`, `list`: machines that stay up between commands.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use lab::up::{self, Dir, Name};
use lab::{Boot, Exit, KillSwitch, TimedOut};

use super::session::{Caught, Session, on_terminal};
use super::topology::{TopologyArgs, parse_time};
use super::{ui, unseen};

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Name of the lab
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: Name,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    topology: TopologyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Machine that runs the command, counted from 0
    #[arg(long, short = 'm', value_name = "K", default_value_t = 0)]
    machine: usize,
    /// Give the command a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// Set a variable for the command
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Stop the command after this time with status 124
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    timeout: Duration,
    /// Command to run as root; a shell if there is none
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

/// Starts a keeper and waits until its machines take commands.
pub(crate) fn up(args: &UpArgs) -> Result<ExitCode> {
    // Said here rather than in the keeper, and before anything is started.
    args.topology.topology()?;
    let dir = Dir::of(&args.name.name)?;
    if dir.is_up() {
        bail!(
            "lab {0} is up already; `virtfn-lab down --name {0}` ends it",
            args.name.name
        );
    }
    unseen::warn();
    let program = std::env::current_exe().context("find virtfn-lab itself")?;
    let arguments = std::env::args_os().skip_while(|arg| arg != "up").skip(1);
    let mut keeper = Command::new(program);
    keeper
        .arg("keep")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut keeper = keeper.spawn().context("start the keeper")?;
    let pid = keeper.id();
    let caught = Caught::new(None)?;
    let output = keeper.stdout.take().context("the keeper has no output")?;
    // The keeper's deadlines bound this: it boots or gives up, and either ends its output.
    for line in BufReader::new(output).lines() {
        if line.context("listen to the keeper")? == "ready" {
            let name = &args.name.name;
            let info = dir.info();
            ui::say(&format!(
                "lab {name} is up: {} machines, process {pid}, logs in {}",
                info.machines,
                dir.path().display()
            ));
            ui::say(&format!(
                "`virtfn-lab exec --name {name} -- CMD` runs a command, `virtfn-lab down --name {name}` ends it"
            ));
            return Ok(ExitCode::SUCCESS);
        }
    }
    keeper.wait().context("wait for the keeper")?;
    Ok(ui::exit_code(if caught.signal() == 0 {
        125
    } else {
        128 + caught.signal()
    }))
}

/// The keeper itself; `up` starts it.
pub(crate) fn keep(args: &UpArgs) -> Result<ExitCode> {
    // Away from the terminal's signals. It fails for the leader of a group, who is away already.
    rustix::process::setsid().ok();
    let dir = Dir::of(&args.name.name)?;
    let kill = KillSwitch::default();
    let caught = Caught::new(Some(kill.clone()))?;
    let topology = args.topology.topology()?;
    let boot = Boot {
        choice: args.topology.choice(),
        say: &ui::say,
        kill,
        ..Boot::default()
    };
    let ready = || {
        // Whoever started this process may have been stopped meanwhile.
        let told = io::stdout()
            .write_all(b"ready\n")
            .and_then(|()| io::stdout().flush());
        told.context("nobody waits for these machines any more")?;
        // Whoever started the keeper gets the streams back: it must not wait for their end.
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            rustix::stdio::dup2_stdout(&null).ok();
            rustix::stdio::dup2_stderr(&null).ok();
        }
        Ok(())
    };
    let result = up::keep(&dir, &topology, boot, &ready);
    match caught.signal() {
        0 => result.map(|()| ExitCode::SUCCESS),
        signal => Ok(ui::exit_code(128 + signal)),
    }
}

pub(crate) fn exec(args: &ExecArgs) -> Result<ExitCode> {
    let machine = up::machine(&Dir::of(&args.name.name)?, args.machine)?;
    let interactive = args.command.is_empty();
    let session = Session {
        argv: if interactive {
            vec!["/bin/bash".into()]
        } else {
            args.command.clone()
        },
        env: ui::environment(&args.env, args.tty || interactive),
        cwd: std::env::current_dir().ok(),
        terminal: args.tty || (interactive && on_terminal()),
        limit: args.timeout,
    };
    match session.run(&machine, &Caught::new(None)?, None) {
        Ok(exit) => {
            if let Exit::NotStarted(_, why) = &exit {
                ui::say(why);
            }
            Ok(ui::exit_code(exit.status()))
        }
        Err(error) if error.is::<TimedOut>() => {
            ui::say(&format!("{error:#}"));
            Ok(ExitCode::from(124))
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn down(args: &NameArgs) -> Result<ExitCode> {
    let dir = Dir::of(&args.name)?;
    if !dir.is_up() {
        // What a killed keeper left is not missed, and not a reason to fail.
        dir.remove()?;
        ui::say(&format!("lab {} is not up", args.name));
        return Ok(ExitCode::SUCCESS);
    }
    up::down(&dir)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn list() -> Result<ExitCode> {
    for dir in Dir::all()? {
        let info = dir.info();
        let state = match info.machines {
            0 => "booting".to_owned(),
            machines => format!("{machines} machines"),
        };
        ui::out(&format!(
            "{:12} {state:12} process {:8} {:24} {}\n",
            dir.name(),
            info.pid,
            info.devices,
            dir.path().display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
