//! Entry points for fuzzers: each reader of outside text, on any bytes at all.
//!
//! A normal test runs each over its seed corpus, `corpus/<name>/`.

use crate::vendor::mellanox::{FirmwareReport, Fit, WantedNic, change};

/// Reads bytes as what `mstconfig` prints, and decides on them.
pub fn fuzz_mstconfig(data: &[u8]) {
    let Ok(report) = FirmwareReport::parse(&String::from_utf8_lossy(data)) else {
        return;
    };
    let Some(nic) = model::PciAddress::new(0, 0x3b, 0, 0) else {
        return;
    };
    let wanted = WantedNic {
        nic,
        ports: Vec::new(),
        num_vfs: 8,
        externally_managed: false,
    };
    for fit in [Fit::Enough, Fit::Exact] {
        if let Ok(change) = change(&wanted, &report, fit) {
            assert_eq!(change.command().is_some(), !change.settings.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_of_mstconfig_is_read_without_a_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/mstconfig");
        let mut seeds = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            let data = fs::read(entry.unwrap().path()).unwrap();
            for end in (0..=data.len()).step_by(1 + data.len() / 64) {
                super::fuzz_mstconfig(&data[..end]);
            }
            super::fuzz_mstconfig(&data);
            seeds += 1;
        }
        assert!(seeds >= 5, "only {seeds} seeds");
    }
}
