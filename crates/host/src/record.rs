//! Recording a host, so that its discovery can be repeated elsewhere.
//!
//! A recording holds what [`crate::Linux::observe_with`] reads and nothing more: no configuration
//! and no secrets, but MAC addresses and names of interfaces, processes and namespaces. Paths are
//! the host's own: a PCI function is a link in `/sys/bus/pci/devices` to its place in the topology.
//!
//! That nothing is forgotten here is tested, not promised: every fixture is observed, recorded,
//! unpacked, and must be observed the same again.

mod tree;

use std::collections::BTreeSet;

use model::PciId;
use serde::Serialize;

use crate::discover::{
    AUX_DEVICES, BLOCK_DEVICES, PCI_DEVICES, SWAPS, VDPA_DEVICES, is_device_node, mounted,
    nearest_function,
};
use crate::pci_ids::{PLACES, extract, pci_names};
use crate::queries::{Elsewhere, NodeUseAnswer, PfAnswers, Queries, QueryError, answers};
use crate::root::{AccessError, HostRoot};

pub use tree::{Tree, TreeError, UnpackError};

/// Attributes of a PCI function.
const FUNCTION_FILES: [&str; 15] = [
    "acpi_index",
    "class",
    "device",
    "driver_override",
    "numa_node",
    "sriov_drivers_autoprobe",
    "sriov_numvfs",
    "sriov_offset",
    "sriov_stride",
    "sriov_totalvfs",
    "sriov_vf_device",
    "subsystem_device",
    "subsystem_vendor",
    "uevent",
    "vendor",
];

/// Classes of RDMA, and the attribute of their members that discovery reads.
const RDMA_CLASSES: [(&str, &str); 4] = [
    ("/sys/class/infiniband", "node_guid"),
    ("/sys/class/infiniband_cm", "ibdev"),
    ("/sys/class/infiniband_mad", "ibdev"),
    ("/sys/class/infiniband_verbs", "ibdev"),
];

/// A host could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its PCI functions cannot be listed.
    #[error(transparent)]
    Files(#[from] AccessError),
    /// The kernel did not answer.
    #[error(transparent)]
    Answers(#[from] QueryError),
}

/// Records a host. Devices that leave meanwhile are in it as far as they were read.
pub(crate) fn record(root: &HostRoot, queries: &mut dyn Queries) -> Result<Tree, RecordError> {
    let mut recorder = Recorder {
        root,
        tree: Tree::default(),
    };
    let mut pfs = Vec::new();
    for name in root.list(PCI_DEVICES)? {
        recorder.function(&name);
        let is_pf = root.exists(&format!("{PCI_DEVICES}/{name}/sriov_totalvfs"));
        if is_pf && let Ok(pf) = name.parse() {
            pfs.push(pf);
        }
    }
    recorder.names();
    recorder.groups();
    recorder.netdevs();
    recorder.rdma();
    recorder.vdpa();
    recorder.aux();
    recorder.disks();
    recorder.processes();
    for name in root.list("/etc/sriov-operator/pci").unwrap_or_default() {
        recorder.file(&format!("/etc/sriov-operator/pci/{name}"));
    }
    let links = queries.links()?;
    let mut said = Vec::new();
    for pf in pfs {
        let of_pf = |link: &&netlink::Link| link.parent_pci() == Some(pf);
        let link = links.iter().find(of_pf);
        let netdev = link.map(|link| &link.name);
        // What is refused here would be a gap there; a recording has no such lines.
        let eswitch = queries.eswitch(pf).ok().flatten();
        let index = link.map(|link| link.index).filter(|_| eswitch.is_some());
        let firmware = queries.firmware(pf, netdev).unwrap_or_default();
        said.push(PfAnswers {
            pf,
            eswitch,
            steering: index.and_then(|_| queries.steering(pf).ok().flatten()),
            tc_offload: index.and_then(|index| queries.tc_offload(pf, index).ok().flatten()),
            firmware: firmware.version,
            ddp: firmware.ddp,
        });
    }
    let mut tree = recorder.tree;
    add_lines(&mut tree, answers::LINKS, &links);
    add_lines(&mut tree, answers::PFS, &said);
    let uses = queries.node_uses()?;
    let uses: Vec<NodeUseAnswer> = uses
        .into_iter()
        .map(|(index, used)| NodeUseAnswer { index, used })
        .collect();
    add_lines(&mut tree, answers::NODE_USES, &uses);
    add_lines(&mut tree, answers::ELSEWHERE, &elsewhere(root, queries));
    if let Some(mode) = queries.rdma_netns()? {
        tree.file(answers::RDMA.to_owned(), format!("{mode}\n").into_bytes());
    }
    Ok(tree)
}

/// Keeps of other namespaces only what is on a PCI function, or on a netdev of this one: the rest is other
/// people's business.
fn elsewhere(root: &HostRoot, queries: &mut dyn Queries) -> Vec<Elsewhere> {
    let (mut namespaces, _) = queries.elsewhere(root);
    for namespace in &mut namespaces {
        namespace.links.retain(|link| link.parent_pci().is_some());
    }
    namespaces.retain(|namespace| !namespace.links.is_empty() || !namespace.uppers.is_empty());
    namespaces
}

fn add_lines<T: Serialize>(tree: &mut Tree, path: &str, answers: &[T]) {
    let mut lines = Vec::new();
    for answer in answers {
        // These are structs of texts and numbers, which JSON can always hold.
        if let Ok(mut line) = serde_json::to_vec(answer) {
            lines.append(&mut line);
            lines.push(b'\n');
        }
    }
    if !lines.is_empty() {
        tree.file(path.to_owned(), lines);
    }
}

/// Copies files and links, each at its real place.
struct Recorder<'a> {
    root: &'a HostRoot,
    tree: Tree,
}

