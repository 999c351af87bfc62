//! Recorded hosts in upstream's words: what `kubectl get sriovnetworknodestate -o json` would show.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use api::crd::{SriovNetworkNodeStateStatus, SyncResult};
use host::{Linux, Tree};
use model::{Host, Scope};
use policy::vendor::known_nic;

fn status(tree: &str) -> SriovNetworkNodeStateStatus {
    let dir = tempfile::tempdir().unwrap();
    Tree::parse(tree).unwrap().unpack(dir.path()).unwrap();
    let seen = Linux::recorded(dir.path())
        .unwrap()
        .observe(Scope::All)
        .unwrap();
    SriovNetworkNodeStateStatus::of(&seen, |id| known_nic(id).is_some(), &SyncResult::default())
}

#[test]
fn recorded_hosts_are_told_in_upstreams_words() {
    for name in ["ixgbe", "mlx5-switchdev", "mlx5-infiniband"] {
        let status = status(fixtures::tree(name).unwrap());
        let json = serde_json::to_string_pretty(&status).unwrap();
        insta::assert_snapshot!(name, json);
    }
}

#[test]
fn every_tree_has_a_nic_that_upstream_shows() {
    for (name, tree) in fixtures::TREES {
        let status = status(tree);
        assert!(!status.interfaces.is_empty(), "{name}");
        for nic in &status.interfaces {
            assert!(
                nic.driver.is_some() && nic.name.is_some() && nic.mac.is_some(),
                "{name}"
            );
            let vfs = i64::try_from(nic.vfs.len()).unwrap();
            assert_eq!(nic.num_vfs.unwrap_or(0), vfs, "{name}: {}", nic.pci_address);
        }
    }
}
