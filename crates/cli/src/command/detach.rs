//! `virtfn detach`: takes a VF back that `virtfn attach` gave away.

use host::{Claim, DetachError, LedgerError};
use model::{Holder, HolderKind, PciAddress};

use super::attach::{address_of, namespace_of};
use super::plan::warn;
use super::target::VfName;
use crate::args::DetachArgs;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workplace::{Site, Workplace};

/// Takes the VF back, or shows what that would take.
pub(crate) fn run(args: &DetachArgs, site: &Site, ui: &mut Ui) -> Result<(), Failure> {
    let name = VfName::read(&args.vf);
    let work = Workplace::open(site)?;
    let vf = address_of(&name, &work)?;
    let claim = match claim(vf, &work)? {
        Known::Claim(claim) => Some(claim),
        Known::Nothing(damaged) if args.dry_run => {
            warn(&damaged, ui);
            ui.line(format_args!(
                "vf {vf}, held by somebody unknown: it would be brought home from where it is"
            ));
            return Ok(());
        }
        Known::Nothing(_) => None,
    };
    if let Some(claim) = claim.as_ref().filter(|_| args.dry_run) {
        ui.line(format_args!("vf {vf}, held by {}", claim.holder));
        ui.result(&undo_of(claim));
        return Ok(());
    }
    let mut linux = work.linux()?;
    let detached = work
        .engine(&mut linux)
        .detach(vf, claim.as_ref().map(|claim| &claim.holder))
        .map_err(Failure::failed)?;
    if let Some(damage) = &detached.damage {
        ui.warn(format_args!(
            "{damage}; what was set on {name} for its holder is not known, see `virtfn list vf`"
        ));
    }
    if detached.holder.kind == HolderKind::Unknown {
        ui.line(format_args!("{name} was at home, and is free now"));
    } else {
        let namespace = namespace_of(&detached.holder);
        ui.line(format_args!("detached {name} from {namespace}"));
    }
    Ok(())
}

/// What is on record of a VF that somebody has.
enum Known {
    Claim(Box<Claim>),
    /// It cannot be told.
    Nothing(LedgerError),
}

/// Returns who has the VF, when that is somebody from whom this command may take it.
///
/// What a container runtime gave to a container is the runtime's to take back: it would give an
/// address that is gone, or tear down twice. What is damaged is nobody's to protect.
fn claim(vf: PciAddress, work: &Workplace) -> Result<Known, Failure> {
    let record = match work.ledger.look(vf) {
        Ok(record) => record,
        Err(damaged @ LedgerError::Damaged { .. }) => return Ok(Known::Nothing(damaged)),
        Err(error) => return Err(Failure::failed(DetachError::from(error))),
    };
    let claim = record
        .and_then(|record| record.claim)
        .ok_or_else(|| Failure::failed(DetachError::NotAttached { vf }))?;
    if claim.holder.kind == HolderKind::Attach {
        Ok(Known::Claim(Box::new(claim)))
    } else {
        Err(Failure::refused(DetachError::OtherHolder {
            vf,
            holder: claim.holder,
            by: Holder {
                kind: HolderKind::Attach,
                id: "virtfn detach".to_owned(),
                interface: None,
            },
        }))
    }
}

fn undo_of(claim: &Claim) -> String {
    let undo: Vec<String> = claim
        .steps
        .iter()
        .rev()
        .filter_map(|recorded| Some(recorded.undo.as_ref()?.to_string()))
        .collect();
    let width = undo.len().to_string().len();
    let lines = undo.iter().enumerate();
    lines
        .map(|(at, step)| format!("  {:<width$}  {step}\n", at + 1))
        .collect()
}
