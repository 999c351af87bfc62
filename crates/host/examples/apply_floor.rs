//! The bare writes that it takes to get from no VFs to VFs, as a whole process.
//!
//! `vfio`: it switches autoprobe off, sets the number of VFs of one PF, and for each VF writes the
//! override and probes. `netdevs`: it sets the number of VFs of all PFs at once, one thread each. It
//! checks nothing, waits for nothing, remembers nothing and cannot be undone, so it is no apply, only
//! what one is measured against: `cargo xtask bench apply`.
//!
//! Usage: `apply_floor vfio|netdevs COUNT PF…`

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a floor that cannot write has no result"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap();
    let count: u16 = arguments.next().unwrap().parse().unwrap();
    let pfs = arguments.map(|pf| Path::new("/sys/bus/pci/devices").join(pf));
    let make: fn(&Path, u16) = match what.as_str() {
        "vfio" => vfio,
        "netdevs" => netdevs,
        other => panic!("{other} is neither vfio nor netdevs"),
    };
    let pfs: Vec<PathBuf> = pfs.collect();
    thread::scope(|scope| {
        for pf in &pfs {
            scope.spawn(move || make(pf, count));
        }
    });
}

fn netdevs(pf: &Path, count: u16) {
    fs::write(pf.join("sriov_numvfs"), count.to_string()).unwrap();
}

fn vfio(pf: &Path, count: u16) {
    fs::write(pf.join("sriov_drivers_autoprobe"), "0").unwrap();
    netdevs(pf, count);
    for index in 0..count {
        let vf = pf.join(format!("virtfn{index}"));
        let target = fs::read_link(&vf).unwrap();
        let address = target.file_name().unwrap().to_str().unwrap().to_owned();
        fs::write(vf.join("driver_override"), "vfio-pci").unwrap();
        fs::write("/sys/bus/pci/drivers_probe", address).unwrap();
    }
    fs::write(pf.join("sriov_drivers_autoprobe"), "1").unwrap();
}
