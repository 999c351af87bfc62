//! Making one step on the real kernel: look, change if it is not so, and see that it took effect.
//!
//! Each kind of step has a file. None keeps anything between two steps: names and indices are
//! looked up by PCI address when the step's turn comes, because both change while VFs move.

mod fault;
mod netdev;
mod number;
mod rdma;
mod relocate;
mod reported;
mod setting;
mod switch;
mod vdpa;

use model::{PciAddress, Step, StepError};
use netlink::{Protocol, Socket};

use crate::checkpoint::Checkpoints;
use crate::driver;
use crate::root::HostRoot;
use crate::state::StateDir;

pub(crate) use fault::Fault;
pub(crate) use netdev::missing;
pub(crate) use number::NO_ROOM_FOR_VFS;
pub(crate) use reported::Reported;
pub(crate) use switch::{STEERING, TC_OFFLOAD};

/// What a step is made with.
pub(crate) struct Tools<'a> {
    /// The host's files.
    pub(crate) root: &'a HostRoot,
    /// Sockets in the host's network namespace.
    pub(crate) sockets: &'a mut Sockets,
    /// What the PF said of a VF a moment ago.
    pub(crate) reported: &'a mut Option<Reported>,
    /// Where locks are; a host that nobody else changes has none.
    pub(crate) state: Option<&'a StateDir>,
    /// Where tests may kill the process.
    pub(crate) checkpoints: &'a dyn Checkpoints,
}

/// Sockets that are opened when they are first needed, and kept.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    route: Option<Socket>,
    generic: Option<Socket>,
}

impl Sockets {
    /// Takes a socket over that is open already.
    pub(crate) fn adopt_route(&mut self, socket: Option<Socket>) {
        self.route = self.route.take().or(socket);
    }

    pub(crate) fn route(&mut self) -> Result<&mut Socket, Fault> {
        open(&mut self.route, Protocol::Route)
    }

    pub(crate) fn generic(&mut self) -> Result<&mut Socket, Fault> {
        open(&mut self.generic, Protocol::Generic)
    }
}

fn open(slot: &mut Option<Socket>, protocol: Protocol) -> Result<&mut Socket, Fault> {
    let socket = match slot.take() {
        Some(socket) => socket,
        None => Socket::open(protocol)?,
    };
    Ok(slot.insert(socket))
}

/// Makes a step.
pub(crate) fn perform(tools: &mut Tools<'_>, step: &Step) -> Result<(), StepError> {
    reported::forget(tools.reported, step);
    let begun = std::time::Instant::now();
    let made = make(tools, step);
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let pci = step.function();
    match made {
        Ok(()) => {
            tracing::debug!(step = step.kind(), %pci, elapsed_ms, "step made");
            Ok(())
        }
        Err(fault) => {
            tracing::debug!(step = step.kind(), %pci, elapsed_ms, %fault, "step not made");
            Err(fault.into_step_error(title(tools.root, pci), step.to_string()))
        }
    }
}

#[warn(clippy::wildcard_enum_match_arm)]
fn make(tools: &mut Tools<'_>, step: &Step) -> Result<(), Fault> {
    match step {
        Step::SetNumVfs { pf, count } => number::set(tools.root, *pf, *count),
        Step::SetAutoprobe { pf, on } => number::set_autoprobe(tools.root, *pf, *on),
        Step::SetEswitch { pf, mode } => switch::set(tools, *pf, *mode),
        Step::SetTcOffload { pf, on } => switch::set_tc_offload(tools, *pf, *on),
        Step::SetSteering { pf, mode } => switch::set_steering(tools, *pf, *mode),
        Step::SetVdpa { function, kind } => vdpa::set(tools.root, *function, *kind),
        Step::SetVf { pf, vf, attr } => setting::set(tools, *pf, *vf, attr),
        Step::Bind { function, to } => driver::bind(tools, *function, to),
        Step::Rebind { function } => {
            rdma::keeping_name(tools, *function, |tools| driver::rebind(tools, *function))
        }
        Step::AwaitNetdev { function } => netdev::wait(tools.root, *function),
        Step::SetMtu {
            function,
            netns,
            mtu,
        } => netdev::at(tools, *function, netns, |site| site.set_mtu(*mtu)),
        Step::SetUp {
            function,
            netns,
            up,
        } => netdev::at(tools, *function, netns, |site| site.set_up(*up)),
        Step::SetMac {
            function,
            netns,
            mac,
        } => netdev::at(tools, *function, netns, |site| site.set_mac(*mac)),
        Step::Rename {
            function,
            netns,
            name,
        } => netdev::at(tools, *function, netns, |site| site.rename(name)),
        Step::AddAddress {
            function,
            netns,
            address,
        } => netdev::at(tools, *function, netns, |site| site.add_address(*address)),
        Step::RemoveAddress {
            function,
            netns,
            address,
        } => netdev::at(tools, *function, netns, |site| {
            site.remove_address(*address)
        }),
        Step::Move {
            function,
            from,
            to,
            name,
            up,
        } => relocate::go(
            tools,
            &relocate::Way {
                function: *function,
                from,
                to,
                name,
                up: *up,
            },
        ),
        Step::MoveRdma {
            function,
            device,
            from,
            to,
        } => rdma::to(tools, *function, device, from, to),
    }
}

/// Names a function as people look for it: `PF ens1f0 (0000:3b:00.0)`, `VF 0000:3b:02.1`.
fn title(root: &HostRoot, function: PciAddress) -> String {
    let dir = device(function);
    if root.exists(&format!("{dir}/physfn")) {
        return format!("VF {function}");
    }
    match netdev::on_host(root, function) {
        Some(found) => format!("PF {} ({function})", found.name),
        None => format!("PF {function}"),
    }
}

/// Returns the directory of a function in sysfs.
pub(crate) fn device(function: PciAddress) -> String {
    format!("/sys/bus/pci/devices/{function}")
}
