//! Controllers of disks that the host uses: with a file system that is mounted, swap, or a part of a volume
//! on them.
//!
//! ```text
//! /sys/class/block/nvme0n1p2 -> …/0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p2      which function it is on
//!                  holders/dm-0                                      device mapper, RAID, bcache
//! /sys/fs/ext4/nvme0n1p2, /sys/fs/btrfs/<id>/devices/nvme0n1p2       mounted, in whichever namespace
//! /proc/swaps                                                        swap
//! ```
//!
//! A list of mounts is that of one namespace, which in a container is not the host's; these are the
//! kernel's own. They are read only when a storage controller with a driver of the kernel is looked at.
//!
//! What would surprise: with native multipath, the default of most distributions, the disk `nvme0n1` is on
//! no controller, and each of its controllers has a hidden `nvme0c1n1`, which is a path to it. Not
//! seen are file systems of kinds that have nothing in `/sys/fs` (vfat, ZFS), and processes that have
//! the disk itself open. There are no events of mounts: the look of every minute sees them.

use std::collections::{BTreeMap, BTreeSet};

use model::{Function, Holder, HolderKind, PciAddress};

use super::Aim;
use super::functions::Scan;
use super::rdma::nearest_function;
use crate::root::HostRoot;

/// Where sysfs lists the disks and their partitions.
pub(crate) const BLOCK_DEVICES: &str = "/sys/class/block";

/// Where the kernel lists swap.
pub(crate) const SWAPS: &str = "/proc/swaps";

/// Kinds of file systems that have a directory of the name of the disk in `/sys/fs/<kind>`.
const KINDS: [&str; 5] = ["erofs", "ext4", "f2fs", "nilfs2", "xfs"];

/// Base class of storage controllers.
const STORAGE: u8 = 0x01;

/// Returns the host as the holder of the functions with a disk that it uses.
pub(super) fn in_use(
    root: &HostRoot,
    scan: &Scan<'_>,
    aim: Aim<'_>,
) -> BTreeMap<PciAddress, Holder> {
    let mut used = BTreeMap::new();
    let by_kernel = |f: &Function| f.driver.as_ref().is_some_and(|d| !d.is_user_space());
    let is_asked_for =
        |f: &Function| aim.names(f.address) && f.class.base() == STORAGE && by_kernel(f);
    if !scan.functions.values().any(is_asked_for) {
        return used;
    }
    let disks = Disks::list(root);
    let users = Users::list(root);
    for (name, place) in &disks.places {
        let mut functions = disks.functions_of(place).peekable();
        if functions.peek().is_none() {
            continue;
        }
        let Some(user) = users.of(root, name) else {
            continue;
        };
        for function in functions {
            used.entry(function).or_insert_with(|| Holder {
                kind: HolderKind::Host,
                id: format!("{user} on {name}"),
                interface: None,
            });
        }
    }
    used
}

/// The disks and partitions of the host.
struct Disks {
    /// Their places in `/sys/devices`, by name.
    places: BTreeMap<String, String>,
    /// The functions through which disks with several paths are reached, by the disk.
    paths: BTreeMap<String, BTreeSet<PciAddress>>,
}

impl Disks {
    fn list(root: &HostRoot) -> Self {
        let names = root.list(BLOCK_DEVICES).unwrap_or_default();
        let place = |name: String| {
            let place = root.link_target(&format!("{BLOCK_DEVICES}/{name}"));
            Some((name, place.ok()?))
        };
        let places: BTreeMap<String, String> = names.into_iter().filter_map(place).collect();
        let mut paths: BTreeMap<String, BTreeSet<PciAddress>> = BTreeMap::new();
        for (name, place) in &places {
            if let (Some(disk), Some(function)) = (disk_of_path(name), nearest_function(place)) {
                paths.entry(disk).or_default().insert(function);
            }
        }
        Self { places, paths }
    }

    /// Returns the functions that a disk or partition is on.
    fn functions_of(&self, place: &str) -> impl Iterator<Item = PciAddress> {
        let own = nearest_function(place);
        let parts = place.split('/').filter(move |_| own.is_none());
        let by_paths = parts.filter_map(|part| self.paths.get(part)).flatten();
        own.into_iter().chain(by_paths.copied())
    }
}

/// Returns the disk to which `nvme0c1n2`, subsystem, controller and namespace, is a path: `nvme0n2`.
fn disk_of_path(name: &str) -> Option<String> {
    let (subsystem, rest) = name.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_path = [subsystem, controller, namespace]
        .into_iter()
        .all(is_number);
    is_path.then(|| format!("nvme{subsystem}n{namespace}"))
}

