//! One boot for all tests of this binary.

use std::sync::OnceLock;

use lab::{Lab, Nic, Topology};

/// Two machines joined on two igb NICs, with an NVMe controller each.
///
/// A static value is never dropped; the machines die with the process.
pub(crate) fn machines() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let topology = Topology::igb(2).nic(Nic::Igb { acs: true }).nvme(4);
        Lab::boot(&topology).expect("these tests need the lab: two machines")
    })
}
