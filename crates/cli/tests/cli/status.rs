//! `virtfn status` as a process, on recorded hosts.

use std::fs;

use crate::{recording, virtfn};

const FOUR_VFS: &str = "\
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: rack-a, namespace: sriov-network-operator}
spec:
  resourceName: fast
  nodeSelector: {rack: a}
  nicSelector: {pfNames: ['ens1f1np1']}
  numVfs: 4
";

#[test]
fn a_recorded_host_is_compared_with_policies() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    fs::write(&file, FOUR_VFS).unwrap();
    let file = file.to_string_lossy().into_owned();
    let tree = recording("mlx5-legacy");
    let status = |more: &[&str]| {
        let common = [
            "status",
            "--state",
            &tree,
            "-f",
            &file,
            "--node-label",
            "rack=a",
        ];
        let ran = virtfn(&[&common, more].concat());
        let text = format!("{}{}[{}]\n", ran.out, ran.err, ran.status);
        text.replace(&*dir.path().to_string_lossy(), "DIR")
    };
    insta::assert_snapshot!("status", status(&[]));
    insta::assert_snapshot!("status-check", status(&["--check", "-o", "yaml"]));
}

#[test]
fn a_recorded_host_is_told_in_upstreams_words() {
    for (name, _) in fixtures::TREES {
        let tree = recording(name);
        let json = virtfn(&["status", "--state", &tree, "-o", "json"]);
        assert_eq!((json.status, json.err.as_str()), (0, ""), "{name}");
        let status: api::crd::SriovNetworkNodeStateStatus =
            serde_json::from_str(&json.out).unwrap();
        assert!(!status.interfaces.is_empty(), "{name}");
        let yaml = virtfn(&["status", "--state", &tree, "-o", "yaml"]);
        let again: api::crd::SriovNetworkNodeStateStatus =
            serde_saphyr::from_str(&yaml.out).unwrap();
        assert_eq!(again, status, "{name}");
    }
}

#[test]
fn bad_policies_are_bad_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    fs::write(&file, "kind: [").unwrap();
    let tree = recording("ixgbe");
    let ran = virtfn(&["status", "--state", &tree, "-f", &file.to_string_lossy()]);
    assert_eq!((ran.status, ran.out.as_str()), (2, ""));
    assert!(ran.err.starts_with("error[policy-not-yaml]"), "{}", ran.err);
}

#[test]
fn status_and_plan_agree_on_every_recorded_host() {
    let dir = tempfile::tempdir().unwrap();
    for (name, _) in fixtures::TREES {
        let tree = recording(name);
        let pfs = virtfn(&["list", "pf", "-o", "json", "--state", &tree]);
        let view: serde_json::Value = serde_json::from_str(&pfs.out).unwrap();
        for pf in view["pfs"].as_array().unwrap() {
            for count in [pf["numVfs"].as_u64().unwrap(), 1, 0] {
                let policy = FOUR_VFS
                    .replace("nodeSelector: {rack: a}", "nodeSelector: {}")
                    .replace(
                        "pfNames: ['ens1f1np1']",
                        &format!("rootDevices: [{}]", pf["address"]),
                    )
                    .replace("numVfs: 4", &format!("numVfs: {count}"));
                let file = dir.path().join("p.yaml");
                fs::write(&file, policy).unwrap();
                let check = |command| {
                    let file = file.to_string_lossy();
                    virtfn(&[command, "--check", "-f", &file, "--state", &tree]).status
                };
                let told = (check("plan"), check("status"));
                assert_eq!(told.0, told.1, "{name} {} {count}", pf["address"]);
            }
        }
    }
}
