//! Which pools of the device plugin are told of.

use std::path::PathBuf;

use clap::Args;

/// The configuration of the device plugin, and the kubelet that has its devices.
#[derive(Args, Debug)]
pub struct PoolArgs {
    /// Configuration of the device plugin, whose pools are told, or - for what is piped in; /etc/pcidp/config.json if it is there
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Prefix of resources whose pool has none
    #[arg(long, value_name = "PREFIX", default_value = "intel.com")]
    pub resource_prefix: String,

    /// Root directory of the kubelet, which is asked what pods have; /var/lib/kubelet, and none for a
    /// recorded host
    #[arg(long, value_name = "DIR")]
    pub kubelet_dir: Option<PathBuf>,
}
