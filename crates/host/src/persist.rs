//! What keeps a host as it was applied: the policies, two boot services, and rules that keep other
//! managers off the VFs.
//!
//! ```text
//! /etc/virtfn/policies.d/0001-rack-a.yaml             the policies, copied
//! /etc/virtfn/vf-settings                             MACs, VLANs … that the VFs had
//! /etc/systemd/system/virtfn-pre-network.service      applies them before the network comes up
//! /etc/systemd/system/virtfn-post-network.service     … and again after it, before the kubelet
//! /etc/udev/rules.d/10-virtfn.rules                   marks VFs: NetworkManager leaves them alone
//! /etc/systemd/network/00-virtfn-vf.network           … and so does systemd-networkd
//! /etc/modules-load.d/virtfn.conf                     modules that the VFs' drivers need
//! /etc/systemd/system/multi-user.target.wants/…       switches the two services on
//! ```
//!
//! What the files say is decided by pure functions (`render`); `install` compares that with what
//! is there and makes the difference, so installing twice changes nothing and a run that was killed
//! is completed by the next. Every file begins with a marker line: one of the same name without it
//! is somebody else's, and then nothing at all is changed. The services are switched on last, and
//! switched off first while policies change, so a half-made installation does nothing at boot.
//!
//! Nothing here applies policies or decides about PFs: the services run `virtfn apply`, which does.
//! Kernel arguments are not part of it either (`kernel_args`).

mod conflict;
mod edit;
mod error;
pub(crate) mod found;
mod render;
mod tell;
#[cfg(test)]
mod tests;
pub(crate) mod vfs;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use model::{Desired, EswitchMode, IfName, Inventory, PciAddress};
use policy::KeptVfs;
use policy::kernel::ModuleName;

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::files::Files;
use crate::program::{ProgramError, Programs};
use crate::root::HostRoot;

pub use conflict::{Conflict, Rival, conflicts};
pub use error::{Foreign, PersistError, UninstallError};
pub use found::{Found, look};
pub use vfs::{VfSettingsError, read_vf_settings};

/// What is to be kept across reboots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The policies, in the order in which they were given; never empty.
    pub policies: Vec<StoredPolicy>,
    /// How they are applied at boot.
    pub boot: BootApply,
    /// The PFs whose VFs other managers must leave alone: see [`kept_pfs`].
    pub pfs: Vec<KeptPf>,
    /// What the VFs have that no policy says: see [`policy::keep`].
    pub vfs: KeptVfs,
    /// Modules to load at boot: see [`policy::kernel::needs`].
    pub modules: Vec<ModuleName>,
}

/// A file of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The file that it was read from, as the user named it.
    pub source: String,
    /// Its text: YAML, or JSON, which YAML includes.
    pub text: String,
}

/// How policies are applied at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootApply {
    /// The `virtfn` program, as an absolute path on the host.
    pub program: PathBuf,
    /// Labels of this node, for the node selectors of policies.
    pub node_labels: BTreeMap<String, String>,
    /// May the PF that carries the default route be reconfigured?
    pub allow_default_route: bool,
}

/// A PF whose VFs are virtfn's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPf {
    /// The PF.
    pub address: PciAddress,
    /// Its name, if it has a netdev.
    pub name: Option<IfName>,
    /// Port number of its netdev on the device: devices with two ports on one function have two.
    pub dev_port: Option<u32>,
    /// How many VFs it has, when it is in switchdev mode: then its name must be pinned, because a
    /// representor may otherwise take it first, and its representors are named after it.
    pub switchdev_vfs: Option<u16>,
}

/// Returns the PFs whose VFs other managers must leave alone.
///
/// PFs that are managed externally are left out, as upstream does: their VFs may well be the host's
/// own interfaces.
#[must_use]
pub fn kept_pfs(wanted: &Desired, seen: &Inventory) -> Vec<KeptPf> {
    let ours = wanted
        .pfs
        .values()
        .filter(|pf| pf.num_vfs > 0 && !pf.externally_managed);
    ours.map(|pf| {
        let netdev = seen.get(pf.pf).and_then(model::Function::netdev);
        KeptPf {
            address: pf.pf,
            name: netdev
                .map(|netdev| netdev.name.clone())
                .or_else(|| pf.name.clone()),
            dev_port: netdev.and_then(|netdev| netdev.dev_port),
            switchdev_vfs: (pf.eswitch == Some(EswitchMode::Switchdev)).then_some(pf.num_vfs),
        }
    })
    .collect()
}

