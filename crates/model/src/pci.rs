//! PCI addresses, ids and classes.

use std::fmt;
use std::str::FromStr;

use crate::parse::{ParseError, digits, serde_as_text};

/// Address of a PCI function, written `0000:3b:00.1`.
///
/// The domain is 32 bits wide because Intel VMD numbers its domains from 0x10000:
/// four digits are a minimum, not a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// Returns the address of a function, or `None` when `device` is over 31 or `function` over 7.
    #[must_use]
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self {
            domain,
            bus,
            device,
            function,
        })
    }

    /// Returns the PCI segment group that Linux calls the domain.
    #[must_use]
    pub fn domain(self) -> u32 {
        self.domain
    }

    /// Returns the 16-bit routing id, bus << 8 | device << 3 | function (PCIe spec, section 2.2.4).
    #[must_use]
    pub fn routing_id(self) -> u16 {
        u16::from(self.bus) << 8 | u16::from(self.device) << 3 | u16::from(self.function)
    }

    /// Returns the function at `routing_id` in the same domain.
    ///
    /// With ARI the low 8 bits are one function number; Linux still writes them as `device.function`.
    #[must_use]
    pub fn with_routing_id(self, routing_id: u16) -> Self {
        let [bus, devfn] = routing_id.to_be_bytes();
        Self {
            domain: self.domain,
            bus,
            device: devfn >> 3,
            function: devfn & 7,
        }
    }
}

impl fmt::Display for PciAddress {
    /// Writes digit by digit: each path below sysfs has an address in it, and the formatting machinery
    /// was a tenth of what a CNI ADD computes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let pair = |byte: u8| [byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]);
        let [[a, b], [c, d], [e, g], [h, i]] = self.domain.to_be_bytes().map(pair);
        let [[bus, bus_low], [device, device_low]] = [self.bus, self.device].map(pair);
        let [_, function] = pair(self.function);
        let text = [
            a, b, c, d, e, g, h, i, b':', bus, bus_low, b':', device, device_low, b'.', function,
        ];
        // The domain has four digits, and more only when it needs them.
        let unused = self.domain.leading_zeros() / 4;
        let from = usize::try_from(unused.min(4)).unwrap_or(0);
        f.write_str(str::from_utf8(&text[from..]).unwrap_or_default())
    }
}

impl FromStr for PciAddress {
    type Err = ParseError;

    /// Reads the full form with its domain; `3b:00.1` is refused because it names no one device
    /// on a host with several domains.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            if domain.len() < 4 || domain.len() > 8 || bus.len() != 2 || device.len() != 2 {
                return None;
            }
            if function.len() != 1 {
                return None;
            }
            Self::new(
                digits(domain, 16)?,
                u8::try_from(digits(bus, 16)?).ok()?,
                u8::try_from(digits(device, 16)?).ok()?,
                u8::try_from(digits(function, 8)?).ok()?,
            )
        };
        parse().ok_or_else(|| ParseError::new(text, "a PCI address such as 0000:3b:00.1"))
    }
}

/// Vendor and device id of a PCI function, written `8086:10ca`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// PCI-SIG vendor id.
    pub vendor: u16,
    /// Device id, given by the vendor.
    pub device: u16,
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl FromStr for PciId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (vendor, device) = text.split_once(':')?;
            Some(Self {
                vendor: hex_id(vendor)?,
                device: hex_id(device)?,
            })
        };
        parse().ok_or_else(|| ParseError::new(text, "a PCI id such as 8086:10ca"))
    }
}

fn hex_id(text: &str) -> Option<u16> {
    (text.len() == 4)
        .then(|| digits(text, 16))
        .flatten()
        .and_then(|id| u16::try_from(id).ok())
}

/// PCI class code: base class, sub-class and programming interface, 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciClass(u32);

impl PciClass {
    /// Keeps the low 24 bits, which is all that the `class` file of sysfs carries.
    #[must_use]
    pub fn new(code: u32) -> Self {
        Self(code & 0x00ff_ffff)
    }

