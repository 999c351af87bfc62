//! `virtfn agent`, and the command line of the device plugin that it replaces.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::StateArgs;

/// `virtfn agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Configuration of the SR-IOV network device plugin
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/pcidp/config.json",
        alias = "config-file"
    )]
    pub config: PathBuf,

    /// Prefix of resources whose pool has none
    #[arg(long, value_name = "PREFIX", default_value = "intel.com")]
    pub resource_prefix: String,

    /// Pass device nodes by the Container Device Interface
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", value_name = "BOOL")]
    pub use_cdi: bool,

    /// How the kubelet learns of the pools
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub registration: RegistrationArg,

    /// Root directory of the kubelet
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,

    /// Serve /healthz, /readyz, /metrics and /debug/state on this address, such as 127.0.0.1:9808
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Where device plugins register
    #[arg(long, value_name = "DIR", hide = true)]
    pub device_plugin_dir: Option<PathBuf>,

    /// Where device-info files go
    #[arg(long, value_name = "DIR", hide = true)]
    pub device_info_dir: Option<PathBuf>,

    /// Where CDI specifications go
    #[arg(long, value_name = "DIR", hide = true)]
    pub cdi_dir: Option<PathBuf>,

    /// Where the host is seen
    #[command(flatten)]
    pub state: StateArgs,
}

/// How the kubelet learns of the pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RegistrationArg {
    /// By its plugin watcher when it has one
    #[default]
    Auto,
    /// It finds the sockets in plugins_registry
    Watcher,
    /// It is called at kubelet.sock
    Legacy,
}

/// Options of upstream's binary and of its image's entry point that say something to us, with ours.
const KEPT: [(&str, &str); 2] = [
    ("config-file", "--config"),
    ("resource-prefix", "--resource-prefix"),
];

/// Options about logs, which go to stderr here; those that take a value.
const LOGS_WITH_VALUE: [&str; 10] = [
    "v",
    "vmodule",
    "stderrthreshold",
    "log_dir",
    "log_backtrace_at",
    "log_link",
    "logbuflevel",
    "log-dir",
    "log-level",
    "log_file",
];

/// Options about logs that are a switch.
const LOGS: [&str; 2] = ["logtostderr", "alsologtostderr"];

/// Turns the command line of upstream's `sriovdp`, or of the entry point of its image, into ours.
///
/// `None` when the program was not started under one of these names. An unknown option is passed on, so
/// that it is refused as it always is.
#[must_use]
pub fn as_agent(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let (program, rest) = arguments.split_first()?;
    let name = Path::new(program).file_name().and_then(OsStr::to_str);
    if !matches!(name, Some("sriovdp" | "entrypoint.sh")) {
        return None;
    }
    let mut ours: Vec<OsString> = vec![program.clone(), "agent".into()];
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        let option = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
        let Some(option) = option else {
            ours.push(argument.clone());
            continue;
        };
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (option, None),
        };
        let mut value_of = || {
            value
                .clone()
                .or_else(|| Some(rest.next()?.to_string_lossy().into()))
        };
        if let Some((_, kept)) = KEPT.iter().find(|(known, _)| *known == option) {
            // The entry point leaves out what is empty.
            if let Some(value) = value_of().filter(|value| !value.is_empty()) {
                ours.push(format!("{kept}={value}").into());
            }
        } else if option == "use-cdi" {
            let off = matches!(
                value.as_deref(),
                Some("false" | "0" | "f" | "F" | "FALSE" | "False")
            );
            ours.push(format!("--use-cdi={}", !off).into());
        } else if LOGS_WITH_VALUE.contains(&option) {
            value_of();
        } else if !LOGS.contains(&option) {
            ours.push(argument.clone());
        }
    }
    Some(ours)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn agent(line: &str) -> AgentArgs {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let ours = as_agent(&words).unwrap_or(words);
        match Cli::try_parse_from(ours).unwrap().command {
            Command::Agent(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn command_lines_of_the_device_plugin_are_understood() {
        let args = agent(
            "/usr/bin/sriovdp --logtostderr -v 10 --resource-prefix=openshift.io -config-file /etc/pcidp/node1 -use-cdi",
        );
        assert_eq!(args.resource_prefix, "openshift.io");
        assert_eq!(args.config, Path::new("/etc/pcidp/node1"));
        assert!(args.use_cdi);
        let args = agent("/entrypoint.sh --log-dir=sriovdp --log-level=10 --resource-prefix=");
        assert_eq!(args.resource_prefix, "intel.com");
        assert_eq!(args.config, Path::new("/etc/pcidp/config.json"));
        assert!(!args.use_cdi);
        assert!(!agent("sriovdp --use-cdi=false -alsologtostderr -stderrthreshold INFO").use_cdi);
        assert!(agent("virtfn agent --use-cdi").use_cdi);
        let unknown = as_agent(&["sriovdp".into(), "--nonsense".into()]).unwrap();
        assert!(Cli::try_parse_from(unknown).is_err());
        assert_eq!(as_agent(&["virtfn".into(), "agent".into()]), None);
    }
}
