//! Marvell, formerly Cavium: the resource manager of OCTEON shares out VFs at boot; upstream has no plugin.

use super::{NicModel, nic};

const VENDOR: u16 = 0x177d;

/// The NICs of upstream's table.
pub(super) const NICS: [NicModel; 5] = [
    nic("Marvell_OCTEON_TX2_CN98XX", VENDOR, 0xb100, 0xb103),
    nic("Marvell_OCTEON_TX2_CN96XX", VENDOR, 0xb200, 0xb203),
    nic("Marvell_OCTEON_Fusion_CNF95XX", VENDOR, 0xb600, 0xb603),
    nic("Marvell_OCTEON10_CN10XXX", VENDOR, 0xb900, 0xb903),
    nic("Marvell_OCTEON_Fusion_CNF105XX", VENDOR, 0xba00, 0xba03),
];
