//! One entry point per parser of outside bytes, for the fuzzer and for a test over seeds.
//!
//! None may panic, loop or allocate without bound, whatever the bytes.

use model::{PciAddress, PciId};

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

/// The record of a VF. What is taken must be written as it was read.
pub fn fuzz_record(data: &[u8]) {
    let Some(vf) = PciAddress::new(0, 1, 16, 0) else {
        return;
    };
    if let Ok(record) = crate::ledger::parse(data, vf) {
        let again = serde_json::to_vec(&record)
            .ok()
            .and_then(|bytes| crate::ledger::parse(&bytes, vf).ok());
        assert_eq!(again.as_ref(), Some(&record), "the record did not survive");
    }
}

/// What happened to a VF.
pub fn fuzz_history(data: &[u8]) {
    drop(crate::ledger::parse_history(data));
}

/// The journal of apply.
pub fn fuzz_apply_journal(data: &[u8]) {
    if let Ok(last) = crate::journal::parse(data) {
        for pf in &last.pfs {
            assert!(pf.made <= pf.steps.len(), "more steps made than there are");
        }
    }
}

/// A list of mounts.
pub fn fuzz_mounts(data: &[u8]) {
    crate::uplink::fuzz_mounts(data);
}

/// What a PF had at first, as virtfn or upstream noted it.
pub fn fuzz_original(data: &[u8]) {
    crate::owned::fuzz_original(data);
}

/// `/etc/default/grub`. An edit must be understood, be complete, and touch nothing else.
pub fn fuzz_grub_file(data: &[u8]) {
    use crate::kernel_args::GrubFile;
    let Ok(file) = GrubFile::read(data) else {
        return;
    };
    let Ok(argument) = "virtfn.test=on".parse() else {
        return;
    };
    let edited = file.with(data, std::slice::from_ref(&argument));
    let again = GrubFile::read(&edited);
    assert!(again.is_ok(), "the edited file is not understood");
    let added = edited.len().saturating_sub(data.len());
    assert!(
        added <= "\nGRUB_CMDLINE_LINUX=\"\"\n ".len() + argument.as_str().len(),
        "more was added than an argument"
    );
}

/// What `grubby --info=ALL` says.
pub fn fuzz_grubby(data: &[u8]) {
    let said = String::from_utf8_lossy(data);
    let lines = said.lines().count();
    assert!(crate::kernel_args::grubby_entries(&said).len() <= lines);
}

/// The count of reboots.
pub fn fuzz_reboots(data: &[u8]) {
    drop(crate::kernel_args::parse_reboots(data));
}

/// Settings of VFs that are kept.
pub fn fuzz_vf_settings(data: &[u8]) {
    crate::persist::vfs::fuzz(data);
}

/// A boot service, of which the command is read.
pub fn fuzz_boot_unit(data: &[u8]) {
    crate::persist::found::fuzz(data);
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

    #[test]
    fn records_of_the_corpus_are_read_without_harm() {
        corpus("record", fuzz_record);
    }

    #[test]
    fn histories_of_the_corpus_are_read_without_harm() {
        corpus("history", fuzz_history);
    }

    #[test]
    fn mounts_of_the_corpus_are_read_without_harm() {
        corpus("mounts", fuzz_mounts);
    }

    #[test]
    fn notes_of_the_corpus_are_read_without_harm() {
        corpus("original", fuzz_original);
    }

    #[test]
    fn journals_of_the_corpus_are_read_without_harm() {
        corpus("apply_journal", fuzz_apply_journal);
    }

    #[test]
    fn grub_files_of_the_corpus_are_edited_without_harm() {
        corpus("grub_file", fuzz_grub_file);
    }

    #[test]
    fn grubby_s_words_of_the_corpus_are_read_without_harm() {
        corpus("grubby", fuzz_grubby);
    }

    #[test]
    fn counts_of_reboots_of_the_corpus_are_read_without_harm() {
        corpus("reboots", fuzz_reboots);
    }

    #[test]
    fn boot_services_of_the_corpus_are_read_without_harm() {
        corpus("boot_unit", fuzz_boot_unit);
    }

    #[test]
    fn settings_of_vfs_of_the_corpus_are_read_without_harm() {
        corpus("vf_settings", fuzz_vf_settings);
    }
}