    /// Returns the base class: 0x02 network, 0x01 storage, 0x06 bridge, 0x12 accelerator.
    #[must_use]
    pub fn base(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// Returns the sub-class.
    #[must_use]
    pub fn sub(self) -> u8 {
        self.0.to_be_bytes()[2]
    }

    /// Is this a network controller (Ethernet 0200, InfiniBand 0207 and others)?
    #[must_use]
    pub fn is_network(self) -> bool {
        self.base() == 0x02
    }

    /// Is this a bridge? VFIO ignores bridges when it judges an IOMMU group.
    #[must_use]
    pub fn is_bridge(self) -> bool {
        self.base() == 0x06
    }
}

/// A class of PCI functions, written as the first digits of its code: `12` for every processing
/// accelerator, `0108` for NVM controllers of any programming interface, `010802` for NVMe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassPrefix {
    code: u32,
    digits: u8,
}

impl ClassPrefix {
    /// Base class 12, the processing accelerators.
    pub const ACCELERATORS: Self = Self {
        code: 0x12,
        digits: 2,
    };

    /// Is `class` one of these?
    #[must_use]
    pub fn has(self, class: PciClass) -> bool {
        class.0 >> (4 * (6 - u32::from(self.digits))) == self.code
    }
}

impl FromStr for ClassPrefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        let code = matches!(text.len(), 2 | 4 | 6)
            .then(|| digits(text, 16))
            .flatten();
        match code.filter(|_| lower) {
            Some(code) => Ok(Self {
                code,
                // Two, four or six.
                digits: u8::try_from(text.len()).unwrap_or(6),
            }),
            None => Err(ParseError::new(
                text,
                "2, 4 or 6 lower-case hex digits of a PCI class code such as 0108",
            )),
        }
    }
}

impl fmt::Display for ClassPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:0width$x}",
            self.code,
            width = usize::from(self.digits)
        )
    }
}

impl fmt::Display for PciClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

serde_as_text!(PciAddress, PciId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_round_trip_and_bad_ones_are_refused() {
        for good in ["0000:3b:00.1", "10000:e1:1f.7", "ffffffff:ff:00.0"] {
            assert_eq!(good.parse::<PciAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "3b:00.1",
            "0000:3b:00",
            "0000:3b:20.0",
            "0000:3b:00.8",
            "0000:+b:00.1",
            "0000:3b:00.1 ",
            "00000000f:3b:00.1",
            "0000:3b:00.01",
            "0000/3b/00.1",
            "é000:3b:00.1",
        ] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_routing_id_carries_into_the_bus() {
        let pf: PciAddress = "0000:01:00.0".parse().unwrap();
        let vf = pf.with_routing_id(pf.routing_id() + 0x180);
        assert_eq!(vf.to_string(), "0000:02:10.0");
    }

    #[test]
    fn a_class_is_named_by_its_first_digits() {
        let nvme = PciClass::new(0x01_0802);
        for (text, has) in [
            ("01", true),
            ("0108", true),
            ("010802", true),
            ("12", false),
            ("0801", false),
            ("00", false),
        ] {
            let prefix: ClassPrefix = text.parse().unwrap();
            assert_eq!(
                (prefix.has(nvme), prefix.to_string()),
                (has, text.to_owned())
            );
        }
        assert!(ClassPrefix::ACCELERATORS.has(PciClass::new(0x12_0000)));
        for bad in ["", "1", "010", "0x12", "0B", "01080200", "+1", "é1"] {
            assert!(bad.parse::<ClassPrefix>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_error_quotes_a_bounded_text() {
        let error = "x".repeat(10_000).parse::<PciAddress>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn any_address_survives_text(domain: u32, routing_id: u16) {
            let address = PciAddress::new(domain, 0, 0, 0).unwrap().with_routing_id(routing_id);
            prop_assert_eq!(address.to_string().parse::<PciAddress>().unwrap(), address);
            prop_assert_eq!(address.routing_id(), routing_id);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            drop(text.parse::<PciAddress>());
            drop(text.parse::<PciId>());
        }
    }
}
