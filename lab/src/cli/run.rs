//! `virtfn-lab run`: one boot, one command.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use lab::{Boot, Events, Exit, KillSwitch, Lab, Machine, Nic, Topology};

use super::{ChoiceArgs, ui};

/// The devices and machines of a lab
#[derive(Clone, Debug, Args)]
pub(crate) struct TopologyArgs {
    /// How many machines
    #[arg(long, short = 'm', value_name = "N", default_value_t = 1)]
    machines: usize,
    /// NICs of each machine: igb, igb:acs=off, user; NIC n of all machines is on one wire
    #[arg(
        long,
        value_name = "NIC[,NIC…]",
        value_delimiter = ',',
        default_value = "igb"
    )]
    nic: Vec<String>,
    /// An NVMe controller with VFs
    #[arg(long, value_name = "vfs=N", value_parser = parse_nvme)]
    nvme: Option<u8>,
    /// More words for the kernel command line
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Memory of each machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    mem: u32,
    /// Processors of each machine
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u8,
    /// One more argument for QEMU
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
}

impl TopologyArgs {
    pub(crate) fn topology(&self) -> Result<Topology> {
        let nics = self
            .nic
            .iter()
            .filter(|nic| *nic != "none")
            .map(|nic| nic.parse());
        Ok(Topology {
            nics: nics.collect::<Result<Vec<Nic>, _>>()?,
            nvme_vfs: self.nvme,
            memory_mib: self.mem,
            cpus: self.cpus,
            append: self.append.clone(),
            qemu_args: self.qemu_arg.clone(),
            ..Topology::bare(self.machines)
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    topology: TopologyArgs,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Stop after this time with status 124, such as 90s or 10m
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    timeout: Duration,
    /// Say where the time went
    #[arg(long)]
    timing: bool,
    /// Command to run as root
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let start = Instant::now();
    let topology = args.topology.topology()?;
    let boot = Boot {
        choice: args.choice.choice(),
        say: &ui::say,
        ..Boot::default()
    };
    let interrupted = on_signals(&boot.kill)?;
    let result = boot.boot(&topology).and_then(|lab| {
        let booted = start.elapsed();
        let exit = command(&lab[0], args, start + args.timeout)?;
        let ended = start.elapsed();
        lab.power_off();
        if args.timing {
            ui::say(&format!(
                "booted {booted:.2?}, command ended {ended:.2?}, off {:.2?}",
                start.elapsed()
            ));
        }
        Ok(exit)
    });
    match interrupted.load(Ordering::Relaxed) {
        0 => result.map(|exit| exit_code(exit.status())),
        signal => Ok(exit_code(128 + signal)),
    }
}

fn command(machine: &Machine, args: &RunArgs, deadline: Instant) -> Result<Exit> {
    let mut command = machine.command(&args.command);
    if let Ok(dir) = std::env::current_dir() {
        command = command.cwd(dir);
    }
    let running = command.start()?;
    running.feed(io::stdin())?;
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    loop {
        use io::Write;
        match running.next(deadline)?.context("time is up")? {
            Events::Stdout(bytes) => stdout.write_all(&bytes).and_then(|()| stdout.flush())?,
            Events::Stderr(bytes) => stderr.write_all(&bytes)?,
            Events::Exit(exit) => {
                if let Exit::NotStarted(_, why) = &exit {
                    ui::say(why);
                }
                return Ok(exit);
            }
        }
    }
}

pub(crate) fn on_signals(kill: &KillSwitch) -> Result<Arc<AtomicI32>> {
    let caught = Arc::new(AtomicI32::new(0));
    let (kill, told) = (kill.clone(), Arc::clone(&caught));
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("catch signals")?;
    let wait = move || {
        for signal in &mut signals {
            told.store(signal, Ordering::Relaxed);
            kill.throw();
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .context("start a thread for signals")?;
    Ok(caught)
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status & 0xff).unwrap_or(1))
}

fn parse_nvme(text: &str) -> Result<u8, String> {
    let number = text
        .strip_prefix("vfs=")
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| "not of the form vfs=4".to_owned())
}

pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let number: Option<u64> = number.parse().ok();
    let factor = match unit {
        "s" | "" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let seconds = number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "not a time such as 90s, 10m or 1h".to_owned())
}
