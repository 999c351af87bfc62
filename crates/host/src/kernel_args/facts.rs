//! What the kernel and the machine offer: read, not judged.
//!
//! What cannot be read is taken for unknown or absent: a container without `/sys/firmware` is no
//! error. Nothing is read from the kernel's log, which needs a privilege and forgets.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use model::{Code, Explain, PciAddress};
use policy::kernel::{CpuMaker, IommuTables, KernelFacts, ModuleName, ModuleState};

use super::words_of;
use crate::apply::Applied;
use crate::perform::NO_ROOM_FOR_VFS;
use crate::root::HostRoot;

/// `modules.dep` of a distribution's kernel has about a megabyte.
const MODULE_LIST_LIMIT: usize = 16 << 20;

/// Reads the facts, with those about `modules`.
#[must_use]
pub fn kernel_facts(root: &HostRoot, modules: &BTreeSet<ModuleName>) -> KernelFacts {
    let count = |dir| root.list(dir).map_or(0, |names| names.len());
    let groups = root.list("/sys/kernel/iommu_groups").unwrap_or_default();
    let types = groups.iter().filter_map(|group| {
        root.read_text(&format!("/sys/kernel/iommu_groups/{group}/type"))
            .ok()
    });
    let types: BTreeSet<String> = types.collect();
    KernelFacts {
        cpu: cpu_maker(&root.read("/proc/cpuinfo").unwrap_or_default()),
        tables: tables(root),
        iommus: count("/sys/class/iommu"),
        iommu_groups: groups.len(),
        bypassed: (!types.is_empty()).then(|| types.contains("identity")),
        command_line: words_of(&root.read_text("/proc/cmdline").unwrap_or_default()),
        modules: module_states(root, modules),
    }
}

/// Returns the PFs for whose VFs the kernel had no memory space, from the faults of an apply.
#[must_use]
pub fn starved_pfs(applied: &Applied) -> BTreeSet<PciAddress> {
    let starved = applied.pfs.iter().filter(|pf| {
        let fault = pf.outcome.as_ref().err();
        fault.is_some_and(|fault| fault.code() == Code::new(NO_ROOM_FOR_VFS))
    });
    starved.map(|pf| pf.pf).collect()
}

/// The first processor speaks for all.
fn cpu_maker(cpuinfo: &[u8]) -> CpuMaker {
    let text = String::from_utf8_lossy(cpuinfo);
    let maker = text.lines().find_map(|line| line.strip_prefix("vendor_id"));
    match maker.map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim_end()) {
        Some("GenuineIntel") => CpuMaker::Intel,
        Some("AuthenticAMD" | "HygonGenuine") => CpuMaker::Amd,
        Some(_) | None => CpuMaker::Other,
    }
}

fn tables(root: &HostRoot) -> Option<IommuTables> {
    let names = root.list("/sys/firmware/acpi/tables").ok()?;
    let has = |table: &str| names.iter().any(|name| name == table);
    Some(IommuTables {
        dmar: has("DMAR"),
        ivrs: has("IVRS"),
        other: has("IORT") || has("VIOT"),
    })
}

fn module_states(
    root: &HostRoot,
    modules: &BTreeSet<ModuleName>,
) -> BTreeMap<ModuleName, ModuleState> {
    if modules.is_empty() {
        return BTreeMap::new();
    }
    let release = root
        .read_text("/proc/sys/kernel/osrelease")
        .unwrap_or_default();
    let list = |file: &str| {
        let bytes = ["/lib/modules", "/usr/lib/modules"].iter().find_map(|dir| {
            root.read_bounded(&format!("{dir}/{release}/{file}"), MODULE_LIST_LIMIT)
                .ok()
        });
        names_of(&bytes.unwrap_or_default())
    };
    // The lists are long and mostly not needed: what is loaded says so itself.
    let built_in = LazyCell::new(|| list("modules.builtin"));
    let available = LazyCell::new(|| list("modules.dep"));
    let blocked = LazyCell::new(|| blocked(root));
    let state = |module: &ModuleName| {
        let loaded = format!("/sys/module/{module}");
        if root.exists(&format!("{loaded}/initstate")) {
            ModuleState::Loaded
        } else if root.exists(&loaded) || built_in.contains(module.as_str()) {
            // Only what can be unloaded has a state.
            ModuleState::BuiltIn
        } else if blocked.contains(module.as_str()) {
            ModuleState::Blocked
        } else if available.contains(module.as_str()) {
            ModuleState::Available
        } else {
            ModuleState::Absent
        }
    };
    modules
        .iter()
        .map(|module| (module.clone(), state(module)))
        .collect()
}

/// Reads the names of `modules.builtin` or `modules.dep`: `kernel/…/vfio-pci.ko.xz: …`.
fn names_of(list: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(list);
    let name = |line: &str| {
        let path = line.split(':').next()?;
        let file = path.rsplit('/').next()?;
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    };
    text.lines().filter_map(name).collect()
}

/// Returns the modules that `modprobe` runs `false` or `true` for: `install NAME /bin/false`.
///
/// A `blacklist` line does not count: it keeps a device from loading the module, not us.
fn blocked(root: &HostRoot) -> BTreeSet<String> {
    let mut blocked = BTreeSet::new();
    for dir in [
        "/usr/lib/modprobe.d",
        "/lib/modprobe.d",
        "/etc/modprobe.d",
        "/run/modprobe.d",
    ] {
        for name in root.list(dir).unwrap_or_default() {
            let text = root.read(&format!("{dir}/{name}")).unwrap_or_default();
            for line in String::from_utf8_lossy(&text).lines() {
                let words = words_of(line);
                if let [install, module, command, ..] = words.as_slice()
                    && install == "install"
                    && (command.ends_with("/false") || command.ends_with("/true"))
                {
                    blocked.insert(module.replace('-', "_"));
                }
            }
        }
    }
    blocked
}
