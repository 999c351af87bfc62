//! The vDPA device of a function: made, given its driver, removed.
//!
//! What would surprise: a device gets a driver by itself when it is made, whichever of the two is loaded
//! first; so the override is written and the right one bound in any case. Removing a device waits for the
//! VM that has it open, for ever, and inside the kernel; so its driver is taken first, and both on threads
//! that can be left to it.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use model::{PciAddress, VdpaKind, vdpa_name};
use netlink::vdpa::{self, Parent};
use netlink::{Events, RequestError};
use policy::pf_driver;

use super::Fault;
use crate::driver;
use crate::modprobe::modprobe;
use crate::root::{AccessError, HostRoot};
use crate::wait;

const DEVICES: &str = "/sys/bus/vdpa/devices";
const DRIVERS: &str = "/sys/bus/vdpa/drivers";

/// Most pairs of queues; what a driver that lets it be chosen is asked for, as the operator does.
const QUEUE_PAIRS: u16 = 32;

/// Unbinding waits for whoever has the device open.
const UNBIND_PATIENCE: Duration = Duration::from_secs(30);

/// A driver of the vDPA bus is there when the write returns; its node comes with an event.
const NODE_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn set(
    root: &HostRoot,
    function: PciAddress,
    kind: Option<VdpaKind>,
) -> Result<(), Fault> {
    let name = vdpa_name(function);
    let Some(kind) = kind else {
        return remove(root, &name);
    };
    if is_as_wanted(root, &name, kind) {
        return Ok(());
    }
    load(root, kind)?;
    if !root.exists(&format!("{DEVICES}/{name}")) {
        create(root, function, &name)?;
    }
    bind(root, &name, kind)
}

fn create(root: &HostRoot, function: PciAddress, name: &str) -> Result<(), Fault> {
    let parent = Parent::Pci(function);
    let made = ask(name, &parent);
    // Its own module may not be loaded: nobody does it where no udev runs.
    let module = match &made {
        Err(error) if error.is_not_found() => {
            let driver = driver::bound(root, function);
            pf_driver(driver.as_ref()).vdpa_module
        }
        _ => None,
    };
    let made = match module.map(|module| modprobe(root, module)) {
        Some(Ok(())) => ask(name, &parent),
        Some(Err(error)) => {
            return Err(Fault::new("no-vdpa", error)
                .remedy("install the kernel module for vDPA devices of this NIC"));
        }
        None => made,
    };
    made.map_err(|error| {
        let remedy = if error.is_not_found() || error.is_not_supported() {
            "see that the PF is in switchdev mode and that its driver makes vDPA devices \
             (`vdpa mgmtdev show`)"
        } else if error.is_already_there() || error.errno() == Some(rustix::io::Errno::NOSPC) {
            "remove the vDPA device that somebody else made of it (`vdpa dev show`)"
        } else {
            return Fault::from(error);
        };
        Fault::from(error).code("no-vdpa").remedy(remedy)
    })
}

/// Asks for a device with many queues, or with as many as the driver likes.
fn ask(name: &str, parent: &Parent) -> Result<(), RequestError> {
    let mut socket = netlink::Socket::open(netlink::Protocol::Generic)?;
    match vdpa::create(&mut socket, name, parent, Some(QUEUE_PAIRS)) {
        Err(error) if error.is_not_supported() => vdpa::create(&mut socket, name, parent, None),
        outcome => outcome,
    }
}

