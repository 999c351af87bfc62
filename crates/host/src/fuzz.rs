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

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(name: &str, feed: fn(&[u8])) {
        let dir = format!("{}/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut fed = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            feed(&seed);
            // Cut at many places and with a byte spoilt there: cheap neighbours of a good seed.
            for at in (0..seed.len()).step_by(1 + seed.len() / 1024) {
                feed(&seed[..at]);
                let mut spoilt = seed.clone();
                spoilt[at] ^= 0x15;
                feed(&spoilt);
            }
            fed += 1;
        }
        assert!(fed > 0, "the corpus of {name} is empty");
    }

    #[test]
    fn configuration_spaces_of_the_corpus_are_read_without_harm() {
        corpus("pci_config", fuzz_pci_config);
    }

    #[test]
    fn pci_ids_of_the_corpus_are_read_without_harm() {
        corpus("pci_ids", fuzz_pci_ids);
    }

    #[test]
    fn trees_of_the_corpus_are_read_without_harm() {
        corpus("tree", fuzz_tree);
    }
}
