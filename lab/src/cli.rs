//! The command line.
//!
//! Exit status: the command's own (128 + n for signal n, 126 and 127 if it could not be
//! started); 124 when time was up; 125 when the lab failed; 2 for bad usage.

mod kept;
mod run;
mod session;
mod test;
mod topology;
mod ui;
mod unseen;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::bench;

/// Machines with emulated SR-IOV devices, on the host's own files
#[derive(Debug, Parser)]
#[command(name = "virtfn-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch what the lab needs and the host lacks, and check what was fetched before
    Setup(SetupArgs),
    /// Boot machines, run a command, power off
    Run(Box<run::RunArgs>),
    /// Boot machines that do not reach each other and run the tests of cargo test binaries in them
    Test(Box<test::TestArgs>),
    /// Boot machines and open a shell on the first
    Shell(Box<run::ShellArgs>),
    /// Boot machines and keep them running
    Up(Box<kept::UpArgs>),
    /// Run a command on a machine that is up
    Exec(kept::ExecArgs),
    /// Power kept machines off
    Down(kept::NameArgs),
    /// List the labs that are up
    List,
    /// Take VFs of two machines from a policy file to a ping
    Demo(DemoArgs),
    /// Measure programs in a machine, against a floor beside them; prints one JSON object
    #[command(subcommand)]
    Bench(BenchVerb),
    /// Run the programs that standard input names, in turn, and print their times
    #[command(hide = true)]
    Race,
    /// Call the CNI plugins that standard input names, in turn, and print their times
    #[command(hide = true)]
    CniRace,
    /// Own machines that stay up
    #[command(hide = true)]
    Keep(Box<kept::UpArgs>),
}

#[derive(Debug, Subcommand)]
enum BenchVerb {
    /// `virtfn list` as a whole process
    List(bench::ListBench),
    /// virtfn agent with 1,024 VFs in 8 pools of a recorded host; needs no machine
    Agent(bench::AgentBench),
    /// `virtfn apply` on four NICs at once, and onto vfio-pci
    Apply(bench::ApplyBench),
    /// ADD and DEL of the CNI plugin, against a floor and other plugins
    Cni(bench::CniBench),
}

#[derive(Debug, Args)]
struct SetupArgs {
    #[command(flatten)]
    topology: topology::TopologyArgs,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// The `virtfn` to show
    #[arg(long, value_name = "PATH", default_value = "virtfn")]
    virtfn: std::path::PathBuf,
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stream is no reason to fail.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.verb {
        Verb::Setup(args) => setup(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Test(args) => test::test(&args),
        Verb::Shell(args) => run::shell(*args),
        Verb::Up(args) => kept::up(&args),
        Verb::Exec(args) => kept::exec(&args),
        Verb::Down(args) => kept::down(&args),
        Verb::List => kept::list(),
        Verb::Demo(args) => crate::demo::run(&args.virtfn).map(|()| ExitCode::SUCCESS),
        Verb::Bench(BenchVerb::Agent(args)) => bench::agent(&args).map(|view| printed(&view)),
        Verb::Bench(BenchVerb::List(args)) => bench::list(&args).map(|view| printed(&view)),
        Verb::Bench(BenchVerb::Apply(args)) => bench::apply(&args).map(|view| printed(&view)),
        Verb::Bench(BenchVerb::Cni(args)) => bench::cni(&args).map(|view| printed(&view)),
        Verb::CniRace => bench::cni_race().map(|times| printed(&times)),
        Verb::Race => bench::race().map(|times| printed(&times)),
        Verb::Keep(args) => kept::keep(&args),
    };
    result.unwrap_or_else(|error| {
        ui::say(&format!("{error:#}"));
        ExitCode::from(125)
    })
}

fn printed(line: &str) -> ExitCode {
    ui::out(&format!("{line}\n"));
    ExitCode::SUCCESS
}

fn setup(args: &SetupArgs) -> Result<ExitCode> {
    lab::Assets::check_content(&ui::say)?;
    let assets = lab::Assets::ready(
        &args.topology.choice(),
        &args.topology.topology()?,
        &ui::say,
    )?;
    let (qemu, kernel) = (&assets.qemu, &assets.kernel);
    ui::out(&format!("qemu     {}\n", qemu.program.display()));
    ui::out(&format!(
        "kernel   {}\nmodules  {}\n",
        kernel.image.display(),
        kernel.modules.display()
    ));
    if let Some(tools) = &assets.tools {
        ui::out(&format!("tools    {}\n", tools.display()));
    }
    if let Some(services) = &assets.services {
        ui::out(&format!("services {}\n", services.display()));
    }
    Ok(ExitCode::SUCCESS)
}
