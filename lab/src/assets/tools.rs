//! Small programs and files that tests inside machines want and the host may lack.
//!
//! They lie under the host's files inside the machine, so what the host has wins, and what it
//! lacks is where it belongs: `/usr/bin/ping`, `/usr/share/misc/pci.ids`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::{Apt, Suite};
use super::{Cache, on_host};

/// Trees in the cache: what each machine gets, and what one gets whose process 1 is systemd.
pub(crate) const NAME: &str = "tools";
pub(crate) const SERVICES: &str = "services";
/// Tree with container engines, which only tests of them want.
pub(crate) const ENGINES: &str = "engines";

/// What is wanted, and the package that has it.
const WANTED: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("devlink", "iproute2"),
    ("ping", "iputils-ping"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("strace", "strace"),
    ("modprobe", "kmod"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("/usr/share/misc/pci.ids", "pci.ids"),
];

/// What systemd as process 1 takes. A container as host often has no udev.
const WANTED_BY_SYSTEMD: [(&str, &str); 2] =
    [("/lib/systemd/systemd", "systemd"), ("udevadm", "udev")];

/// Container engines, and what a container without an image is made of.
const WANTED_BY_CONTAINERS: [(&str, &str); 4] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("podman", "podman"),
    ("busybox", "busybox-static"),
];

/// Finds or fetches what the host lacks; `None` when it lacks nothing.
pub(crate) fn find(
    cache: &Cache,
    apt: &mut Apt<'_>,
    say: &dyn Fn(&str),
) -> Result<Option<PathBuf>> {
    tree(NAME, &WANTED, cache, apt, say)
}

/// Finds or fetches what systemd as process 1 takes and the host lacks; `None` when it lacks nothing.
pub(crate) fn services(
    cache: &Cache,
    apt: &mut Apt<'_>,
    say: &dyn Fn(&str),
) -> Result<Option<PathBuf>> {
    tree(SERVICES, &WANTED_BY_SYSTEMD, cache, apt, say)
}

/// Finds or fetches container engines; `None` when the host has them all.
pub(crate) fn engines(
    cache: &Cache,
    apt: &mut Apt<'_>,
    say: &dyn Fn(&str),
) -> Result<Option<PathBuf>> {
    tree(ENGINES, &WANTED_BY_CONTAINERS, cache, apt, say)
}

fn tree(
    name: &str,
    wanted: &[(&str, &str)],
    cache: &Cache,
    apt: &mut Apt<'_>,
    say: &dyn Fn(&str),
) -> Result<Option<PathBuf>> {
    let mut missing: Vec<_> = wanted.iter().filter(|(wanted, _)| !has(wanted)).collect();
    missing.dedup_by_key(|(_, package)| *package);
    if missing.is_empty() {
        return Ok(None);
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let held = cache.whole(name).unwrap_or_default();
    if packages
        .iter()
        .all(|package| held.split_whitespace().any(|held| held == *package))
    {
        return Ok(Some(cache.path(name)));
    }
    let list = packages.join(" ");
    if !Apt::usable() {
        say(&format!(
            "commands inside machines will miss what these packages hold; install them: {list}"
        ));
        return Ok(None);
    }
    say(&format!(
        "fetching tools for the inside of machines: {list}"
    ));
    cache
        .make(name, &list, |root| {
            apt.unpack(&packages, Suite::Release, root)
        })
        .with_context(|| format!("get the packages {list}"))?;
    Ok(Some(cache.path(name)))
}

fn has(wanted: &str) -> bool {
    if wanted.starts_with('/') {
        Path::new(wanted).exists()
    } else {
        on_host(wanted).is_some()
    }
}
