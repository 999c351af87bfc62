//! The command line.

mod run;
mod ui;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Machines with emulated SR-IOV devices
#[derive(Debug, Parser)]
#[command(name = "virtfn-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch what the lab needs and the host lacks
    Setup(SetupArgs),
    /// Boot machines, run a command, power off
    Run(run::RunArgs),
    /// Take VFs of two machines from a policy file to a ping
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
struct SetupArgs {
    #[command(flatten)]
    choice: ChoiceArgs,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// The `virtfn` to show
    #[arg(long, value_name = "PATH", default_value = "virtfn")]
    virtfn: std::path::PathBuf,
}

/// What to boot
#[derive(Clone, Debug, Default, Args)]
struct ChoiceArgs {
    /// QEMU for x86-64 with the igb device [env: VIRTFN_LAB_QEMU]
    #[arg(long, value_name = "PATH", global = true)]
    qemu: Option<std::path::PathBuf>,
    /// Kernel image [env: VIRTFN_LAB_KERNEL]
    #[arg(long, value_name = "PATH", global = true)]
    kernel: Option<std::path::PathBuf>,
    /// Module tree of that kernel, /lib/modules/VERSION [env: VIRTFN_LAB_MODULES]
    #[arg(long, value_name = "DIR", global = true)]
    modules: Option<std::path::PathBuf>,
}

impl ChoiceArgs {
    fn choice(&self) -> lab::Choice {
        let env = lab::Choice::from_env();
        lab::Choice {
            qemu: self.qemu.clone().or(env.qemu),
            kernel: self.kernel.clone().or(env.kernel),
            modules: self.modules.clone().or(env.modules),
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match &cli.verb {
        Verb::Setup(args) => setup(args),
        Verb::Run(args) => run::run(args),
        Verb::Demo(args) => crate::demo::run(&args.virtfn).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        ui::say(&format!("{error:#}"));
        // As `env`, `timeout` and container runtimes: apart from what a command returns.
        ExitCode::from(125)
    })
}

fn setup(args: &SetupArgs) -> anyhow::Result<ExitCode> {
    lab::Assets::check_content(&ui::say)?;
    let assets = lab::Assets::ready(&args.choice.choice(), &ui::say)?;
    ui::out(&format!(
        "qemu     {}\nkernel   {}\nmodules  {}\n",
        assets.qemu.program.display(),
        assets.kernel.image.display(),
        assets.kernel.modules.display()
    ));
    Ok(ExitCode::SUCCESS)
}
