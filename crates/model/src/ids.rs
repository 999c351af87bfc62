//! Names and identifiers of interfaces, links and devices.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::parse::{ParseError, digits, serde_as_text};

/// Name of a network interface: 1 to 15 bytes, as the kernel's `dev_valid_name` takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Returns the name as text; it holds no `/`, so it is one path component.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(
                text,
                "an interface name such as net1 (1 to 15 printable characters, no '/', ':' or space)",
            ))
        }
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Index of a network interface in its network namespace; the kernel counts from 1.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct IfIndex(NonZeroU32);

impl IfIndex {
    /// Returns the index, or `None` for 0, which the kernel uses for "no interface".
    #[must_use]
    pub fn new(index: u32) -> Option<Self> {
        NonZeroU32::new(index).map(Self)
    }

    /// Returns the number that netlink messages carry.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ethernet hardware address, written in lower case with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address of six zero bytes: as an admin MAC it means "none was set".
    pub const ZERO: Self = Self([0; 6]);

    /// Wraps six bytes in the order of the wire.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes in the order of the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Is this a group (multicast or broadcast) address, which no interface may have?
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Is every byte zero?
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        hex_bytes(text, 2)
            .map(Self)
            .ok_or_else(|| ParseError::new(text, "a MAC address such as 02:00:5e:10:00:01"))
    }
}

/// InfiniBand EUI-64 (node or port GUID), written `00:02:c9:03:00:2f:b1:10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(u64);

impl Guid {
    /// Wraps the integer whose big-endian bytes are the written form.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the integer that netlink carries, in host byte order.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The GUID of all ones: given to a VF it takes back the one that it was given.
    pub const ONES: Self = Self(u64::MAX);

    /// Is the GUID unset?
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns the form of `/sys/class/infiniband/*/node_guid`: `0002:c903:002f:b110`.
    #[must_use]
    pub fn sysfs_text(self) -> String {
        let hex = format!("{:016x}", self.0);
        format!(
            "{}:{}:{}:{}",
            &hex[..4],
            &hex[4..8],
            &hex[8..12],
            &hex[12..]
        )
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0.to_be_bytes();
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl FromStr for Guid {
    type Err = ParseError;

    /// Reads both the colon form of eight bytes and the sysfs form of four groups.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        hex_bytes::<8>(text, 2)
            .map(u64::from_be_bytes)
            .or_else(|| {
                let groups: Vec<&str> = text.split(':').collect();
                let fits = groups.len() == 4 && groups.iter().all(|group| group.len() == 4);
                fits.then(|| {
                    groups.iter().try_fold(0_u64, |acc, group| {
                        Some(acc << 16 | u64::from(digits(group, 16)?))
                    })
                })
                .flatten()
            })
            .map(Self)
            .ok_or_else(|| ParseError::new(text, "a GUID such as 00:02:c9:03:00:2f:b1:10"))
    }
}

fn hex_bytes<const N: usize>(text: &str, width: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == width)?;
        *byte = u8::try_from(digits(part, 16)?).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// Name of a kernel driver, such as `igbvf` or `vfio-pci`: one safe path component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverName(String);

impl DriverName {
    /// Returns the name as text; it is one path component.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does this driver hand the device to user space, so that it has no netdev?
    ///
    /// The list is the one of the operator (`generic` plugin) plus the VFIO variant drivers.
    #[must_use]
    pub fn is_user_space(&self) -> bool {
        matches!(self.0.as_str(), "igb_uio" | "uio_pci_generic" | "pci-stub") || self.is_vfio()
    }

    /// Is this `vfio-pci` or one of its vendor variants (`mlx5_vfio_pci` …)?
    #[must_use]
    pub fn is_vfio(&self) -> bool {
        self.0 == "vfio-pci" || self.0.ends_with("_vfio_pci")
    }
}

impl FromStr for DriverName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = (1..=64).contains(&text.len()) && text != "." && text != "..";
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+'));
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(
                text,
                "a kernel driver name such as vfio-pci",
            ))
        }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// NUMA node of a device; the kernel's -1 is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumaNode(pub u16);

impl fmt::Display for NumaNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of an IOMMU group. It changes between boots: never store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IommuGroup(pub u32);

impl fmt::Display for IommuGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text!(IfName, MacAddr, Guid, DriverName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_one_safe_path_component() {
        for good in [
            "eth0",
            "net1",
            "ens1f0np0",
            "a23456789012345",
            "eth0.100",
            "br-lan",
        ] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\0",
            "a:1",
            "a234567890123456",
            "é",
            "a\n",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn driver_names_cannot_leave_their_directory() {
        assert!("vfio-pci".parse::<DriverName>().unwrap().is_user_space());
        assert!(!"igbvf".parse::<DriverName>().unwrap().is_user_space());
        for bad in ["", "..", "../x", "a/b", "a b", "a\n"] {
            assert!(bad.parse::<DriverName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn macs_are_read_in_either_case_and_written_in_lower_case() {
        let mac: MacAddr = "02:AB:cd:00:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:ab:cd:00:00:01");
        assert!(!mac.is_group());
        assert!("ff:ff:ff:ff:ff:ff".parse::<MacAddr>().unwrap().is_group());
        for bad in [
            "",
            "02:00:00:00:00",
            "2:0:0:0:0:1",
            "02-00-00-00-00-01",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:0g",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn guids_have_two_written_forms() {
        let guid: Guid = "00:02:c9:03:00:2f:b1:10".parse().unwrap();
        assert_eq!(guid.sysfs_text(), "0002:c903:002f:b110");
        assert_eq!(guid.sysfs_text().parse::<Guid>().unwrap(), guid);
        assert_eq!(guid.to_string().parse::<Guid>().unwrap(), guid);
        assert!("0002:c903:002f".parse::<Guid>().is_err());
    }
}
