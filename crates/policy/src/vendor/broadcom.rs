//! Broadcom: firmware settings (`bnxtnvm`, `niccli`) are the administrator's: upstream has no plugin, and the
//! kernel says with `sriov_totalvfs` what the firmware allows.

use super::{NicModel, nic};

const VENDOR: u16 = 0x14e4;

/// The NICs of upstream's table.
pub(super) const NICS: [NicModel; 2] = [
    nic("Broadcom_bnxt_BCM57414_2x25G", VENDOR, 0x16d7, 0x16dc),
    nic("Broadcom_bnxt_BCM75508_2x100G", VENDOR, 0x1750, 0x1806),
];
