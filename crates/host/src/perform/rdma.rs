//! Moving an RDMA device to another namespace.
//!
//! It is found by its name, which no other RDMA device has in any namespace. A namespace that dies
//! sends its RDMA devices back to the host by itself, some time after its last user left.
//!
//! What would surprise: the kernel makes the IPoIB interface of a device anew when the device moves,
//! or when its driver is bound again: on the host, down, and with the lowest name that is free. So
//! its name is noted before and given back after ([`keeping_name`]).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use model::{IfName, NetnsTarget, PciAddress};
use netlink::{Events, Protocol, Socket, rdma};

use super::relocate::{is_dead, name_at_home, own_netns};
use super::{Fault, Tools, netdev};
use crate::netns::OpenNetns;
use crate::wait;

/// As for netdevs: see [`super::relocate`].
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// Link layer of an IPoIB interface (`ARPHRD_INFINIBAND`).
const INFINIBAND: &str = "32";

/// Moves an RDMA device.
pub(super) fn to(
    tools: &mut Tools<'_>,
    function: PciAddress,
    device: &str,
    from: &NetnsTarget,
    to: &NetnsTarget,
) -> Result<(), Fault> {
    keeping_name(tools, function, |tools| match to {
        NetnsTarget::Host => home(tools, device, from),
        NetnsTarget::Path { path, inode } => {
            let open = OpenNetns::open_same(tools.root, path, *inode)?;
            let is_there = open.run(|| -> Result<bool, Fault> {
                let mut socket = socket()?;
                Ok(index(&mut socket, device)?.is_some())
            })??;
            if is_there {
                return Ok(());
            }
            if send(tools, device, from, open.as_fd())? {
                return Ok(());
            }
            let what = format!("there is no RDMA device {device} in namespace {from}");
            let remedy = "see the RDMA devices of a namespace with `rdma dev`";
            Err(Fault::new("no-rdma", what).remedy(remedy))
        }
    })
}

/// Does something after which an IPoIB interface of the function is a new one, and gives it the name
/// that it had.
pub(super) fn keeping_name(
    tools: &mut Tools<'_>,
    function: PciAddress,
    work: impl FnOnce(&mut Tools<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let name = ipoib_name(tools, function);
    work(tools)?;
    let Some(name) = name else {
        return Ok(());
    };
    netdev::wait(tools.root, function)?;
    name_at_home(tools, function, &name)
}

fn ipoib_name(tools: &Tools<'_>, function: PciAddress) -> Option<IfName> {
    let found = netdev::on_host(tools.root, function)?;
    let layer = format!("{}/net/{}/type", super::device(function), found.name);
    let layer = tools.root.read_text(&layer).ok()?;
    (layer == INFINIBAND).then_some(found.name)
}

fn home(tools: &mut Tools<'_>, device: &str, from: &NetnsTarget) -> Result<(), Fault> {
    let mut events = Events::open()?;
    let on_host = format!("/sys/class/infiniband/{device}");
    if tools.root.exists(&on_host) || *from == NetnsTarget::Host {
        return Ok(());
    }
    let host = own_netns()?;
    match send(tools, device, from, host.as_fd()) {
        Err(fault) if is_dead(tools, from) => {
            tracing::debug!(device, %fault, "waiting for the RDMA device of a dead namespace");
        }
        Err(fault) => return Err(fault),
        Ok(true) => {}
        Ok(false) => {
            // The driver of its function was bound again, or it was renamed there; then it comes
            // back when that namespace ends.
            tracing::warn!(device, netns = %from, "no such RDMA device to bring back");
            return Ok(());
        }
    }
    let root = tools.root;
    let back = wait::until(&mut events, RETURN_PATIENCE, || {
        root.exists(&on_host).then_some(())
    })?;
    back.ok_or_else(|| {
        let what = "the kernel did not give the RDMA device back";
        Fault::too_late("no-rdma", what, RETURN_PATIENCE).remedy(
            "some process or mount may still keep the namespace: see `lsns -t net` and `rdma dev`",
        )
    })
}

/// Sends the one message, from inside the namespace that the device is in. Returns whether it was there.
fn send(
    tools: &Tools<'_>,
    device: &str,
    from: &NetnsTarget,
    into: BorrowedFd<'_>,
) -> Result<bool, Fault> {
    let go = || -> Result<bool, Fault> {
        let mut socket = socket()?;
        let Some(index) = index(&mut socket, device)? else {
            return Ok(false);
        };
        let Err(error) = rdma::move_device(&mut socket, index, into) else {
            return Ok(true);
        };
        let is_not_supported = error.is_not_supported();
        let fault = Fault::from(error);
        Err(if is_not_supported {
            fault.code("not-supported").remedy(
                "the driver of the device does not move it, or RDMA is in mode shared: see `rdma system`",
            )
        } else {
            fault
        })
    };
    match from {
        NetnsTarget::Host => go(),
        NetnsTarget::Path { path, inode } => {
            OpenNetns::open_same(tools.root, path, *inode)?.run(go)?
        }
    }
}

fn socket() -> Result<Socket, Fault> {
    Socket::open_if_supported(Protocol::Rdma)?.ok_or_else(|| {
        Fault::new("no-rdma", "this kernel has no RDMA").remedy("load the module ib_core")
    })
}

/// Returns the kernel's number of a device that the socket's namespace has.
fn index(socket: &mut Socket, device: &str) -> Result<Option<u32>, Fault> {
    let mut devices = rdma::devices(socket)?.into_iter();
    Ok(devices
        .find(|found| found.name == device)
        .map(|found| found.index))
}
