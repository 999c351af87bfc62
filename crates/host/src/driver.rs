//! Which driver a function is bound to, and changing it.
//!
//! `driver_override` names the one driver that may bind; it is kept for as long as virtfn's choice
//! is to hold, so that a probe by somebody else does not change it, and is cleared (with a newline:
//! an empty write does nothing) when the kernel is to choose again. What would surprise:
//!
//! - `drivers_probe` succeeds even when no driver bound, so the result is always read again.
//! - While the PF's `sriov_drivers_autoprobe` is off, a VF binds only with an override; to let the
//!   kernel choose, autoprobe is on for that moment ([`autoprobe`]).
//! - Killed between two writes, a function can have an override that its driver is not, or no driver;
//!   the next bind goes on from there, and a plan sees both.
//! - Unbinding from VFIO waits for the process that has the device open.

use std::time::Duration;

use model::{BindTarget, DriverName, PciAddress};
use netlink::Events;

use crate::autoprobe;
use crate::checkpoint::Checkpoint;
use crate::modprobe::modprobe;
use crate::perform::{Fault, Tools, device};
use crate::root::HostRoot;
use crate::wait;

/// Unbinding waits for whoever uses the device: a VM on its way down, or a firmware that is slow.
const UNBIND_PATIENCE: Duration = Duration::from_secs(30);

/// Probing can reset the function and load its firmware (`mlx5`: seconds).
const PROBE_PATIENCE: Duration = Duration::from_secs(60);

/// An asynchronous probe goes on after the write returned.
const BOUND_PATIENCE: Duration = Duration::from_secs(10);

const DRIVERS: &str = "/sys/bus/pci/drivers";
const PROBE: &str = "/sys/bus/pci/drivers_probe";

/// Returns the driver that a function is bound to.
pub(crate) fn bound(root: &HostRoot, function: PciAddress) -> Option<DriverName> {
    root.link_name(&format!("{}/driver", device(function)))
        .ok()?
        .parse()
        .ok()
}

/// Binds a function as asked for.
pub(crate) fn bind(tools: &Tools<'_>, function: PciAddress, to: &BindTarget) -> Result<(), Fault> {
    if !tools.root.exists(&device(function)) {
        return Err(Fault::no_device());
    }
    match to {
        BindTarget::Nothing => unbind(tools.root, function),
        BindTarget::Driver(driver) => bind_to(tools, function, driver),
        BindTarget::Default => bind_to_default(tools, function),
    }
}

/// Takes the driver away and gives it back. A function that has none, because somebody died between
/// the two, is given one.
pub(crate) fn rebind(tools: &Tools<'_>, function: PciAddress) -> Result<(), Fault> {
    let root = tools.root;
    match bound(root, function) {
        None => bind_to_default(tools, function),
        Some(driver) => {
            unbind(root, function)?;
            passed(tools);
            let mut events = Events::open()?;
            probe(tools, function, overridden(root, function).is_some())?;
            await_bound(root, &mut events, function, |now| *now == driver)?
                .map_err(|now| not_bound(root, function, &driver, now))
        }
    }
}

fn passed(tools: &Tools<'_>) {
    tools.checkpoints.passed(Checkpoint::DriverWrite);
}

fn bind_to(tools: &Tools<'_>, function: PciAddress, driver: &DriverName) -> Result<(), Fault> {
    let root = tools.root;
    if bound(root, function).as_ref() == Some(driver) {
        return Ok(());
    }
    // Before anything is taken away: is there such a driver?
    load(root, driver)?;
    set_override(root, function, Some(driver))?;
    passed(tools);
    unbind(root, function)?;
    passed(tools);
    let mut events = Events::open()?;
    probe(tools, function, true)?;
    await_bound(root, &mut events, function, |now| now == driver)?
        .map_err(|now| not_bound(root, function, driver, now))
}

fn bind_to_default(tools: &Tools<'_>, function: PciAddress) -> Result<(), Fault> {
    let root = tools.root;
    let was_overridden = overridden(root, function);
    if was_overridden.is_some() {
        set_override(root, function, None)?;
        passed(tools);
    }
    match bound(root, function) {
        // It is there because of the override, or takes devices from the kernel's own drivers.
        Some(driver) if driver.is_user_space() || was_overridden.as_ref() == Some(&driver) => {
            unbind(root, function)?;
            passed(tools);
        }
        Some(_) => return Ok(()),
        None => {}
    }
    let mut events = Events::open()?;
    probe(tools, function, false)?;
    if bound(root, function).is_none() {
        // The module may not be loaded: its name is in the device's alias.
        let alias = root.read_text(&format!("{}/modalias", device(function)))?;
        if let Err(error) = modprobe(root, &alias) {
            return Err(Fault::new("no-driver", error).remedy(
                "install the kernel module for the device, such as igbvf, iavf or mlx5_core",
            ));
        }
        probe(tools, function, false)?;
    }
    await_bound(root, &mut events, function, |now| !now.is_user_space())?.map_err(|now| {
        let now = now.map_or("no driver".to_owned(), |now| now.to_string());
        Fault::new("driver-not-bound", format!("it has {now} afterwards"))
            .remedy("see the kernel log (dmesg) for why the driver refused the device")
    })
}

