//! Entry points for fuzzers: each reader of outside bytes, on any bytes at all.
//!
//! A normal test runs each over its seed corpus, `corpus/<name>/`.

use crate::cni::{
    AddResult, Arguments, CacheFile, CniVersion, Command, IbSriovCache, IbSriovConfig,
    NetworkConfig, RdmaConfig, RdmaState, SriovCache, SriovConfig,
};
use crate::crd::{PfRecord, SriovNetworkNodeStateSpec};

/// Reads bytes as a file of policies.
pub fn fuzz_policies(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match crate::crd::read_documents(&text, "fuzz.yaml") {
        Ok(read) => {
            for policy in read.policies {
                assert!(policy.priority <= 99 && !policy.name.is_empty());
            }
            for state in read.node_states {
                let spec = SriovNetworkNodeStateSpec::from(&state.desired);
                assert_eq!(model::Desired::try_from(&spec).as_ref(), Ok(&state.desired));
            }
        }
        Err(error) => assert!(!error.problems.is_empty()),
    }
}

/// Reads bytes as what upstream keeps of a PF.
pub fn fuzz_pf_record(data: &[u8]) {
    let Some(pf) = model::PciAddress::new(0, 0x3b, 0, 0) else {
        return;
    };
    if let Ok(record) = PfRecord::parse(pf, data) {
        let again = PfRecord::parse(pf, record.to_json().as_bytes());
        assert_eq!(again.ok(), Some(record));
    }
}

/// Reads bytes as the configuration of the `sriov` plugin.
pub fn fuzz_cni_config(data: &[u8]) {
    let Ok(config) = NetworkConfig::parse(data, Command::Gc) else {
        return;
    };
    assert!(!config.name.is_empty());
    assert!(
        config.ipam().is_err() || !matches!(config.ipam(), Ok(Some(name)) if name.contains('/'))
    );
    let _whatever = config.valid_attachments();
    if let Ok(Some(result)) = config.prev_result() {
        check_result(&result);
    }
    if let Ok(sriov) = SriovConfig::read(&config, &Arguments::default()) {
        assert!(!sriov.mac.is_some_and(|mac| mac.is_zero() || mac.is_group()));
    }
    if let Ok(infiniband) = IbSriovConfig::read(&config) {
        assert!(!infiniband.guid.is_some_and(model::Guid::is_zero));
    }
    if let Ok(rdma) = RdmaConfig::read(&config) {
        assert!(
            !rdma
                .parent
                .is_some_and(|parent| parent.to_string().contains('/'))
        );
    }
}

/// Reads bytes as `CNI_ARGS`.
pub fn fuzz_cni_args(data: &[u8]) {
    if let Ok(arguments) = Arguments::parse(&String::from_utf8_lossy(data)) {
        assert_ne!(arguments.mac.as_deref(), Some(""));
    }
}

/// Reads bytes as the result of an IPAM plugin or a plugin before us.
pub fn fuzz_cni_result(data: &[u8]) {
    for version in [CniVersion::V0_2_0, CniVersion::V1_1_0] {
        if let Ok(result) = AddResult::parse(data, version) {
            check_result(&result);
        }
    }
}

fn check_result(result: &AddResult) {
    for version in CniVersion::ALL {
        if let Ok(written) = result.to_json(version) {
            let read = AddResult::from_value(written.clone(), version);
            let again = read.and_then(|read| read.to_json(version));
            assert_eq!(again.ok(), Some(written));
        }
    }
}

/// Reads bytes as a file of each of upstream's plugins.
pub fn fuzz_cni_cache(data: &[u8]) {
    if let Ok(cache) = SriovCache::parse(data) {
        let again = SriovCache::parse(cache.to_json().as_bytes());
        assert_eq!(again.ok(), Some(cache));
    }
    if let Ok(cache) = IbSriovCache::parse(data) {
        let again = IbSriovCache::parse(cache.to_json().as_bytes());
        assert_eq!(again.ok(), Some(cache));
    }
    if let Ok(state) = RdmaState::parse(data) {
        let again = RdmaState::parse(state.to_json().as_bytes());
        assert_eq!(again.ok(), Some(state));
    }
}

