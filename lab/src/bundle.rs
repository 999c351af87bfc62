//! What is kept of a failure: a directory for humans, below the cache.
//!
//! ```text
//! failures/TIME-PROCESS/why.txt
//!                       labN/serial.log qemu.log state.txt
//! ```
//!
//! Only the newest few are kept, so that nobody has to clean up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::assets::Cache;
use crate::machine::{Log, Machine};

const KEPT: usize = 10;

/// Time for a machine that may be in a bad way.
const LIMIT: Duration = Duration::from_secs(30);

/// Shown by the machine's own tools; one that is missing leaves its complaint.
const STATE: &str = r##"
show() { echo; echo "# $*"; "$@" 2>&1; }
show cat /proc/cmdline
show ip -d -s link
show ip address
show ip netns
show ps axo pid,ppid,stat,etime,args
show cat /proc/mounts
show cat /proc/modules
show cat /proc/meminfo
echo; echo "# PCI functions"
for f in /sys/bus/pci/devices/*; do
  echo "$f $(cat $f/vendor):$(cat $f/device) class $(cat $f/class)" \
    "driver $(basename "$(readlink $f/driver)")" \
    "group $(basename "$(readlink $f/iommu_group)")" \
    "vfs $(cat $f/sriov_numvfs 2>/dev/null)/$(cat $f/sriov_totalvfs 2>/dev/null)" \
    "net $(ls $f/net 2>/dev/null | tr '\n' ' ')"
done
show dmesg
"##;

/// Collects logs and state of machines; those that no longer run have their logs.
pub(crate) fn collect(cache: &Cache, why: &str, machines: &[Machine]) -> Result<PathBuf> {
    let dir = make(cache, why)?;
    for machine in machines {
        logs(
            &dir,
            machine.name(),
            &machine.serial_log(),
            &machine.qemu_log(),
        )?;
        if machine.is_running() {
            let state = machine
                .command(["/bin/sh", "-c", STATE])
                .limit(LIMIT)
                .output();
            let state = state.map_or_else(
                |error| format!("{error:#}\n").into_bytes(),
                |output| output.stdout,
            );
            write(&dir.join(machine.name()).join("state.txt"), &state)?;
        }
    }
    Ok(dir)
}

/// Keeps the logs of a machine that did not boot.
pub(crate) fn boot_failure(
    cache: &Cache,
    why: &str,
    name: &str,
    serial: &Log,
    qemu: &Log,
) -> Result<PathBuf> {
    let dir = make(cache, why)?;
    logs(&dir, name, &serial.bytes(), &qemu.bytes())?;
    Ok(dir)
}

fn make(cache: &Cache, why: &str) -> Result<PathBuf> {
    let base = cache.path("failures");
    forget_old(&base);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let dir = base.join(format!("{}-{}", now.as_millis(), std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    write(&dir.join("why.txt"), format!("{why}\n").as_bytes())?;
    Ok(dir)
}

fn logs(dir: &Path, name: &str, serial: &[u8], qemu: &[u8]) -> Result<()> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    write(&dir.join("serial.log"), serial)?;
    write(&dir.join("qemu.log"), qemu)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

fn forget_old(base: &Path) {
    let entries = fs::read_dir(base).into_iter().flatten();
    let mut dirs: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    // Names begin with the time in milliseconds, of as many digits for centuries.
    dirs.sort();
    let old = dirs.len().saturating_sub(KEPT - 1);
    for dir in dirs.into_iter().take(old) {
        // Another process may be doing the same.
        fs::remove_dir_all(dir).ok();
    }
}
