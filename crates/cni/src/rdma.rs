//! The plugin `rdma`: the RDMA device of a VF follows it into the container.
//!
//! It is chained behind the plugin that gave the container its VF, and passes that one's result on.
//! RDMA must be in mode "exclusive", in which a device is in one namespace, as an interface is.
//!
//! A VF that virtfn gave away gets one more step in its record, so that whatever takes the VF back
//! takes the RDMA device back. Of other devices (those of another plugin, and sub-functions) only the
//! file that upstream would read is kept; it is on the disk before the device moves.
//!
//! What would surprise: DEL of a namespace that is gone does nothing, because the kernel itself brings
//! RDMA devices home when their namespace ends.

mod device;
#[cfg(test)]
mod tests;

use api::cni::{Arguments, Command, ErrorNumber, RdmaConfig, RdmaParent, RdmaState};
use model::{Explain, Host, NetnsTarget, PciAddress, RdmaNetnsMode, Scope, Step};

use crate::call::{Answer, Call};
use crate::failure::Failure;
use crate::place::{Machine, Place};
use crate::sriov::netns_of;
use crate::upstream::UpstreamFiles;
use device::Device;

/// Serves one call.
pub(crate) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<Answer, Failure> {
    match call.environment.command {
        Command::Add => add(call, place).map(Answer::Result),
        Command::Del => del(call, place).map(|()| Answer::Silent),
        Command::Check => check(call, place).map(|()| Answer::Silent),
        Command::Gc => collect(call, place).map(|()| Answer::Silent),
        Command::Status => status(place).map(|()| Answer::Silent),
        // It is answered before the configuration is read.
        Command::Version => Ok(Answer::Silent),
    }
}

/// Takes back an ADD whose result nobody took.
pub(crate) fn abandon<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    del(call, place)
}

fn explained(error: &dyn Explain) -> Failure {
    Failure::explained(error)
}

fn add<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<String, Failure> {
    Arguments::parse(&call.environment.args)
        .map_err(|error| Failure::of(ErrorNumber::BAD_ENVIRONMENT, &error))?;
    let Some(previous) = call.config.prev_result_as_is() else {
        return Err(Failure::new(
            "not-chained",
            "RDMA-CNI is expected to be called as part of a plugin chain".to_owned(),
            "name it in the network's list of plugins, behind the one that gives the VF",
        ));
    };
    let config = read(call)?;
    let path = call.environment.netns.as_deref().unwrap_or_default();
    let netns = netns_of(call, place, path)?;
    let holder = call.holder()?;
    let network = &call.config.name;
    let device = match config.parent {
        Some(parent) => Device::find(place, parent)?,
        None => Device::of_result(call, place)?,
    };
    let files = &place.files;
    let state = RdmaState::moved(&device.parent, &device.name);
    files
        .keep_rdma(network, &holder, &state)
        .map_err(|error| not_kept(&error))?;
    let moved = match &device.parent {
        RdmaParent::Function(function) => place
            .engine()
            .lend_rdma(*function, &holder, &netns)
            .map_err(|error| explained(&error))
            .map(|lent| lent.is_some()),
        RdmaParent::Auxiliary(_) => Ok(false),
    };
    let moved = moved.and_then(|is_moved| {
        if is_moved {
            return Ok(());
        }
        let (host, _) = place.machine.parts();
        host.perform(&device.step(&netns))
            .map_err(|error| explained(&error))
    });
    if let Err(failure) = moved {
        return Err(match place.files.forget_rdma(network, &holder) {
            Ok(()) => failure,
            Err(error) => failure.and(&not_kept(&error)),
        });
    }
    Ok(previous.to_string())
}

fn not_kept(error: &std::io::Error) -> Failure {
    Failure::new(
        "state-not-accessible",
        format!("write the file of the rdma plugin: {error}"),
        "see that /var/lib/cni/rdma is a directory that root can write",
    )
}

fn read(call: &Call) -> Result<RdmaConfig, Failure> {
    RdmaConfig::read(&call.config).map_err(|error| Failure::of(error.number(), &error))
}

fn del<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    let holder = call.holder()?;
    let network = &call.config.name;
    let state = place.files.rdma(network, &holder);
    // A configuration that cannot be read any more is no reason to keep the device.
    let named = read(call).ok().and_then(|config| config.parent);
    let kept = state.as_ref().and_then(|state| state.parent().ok());
    let mut is_done = false;
    if let Some(RdmaParent::Function(function)) = kept.or(named) {
        let returned = place.engine().return_rdma(function, &holder);
        is_done = returned.map_err(|error| explained(&error))?;
    }
    if let Some(state) = state.filter(|_| !is_done) {
        bring_home(call, place, &state)?;
    }
    place
        .files
        .forget_rdma(network, &holder)
        .map_err(|error| not_kept(&error))
}

