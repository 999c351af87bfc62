//! The bare writes that it takes to get from no VFs to VFs on vfio-pci, as a whole process.
//!
//! It switches autoprobe off, sets the number of VFs, and for each VF writes the override and probes.
//! It checks nothing, waits for nothing, remembers nothing and cannot be undone, so it is no apply,
//! only what one is measured against: `cargo xtask bench apply`.
//!
//! Usage: `apply_floor PF COUNT`

#![expect(
    clippy::unwrap_used,
    reason = "a floor that cannot write has no result"
)]

use std::fs;
use std::path::Path;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let pf = arguments.next().unwrap();
    let count: u16 = arguments.next().unwrap().parse().unwrap();
    let dir = Path::new("/sys/bus/pci/devices").join(pf);
    fs::write(dir.join("sriov_drivers_autoprobe"), "0").unwrap();
    fs::write(dir.join("sriov_numvfs"), count.to_string()).unwrap();
    for index in 0..count {
        let vf = dir.join(format!("virtfn{index}"));
        let target = fs::read_link(&vf).unwrap();
        let address = target.file_name().unwrap().to_str().unwrap().to_owned();
        fs::write(vf.join("driver_override"), "vfio-pci").unwrap();
        fs::write("/sys/bus/pci/drivers_probe", address).unwrap();
    }
    fs::write(dir.join("sriov_drivers_autoprobe"), "1").unwrap();
}
