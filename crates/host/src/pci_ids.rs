//! Names of vendors and devices, from the system's `pci.ids`.
//!
//! The file is read when the first name is asked for, and only the names asked for are kept: it has
//! 1.4 MB and a host has a handful of kinds of devices. A host without the file has no names, which
//! is no error: ids are what counts.
//!
//! The format (`pci.ids`, "Syntax"): a vendor is `vvvv  name` at the start of a line, its devices
//! follow as `<tab>dddd  name`, their subsystems behind two tabs; `C cc  name` begins the classes.

use std::collections::BTreeMap;

use model::PciId;

use crate::root::HostRoot;

/// Where distributions keep it: Debian and its children, then Red Hat and its children.
pub(crate) const PLACES: [&str; 2] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

/// The file has 1.5 MB after 25 years.
const FILE_LIMIT: usize = 8 * 1024 * 1024;

/// Names of one kind of device; each `None` when the file does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciNames {
    /// Name of the vendor, such as `Intel Corporation`.
    pub vendor: Option<String>,
    /// Name of the device, such as `82576 Gigabit Network Connection`.
    pub device: Option<String>,
}

/// Looks up `ids` in the system's file.
#[must_use]
pub fn pci_names(
    root: &HostRoot,
    ids: impl IntoIterator<Item = PciId>,
) -> BTreeMap<PciId, PciNames> {
    let file = PLACES
        .iter()
        .find_map(|place| root.read_bounded(place, FILE_LIMIT).ok());
    look_up(&file.unwrap_or_default(), ids)
}

/// Returns a file of the same format with these names only; empty when there are none.
pub(crate) fn extract(names: &BTreeMap<PciId, PciNames>) -> String {
    let mut file = String::new();
    let mut vendor = None;
    for (id, PciNames { vendor: of, device }) in names {
        if let Some(name) = of
            && vendor != Some(id.vendor)
        {
            vendor = Some(id.vendor);
            file.push_str(&format!("{:04x}  {name}\n", id.vendor));
        }
        if let (Some(name), true) = (device, vendor == Some(id.vendor)) {
            file.push_str(&format!("\t{:04x}  {name}\n", id.device));
        }
    }
    file
}

/// Looks up `ids` in the text of a `pci.ids` file. What is not UTF-8 is replaced, line by line.
pub(crate) fn look_up(
    file: &[u8],
    ids: impl IntoIterator<Item = PciId>,
) -> BTreeMap<PciId, PciNames> {
    let mut names: BTreeMap<PciId, PciNames> = ids
        .into_iter()
        .map(|id| (id, PciNames::default()))
        .collect();
    let mut vendor: Option<u16> = None;
    for line in file.split(|byte| *byte == b'\n') {
        match line {
            [] | [b'#', ..] | [b'\t', b'\t', ..] => {}
            [b'\t', device @ ..] => {
                let found = vendor.zip(id_and_name(device));
                if let Some((vendor, (device, name))) = found
                    && let Some(entry) = names.get_mut(&PciId { vendor, device })
                {
                    entry.device = Some(text(name));
                }
            }
            line => {
                vendor = None;
                if let Some((id, name)) = id_and_name(line) {
                    for (_, entry) in names.iter_mut().filter(|(key, _)| key.vendor == id) {
                        entry.vendor = Some(text(name));
                        vendor = Some(id);
                    }
                }
            }
        }
    }
    names
}

/// Splits `8086  Intel Corporation`. A class line (`C 02  …`) has no such id.
fn id_and_name(line: &[u8]) -> Option<(u16, &[u8])> {
    let (id, rest) = line.split_at_checked(4)?;
    let name = rest.strip_prefix(b"  ")?.trim_ascii();
    let plain = id.iter().all(u8::is_ascii_hexdigit);
    let id = plain.then(|| std::str::from_utf8(id).ok())??;
    Some((u16::from_str_radix(id, 16).ok()?, name))
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"# a comment\n\
        10ec  Realtek Semiconductor Co., Ltd.\n\
        \t10ca  Not this one\n\
        8086  Intel Corporation\n\
        \t10c9  82576 Gigabit Network Connection\n\
        \t\t8086 a01c  Gigabit ET Dual Port Server Adapter\n\
        \t10ca  82576 Virtual Function\n\
        15b3  Mellanox \xff Technologies\n\
        C 02  Network controller\n\
        \t00  Ethernet controller\n";

    fn names(id: &str) -> (Option<String>, Option<String>) {
        let id: PciId = id.parse().unwrap();
        let names = look_up(FILE, [id]).remove(&id).unwrap();
        (names.vendor, names.device)
    }

    #[test]
    fn a_device_is_looked_for_under_its_own_vendor() {
        let (vendor, device) = names("8086:10ca");
        assert_eq!(vendor.as_deref(), Some("Intel Corporation"));
        assert_eq!(device.as_deref(), Some("82576 Virtual Function"));
        assert_eq!(names("8086:ffff").1, None);
        assert_eq!(names("1af4:1041"), (None, None));
    }

    #[test]
    fn classes_are_not_taken_for_devices_nor_bad_bytes_for_an_error() {
        assert_eq!(
            names("15b3:0000").0.as_deref(),
            Some("Mellanox \u{fffd} Technologies")
        );
        assert_eq!(names("15b3:0000").1, None);
    }

    #[test]
    fn an_extract_names_the_same() {
        let ids = [
            "8086:10c9",
            "8086:10ca",
            "8086:ffff",
            "15b3:101d",
            "1af4:1041",
        ];
        let ids = ids.map(|id| id.parse::<PciId>().unwrap());
        let names = look_up(FILE, ids);
        let small = extract(&names);
        assert_eq!(look_up(small.as_bytes(), ids), names);
        assert!(!small.contains("Realtek"), "{small}");
    }
}
