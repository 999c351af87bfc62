//! Values of network devices that are not identifiers.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::parse::{ParseError, digits, serde_as_text};

/// Link layer of a netdev, from the kernel's `ARPHRD_*` number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkType {
    /// Ethernet, `ARPHRD_ETHER` 1.
    Ethernet,
    /// InfiniBand (IPoIB), `ARPHRD_INFINIBAND` 32.
    InfiniBand,
    /// Any other `ARPHRD_*` number.
    Other(u16),
}

impl LinkType {
    /// Reads the number of `ifinfomsg.ifi_type` or of the sysfs file `type`.
    #[must_use]
    pub fn from_arphrd(arphrd: u16) -> Self {
        match arphrd {
            1 => Self::Ethernet,
            32 => Self::InfiniBand,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for LinkType {
    /// Writes what `ip link` writes behind `link/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethernet => f.pad("ether"),
            Self::InfiniBand => f.pad("infiniband"),
            Self::Other(772) => f.pad("loopback"),
            Self::Other(number) => f.pad(&format!("[{number}]")),
        }
    }
}

/// Largest payload of a frame in bytes, 68 to 65535 (RFC 791 asks for 68; `ifinfomsg` allows more
/// than any SR-IOV device takes).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// Returns the MTU, or `None` outside 68..=65535.
    #[must_use]
    pub fn new(bytes: u32) -> Option<Self> {
        (68..=65535).contains(&bytes).then_some(Self(bytes))
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = ParseError;

    fn try_from(bytes: u32) -> Result<Self, ParseError> {
        Self::new(bytes)
            .ok_or_else(|| ParseError::new(&bytes.to_string(), "an MTU from 68 to 65535 bytes"))
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Mode of the embedded switch of a PF (`DEVLINK_ATTR_ESWITCH_MODE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EswitchMode {
    /// Set up by the PF's driver, VF by VF.
    Legacy,
    /// Every VF has a representor netdev and the switch is programmed with tc or OVS.
    Switchdev,
}

impl fmt::Display for EswitchMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Legacy => "legacy",
            Self::Switchdev => "switchdev",
        })
    }
}

impl FromStr for EswitchMode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "legacy" => Ok(Self::Legacy),
            "switchdev" => Ok(Self::Switchdev),
            _ => Err(ParseError::new(
                text,
                "an eswitch mode: legacy or switchdev",
            )),
        }
    }
}

/// How the eswitch of an NVIDIA NIC steers packets (devlink parameter `flow_steering_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SteeringMode {
    /// By the device's firmware.
    Dmfs,
    /// By the driver, which writes the device's tables itself: many more rules a second.
    Smfs,
    /// By the device's hardware objects (ConnectX-6 Dx and later).
    Hmfs,
}

impl fmt::Display for SteeringMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dmfs => "dmfs",
            Self::Smfs => "smfs",
            Self::Hmfs => "hmfs",
        })
    }
}

impl FromStr for SteeringMode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "dmfs" => Ok(Self::Dmfs),
            "smfs" => Ok(Self::Smfs),
            "hmfs" => Ok(Self::Hmfs),
            _ => Err(ParseError::new(text, "a steering mode: dmfs, smfs or hmfs")),
        }
    }
}

/// Operational state of a netdev (RFC 2863, `IFLA_OPERSTATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperState {
    /// The driver does not say, 0.
    Unknown,
    /// The hardware is missing, 1.
    NotPresent,
    /// No carrier or admin-down, 2.
    Down,
    /// A lower device is down, 3.
    LowerLayerDown,
    /// In test, 4.
    Testing,
    /// Waiting for an outside event, 5.
    Dormant,
    /// Ready to carry traffic, 6.
    Up,
}

impl OperState {
    /// Reads the kernel's number; one that is not known is [`OperState::Unknown`].
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::NotPresent,
            2 => Self::Down,
            3 => Self::LowerLayerDown,
            4 => Self::Testing,
            5 => Self::Dormant,
            6 => Self::Up,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for OperState {
    /// Writes the words of `/sys/class/net/*/operstate`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::NotPresent => "notpresent",
            Self::Down => "down",
            Self::LowerLayerDown => "lowerlayerdown",
            Self::Testing => "testing",
            Self::Dormant => "dormant",
            Self::Up => "up",
        })
    }
}

impl FromStr for OperState {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        (0..=6)
            .map(Self::from_number)
            .find(|state| state.to_string() == text)
            .ok_or_else(|| ParseError::new(text, "an operational state such as up or down"))
    }
}

/// Driver of a vDPA device: what it is offered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VdpaKind {
    /// `virtio_vdpa`: a virtio netdev of this host.
    Virtio,
    /// `vhost_vdpa`: a character device for a VM.
    Vhost,
}

impl VdpaKind {
    /// Returns the driver on the vDPA bus that offers a device so.
    #[must_use]
    pub fn driver(self) -> &'static str {
        match self {
            Self::Virtio => "virtio_vdpa",
            Self::Vhost => "vhost_vdpa",
        }
    }
}

impl fmt::Display for VdpaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Virtio => "virtio",
            Self::Vhost => "vhost",
        })
    }
}

impl FromStr for VdpaKind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "virtio" => Ok(Self::Virtio),
            "vhost" => Ok(Self::Vhost),
            _ => Err(ParseError::new(text, "a vDPA type: virtio or vhost")),
        }
    }
}

/// An address with its prefix length, written `192.0.2.1/24` or `2001:db8::1/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    address: IpAddr,
    prefix: u8,
}

impl InterfaceAddress {
    /// Returns the address, or `None` when the prefix is longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// Returns the address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Returns the prefix length in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for InterfaceAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            Self::new(
                address.parse().ok()?,
                u8::try_from(digits(prefix, 10)?).ok()?,
            )
        };
        parse().ok_or_else(|| {
            ParseError::new(
                text,
                "an address with its prefix length such as 192.0.2.1/24",
            )
        })
    }
}

serde_as_text!(
    EswitchMode,
    SteeringMode,
    OperState,
    VdpaKind,
    InterfaceAddress
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_prefix_that_fits() {
        for good in ["192.0.2.1/24", "2001:db8::1/64", "0.0.0.0/0"] {
            assert_eq!(good.parse::<InterfaceAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "192.0.2.1",
            "192.0.2.1/33",
            "2001:db8::1/129",
            "x/24",
            "192.0.2.1/+4",
            "/",
        ] {
            assert!(
                bad.parse::<InterfaceAddress>().is_err(),
                "{bad:?} was accepted"
            );
        }
    }

    #[test]
    fn an_mtu_of_zero_does_not_exist() {
        assert!(Mtu::new(0).is_none());
        assert!(Mtu::new(9000).is_some());
        assert!(serde_json::from_str::<Mtu>("70000").is_err());
    }
}
