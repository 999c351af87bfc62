//! Red Hat: virtio: devices of virtual machines. On those each NIC is taken for its own VF.

use super::{NicModel, nic};

const VENDOR: u16 = 0x1af4;

/// The NICs of upstream's table.
pub(super) const NICS: [NicModel; 2] = [
    nic("Red_Hat_Virtio_network_device", VENDOR, 0x1000, 0x1000),
    nic("Red_Hat_Virtio_1_0_network_device", VENDOR, 0x1041, 0x1041),
];
