//! Marvell, formerly QLogic: firmware settings are the administrator's: upstream has no plugin.

use super::{NicModel, nic};

const VENDOR: u16 = 0x1077;

/// The NICs of upstream's table.
pub(super) const NICS: [NicModel; 1] = [nic("Qlogic_qede_QL45000_50G", VENDOR, 0x1654, 0x1664)];
