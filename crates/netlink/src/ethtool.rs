//! Driver and firmware of an interface (`ETHTOOL_GDRVINFO`), and its features.
//!
//! The driver is the one thing here that is no netlink: ethtool's netlink family does not carry it, so it
//! is an ioctl, made on a netlink socket, whose namespace counts. Speed is not asked here; sysfs has it.
#![expect(
    unsafe_code,
    reason = "an ioctl with a pointer to a struct with a pointer has no safe wrapper"
)]

mod feature;

use model::IfName;
use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, RequestError};
use crate::socket::Socket;

pub(crate) use feature::fuzz_ethtool_feature;
pub use feature::{feature, set_feature};

const SIOCETHTOOL: rustix::ioctl::Opcode = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;

/// What a driver says of itself and of its device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Driver {
    /// Name of the driver.
    pub name: String,
    /// Version of the driver; for most it is that of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of the firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Name of the device on its bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus_info: Option<String>,
}

/// `struct ethtool_drvinfo`, 196 bytes.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus_info: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    numbers: [u32; 5],
}

/// `struct ifreq`: a name, and a union of at most 24 bytes that here is a pointer.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    data: *mut DriverInfo,
    rest: [usize; 3],
}

/// Returns what the driver of an interface says; `None` when it says nothing, or when there is no
/// such interface in the socket's namespace.
pub fn driver(socket: &mut Socket, name: &IfName) -> Result<Option<Driver>, RequestError> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus_info: [0; 32],
        rom: [0; 32],
        reserved: [0; 12],
        numbers: [0; 5],
    };
    let mut request = InterfaceRequest {
        name: [0; 16],
        data: &raw mut info,
        rest: [0; 3],
    };
    // A name has at most 15 bytes, so the 16th stays 0.
    for (place, byte) in request.name.iter_mut().zip(name.as_str().bytes()) {
        *place = byte;
    }
    // SAFETY: SIOCETHTOOL takes a `struct ifreq`, whose layout `InterfaceRequest` has; for
    // ETHTOOL_GDRVINFO the kernel writes one `struct ethtool_drvinfo` to `data`, which points to
    // `info`, of that layout and alive and untouched until after the call.
    let outcome = unsafe { ioctl(&*socket, Updater::<SIOCETHTOOL, _>::new(&mut request)) };
    match outcome {
        Ok(()) => Ok(Some(Driver {
            name: text(&info.driver).unwrap_or_default(),
            version: text(&info.version),
            firmware: text(&info.firmware),
            bus_info: text(&info.bus_info),
        })),
        Err(Errno::OPNOTSUPP | Errno::NODEV) => Ok(None),
        Err(errno) => {
            let call = "ioctl";
            let fault = Fault::Call { call, errno };
            let operation = format_args!("read the driver of interface {name}");
            Err(RequestError::new(operation, fault))
        }
    }
}

/// Reads a field up to its NUL; empty and "N/A" are nothing.
fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0);
    let bytes = field.get(..end.unwrap_or(field.len()))?;
    let text = String::from_utf8_lossy(bytes).trim().to_owned();
    (!text.is_empty() && text != "N/A").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_have_the_sizes_of_the_kernel() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert!(size_of::<InterfaceRequest>() >= 16 + 24);
    }

    #[test]
    fn fields_that_say_nothing_are_none() {
        assert_eq!(text(b"N/A\0\0"), None);
        assert_eq!(text(&[0; 32]), None);
        assert_eq!(
            text(b"3.25, 0x800005cf\0x"),
            Some("3.25, 0x800005cf".to_owned())
        );
        assert_eq!(text(&[b'a'; 32]).unwrap().len(), 32);
    }
}
