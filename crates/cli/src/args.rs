//! The command line as it was typed: raw text, turned into typed requests by the commands.
//!
//! Nothing here decides. Help, completions and the goldens of both come from these definitions.

mod agent;
mod pools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use agent::{AgentArgs, RegistrationArg, as_agent};
pub use pools::PoolArgs;

/// SR-IOV on Linux, from NIC to workload
///
/// See what a host has, read a change before it is made, make it, and give virtual functions (VFs) to
/// network namespaces.
#[derive(Debug, Parser)]
#[command(
    name = "virtfn",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done or nothing to do, 1 failed, 2 bad usage or input, 3 something to \
                  do (--check), or a reboot to wait for, 4 refused because somebody's traffic would stop, \
                  70 bug."
)]
pub struct Cli {
    /// Say more on stderr; twice for every step
    #[arg(short, long, global = true, display_order = 100, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Look at the host beneath this directory
    #[arg(long, global = true, value_name = "DIR", hide = true)]
    pub root: Option<PathBuf>,

    /// Keep records and locks in this directory
    #[arg(long, global = true, value_name = "DIR", hide = true)]
    pub state_dir: Option<PathBuf>,

    /// Die at the n-th change, for tests
    #[cfg(feature = "kill-points")]
    #[arg(long, global = true, value_name = "N", hide = true, default_value_t)]
    pub kill_at: u32,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the SR-IOV devices of this host
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Draw machines, PFs, VFs and who holds them
    Topology(TopologyArgs),
    /// Show what policies would change on this host; change nothing
    Plan(PlanArgs),
    /// Make this host as policies want it
    Apply(ApplyArgs),
    /// Show what is wanted of this host against what is seen, and how the last apply went
    Status(StatusArgs),
    /// Give a VF to a network namespace
    Attach(Box<AttachArgs>),
    /// Take a VF back, as it was before
    Detach(DetachArgs),
    /// Tell who has a VF, since when, what was changed, and why it is in a pool or in none
    Explain(ExplainArgs),
    /// Serve the devices of this host to its kubelet, as the SR-IOV network device plugin does
    Agent(Box<AgentArgs>),
    /// Record what virtfn sees of this host, for a bug report or a test
    Record(RecordArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// Aligned columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// One name a line, as other commands take it
    Name,
    /// JSON, described in docs/json.md
    Json,
    /// The same as YAML
    Yaml,
}

/// Form of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlanOutput {
    /// Text for people
    #[default]
    Text,
    /// JSON, described in docs/json.md
    Json,
}

/// Form of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// Text for people
    #[default]
    Text,
    /// JSON: the `status` of an SriovNetworkNodeState
    Json,
    /// The same as YAML
    Yaml,
}

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListWhat {
    /// Physical functions: devices that can have VFs
    #[value(alias = "pfs")]
    Pf,
    /// Virtual functions
    #[value(alias = "vfs")]
    Vf,
    /// Resources that policies or the device plugin offer, and how many of their devices are free
    #[value(alias = "pools")]
    Pool,
}

/// Where the host is seen.
#[derive(Args, Debug)]
pub struct StateArgs {
    /// Look at a recorded host instead of this one: what `virtfn record` wrote
    #[arg(long, value_name = "PATH", visible_alias = "state")]
    pub recorded: Option<PathBuf>,
}

/// `virtfn list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// What to list; PFs with their VFs when absent
    pub what: Option<ListWhat>,

    /// Form of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: ListOutput,

    /// With `pool`: the policies whose pools are shown
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,

    /// With `pool`: a label of this node, for the node selectors of policies
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,

    /// With `pool` and no policies: the pools of the device plugin
    #[command(flatten)]
    pub pools: PoolArgs,

    /// Where the host is seen
    #[command(flatten)]
    pub state: StateArgs,
}

/// `virtfn topology`.
#[derive(Args, Debug)]
pub struct TopologyArgs {
    /// Draw a machine from the output of its `virtfn list -o json`, instead of this host
    #[arg(long, value_name = "NAME=FILE")]
    pub from: Vec<String>,

    /// A cable between two PFs, such as lab0/ens1=lab1/ens1
    #[arg(long, value_name = "NAME/PF=NAME/PF")]
    pub join: Vec<String>,

    /// Draw with ASCII characters only
    #[arg(long)]
    pub ascii: bool,

    /// Where the host is seen
    #[command(flatten)]
    pub state: StateArgs,
}

/// Policies and what they are held against.
#[derive(Args, Debug)]
pub struct PolicyArgs {
    /// SriovNetworkNodePolicy objects, or the node's SriovNetworkNodeState, as YAML or JSON; a directory
    /// is read in order of its names
    #[arg(short, long = "file", value_name = "FILE|DIR", required = true)]
    pub files: Vec<PathBuf>,

    /// A label of this node, for the node selectors of policies
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,
}

/// `virtfn plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The policies
    #[command(flatten)]
    pub policies: PolicyArgs,

    /// Exit with status 3 when there is something to do
    #[arg(long)]
    pub check: bool,

    /// Form of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: PlanOutput,

    /// Where the host is seen
    #[command(flatten)]
    pub state: StateArgs,
}

