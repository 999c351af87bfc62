//! `virtfn attach`: gives a VF to a network namespace.

mod request;

use host::{AttachError, Attached, netns};
use model::{
    AttachInterface, AttachRequest, Code, Explain, Holder, HolderKind, Host, NetnsTarget,
    PciAddress, Scope, Step,
};

use super::target::VfName;
use crate::args::AttachArgs;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::view::netns_title;
use crate::workplace::{Site, Workplace};
use request::AttachCommand;

/// Gives the VF away, or shows what that would take.
pub(crate) fn run(args: &AttachArgs, site: &Site, ui: &mut Ui) -> Result<(), Failure> {
    let command = AttachCommand::try_from(args).map_err(Failure::input)?;
    let work = Workplace::open(site)?;
    let vf = address_of(&command.vf, &work)?;
    let netns = netns::find(&work.root, &command.netns).map_err(Failure::failed)?;
    let request = request(&command, vf, netns);
    if command.dry_run {
        return show(&request, &work, ui);
    }
    let mut linux = work.linux()?;
    let attached = work.engine(&mut linux).attach(&request).map_err(failure)?;
    tell(&command.vf, &request, &attached, ui);
    Ok(())
}

/// Returns the address of the VF that the user named. An address is taken as it is: the engine
/// looks at it anyway, and a VF that is gone can still be taken back.
pub(super) fn address_of(name: &VfName, work: &Workplace) -> Result<PciAddress, Failure> {
    if let VfName::Address(address) = name {
        return Ok(*address);
    }
    let seen = work.linux()?.observe(Scope::All).map_err(Failure::failed)?;
    Ok(name.find(&seen).map_err(Failure::input)?.address)
}

fn request(command: &AttachCommand, vf: PciAddress, netns: NetnsTarget) -> AttachRequest {
    let id = match &netns {
        NetnsTarget::Host => "host".to_owned(),
        NetnsTarget::Path { path, .. } => path.clone(),
    };
    AttachRequest {
        vf,
        holder: Holder {
            kind: HolderKind::Attach,
            id,
            interface: command.name.clone(),
        },
        settings: command.settings,
        interface: Some(AttachInterface {
            netns,
            name: command.name.clone(),
            mac: command.mac,
            mtu: command.mtu,
            addresses: command.addresses.clone(),
        }),
        with_rdma: false,
        lives_in: None,
    }
}

/// Shows the steps of an attach, after the same checks.
fn show(request: &AttachRequest, work: &Workplace, ui: &mut Ui) -> Result<(), Failure> {
    let seen = work
        .linux()?
        .observe(Scope::Function(request.vf))
        .map_err(Failure::failed)?;
    let plan = policy::attach(&seen, request).map_err(|error| failure(AttachError::from(error)))?;
    for note in &plan.notes {
        ui.note(note);
    }
    ui.result(&policy::render(&plan.as_plan(&seen)));
    Ok(())
}

fn tell(name: &VfName, request: &AttachRequest, attached: &Attached, ui: &mut Ui) {
    if let Some(damage) = &attached.damage {
        ui.warn(damage);
    }
    if let Some(former) = &attached.healed {
        ui.note(format_args!(
            "took {name} back from {former} first, who is gone"
        ));
    }
    for note in &attached.notes {
        ui.note(note);
    }
    let holder = namespace_of(&request.holder);
    if attached.already {
        ui.line(format_args!("{name} is in {holder} already, just so"));
        return;
    }
    let moved = attached
        .steps
        .iter()
        .find_map(|planned| match &planned.step {
            Step::Move { name, .. } => Some(name),
            _ => None,
        });
    match moved {
        Some(interface) => ui.line(format_args!("attached {name} to {holder} as {interface}")),
        None => ui.line(format_args!("attached {name} to {holder}")),
    }
}

/// Names the namespace that a plain attach gave a VF to.
pub(super) fn namespace_of(holder: &Holder) -> String {
    format!("namespace {}", netns_title(&holder.id))
}

/// Somebody's VF is a refusal; what cannot be asked of this VF is bad input; the rest failed.
fn failure(error: AttachError) -> Failure {
    if error.code() == Code::new("vf-in-use") {
        return Failure::refused(error);
    }
    match error {
        AttachError::NoVf { .. } | AttachError::Refused(_) => Failure::input(error),
        AttachError::InUse { .. }
        | AttachError::Lock(_)
        | AttachError::Ledger(_)
        | AttachError::Observe(_)
        | AttachError::Heal { .. }
        | AttachError::Step { .. }
        | AttachError::Confirm { .. } => Failure::failed(error),
    }
}
