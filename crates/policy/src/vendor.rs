//! What is known of vendors' NICs, one file a vendor.
//!
//! Two kinds of knowledge: which devices upstream takes for SR-IOV NICs (its ConfigMap
//! `supported-nic-ids`, August 2026), and what must be set outside the kernel before VFs can exist,
//! which only [`mellanox`] needs.
//!
//! The table is advice. Whether a device can have VFs is seen (`sriov_totalvfs`), not looked up, so
//! a device that is missing here is used all the same; the table decides only what is shown in
//! upstream's words, where its readers expect no other.

use std::fmt;

use model::PciId;

mod amazon;
mod broadcom;
mod intel;
mod marvell;
pub mod mellanox;
mod qlogic;
mod red_hat;

/// A NIC that upstream supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicModel {
    /// Key of upstream's ConfigMap.
    pub name: &'static str,
    /// Vendor and device of the PF.
    pub pf: PciId,
    /// Device of its VFs.
    pub vf_device: u16,
}

/// Returns upstream's table, vendor by vendor.
pub fn known_nics() -> impl Iterator<Item = &'static NicModel> {
    let vendors: [&'static [NicModel]; 7] = [
        &intel::NICS,
        &mellanox::NICS,
        &broadcom::NICS,
        &qlogic::NICS,
        &marvell::NICS,
        &red_hat::NICS,
        &amazon::NICS,
    ];
    vendors.into_iter().flatten()
}

/// Returns what upstream knows of a PF; `None` when it does not know the device.
#[must_use]
pub fn known_nic(pf: PciId) -> Option<&'static NicModel> {
    known_nics().find(|nic| nic.pf == pf)
}

const fn nic(name: &'static str, vendor: u16, pf_device: u16, vf_device: u16) -> NicModel {
    NicModel {
        name,
        pf: PciId {
            vendor,
            device: pf_device,
        },
        vf_device,
    }
}

/// A program to run: never through a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Name of the program, found on the `PATH`.
    pub program: &'static str,
    /// Its arguments, each passed as it is.
    pub arguments: Vec<String>,
}

impl Invocation {
    fn new<const N: usize>(program: &'static str, arguments: [&str; N]) -> Self {
        Self {
            program,
            arguments: arguments.map(str::to_owned).into(),
        }
    }
}

impl fmt::Display for Invocation {
    /// Writes it for a reader; no argument that is made here needs a quote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        self.arguments
            .iter()
            .try_for_each(|argument| write!(f, " {argument}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn upstreams_table_is_whole() {
        assert_eq!(known_nics().count(), 48);
        let ids: BTreeSet<_> = known_nics().map(|nic| nic.pf).collect();
        assert_eq!(ids.len(), 48, "a device is there twice");
    }

    #[test]
    fn the_lab_nic_is_known_by_its_id() {
        let nic = known_nic("8086:10c9".parse().unwrap()).unwrap();
        assert_eq!((nic.name, nic.vf_device), ("Intel_ixgbe_82576", 0x10ca));
        assert_eq!(known_nic("8086:10ca".parse().unwrap()), None);
    }
}
