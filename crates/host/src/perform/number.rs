//! How many VFs a PF has (`sriov_numvfs`), and whether they get a driver by themselves.
//!
//! The kernel creates or removes all VFs inside the write, with the PF locked: a fraction of a second
//! per VF, and for ever when a VM does not give a VF back. What would surprise: the write can succeed
//! with fewer VFs than asked for; and drivers whose module must be loaded first, and their
//! netdevs, come some time after it.

use std::time::Duration;

use model::PciAddress;
use netlink::Events;
use rustix::io::Errno;

use super::{Fault, device};
use crate::driver;
use crate::root::HostRoot;
use crate::wait;

/// The write, as long as the operator's daemon gives it.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);

/// A read waits for a write that somebody else makes.
const READ_PATIENCE: Duration = Duration::from_secs(120);

/// The links to the VFs are there when the write returns; only a removal can lag behind.
const LINKS_PATIENCE: Duration = Duration::from_secs(30);

/// udev loads the module of the VFs and the driver makes a netdev: seconds on a busy host.
const DRIVERS_PATIENCE: Duration = Duration::from_secs(10);

/// Code of a refusal for want of memory space, bus numbers or memory (`ENOMEM`).
pub(crate) const NO_ROOM_FOR_VFS: &str = "no-room-for-vfs";

pub(super) fn set(root: &HostRoot, pf: PciAddress, count: u16) -> Result<(), Fault> {
    let dir = device(pf);
    if !root.exists(&dir) {
        return Err(Fault::no_device());
    }
    let path = format!("{dir}/sriov_numvfs");
    let mut events = Events::open()?;
    let has = wait::read_number_slow(root, &path, READ_PATIENCE).map_err(|error| {
        if error.source.kind() == std::io::ErrorKind::NotFound {
            Fault::new("no-sriov", error).remedy(
                "switch SR-IOV on in the firmware of the machine and of the NIC, if it has it",
            )
        } else {
            error.into()
        }
    })?;
    if has != count {
        if has != 0 && count != 0 {
            // Never in passing: it destroys VFs, and a plan has a step of its own for that.
            return Err(Fault::new("vfs-exist", format!("it has {has} VFs")).remedy(
                "remove its VFs first: the kernel does not change their number otherwise",
            ));
        }
        wait::write_slow(root, &path, &count.to_string(), WRITE_PATIENCE)
            .map_err(|error| refused(root, pf, count, error.into()))?;
        let got = wait::read_number_slow(root, &path, READ_PATIENCE)?;
        if got != count {
            return Err(
                Fault::new("fewer-vfs", format!("the driver made {got} VFs"))
                    .remedy("see the kernel log (dmesg) for the driver's reason"),
            );
        }
    }
    await_vfs(root, &mut events, pf, count)
}

pub(super) fn set_autoprobe(root: &HostRoot, pf: PciAddress, on: bool) -> Result<(), Fault> {
    let path = format!("{}/sriov_drivers_autoprobe", device(pf));
    let wanted = if on { "1" } else { "0" };
    if root.read_text(&path)? == wanted {
        return Ok(());
    }
    root.write(&path, wanted)?;
    let got = root.read_text(&path)?;
    if got == wanted {
        Ok(())
    } else {
        Err(Fault::new(
            "not-taken",
            format!("it reads {got} afterwards"),
        ))
    }
}

/// Says what an error of the write means; the numbers are those of `drivers/pci/iov.c` and of the
/// drivers' `sriov_configure`.
fn refused(root: &HostRoot, pf: PciAddress, count: u16, fault: Fault) -> Fault {
    let total = root.read_text(&format!("{}/sriov_totalvfs", device(pf)));
    let remedy_and_code = match fault.errno() {
        Some(Errno::RANGE) => (
            "too-many-vfs",
            match total {
                Ok(total) => format!("ask for at most {total} VFs"),
                Err(_) => "ask for fewer VFs".to_owned(),
            },
        ),
        Some(Errno::NOMEM) => (
            NO_ROOM_FOR_VFS,
            "start the kernel with pci=realloc (or pci=assign-busses, if dmesg says `bus number out of range`), or enable `Above 4G decoding` in the firmware of the machine".to_owned(),
        ),
        Some(Errno::BUSY) => (
            "device-busy",
            "remove the VFs that exist, and take XDP programs and DCB from the PF".to_owned(),
        ),
        Some(Errno::NOENT) => (
            "driver-without-sriov",
            "load the PF's own driver; the bound one, if any, cannot make VFs".to_owned(),
        ),
        Some(Errno::NOSPC) => (
            "no-vectors-for-vfs",
            format!("ask for fewer than {count} VFs: the NIC has no interrupt vectors left"),
        ),
        Some(Errno::IO) => (
            "firmware-refused",
            "update the firmware of the NIC: its SR-IOV capability contradicts itself".to_owned(),
        ),
        Some(Errno::PERM) => (
            "driver-refused",
            "see the kernel log (dmesg) for the driver's reason".to_owned(),
        ),
        Some(Errno::OPNOTSUPP) => (
            "driver-refused",
            "set the eswitch mode to legacy first, or see the kernel log (dmesg)".to_owned(),
        ),
        Some(Errno::INVAL) => (
            "driver-refused",
            "remove max_vfs from the driver's module parameters, and see the kernel log (dmesg)"
                .to_owned(),
        ),
        _ => return fault,
    };
    let (code, remedy) = remedy_and_code;
    fault.code(code).remedy(remedy)
}

