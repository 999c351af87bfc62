//! Entry points for fuzzers: each reader of outside bytes, on any bytes at all.
//!
//! A normal test runs each over its seed corpus, `corpus/<name>/`.

/// Reads bytes as a file of policies.
pub fn fuzz_policies(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match crate::crd::read_policies(&text, "fuzz.yaml") {
        Ok(read) => {
            for policy in read.policies {
                assert!(policy.priority <= 99 && !policy.name.is_empty());
            }
        }
        Err(error) => assert!(!error.problems.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_of_policies_is_read_without_a_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/policies");
        let mut seeds = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            let data = fs::read(entry.unwrap().path()).unwrap();
            // Also each prefix, because a cut file is the most common broken one.
            for end in (0..=data.len()).step_by(1 + data.len() / 64) {
                super::fuzz_policies(&data[..end]);
            }
            super::fuzz_policies(&data);
            seeds += 1;
        }
        assert!(seeds >= 8, "only {seeds} seeds");
    }
}
