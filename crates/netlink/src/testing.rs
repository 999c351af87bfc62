//! Bytes as the kernel writes them, laid out by hand and not with this crate's own builder.

/// Reads hexadecimal digits; spaces and line ends are for the reader.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap())
        .collect()
}

/// Lays out `struct nlattr`, the payload and the padding. A length that does not fit wraps, as it
/// does in the kernel's `nla_nest_end`.
pub(crate) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from((payload.len() + 4) & 0xffff).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Lays out host-endian 32-bit numbers.
pub(crate) fn words(numbers: &[u32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect()
}

/// Lays out `struct nlmsghdr` and a payload.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[u32::try_from(payload.len() + 16).unwrap()]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&words(&[sequence, 0]));
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Lays out one VF in the order of the kernel's `rtnl_fill_vfinfo`, 252 bytes with statistics.
pub(crate) fn vf_entry(vf: u32) -> Vec<u8> {
    let mut mac = words(&[vf]);
    mac.extend_from_slice(&[0x02, 0, 0x5e, 0x10, 0, 1]);
    mac.resize(36, 0);
    let mut vlan_info = words(&[vf, 100, 5]);
    vlan_info.extend_from_slice(&[0x88, 0xa8, 0, 0]);
    let entry = [
        attribute(1, &mac),
        attribute(13, &[0xff; 32]),
        attribute(2, &words(&[vf, 100, 5])),
        attribute(6, &words(&[vf, 10, 2000])),
        attribute(3, &words(&[vf, 2000])),
        attribute(4, &words(&[vf, 1])),
        attribute(5, &words(&[vf, 2])),
        attribute(7, &words(&[vf, u32::MAX])),
        attribute(9, &words(&[vf, 0])),
        attribute(12, &attribute(1, &vlan_info)),
        attribute(8, &attribute(0, &[0; 48])),
    ]
    .concat();
    attribute(1, &entry)
}

/// Lays out the list of `count` VFs.
pub(crate) fn vf_list(count: u32) -> Vec<u8> {
    let entries: Vec<u8> = (0..count).flat_map(vf_entry).collect();
    attribute(22, &entries)
}

/// Lays out the payload of an interface message: `struct ifinfomsg` and `attributes`.
pub(crate) fn link_payload(index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend_from_slice(&1_u16.to_ne_bytes());
    bytes.extend_from_slice(&words(&[index, 0x1 | 0x40 | 0x1000, 0]));
    bytes.extend(attributes.iter().flatten());
    bytes
}
