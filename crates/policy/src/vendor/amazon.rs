//! Amazon: devices of virtual machines, where each NIC is taken for its own VF.

use super::{NicModel, nic};

const VENDOR: u16 = 0x1d0f;

/// The NICs of upstream's table.
pub(super) const NICS: [NicModel; 1] = [nic(
    "Amazon_Elastic_Network_Adapter",
    VENDOR,
    0xec20,
    0xec20,
)];
