//! Features of an interface that can be switched on and off (`ethtool -k`), over ethtool's own netlink
//! family, which Linux has since 5.7.

use model::IfIndex;

use crate::error::RequestError;
use crate::generic::Family;
use crate::socket::Socket;
use crate::wire::{Attributes, Request};

const FAMILY: &str = "ethtool";

const CMD_FEATURES_GET: u8 = 11;
const CMD_FEATURES_SET: u8 = 12;

const ATTR_HEADER: u16 = 1;
const ATTR_CAN: u16 = 2;
const ATTR_WANTED: u16 = 3;
const ATTR_ACTIVE: u16 = 4;
const ATTR_NEVER: u16 = 5;

const HEADER_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
/// `ETHTOOL_FLAG_OMIT_REPLY`: an acknowledgement is enough.
const OMIT_REPLY: u32 = 2;

const BITSET_NOMASK: u16 = 1;
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// Is a feature of an interface, such as `hw-tc-offload`, on? `None` when the driver does not have it
/// or does not let it be switched, and before Linux 5.7.
pub fn feature(
    socket: &mut Socket,
    interface: IfIndex,
    name: &str,
) -> Result<Option<bool>, RequestError> {
    let Some(family) = Family::find(socket, FAMILY)? else {
        return Ok(None);
    };
    let mut request = about(family, CMD_FEATURES_GET, interface, None);
    let operation = format_args!("read feature {name} of interface {interface}");
    let outcome = socket.collect(operation, &mut request, |message| {
        Some(read(family.attributes(message)?, name))
    });
    match outcome {
        Ok(found) => Ok(found.into_iter().next().flatten()),
        Err(error) if error.is_not_supported() || error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks a driver to switch a feature. It may refuse without saying so: read it again.
pub fn set_feature(
    socket: &mut Socket,
    interface: IfIndex,
    name: &str,
    on: bool,
) -> Result<(), RequestError> {
    let word = if on { "on" } else { "off" };
    let operation = format_args!("switch feature {name} of interface {interface} {word}");
    let family = Family::need(socket, FAMILY, operation)?;
    let mut request = about(family, CMD_FEATURES_SET, interface, Some(OMIT_REPLY));
    wanted(&mut request, name, on);
    socket.change(operation, &mut request)
}

fn about(family: Family, command: u8, interface: IfIndex, flags: Option<u32>) -> Request {
    let mut request = family.request(command);
    request.nest(ATTR_HEADER, |header| {
        header.u32(HEADER_INDEX, interface.get());
        if let Some(flags) = flags {
            header.u32(HEADER_FLAGS, flags);
        }
    });
    request
}

/// Appends a set of one bit: its name, and a flag that is there when it is to be on.
fn wanted(request: &mut Request, name: &str, on: bool) {
    request.nest(ATTR_WANTED, |set| {
        set.nest(BITSET_BITS, |bits| {
            bits.nest(BITS_BIT, |bit| {
                bit.text(BIT_NAME, name);
                if on {
                    bit.attribute(BIT_VALUE, &[]);
                }
            });
        });
    });
}

fn read(attributes: Attributes<'_>, name: &str) -> Option<bool> {
    let can = has(attributes, ATTR_CAN, name) && !has(attributes, ATTR_NEVER, name);
    can.then(|| has(attributes, ATTR_ACTIVE, name))
}

/// Is a bit in one of the sets of an answer? A set without a mask lists the bits that are on; one with a
/// mask lists all that it is about, and marks those.
fn has(attributes: Attributes<'_>, set: u16, name: &str) -> bool {
    let Some(set) = attributes.find(set).map(|set| set.nested()) else {
        return false;
    };
    let is_list = set.find(BITSET_NOMASK).is_some();
    let bits = set.find(BITSET_BITS).into_iter();
    let mut bits = bits
        .flat_map(|bits| bits.nested())
        .filter(|bit| bit.kind == BITS_BIT)
        .map(|bit| bit.nested());
    bits.any(|bit| {
        let is_named = bit.find(BIT_NAME).and_then(|found| found.text()) == Some(name);
        is_named && (is_list || bit.find(BIT_VALUE).is_some())
    })
}

/// Decodes arbitrary bytes as the attributes of an answer.
pub(crate) fn fuzz_ethtool_feature(data: &[u8]) {
    let attributes = Attributes::new(data);
    let found = read(attributes, "hw-tc-offload");
    assert!(
        found.is_none() || data.len() > "hw-tc-offload".len(),
        "a feature from nowhere"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attribute, words};

    const ALL: [&str; 2] = ["tx-checksum-ipv4", "hw-tc-offload"];

    fn bit(name: &str, is_marked: bool) -> Vec<u8> {
        let mut bit = [
            attribute(1, &words(&[9])),
            attribute(2, &[name.as_bytes(), &[0]].concat()),
        ]
        .concat();
        if is_marked {
            bit.extend(attribute(3, &[]));
        }
        attribute(1, &bit)
    }

    /// A set as Linux writes it: what a driver can switch comes with a mask, all else without.
    fn set(kind: u16, names: &[&str]) -> Vec<u8> {
        let bits: Vec<Vec<u8>> = match kind {
            ATTR_CAN => ALL.map(|name| bit(name, names.contains(&name))).into(),
            _ => names.iter().map(|name| bit(name, false)).collect(),
        };
        let mut whole = Vec::new();
        if kind != ATTR_CAN {
            whole.extend(attribute(1, &[]));
        }
        whole.extend(attribute(2, &words(&[64])));
        whole.extend(attribute(3, &bits.concat()));
        attribute(kind, &whole)
    }

    #[test]
    fn a_feature_counts_when_it_can_be_switched() {
        let answer = |can: &[&str], active: &[&str], never: &[&str]| {
            let bytes = [set(2, can), set(3, active), set(4, active), set(5, never)].concat();
            read(Attributes::new(&bytes), "hw-tc-offload")
        };
        assert_eq!(answer(&ALL, &ALL, &[]), Some(true));
        assert_eq!(answer(&ALL, &ALL[..1], &[]), Some(false));
        // As igb answers: the driver does not have it.
        assert_eq!(answer(&ALL[..1], &ALL[..1], &[]), None);
        assert_eq!(answer(&ALL, &[], &ALL), None);
        assert_eq!(read(Attributes::new(&[]), "hw-tc-offload"), None);
    }

    /// `ETHTOOL_A_FEATURES_WANTED { ETHTOOL_A_BITSET_BITS { BIT { NAME, VALUE } } }`, nests marked.
    #[test]
    fn one_bit_is_wanted_by_its_name() {
        let name = [b"hw-tc-offload".as_slice(), &[0]].concat();
        for (on, flag) in [(true, attribute(3, &[])), (false, Vec::new())] {
            let mut request = Request::new(0, &[]);
            wanted(&mut request, "hw-tc-offload", on);
            let bit = [attribute(2, &name), flag].concat();
            let bits = attribute(1 | 0x8000, &bit);
            let whole = attribute(3 | 0x8000, &attribute(3 | 0x8000, &bits));
            assert_eq!(request.payload(), whole);
        }
    }
}