/// `virtfn apply`.
#[derive(Args, Debug)]
#[command(
    override_usage = "virtfn apply [OPTIONS] --file <FILE|DIR>\n       virtfn apply --unpersist"
)]
#[command(mut_arg("files", |files| files.required(false).required_unless_present("unpersist")))]
pub struct ApplyArgs {
    /// The policies
    #[command(flatten)]
    pub policies: PolicyArgs,

    /// Show the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Go on although VFs that somebody holds are interrupted
    #[arg(long)]
    pub disrupt: bool,

    /// Go on although a PF is reconfigured that carries the default route, the way to the API server, or
    /// the host's own storage
    #[arg(long)]
    pub allow_default_route: bool,

    /// Write the kernel arguments that are needed; they take effect at the next boot
    #[arg(long)]
    pub kernel_args: bool,

    /// Write the firmware settings of NICs that are needed, and take those back that nobody needs any
    /// more; they take effect at the next boot
    #[arg(long)]
    pub firmware: bool,

    /// Reset NICs whose firmware settings wait for a reboot, for firmware that does not read them at one.
    /// Their links go down meanwhile; a NIC with VFs is left alone
    #[arg(long, requires = "firmware")]
    pub firmware_reset: bool,

    /// Keep it so across reboots: store the policies, apply them at boot before the network comes up,
    /// keep other managers off the VFs
    #[arg(long)]
    pub persist: bool,

    /// Undo --persist: remove every file that it made. VFs stay as they are
    #[arg(long, conflicts_with_all = [
        "files", "node_labels", "disrupt", "allow_default_route", "kernel_args", "firmware",
        "firmware_reset", "persist",
        "vf_settings",
    ])]
    pub unpersist: bool,

    /// Give VFs back the MACs, VLANs and other settings that --persist took down in this file
    #[arg(long, value_name = "FILE")]
    pub vf_settings: Option<PathBuf>,
}

/// `virtfn status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Policies that say what is wanted; those that `apply --persist` keeps when absent
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,

    /// A label of this node, for the node selectors of policies
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,

    /// Exit with status 3 when something differs, failed, is damaged or waits for a reboot
    #[arg(long)]
    pub check: bool,

    /// Form of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: StatusOutput,

    /// Where the host is seen
    #[command(flatten)]
    pub state: StateArgs,
}

/// `virtfn attach`.
#[derive(Args, Debug)]
pub struct AttachArgs {
    /// The VF: a PCI address, a PF and an index such as ens1f0#3, or the name of its netdev
    pub vf: String,

    /// The namespace: a name of `ip netns`, a path, or a process id
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: String,

    /// Name of the interface in the namespace; the one that it has when absent
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Hardware address
    #[arg(long, value_name = "MAC")]
    pub mac: Option<String>,

    /// VLAN that the PF tags its traffic with; 0 is no VLAN
    #[arg(long, value_name = "0..4094")]
    pub vlan: Option<String>,

    /// Priority of the VLAN tag
    #[arg(long, value_name = "0..7", requires = "vlan")]
    pub qos: Option<String>,

    /// Protocol of the VLAN tag: 802.1q or 802.1ad
    #[arg(long, value_name = "PROTO", requires = "vlan")]
    pub vlan_proto: Option<String>,

    /// Address with prefix length, such as 192.0.2.1/24; may be repeated
    #[arg(long = "address", value_name = "CIDR")]
    pub addresses: Vec<String>,

    /// MTU in bytes
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<String>,

    /// Drop frames that do not carry the VF's own MAC
    #[arg(long, value_name = "on|off")]
    pub spoofchk: Option<String>,

    /// Let the VF change its MAC and be promiscuous
    #[arg(long, value_name = "on|off")]
    pub trust: Option<String>,

    /// Guaranteed transmit rate in Mbit/s; 0 is none
    #[arg(long, value_name = "MBIT/S")]
    pub min_tx_rate: Option<String>,

    /// Highest transmit rate in Mbit/s; 0 is unlimited
    #[arg(long, value_name = "MBIT/S")]
    pub max_tx_rate: Option<String>,

    /// Link that the VF sees: auto, enable or disable
    #[arg(long, value_name = "STATE")]
    pub link_state: Option<String>,

    /// Show the steps and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `virtfn detach`.
#[derive(Args, Debug)]
pub struct DetachArgs {
    /// The VF: a PCI address, a PF and an index such as ens1f0#3, or the name of its netdev
    pub vf: String,

    /// Show the steps and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `virtfn explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// A VF (a PCI address, a PF and an index such as ens1f0#3, or the name of its netdev), a
    /// sub-function such as mlx5_core.sf.4, or `pool` and the name of a pool of the device plugin
    #[arg(num_args = 1..=2, required = true, value_names = ["[vf] VF|pool", "NAME"])]
    pub object: Vec<String>,

    /// Form of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: PlanOutput,

    /// The pools
    #[command(flatten)]
    pub pools: PoolArgs,

    /// Where the host is seen
    #[command(flatten)]
    pub state: StateArgs,
}

/// `virtfn record`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// The file to write; it must not exist
    pub file: PathBuf,
}

/// `virtfn completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}