/// Returns the directories in which file systems of this kernel tell what they are on, each with the name of a
/// disk or of something else, and the kind.
pub(crate) fn mounted(root: &HostRoot) -> Vec<(String, String, &'static str)> {
    let listed = |path: &str| root.list(path).unwrap_or_default();
    let mut dirs: Vec<(String, &'static str)> = Vec::new();
    dirs.extend(KINDS.map(|kind| (format!("/sys/fs/{kind}"), kind)));
    for id in listed("/sys/fs/btrfs") {
        dirs.push((format!("/sys/fs/btrfs/{id}/devices"), "btrfs"));
    }
    let in_dir = |(dir, kind): (String, &'static str)| {
        let names = listed(&dir).into_iter();
        let entries = names.map(|name| (format!("{dir}/{name}"), name, kind));
        entries.collect::<Vec<_>>()
    };
    dirs.into_iter().flat_map(in_dir).collect()
}

/// Who has disks and partitions, by their names.
struct Users {
    mounted: BTreeMap<String, &'static str>,
    swap: BTreeSet<String>,
}

impl Users {
    fn list(root: &HostRoot) -> Self {
        let swaps = root.read_text(SWAPS).unwrap_or_default();
        let disk = |line: &str| {
            let file = line.split_whitespace().next()?;
            file.strip_prefix("/dev/").map(str::to_owned)
        };
        let mounted = mounted(root).into_iter();
        Self {
            mounted: mounted.map(|(_, name, kind)| (name, kind)).collect(),
            swap: swaps.lines().filter_map(disk).collect(),
        }
    }

    fn of(&self, root: &HostRoot, name: &str) -> Option<String> {
        let mounted = self.mounted.get(name).copied();
        let user = mounted.or_else(|| self.swap.contains(name).then_some("swap"));
        user.map(str::to_owned).or_else(|| {
            let holders = root.list(&format!("{BLOCK_DEVICES}/{name}/holders"));
            holders.ok()?.into_iter().next()
        })
    }
}

#[cfg(test)]
mod tests {
    use model::{DeviceId, Host as _, Scope};

    use super::*;
    use crate::{Linux, Tree};

    /// An NVMe device without VFs, and what is known of its disk.
    fn user(more: &str) -> Option<String> {
        let text = format!(
            "[/sys/bus/pci/devices/0000:02:00.0]\nsriov_totalvfs = 4\nsriov_numvfs = 0\n\
             uevent = DRIVER=nvme\nuevent = PCI_CLASS=10802\nuevent = PCI_ID=1B36:0010\n\
             [/netlink]\nrdma = shared\n{more}"
        );
        let user = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            Tree::parse(text).unwrap().unpack(dir.path()).unwrap();
            let mut linux = Linux::recorded(dir.path()).unwrap();
            let function: PciAddress = "0000:02:00.0".parse().unwrap();
            let device = DeviceId::Pci(function);
            let seen = linux.observe(Scope::All).unwrap();
            let one = linux.observe(Scope::Function(function)).unwrap();
            assert_eq!(one.holder_of(&device), seen.holder_of(&device));
            let recorded = linux.record().unwrap().to_string();
            (seen.holder_of(&device).map(ToString::to_string), recorded)
        };
        let (found, recorded) = user(&text);
        assert_eq!(user(&recorded).0, found, "recorded:\n{recorded}");
        found
    }

    const DISK: &str = "/sys/devices/pci0000:00/0000:02:00.0/nvme/nvme0";

    /// A disk with one partition.
    fn disk(more: &str) -> Option<String> {
        user(&format!(
            "[/sys/class/block]\nnvme0n1 -> ../../devices/pci0000:00/0000:02:00.0/nvme/nvme0/nvme0n1\n\
             nvme0n1p2 -> ../../devices/pci0000:00/0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p2\n\
             [{DISK}/nvme0n1/nvme0n1p2]\nholders/\n{more}"
        ))
    }

    #[test]
    fn a_disk_is_used_by_what_is_mounted_or_made_of_it_and_by_swap() {
        assert_eq!(disk(""), None);
        for (more, by) in [
            ("/sys/fs/ext4/nvme0n1p2/", "ext4 on nvme0n1p2"),
            ("/sys/fs/xfs/nvme0n1/", "xfs on nvme0n1"),
            (
                "/sys/fs/btrfs/5e3f/devices/nvme0n1p2/",
                "btrfs on nvme0n1p2",
            ),
            (
                "/sys/devices/pci0000:00/0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/holders/dm-0/",
                "dm-0 on nvme0n1p2",
            ),
            (
                "/proc/swaps = Filename Type Size Used Priority\n\
                 /proc/swaps = /dev/nvme0n1p2 partition 999420 0 -2",
                "swap on nvme0n1p2",
            ),
        ] {
            assert_eq!(disk(more), Some(format!("host {by}")));
        }
        // Another disk's.
        assert_eq!(disk("/sys/fs/ext4/sda2/"), None);
    }

    #[test]
    fn a_disk_with_several_paths_is_used_through_each_of_its_controllers() {
        let disk = |controller: &str| {
            user(&format!(
                "[/sys/class/block]\n\
                 nvme0c1n1 -> ../../devices/pci0000:00/{controller}/nvme/nvme1/nvme0c1n1\n\
                 nvme0n1 -> ../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1\n\
                 [/sys/fs/ext4]\nnvme0n1/"
            ))
        };
        assert_eq!(
            disk("0000:02:00.0"),
            Some("host ext4 on nvme0n1".to_owned())
        );
        assert_eq!(disk("0000:03:00.0"), None);
    }

    #[test]
    fn only_a_path_names_its_disk() {
        assert_eq!(disk_of_path("nvme10c2n31"), Some("nvme10n31".to_owned()));
        for other in [
            "nvme0n1",
            "nvme0n1p2",
            "nvmecn",
            "nvme0c1",
            "sdc",
            "mmcblk0",
            "nvme0c1n1p2",
        ] {
            assert_eq!(disk_of_path(other), None, "{other}");
        }
    }
}