/// One change to the files of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is done.
    pub kind: ChangeKind,
    /// To which file.
    pub path: String,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Create,
    /// Its content is replaced.
    Update,
    /// It goes.
    Remove,
    /// A service is switched on.
    Enable,
    /// A service is switched off.
    Disable,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.kind {
            ChangeKind::Create => "create",
            ChangeKind::Update => "update",
            ChangeKind::Remove => "remove",
            ChangeKind::Enable => "enable",
            ChangeKind::Disable => "disable",
        };
        write!(f, "{verb} {}", self.path)
    }
}

/// What was done, and who could not be told of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The changes that were made, in order; none when all was so already.
    pub changes: Vec<Change>,
    /// Programs that should have read the files again and did not: they will at the next boot.
    pub untold: Vec<ProgramError>,
    /// Files with names of ours that somebody made his own, and that were left alone.
    pub left: Vec<String>,
}

/// How much of an installation is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing.
    Absent,
    /// The services are switched on.
    Enabled,
    /// Files are there, but nothing happens at boot: a run was killed.
    HalfDone,
}

/// Can a program be run at boot? [`install`] asks the same, after the plan was made true.
pub fn check_program(root: &HostRoot, program: &Path) -> Result<(), PersistError> {
    edit::check_program(&Files::new(root), program)
}

/// Returns the changes that [`install`] would make, and makes none.
pub fn preview(root: &HostRoot, wanted: &Kept) -> Result<Vec<Change>, PersistError> {
    let edits = edit::to_install(&Files::new(root), wanted)?;
    Ok(edits.iter().filter_map(edit::Edit::change).collect())
}

/// Makes the host keep what was applied; what is there already is not touched.
///
/// Nothing is changed when any file is in the way that is not virtfn's.
pub fn install(
    root: &HostRoot,
    wanted: &Kept,
    programs: &mut dyn Programs,
    checkpoints: &dyn Checkpoints,
) -> Result<Outcome, PersistError> {
    let files = Files::new(root);
    let edits = edit::to_install(&files, wanted)?;
    let tell = tell::needed(&files, &edits);
    if tell {
        tell::note(&files)?;
    }
    let changes = edit::perform(&files, &edits, checkpoints)?;
    let untold = if tell {
        tell::tell(&files, programs)
    } else {
        Vec::new()
    };
    Ok(Outcome {
        changes,
        untold,
        left: Vec::new(),
    })
}

/// Removes every trace of [`install`], and nothing else. VFs stay as they are.
///
/// A file that cannot be removed does not keep the others.
pub fn uninstall(
    root: &HostRoot,
    programs: &mut dyn Programs,
    checkpoints: &dyn Checkpoints,
) -> Result<Outcome, Box<UninstallError>> {
    let files = Files::new(root);
    let mut failures = Vec::new();
    let edits = edit::to_uninstall(&files, &mut failures);
    let tell = tell::needed(&files, &edits);
    if tell && let Err(PersistError::Change { source, .. }) = tell::note(&files) {
        failures.push(source);
    }
    let mut changes = Vec::new();
    for edit in &edits {
        checkpoints.passed(Checkpoint::FileToChange);
        match edit::make(&files, edit) {
            Ok(()) => changes.extend(edit.change()),
            Err(error) => failures.push(error),
        }
    }
    let untold = if tell {
        tell::tell(&files, programs)
    } else {
        Vec::new()
    };
    let left = found::edited(&files).unwrap_or_default();
    let outcome = Outcome {
        changes,
        untold,
        left: left.into_iter().map(|(path, _)| path).collect(),
    };
    if failures.is_empty() {
        Ok(outcome)
    } else {
        Err(Box::new(UninstallError { failures, outcome }))
    }
}

/// Returns the changes that [`uninstall`] would make, and makes none.
pub fn preview_uninstall(root: &HostRoot) -> Result<Vec<Change>, PersistError> {
    let mut failures = Vec::new();
    let edits = edit::to_uninstall(&Files::new(root), &mut failures);
    match failures.pop() {
        Some(source) => Err(PersistError::Look { source }),
        None => Ok(edits.iter().filter_map(edit::Edit::change).collect()),
    }
}

/// Says how much of an installation is there.
pub fn installed(root: &HostRoot) -> Result<Installed, PersistError> {
    let files = Files::new(root);
    let mut failures = Vec::new();
    let edits = edit::to_uninstall(&files, &mut failures);
    if let Some(source) = failures.pop() {
        return Err(PersistError::Look { source });
    }
    let of_kind = |kind| {
        edits
            .iter()
            .filter_map(edit::Edit::change)
            .filter(|change| change.kind == kind)
            .count()
    };
    Ok(match (of_kind(ChangeKind::Disable), edits.is_empty()) {
        (_, true) => Installed::Absent,
        (links, false) if links == render::UNITS.len() => Installed::Enabled,
        (_, false) => Installed::HalfDone,
    })
}
