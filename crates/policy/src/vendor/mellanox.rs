//! NVIDIA, formerly Mellanox: the firmware decides how many VFs there can be and what the ports are.
//!
//! ```text
//! Desired ─ nics ─▶ WantedNic ┐
//! mstconfig query ─ report ──▶├─ change ─▶ FirmwareChange: what to write, whether to reboot
//! ```
//!
//! [`query`] is what to run, [`FirmwareReport::parse`] reads what it prints, [`change`] decides.
//! Nothing is run here.
//!
//! Differences from upstream: firmware that offers more VFs than are wanted is left alone unless
//! [`Fit::Exact`] is asked for, because lowering it costs a reboot and gains nothing; what the next
//! boot brings already is not written again; and a NIC is all functions of one device, not the
//! address without its last character.

mod change;
mod report;
mod wanted;

#[cfg(test)]
mod tests;

pub use change::{
    FirmwareChange, FirmwareError, FirmwareProblem, Fit, Setting, change, give_back,
    guessed_change, guessed_give_back,
};
pub use report::{FirmwareReport, FirmwareSettings, InternalCpu, ParseReportError, PortLink};
pub use wanted::{NicPort, WantedNic, is_same_device, lacking, nics, unwanted};

use model::PciAddress;

use super::{Invocation, NicModel, nic};

const VENDOR: u16 = 0x15b3;

/// The NICs of upstream's table.
pub(super) const NICS: [NicModel; 12] = [
    nic("Nvidia_mlx5_ConnectX-4", VENDOR, 0x1013, 0x1014),
    nic("Nvidia_mlx5_ConnectX-4LX", VENDOR, 0x1015, 0x1016),
    nic("Nvidia_mlx5_ConnectX-5", VENDOR, 0x1017, 0x1018),
    nic("Nvidia_mlx5_ConnectX-5_Ex", VENDOR, 0x1019, 0x101a),
    nic("Nvidia_mlx5_ConnectX-6", VENDOR, 0x101b, 0x101c),
    nic("Nvidia_mlx5_ConnectX-6_Dx", VENDOR, 0x101d, 0x101e),
    nic("Nvidia_mlx5_ConnectX-6_Lx", VENDOR, 0x101f, 0x101e),
    nic("Nvidia_mlx5_ConnectX-7", VENDOR, 0x1021, 0x101e),
    nic("Nvidia_mlx5_ConnectX-8", VENDOR, 0x1023, 0x101e),
    nic("Nvidia_mlx5_ConnectX-9", VENDOR, 0x1025, 0x101e),
    nic(
        "Nvidia_mlx5_MT42822_BlueField-2_integrated_ConnectX-6_Dx",
        VENDOR,
        0xa2d6,
        0x101e,
    ),
    nic(
        "Nvidia_mlx5_MT43244_BlueField-3_integrated_ConnectX-7_Dx",
        VENDOR,
        0xa2dc,
        0x101e,
    ),
];

/// Can the firmware of a NIC be told to offer more VFs than it does?
#[must_use]
pub fn can_offer_more(pf: model::PciId) -> bool {
    pf.vendor == VENDOR
}

/// Returns what prints the firmware settings of a NIC; it takes up to five seconds.
#[must_use]
pub fn query(nic: PciAddress) -> Invocation {
    Invocation::new("mstconfig", ["-e", "-d", &nic.to_string(), "query"])
}

/// Returns what makes the firmware read its settings now, so that no reboot is needed.
///
/// The VFs of all its functions must be gone before. Firmware that cannot do it refuses, and is
/// then up to a reboot.
#[must_use]
pub fn firmware_reset(nic: PciAddress) -> Invocation {
    let nic = nic.to_string();
    Invocation::new(
        "mstfwreset",
        ["-d", &nic, "--skip_driver", "-l", "3", "-y", "reset"],
    )
}

/// Does the kernel's lockdown forbid tools to reach firmware?
///
/// `lockdown` is the text of `/sys/kernel/security/lockdown`, such as `none [integrity]
/// confidentiality`. It comes with Secure Boot.
#[must_use]
pub fn is_locked_down(lockdown: &str) -> bool {
    lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]")
}