impl Recorder<'_> {
    /// Copies a file, when there is one.
    fn file(&mut self, path: &str) {
        if let Ok(content) = self.root.read(path) {
            self.tree.file(path.to_owned(), content);
        }
    }

    /// Copies a link, when there is one.
    fn link(&mut self, path: &str) -> Option<String> {
        let target = self.root.link_target(path).ok()?;
        self.tree.link(path.to_owned(), target.clone());
        Some(target)
    }

    /// Copies the link of a device in a class or bus, and returns the device's own directory.
    ///
    /// In sysfs such a link climbs to `/sys` and descends into `devices`. A tree written by hand
    /// may have the directory itself in place of the link.
    fn device(&mut self, path: &str) -> String {
        match self.link(path) {
            Some(target) => format!("/sys/{}", target.trim_start_matches("../")),
            None => path.to_owned(),
        }
    }

    fn function(&mut self, name: &str) {
        let device = self.device(&format!("{PCI_DEVICES}/{name}"));
        for file in FUNCTION_FILES {
            self.file(&format!("{device}/{file}"));
        }
        for link in ["driver", "iommu_group", "physfn"] {
            self.link(&format!("{device}/{link}"));
        }
        // Of use only to kernels that do not tell it as a file.
        if self.root.exists(&format!("{device}/sriov_totalvfs"))
            && !self.root.exists(&format!("{device}/sriov_offset"))
        {
            self.file(&format!("{device}/config"));
        }
        for entry in self.root.list(&device).unwrap_or_default() {
            if entry.starts_with("virtfn") {
                self.link(&format!("{device}/{entry}"));
            }
        }
        let vfio = format!("{device}/vfio-dev");
        self.entries(&vfio, "vfio");
        for entry in self.root.list(&vfio).unwrap_or_default() {
            self.file(&format!("{vfio}/{entry}/dev"));
        }
        self.entries(&format!("{device}/uio"), "uio");
    }

    /// Keeps of the system's `pci.ids` what names the functions of this host, which another system's
    /// may not know.
    fn names(&mut self) {
        let functions = self.root.list(PCI_DEVICES).unwrap_or_default();
        let ids = functions.iter().filter_map(|name| {
            let id = |file: &str| {
                let path = format!("{PCI_DEVICES}/{name}/{file}");
                let text = self.root.read_text(&path).ok()?;
                u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
            };
            Some(PciId {
                vendor: id("vendor")?,
                device: id("device")?,
            })
        });
        let names = extract(&pci_names(self.root, ids));
        if !names.is_empty() {
            self.tree.file(PLACES[0].to_owned(), names.into_bytes());
        }
    }

    /// Records that a directory has entries, without what is in them.
    fn entries(&mut self, directory: &str, prefix: &str) {
        for entry in self.root.list(directory).unwrap_or_default() {
            if entry.starts_with(prefix) {
                self.tree.directory(format!("{directory}/{entry}"));
            }
        }
    }

    fn groups(&mut self) {
        let groups = "/sys/kernel/iommu_groups";
        for group in self.root.list(groups).unwrap_or_default() {
            self.file(&format!("{groups}/{group}/name"));
            let devices = format!("{groups}/{group}/devices");
            for device in self.root.list(&devices).unwrap_or_default() {
                self.link(&format!("{devices}/{device}"));
            }
        }
    }

    fn netdevs(&mut self) {
        for name in self.root.list("/sys/class/net").unwrap_or_default() {
            let path = format!("/sys/class/net/{name}");
            let target = self.root.link_target(&path).unwrap_or_default();
            if nearest_function(&target).is_none() {
                continue;
            }
            let device = self.device(&path);
            self.file(&format!("{device}/speed"));
            self.file(&format!("{device}/dev_port"));
        }
    }

    fn rdma(&mut self) {
        for (class, attribute) in RDMA_CLASSES {
            for name in self.root.list(class).unwrap_or_default() {
                let device = self.device(&format!("{class}/{name}"));
                self.file(&format!("{device}/{attribute}"));
                self.file(&format!("{device}/ports/1/pkeys/0"));
            }
        }
        let rdma_cm = "/sys/class/misc/rdma_cm";
        if self.root.exists(rdma_cm) {
            let device = self.device(rdma_cm);
            self.tree.directory(device);
        }
    }

    fn vdpa(&mut self) {
        for name in self.root.list(VDPA_DEVICES).unwrap_or_default() {
            let device = self.device(&format!("{VDPA_DEVICES}/{name}"));
            self.link(&format!("{device}/driver"));
            self.entries(&device, "vhost-vdpa-");
        }
    }

    fn aux(&mut self) {
        for name in self.root.list(AUX_DEVICES).unwrap_or_default() {
            let device = self.device(&format!("{AUX_DEVICES}/{name}"));
            self.file(&format!("{device}/sfnum"));
        }
    }

    /// Records which disks are on functions, and what has them.
    fn disks(&mut self) {
        let mut names = BTreeSet::new();
        for name in self.root.list(BLOCK_DEVICES).unwrap_or_default() {
            let path = format!("{BLOCK_DEVICES}/{name}");
            let place = self.root.link_target(&path).unwrap_or_default();
            if nearest_function(&place).is_none() && !place.contains("/nvme-subsystem/") {
                continue;
            }
            let device = self.device(&path);
            self.tree.directory(device.clone());
            self.entries(&format!("{device}/holders"), "");
            names.insert(name);
        }
        let mounted = mounted(self.root).into_iter();
        for (place, _, _) in mounted.filter(|(_, name, _)| names.contains(name)) {
            self.tree.directory(place);
        }
        if !names.is_empty() {
            self.file(SWAPS);
        }
    }

    /// Records which processes have devices open through VFIO and the like, by name and number.
    fn processes(&mut self) {
        for pid in self.root.list("/proc").unwrap_or_default() {
            let fds = format!("/proc/{pid}/fd");
            let mut holds = false;
            for fd in self.root.list(&fds).unwrap_or_default() {
                let path = format!("{fds}/{fd}");
                let target = self.root.link_target(&path).unwrap_or_default();
                if is_device_node(target.as_bytes()) {
                    self.tree.link(path, target);
                    holds = true;
                }
            }
            if holds {
                self.file(&format!("/proc/{pid}/comm"));
            }
        }
    }
}