/// Gives a device its driver, whichever it has.
fn bind(root: &HostRoot, name: &str, kind: VdpaKind) -> Result<(), Fault> {
    let wanted = kind.driver();
    let path = format!("{DEVICES}/{name}/driver_override");
    match root.write(&path, wanted) {
        // Before Linux 5.17 the bus has none.
        Err(error) if !error.is_gone() => return Err(error.into()),
        _ => {}
    }
    let mut events = Events::open()?;
    if bound(root, name).as_deref() != Some(wanted) {
        unbind(root, name)?;
        let path = format!("{DRIVERS}/{wanted}/bind");
        match wait::write_slow(root, &path, name, UNBIND_PATIENCE) {
            // Somebody's probe was faster.
            Err(_) if bound(root, name).as_deref() == Some(wanted) => {}
            outcome => outcome?,
        }
    }
    let there = wait::until(&mut events, NODE_PATIENCE, || {
        is_as_wanted(root, name, kind).then_some(())
    })?;
    there.ok_or_else(|| {
        let now = bound(root, name).unwrap_or_else(|| "no driver".to_owned());
        Fault::new("driver-not-bound", format!("{name} has {now} afterwards"))
            .remedy("see the kernel log (dmesg) for why the driver refused the device")
    })
}

fn remove(root: &HostRoot, name: &str) -> Result<(), Fault> {
    let path = format!("{DEVICES}/{name}");
    if !root.exists(&path) {
        return Ok(());
    }
    unbind(root, name)?;
    // Where somebody else's unbinding waits for a VM, this waits for that.
    let (done, waiting) = mpsc::channel();
    let device = name.to_owned();
    thread::Builder::new()
        .name("slow netlink".to_owned())
        .spawn(move || {
            let deleted = netlink::Socket::open(netlink::Protocol::Generic)
                .and_then(|mut socket| vdpa::delete(&mut socket, &device));
            // Nobody listens any more after the deadline.
            let _unheard = done.send(deleted);
        })
        .map_err(|error| Fault::new("no-thread", error))?;
    match waiting.recv_timeout(UNBIND_PATIENCE) {
        Ok(Ok(())) => Ok(()),
        _ if !root.exists(&path) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(in_use(Fault::too_late(
            "device-in-use",
            format!("{name} did not go"),
            UNBIND_PATIENCE,
        ))),
    }
}

fn in_use(fault: Fault) -> Fault {
    fault
        .code("device-in-use")
        .remedy("stop the VM that has the vDPA device open; see `virtfn list vf`")
}

fn unbind(root: &HostRoot, name: &str) -> Result<(), Fault> {
    let Some(driver) = bound(root, name) else {
        return Ok(());
    };
    let path = format!("{DRIVERS}/{driver}/unbind");
    match wait::write_slow(root, &path, name, UNBIND_PATIENCE) {
        // The link to the driver goes before the driver does, so it tells nothing here.
        Err(error) if is_late(&error) => Err(in_use(error.into())),
        _ if bound(root, name).is_none() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(Fault::new(
            "driver-not-unbound",
            format!("{name} still has {driver} afterwards"),
        )),
    }
}

fn is_late(error: &AccessError) -> bool {
    error.source.kind() == std::io::ErrorKind::TimedOut
}

/// Has a device the driver that offers it as wanted, and the node that comes with it?
fn is_as_wanted(root: &HostRoot, name: &str, kind: VdpaKind) -> bool {
    let has_node = || {
        let entries = root.list(&format!("{DEVICES}/{name}")).unwrap_or_default();
        entries.iter().any(|entry| entry.starts_with("vhost-vdpa-"))
    };
    bound(root, name).as_deref() == Some(kind.driver()) && (kind == VdpaKind::Virtio || has_node())
}

fn bound(root: &HostRoot, name: &str) -> Option<String> {
    root.link_name(&format!("{DEVICES}/{name}/driver")).ok()
}

/// Sees that the driver of a kind is there.
fn load(root: &HostRoot, kind: VdpaKind) -> Result<(), Fault> {
    let driver = kind.driver();
    if root.exists(&format!("{DRIVERS}/{driver}")) {
        return Ok(());
    }
    modprobe(root, driver).map_err(|error| {
        Fault::new("no-driver", error).remedy(format!(
            "install the kernel module {driver} for the running kernel"
        ))
    })
}