/// Waits until the VFs are there (or gone), and then a while for their drivers and netdevs.
///
/// A VF without a driver is no failure of this step: its own steps will say so.
fn await_vfs(
    root: &HostRoot,
    events: &mut Events,
    pf: PciAddress,
    count: u16,
) -> Result<(), Fault> {
    let linked = wait::until(events, LINKS_PATIENCE, || {
        let vfs = vfs(root, pf);
        (vfs.len() == usize::from(count)).then_some(vfs)
    })?;
    let Some(vfs) = linked else {
        let what = format!("its links to {count} VFs were not there");
        return Err(Fault::too_late("vfs-not-there", what, LINKS_PATIENCE));
    };
    let probes = root
        .read_text(&format!("{}/sriov_drivers_autoprobe", device(pf)))
        .is_ok_and(|on| on == "1");
    if probes && count > 0 {
        let settled = wait::until(events, DRIVERS_PATIENCE, || {
            vfs.iter().all(|vf| is_settled(root, *vf)).then_some(())
        })?;
        if settled.is_none() {
            tracing::warn!(%pf, "some VFs have no driver or no netdev yet");
        }
    }
    Ok(())
}

fn vfs(root: &HostRoot, pf: PciAddress) -> Vec<PciAddress> {
    let dir = device(pf);
    let names = root.list(&dir).unwrap_or_default();
    names
        .iter()
        .filter(|name| name.starts_with("virtfn"))
        .filter_map(|name| root.link_name(&format!("{dir}/{name}")).ok()?.parse().ok())
        .collect()
}

/// Has a VF all that it will get by itself?
fn is_settled(root: &HostRoot, vf: PciAddress) -> bool {
    match driver::bound(root, vf) {
        // Only udev loads a module for a device that appears; without it nothing more will come.
        None => !root.exists("/run/udev/control"),
        Some(driver) if driver.is_user_space() => true,
        Some(_) => {
            let is_nic = root
                .read_text(&format!("{}/class", device(vf)))
                .is_ok_and(|class| class.starts_with("0x02"));
            !is_nic || super::netdev::is_on_host(root, vf)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pf_with_vfs_is_never_given_another_number_in_passing() {
        let dir = tempfile::tempdir().unwrap();
        let pf = "0000:01:00.0".parse().unwrap();
        let sysfs = dir.path().join(device(pf).trim_start_matches('/'));
        std::fs::create_dir_all(&sysfs).unwrap();
        std::fs::write(sysfs.join("sriov_numvfs"), "4\n").unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        let fault = set(&root, pf, 7).unwrap_err();
        let error = fault.into_step_error(String::new(), String::new());
        assert_eq!(error.code.as_str(), "vfs-exist");
        let left = std::fs::read_to_string(sysfs.join("sriov_numvfs")).unwrap();
        assert_eq!(left, "4\n");
    }

    #[test]
    fn each_refusal_of_the_kernel_has_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let pf: PciAddress = "0000:01:00.0".parse().unwrap();
        let sysfs = dir.path().join(device(pf).trim_start_matches('/'));
        std::fs::create_dir_all(&sysfs).unwrap();
        std::fs::write(sysfs.join("sriov_totalvfs"), "7\n").unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        for (errno, code, remedy) in [
            (Errno::RANGE, "too-many-vfs", "at most 7"),
            (Errno::NOMEM, NO_ROOM_FOR_VFS, "pci=realloc"),
            (Errno::BUSY, "device-busy", "XDP"),
            (Errno::NOENT, "driver-without-sriov", "own driver"),
            (Errno::NOSPC, "no-vectors-for-vfs", "fewer than 8"),
        ] {
            let error = crate::AccessError::new("write", "sriov_numvfs", errno);
            let error =
                refused(&root, pf, 8, error.into()).into_step_error(String::new(), String::new());
            assert_eq!(error.code.as_str(), code);
            assert!(error.remedy.as_ref().unwrap().contains(remedy), "{error:?}");
        }
    }
}
