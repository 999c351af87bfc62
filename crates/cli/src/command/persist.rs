//! `virtfn apply --persist` and `--unpersist`: what was applied is kept across reboots, and forgotten.
//!
//! What is installed, and what that costs, is `host::persist`'s affair; here it is put together from
//! what was applied, and told.

use std::path::{Path, PathBuf};

use host::persist::{
    self, BootApply, Change, Installed, Kept, Outcome, StoredPolicy, conflicts, kept_pfs,
    read_vf_settings,
};
use host::{HostPrograms, HostRoot, ProgramError, kernel_facts};
use model::{Code, Desired, Explain, Host, Inventory, Scope};
use policy::KeptVfs;
use policy::kernel::{ModuleState, modules_of};

use super::plan::explained;
use super::wanted::Wanted;
use crate::args::ApplyArgs;
use crate::failure::{Exit, Failure};
use crate::policies;
use crate::ui::Ui;
use crate::workplace::{Site, Workplace};

/// What was applied cannot be kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    /// Policies that came from a pipe are not there any more.
    #[error("policies from stdin cannot be kept")]
    Stdin,
    /// They are the ones that are kept.
    #[error("{} is where policies are kept", .0.display())]
    Itself(PathBuf),
    /// The program that runs here cannot be found.
    #[error("find the program that runs here")]
    Program(#[source] std::io::Error),
}

impl Explain for KeepError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::Stdin | Self::Itself(_) => "bad-option",
            Self::Program(_) => "not-for-boot",
        })
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Stdin => Some("name a file with -f".to_owned()),
            Self::Itself(_) => Some(
                "name the files that they were copied from; each says it in its first line".into(),
            ),
            Self::Program(_) => None,
        }
    }
}

/// Refuses what cannot be kept, before anything is applied.
pub(super) fn check(args: &ApplyArgs, site: &Site) -> Result<(), Failure> {
    if !args.persist {
        return Ok(());
    }
    let root = site.root()?;
    let kept = persist::look(&root).map_err(Failure::failed)?.policies;
    persist::check_program(&root, &this_program()?).map_err(Failure::failed)?;
    let kept = root.path().join(kept.trim_start_matches('/'));
    for path in &args.policies.files {
        if path == Path::new("-") {
            return Err(Failure::input(KeepError::Stdin));
        }
        if path
            .canonicalize()
            .is_ok_and(|path| path.starts_with(&kept))
        {
            return Err(Failure::input(KeepError::Itself(path.clone())));
        }
    }
    Ok(())
}

fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::failed(KeepError::Program(error)))
}

/// Reads the settings that VFs had. Without them VFs are made all the same, as they come.
pub(super) fn vf_settings(path: &Path, root: &HostRoot, ui: &mut Ui) -> KeptVfs {
    let path = path.to_string_lossy();
    read_vf_settings(root, &path).unwrap_or_else(|error| {
        ui.warn(explained(&error));
        KeptVfs::new()
    })
}

/// Keeps the policies that were just applied; with `--dry-run`, says what that would change.
pub(super) fn keep(
    args: &ApplyArgs,
    wanted: &Wanted,
    work: &Workplace,
    ui: &mut Ui,
) -> Result<(), Failure> {
    let mut linux = work.linux()?;
    let seen = linux.observe(Scope::All).map_err(Failure::failed)?;
    let (desired, _told_before) = wanted.on(&seen)?;
    let kept = kept(args, &work.root, &seen, &desired, ui)?;
    if args.dry_run {
        let changes = persist::preview(&work.root, &kept).map_err(Failure::failed)?;
        for change in &changes {
            ui.line(format_args!("{change}"));
        }
        return Ok(());
    }
    let mut programs = HostPrograms::new(&work.root);
    let outcome = persist::install(&work.root, &kept, &mut programs, work.checkpoints.as_ref())
        .map_err(Failure::failed)?;
    tell(&outcome, ui);
    ui.line(match outcome.changes.len() {
        0 => "kept across reboots already".to_owned(),
        changes => format!("kept across reboots: {}", counted(changes)),
    });
    for conflict in conflicts(&work.root, &kept.pfs) {
        ui.warn(explained(&conflict));
    }
    Ok(())
}

/// Puts together what is kept.
fn kept(
    args: &ApplyArgs,
    root: &HostRoot,
    seen: &Inventory,
    desired: &Desired,
    ui: &mut Ui,
) -> Result<Kept, Failure> {
    let found = persist::look(root).map_err(Failure::failed)?;
    let former = read_vf_settings(root, found.vf_settings).unwrap_or_else(|error| {
        ui.warn(explained(&error));
        KeptVfs::new()
    });
    let files = policies::texts(&args.policies.files).map_err(Failure::input)?;
    let facts = kernel_facts(root, &modules_of(desired));
    let can_be_loaded =
        |state: &ModuleState| matches!(state, ModuleState::Loaded | ModuleState::Available);
    let modules = facts.modules.into_iter();
    Ok(Kept {
        policies: files
            .into_iter()
            .map(|(source, text)| StoredPolicy { source, text })
            .collect(),
        boot: BootApply {
            program: this_program()?,
            node_labels: policies::labels(&args.policies.node_labels).map_err(Failure::input)?,
            allow_default_route: args.allow_default_route,
        },
        pfs: kept_pfs(desired, seen),
        vfs: policy::keep(seen, desired, &former),
        modules: modules
            .filter(|(_, state)| can_be_loaded(state))
            .map(|(module, _)| module)
            .collect(),
    })
}

/// Forgets everything; VFs stay as they are.
pub(super) fn forget(args: &ApplyArgs, site: &Site, ui: &mut Ui) -> Result<Exit, Failure> {
    let work = Workplace::open(site)?;
    if args.dry_run {
        let changes = persist::preview_uninstall(&work.root).map_err(Failure::failed)?;
        for change in changes {
            ui.line(format_args!("{change}"));
        }
        return Ok(Exit::Done);
    }
    let was = persist::installed(&work.root).map_err(Failure::failed)?;
    let mut programs = HostPrograms::new(&work.root);
    match persist::uninstall(&work.root, &mut programs, work.checkpoints.as_ref()) {
        Ok(outcome) => {
            tell(&outcome, ui);
            for path in &outcome.left {
                ui.note(format_args!(
                    "{path} was changed by somebody and is left; remove it if nobody needs it"
                ));
            }
            ui.line(match (was, outcome.changes.len()) {
                (Installed::Absent, 0) => "nothing was kept".to_owned(),
                (_, changes) => format!("kept no more: {}", counted(changes)),
            });
            Ok(Exit::Done)
        }
        Err(error) => {
            tell(&error.outcome, ui);
            Err(Failure::failed(*error))
        }
    }
}

fn tell(outcome: &Outcome, ui: &mut Ui) {
    for change in &outcome.changes {
        tell_change(change, ui);
    }
    for error in &outcome.untold {
        warn_untold(error, ui);
    }
}

fn tell_change(change: &Change, ui: &mut Ui) {
    ui.say(change);
}

fn warn_untold(error: &ProgramError, ui: &mut Ui) {
    ui.warn(format_args!(
        "{}; it reads the files at the next boot",
        explained(error)
    ));
}

fn counted(changes: usize) -> String {
    match changes {
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    }
}
