//! Options that say which machines.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use lab::{Choice, Nic, Topology};

/// The devices and machines of a lab
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Machines")]
pub(crate) struct TopologyArgs {
    /// How many machines, all alike
    #[arg(long, short = 'm', value_name = "N", default_value_t = 1)]
    machines: usize,
    /// NICs of each machine: igb, igb:acs=off, user or none. NIC n of all machines is on one wire
    #[arg(
        long,
        value_name = "NIC[,NIC…]",
        value_delimiter = ',',
        default_value = "igb"
    )]
    nic: Vec<String>,
    /// Give each machine an NVMe controller with N VFs
    #[arg(long, value_name = "vfs=N", value_parser = parse_nvme)]
    nvme: Option<u8>,
    /// More words for the kernel command line
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// Memory of each machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    mem: u32,
    /// Processors of each machine
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u8,
    /// One more argument for QEMU; can be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
    /// How long a machine may take to boot
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    boot_timeout: Option<Duration>,
    /// Keep what machines write on disks in this directory; the next boot with it finds them
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Let systemd be process 1, with its own units and none of the host's configuration
    #[arg(long)]
    systemd: bool,
    /// QEMU for x86-64 with the igb device [env: VIRTFN_LAB_QEMU]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Kernel image, with --modules [env: VIRTFN_LAB_KERNEL]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Modules of that kernel, its /lib/modules/VERSION [env: VIRTFN_LAB_MODULES]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
}

impl TopologyArgs {
    pub(crate) fn topology(&self) -> Result<Topology> {
        let nics = self
            .nic
            .iter()
            .filter(|nic| *nic != "none")
            .map(|nic| nic.parse());
        let bare = Topology::bare(self.machines);
        Ok(Topology {
            nics: nics.collect::<Result<Vec<Nic>, _>>()?,
            nvme_vfs: self.nvme,
            memory_mib: self.mem,
            cpus: self.cpus,
            append: self.append.clone(),
            qemu_args: self.qemu_arg.clone(),
            keep: self.keep.clone(),
            systemd: self.systemd,
            boot_timeout: self.boot_timeout.unwrap_or(bare.boot_timeout),
            ..bare
        })
    }

    pub(crate) fn choice(&self) -> Choice {
        let env = Choice::from_env();
        Choice {
            qemu: self.qemu.clone().or(env.qemu),
            kernel: self.kernel.clone().or(env.kernel),
            modules: self.modules.clone().or(env.modules),
        }
    }
}

fn parse_nvme(text: &str) -> Result<u8, String> {
    let number = text
        .strip_prefix("vfs=")
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| "not of the form vfs=4".to_owned())
}

/// Reads a time such as `90s`, `10m` or `1h`.
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
    // A year is longer than any lab lives, and short enough to be added to a clock.
    let seconds = seconds.filter(|seconds| *seconds <= 365 * 24 * 3600);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "not a time such as 90s, 10m or 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(parse_time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
        for bad in [
            "",
            "m",
            "1d",
            "-1s",
            "1.5s",
            "99999999999h",
            "99999999999999999999s",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
