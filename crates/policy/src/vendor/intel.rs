//! Intel: no setting outlives a reboot, and VFs need nothing that the kernel does not do (upstream's
//! plugin for Intel does nothing either).

use super::{NicModel, nic};

const VENDOR: u16 = 0x8086;

/// The NICs of upstream's table.
pub(super) const NICS: [NicModel; 25] = [
    nic("Intel_ixgbe_82576", VENDOR, 0x10c9, 0x10ca),
    nic("Intel_i40e_XXV710_N3000", VENDOR, 0x0d58, 0x154c),
    nic("Intel_i40e_10G_X710_SFP", VENDOR, 0x1572, 0x154c),
    nic("Intel_i40e_10G_X710_BACKPLANE", VENDOR, 0x1581, 0x154c),
    nic("Intel_i40e_40G_XL710_QSFP", VENDOR, 0x1583, 0x154c),
    nic("Intel_i40e_X710_X557_AT_10G", VENDOR, 0x1589, 0x154c),
    nic("Intel_i40e_XXV710", VENDOR, 0x158a, 0x154c),
    nic("Intel_i40e_25G_SFP28", VENDOR, 0x158b, 0x154c),
    nic("Intel_i40e_10G_X710_BASE_T", VENDOR, 0x15ff, 0x154c),
    nic("Intel_ixgbe_10G_X550", VENDOR, 0x1563, 0x1565),
    nic("Intel_ice_Connorsville_E835CC_QSFP", VENDOR, 0x1249, 0x1889),
    nic("Intel_ice_Connorsville_E835CC_SFP", VENDOR, 0x124a, 0x1889),
    nic(
        "Intel_ice_Columbiapark_E823L_BACKPLANE",
        VENDOR,
        0x124c,
        0x1889,
    ),
    nic("Intel_ice_Columbiapark_E823L_SFP", VENDOR, 0x124d, 0x1889),
    nic("Intel_ice_Connorsville_E830_QSFP", VENDOR, 0x12d2, 0x1889),
    nic("Intel_ice_Connorsville_E830_SFP", VENDOR, 0x12d3, 0x1889),
    nic("Intel_ice_Columbiaville_E810", VENDOR, 0x1591, 0x1889),
    nic(
        "Intel_ice_Columbiaville_E810-CQDA2_2CQDA2",
        VENDOR,
        0x1592,
        0x1889,
    ),
    nic(
        "Intel_ice_Columbiaville_E810-XXVDA4",
        VENDOR,
        0x1593,
        0x1889,
    ),
    nic(
        "Intel_ice_Columbiaville_E810-XXV_BACKPLANE",
        VENDOR,
        0x1599,
        0x1889,
    ),
    nic(
        "Intel_ice_Columbiaville_E810-XXVDA2",
        VENDOR,
        0x159b,
        0x1889,
    ),
    nic("Intel_ice_Columbiapark_E823C", VENDOR, 0x188a, 0x1889),
    nic(
        "Intel_ice_Columbiapark_E825C_BACKPLANE",
        VENDOR,
        0x579c,
        0x1889,
    ),
    nic("Intel_ice_Columbiapark_E825C_QSFP", VENDOR, 0x579d, 0x1889),
    nic("Intel_ice_Columbiapark_E825C_SFP", VENDOR, 0x579e, 0x1889),
];