/// Reads bytes as the configuration of the device plugin.
pub fn fuzz_deviceplugin(data: &[u8]) {
    if let Ok(config) = crate::deviceplugin::read_config(data, "intel.com") {
        for pool in &config.pools {
            assert!(!pool.selectors.is_empty());
        }
        assert!(config.refused.iter().all(|pool| !pool.problems.is_empty()));
    }
}

/// Reads bytes as a file of GUIDs.
pub fn fuzz_ib_guids(data: &[u8]) {
    if let Ok(rules) = crate::ib_guids::read_guids(&String::from_utf8_lossy(data)) {
        for rule in rules {
            let first = rule.pool.get(model::VfIndex(0));
            assert_eq!(first.is_none(), rule.pool.is_empty());
        }
    }
}

/// Reads bytes as a kubeconfig.
pub fn fuzz_kubeconfig(data: &[u8]) {
    if let Ok(servers) = crate::kubeconfig::api_servers(&String::from_utf8_lossy(data)) {
        assert!(!servers.is_empty());
    }
}

/// Reads bytes as the checkpoint of the kubelet's device manager.
pub fn fuzz_kubelet_checkpoint(data: &[u8]) {
    if let Ok(devices) = crate::kubelet_checkpoint::devices_of_pods(data) {
        assert!(devices.keys().all(|name| name.as_str().contains('/')));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_policy_with_anything_in_a_field_is_read_without_a_panic(
            line in 0_usize..22, value in "[ -~\\n]{0,40}|.{0,20}",
        ) {
            let seed = include_str!("../corpus/policies/good.yaml");
            let lines: Vec<String> = seed
                .lines()
                .enumerate()
                .map(|(at, text)| match text.split_once(':') {
                    Some((key, _)) if at == line => format!("{key}: {value}"),
                    _ => text.to_owned(),
                })
                .collect();
            super::fuzz_policies(lines.join("\n").as_bytes());
        }
    }

    fn seeds(name: &str, fuzz: fn(&[u8]), least: usize) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let mut seeds = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            let data = fs::read(entry.unwrap().path()).unwrap();
            // Also each prefix, because a cut file is the most common broken one.
            for end in (0..=data.len()).step_by(1 + data.len() / 64) {
                fuzz(&data[..end]);
            }
            fuzz(&data);
            seeds += 1;
        }
        assert!(seeds >= least, "only {seeds} seeds");
    }

    #[test]
    fn the_corpus_of_policies_is_read_without_a_panic() {
        seeds("policies", super::fuzz_policies, 8);
    }

    #[test]
    fn the_corpus_of_pf_records_is_read_without_a_panic() {
        seeds("pf_record", super::fuzz_pf_record, 3);
    }

    #[test]
    fn the_corpora_of_cni_are_read_without_a_panic() {
        seeds("cni_config", super::fuzz_cni_config, 7);
        seeds("cni_args", super::fuzz_cni_args, 3);
        seeds("cni_result", super::fuzz_cni_result, 3);
        seeds("cni_cache", super::fuzz_cni_cache, 5);
    }

    #[test]
    fn the_corpus_of_device_plugin_files_is_read_without_a_panic() {
        seeds("deviceplugin", super::fuzz_deviceplugin, 8);
    }

    #[test]
    fn the_corpus_of_ib_guids_is_read_without_a_panic() {
        seeds("ib_guids", super::fuzz_ib_guids, 2);
    }

    #[test]
    fn the_corpus_of_kubeconfigs_is_read_without_a_panic() {
        seeds("kubeconfig", super::fuzz_kubeconfig, 2);
    }

    #[test]
    fn the_corpus_of_kubelet_checkpoints_is_read_without_a_panic() {
        seeds("kubelet_checkpoint", super::fuzz_kubelet_checkpoint, 1);
    }
}