fn unbind(root: &HostRoot, function: PciAddress) -> Result<(), Fault> {
    let Some(driver) = bound(root, function) else {
        return Ok(());
    };
    let path = format!("{DRIVERS}/{driver}/unbind");
    match wait::write_slow(root, &path, &function.to_string(), UNBIND_PATIENCE) {
        // The kernel takes the link away before it waits for whoever has the device open, so the link
        // says nothing here.
        Err(error) if error.source.kind() == std::io::ErrorKind::TimedOut => {
            let remedy = if driver.is_vfio() {
                "stop the VM or process that has the device open; see `virtfn list vf`"
            } else {
                "see the kernel log (dmesg) for a driver that hangs"
            };
            Err(Fault::from(error).code("device-in-use").remedy(remedy))
        }
        // Whoever was faster did what we wanted.
        _ if bound(root, function).is_none() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(Fault::new(
            "driver-not-unbound",
            format!("it still has {driver} afterwards"),
        )),
    }
}

/// Lets the kernel bind a driver, with autoprobe on for that moment unless an override is there.
fn probe(tools: &Tools<'_>, function: PciAddress, has_override: bool) -> Result<(), Fault> {
    let root = tools.root;
    let probe = || wait::write_slow(root, PROBE, &function.to_string(), PROBE_PATIENCE);
    let outcome = if has_override {
        probe()
    } else {
        autoprobe::on_while(tools, function, probe)?
    };
    match outcome {
        // A driver that refuses the device makes this EINVAL; the link tells below.
        Err(error) if error.source.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Waits for a driver that `fits`; otherwise returns the one that is there.
fn await_bound(
    root: &HostRoot,
    events: &mut Events,
    function: PciAddress,
    fits: impl Fn(&DriverName) -> bool,
) -> Result<Result<(), Option<DriverName>>, Fault> {
    // A probe that failed is over when the write returned: then there is nothing to wait for,
    // except where the driver probes asynchronously, which only drivers of the kernel's own
    // choice do.
    let found = wait::until(events, BOUND_PATIENCE, || {
        bound(root, function).filter(&fits)
    })?;
    Ok(match found {
        Some(_) => Ok(()),
        None => Err(bound(root, function)),
    })
}

fn not_bound(
    root: &HostRoot,
    function: PciAddress,
    driver: &DriverName,
    now: Option<DriverName>,
) -> Fault {
    let now = now.map_or("no driver".to_owned(), |now| now.to_string());
    let fault = Fault::new(
        "driver-not-bound",
        format!("{driver} did not take it; it has {now} afterwards"),
    );
    let has_group = root.exists(&format!("{}/iommu_group", device(function)));
    if driver.is_vfio() && !has_group {
        return fault.code("iommu-off").remedy(
            "enable the IOMMU in the firmware, and start the kernel with intel_iommu=on or amd_iommu=on",
        );
    }
    fault.remedy("see the kernel log (dmesg) for why the driver refused the device")
}

/// Sees that a driver is there, and loads its module if not.
fn load(root: &HostRoot, driver: &DriverName) -> Result<(), Fault> {
    let dir = format!("{DRIVERS}/{driver}");
    if root.exists(&dir) {
        return Ok(());
    }
    let loaded = modprobe(root, driver.as_str());
    if root.exists(&dir) {
        return Ok(());
    }
    let fault = match loaded {
        Err(error) => Fault::new("no-driver", error),
        Ok(()) => Fault::new(
            "no-driver",
            format!("module {driver} has no such PCI driver"),
        ),
    };
    Err(fault.remedy(format!(
        "install the kernel module {driver} for the running kernel"
    )))
}

fn overridden(root: &HostRoot, function: PciAddress) -> Option<DriverName> {
    // It reads `(null)` when unset, which is no driver name.
    root.read_text(&format!("{}/driver_override", device(function)))
        .ok()?
        .parse()
        .ok()
}

fn set_override(
    root: &HostRoot,
    function: PciAddress,
    driver: Option<&DriverName>,
) -> Result<(), Fault> {
    let path = format!("{}/driver_override", device(function));
    root.write(&path, driver.map_or("\n", DriverName::as_str))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_that_is_not_set_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let function = "0000:01:10.0".parse().unwrap();
        let sysfs = dir.path().join(device(function).trim_start_matches('/'));
        std::fs::create_dir_all(&sysfs).unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        for (text, wanted) in [
            ("(null)\n", None),
            ("\n", None),
            ("vfio-pci\n", Some("vfio-pci")),
        ] {
            std::fs::write(sysfs.join("driver_override"), text).unwrap();
            let found = overridden(&root, function);
            assert_eq!(found.as_ref().map(DriverName::as_str), wanted);
        }
    }

    #[test]
    fn a_driver_that_does_not_exist_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let function = "0000:01:10.0".parse().unwrap();
        let sysfs = dir.path().join(device(function).trim_start_matches('/'));
        std::fs::create_dir_all(&sysfs).unwrap();
        std::os::unix::fs::symlink("../../drivers/igbvf", sysfs.join("driver")).unwrap();
        std::fs::write(sysfs.join("driver_override"), "(null)\n").unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        let to = BindTarget::Driver("virtfn-no-such-driver".parse().unwrap());
        let mut sockets = crate::perform::Sockets::default();
        let tools = Tools {
            root: &root,
            sockets: &mut sockets,
            reported: &mut None,
            state: None,
            checkpoints: &crate::checkpoint::Uninterrupted,
        };
        let fault = bind(&tools, function, &to).unwrap_err();
        let error = fault.into_step_error(String::new(), String::new());
        assert_eq!(error.code.as_str(), "no-driver");
        let left = std::fs::read_to_string(sysfs.join("driver_override")).unwrap();
        assert_eq!(left, "(null)\n");
    }
}
