//! Each fuzz entry point over its seeds, whole and cut at every length.

use std::fs;
use std::path::Path;

use netlink::fuzz;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 10] = [
    ("address", fuzz::fuzz_address),
    ("conversation", fuzz::fuzz_conversation),
    ("devlink", fuzz::fuzz_devlink),
    ("link", fuzz::fuzz_link),
    ("rdma", fuzz::fuzz_rdma),
    ("netns_id", fuzz::fuzz_netns_id),
    ("route", fuzz::fuzz_route),
    ("uevent", fuzz::fuzz_uevent),
    ("vdpa", fuzz::fuzz_vdpa),
    ("ethtool_feature", fuzz::fuzz_ethtool_feature),
];

#[test]
fn seeds_whole_and_cut_short_are_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let directories = fs::read_dir(&corpus).unwrap().count();
    assert_eq!(directories, TARGETS.len(), "a corpus without its target");
    for (name, target) in TARGETS {
        let mut seeds = 0;
        for seed in fs::read_dir(corpus.join(name)).unwrap() {
            let bytes = fs::read(seed.unwrap().path()).unwrap();
            for length in 0..=bytes.len() {
                target(&bytes[..length]);
            }
            seeds += 1;
        }
        assert!(seeds > 0, "{name} has no seeds");
    }
}