/// Brings a device home of which only the file tells.
fn bring_home<M: Machine>(
    call: &Call,
    place: &mut Place<M>,
    state: &RdmaState,
) -> Result<(), Failure> {
    let path = call.environment.netns.as_deref().unwrap_or_default();
    let holder = call.holder()?;
    let Ok(netns @ NetnsTarget::Path { .. }) = place.machine.netns(path) else {
        tracing::info!(
            device = state.container_name,
            "left to the kernel: its namespace is gone"
        );
        return Ok(());
    };
    let is_anothers = place
        .files
        .is_rdma_of_another(&call.config.name, &holder, &state.device_id);
    let function = match state.parent() {
        Ok(RdmaParent::Function(function)) => Some(function),
        Ok(RdmaParent::Auxiliary(name)) => place.machine.auxiliary_rdma(&name).map(|(at, _)| at),
        Err(_) => None,
    };
    let Some(function) = function.filter(|_| !is_anothers) else {
        tracing::info!(device = state.container_name, "left to its new holder");
        return Ok(());
    };
    let (host, _) = place.machine.parts();
    host.perform(&Step::MoveRdma {
        function,
        device: state.container_name.clone(),
        from: netns,
        to: NetnsTarget::Host,
    })
    .map_err(|error| explained(&error))
}

/// Sees that the device is kept for the container, and not on the host.
fn check<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    let holder = call.holder()?;
    let changed = |message: String| {
        Failure::new(
            "attachment-changed",
            message,
            "see what was done to the VF with `virtfn explain`, and restart the pod",
        )
    };
    let state = place.files.rdma(&call.config.name, &holder);
    let state = state.ok_or_else(|| changed(format!("no RDMA device is given to {holder}")))?;
    if is_at_home(place, &state)? {
        let device = &state.container_name;
        return Err(changed(format!(
            "RDMA device {device} is on the host, not with {holder}"
        )));
    }
    Ok(())
}

fn is_at_home<M: Machine>(place: &mut Place<M>, state: &RdmaState) -> Result<bool, Failure> {
    let on_host: Vec<String> = match state.parent() {
        Ok(RdmaParent::Function(function)) => {
            let (host, _) = place.machine.parts();
            let seen = host.observe(Scope::Function(function));
            let seen = seen.map_err(|error| explained(&error))?;
            let devices = seen.get(function).map(|found| found.rdma.clone());
            let devices = devices.unwrap_or_default().into_iter();
            devices.map(|device| device.name).collect()
        }
        Ok(RdmaParent::Auxiliary(name)) => place
            .machine
            .auxiliary_rdma(&name)
            .map(|(_, devices)| devices)
            .unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    Ok(on_host.contains(&state.container_name))
}

/// Removes the files of devices that are at home again and that no container in use has.
fn collect<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    let valid = call
        .config
        .valid_attachments()
        .map_err(|error| Failure::of(error.number(), &error))?;
    let network = &call.config.name;
    let valid: Vec<Option<String>> = valid
        .iter()
        .map(|attachment| {
            let holder = crate::call::holder(&attachment.container, &attachment.interface);
            UpstreamFiles::rdma_name(network, &holder)
        })
        .collect();
    for (name, state) in place.files.rdma_of_network(network) {
        let is_in_use = valid.iter().flatten().any(|valid| *valid == name);
        if !is_in_use && is_at_home(place, &state)? {
            let removed = place.files.forget_rdma_file(&name);
            removed.map_err(|error| not_kept(&error))?;
        }
    }
    Ok(())
}

fn status<M: Machine>(place: &mut Place<M>) -> Result<(), Failure> {
    let not_available = |failure: Failure| failure.with_number(ErrorNumber::NOT_AVAILABLE);
    let checked = place.state.check();
    checked.map_err(|error| not_available(explained(&error)))?;
    // Any function will do: the mode is the kernel's. None is there, which does not matter.
    let nowhere = PciAddress::new(0, 0, 0, 0).map_or(Scope::All, Scope::Function);
    let (host, _) = place.machine.parts();
    let seen = host.observe(nowhere);
    let seen = seen.map_err(|error| not_available(explained(&error)))?;
    if seen.rdma_netns == Some(RdmaNetnsMode::Exclusive) {
        return Ok(());
    }
    let mode = seen
        .rdma_netns
        .map_or("none".to_owned(), |mode| mode.to_string());
    Err(not_available(Failure::new(
        "rdma-not-exclusive",
        format!("RDMA subsystem is in namespace mode {mode}, not exclusive"),
        "start the kernel with ib_core.netns_mode=0",
    )))
}
