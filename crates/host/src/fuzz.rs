//! One entry point per parser of outside bytes, for the fuzzer and for a test over seeds.
//!
//! None may panic, loop or allocate without bound, whatever the bytes.

use model::PciId;

use crate::discover::config;
use crate::pci_ids;
use crate::record::Tree;

/// PCI configuration space.
pub fn fuzz_pci_config(data: &[u8]) {
    let _ = config::sriov(data);
    let _ = config::ari_next_function(data);
    let _ = config::acs(data);
}

/// The system's `pci.ids`.
pub fn fuzz_pci_ids(data: &[u8]) {
    let id = PciId {
        vendor: 0x8086,
        device: 0x10ca,
    };
    drop(pci_ids::look_up(data, [id]));
}

/// A recorded tree. What is taken must be written as it was read.
pub fn fuzz_tree(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(tree) = Tree::parse(text) {
        let again = Tree::parse(&tree.to_string());
        assert_eq!(
            again.ok().as_ref(),
            Some(&tree),
            "written otherwise than read"
        );
    }
}
