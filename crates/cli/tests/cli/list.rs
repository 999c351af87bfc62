//! `virtfn list`, `topology` and `record` as processes, on recorded hosts.

use crate::{recording, virtfn};

#[test]
fn every_recorded_host_is_listed() {
    let mut all = String::new();
    for (name, _) in fixtures::TREES {
        let tree = recording(name);
        let ran = virtfn(&["list", "--recorded", &tree]);
        assert_eq!(ran.status, 0, "{name}: {}", ran.err);
        all.push_str(&format!("== {name}\n{}{}", ran.out, ran.err));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn every_recorded_host_is_drawn() {
    let mut all = String::new();
    for (name, _) in fixtures::TREES {
        let ran = virtfn(&["topology", "--recorded", &recording(name)]);
        assert_eq!(ran.status, 0, "{name}: {}", ran.err);
        all.push_str(&format!("== {name}\n{}", ran.out));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn json_of_each_machine_is_what_topology_joins() {
    let dir = tempfile::tempdir().unwrap();
    let view = dir.path().join("view.json");
    let ran = virtfn(&[
        "list",
        "-o",
        "json",
        "--recorded",
        &recording("mlx5-legacy"),
    ]);
    std::fs::write(&view, &ran.out).unwrap();
    let (a, b) = (
        format!("a={}", view.display()),
        format!("b={}", view.display()),
    );
    let join = "a/ens1f0np0=b/ens1f0np0";
    let ran = virtfn(&["topology", "--from", &a, "--from", &b, "--join", join]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out);
}

#[test]
fn yaml_says_the_same_as_json() {
    let tree = recording("ice");
    let json = virtfn(&["list", "-o", "json", "--recorded", &tree]).out;
    let yaml = virtfn(&["list", "-o", "yaml", "--recorded", &tree]).out;
    let from_json: cli::view::HostView = serde_json::from_str(&json).unwrap();
    let from_yaml: cli::view::HostView = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(from_json, from_yaml);
}

#[test]
fn input_that_is_no_recording_or_view_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    };
    let none = dir.path().join("none").to_string_lossy().into_owned();
    let text = file("text", "no tree\n");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let other = file("other", r#"{"schema": "virtfn.host/v9"}"#);
    let from = |path: &str| format!("a={path}");
    let mut all = String::new();
    for args in [
        vec!["list", "--recorded", &none],
        vec!["list", "--recorded", &text],
        vec!["list", "--recorded", &empty.to_string_lossy()],
        vec!["topology", "--from", &from(&none)],
        vec!["topology", "--from", &from(&text)],
        vec!["topology", "--from", &from(&other)],
        vec!["topology", "--from", "a"],
        vec!["topology", "--join", "a"],
        vec!["list", "cables"],
        vec!["list", "-o", "xml"],
    ] {
        let ran = virtfn(&args);
        assert_eq!(ran.out, "", "{args:?} wrote a result");
        all.push_str(&format!("{}\n{}\n", ran.status, ran.err));
    }
    let all = all.replace(&*dir.path().to_string_lossy(), "DIR");
    insta::assert_snapshot!(all);
}

#[test]
fn pools_say_why_a_device_is_theirs_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("igb.tree");
    std::fs::write(&tree, fixtures::tree("igb-4-vfs").unwrap()).unwrap();
    let config = dir.path().join("config.json");
    let pools = r#"{"resourceList": [
        {"resourceName": "net", "selectors": {"drivers": ["igbvf"]}},
        {"resourceName": "all", "selectors": [{"pfNames": ["nosuch"]}, {"vendors": ["8086"]}]}]}"#;
    std::fs::write(&config, pools).unwrap();
    let explain = |object: &[&str]| {
        let (tree, config) = (tree.to_str().unwrap(), config.to_str().unwrap());
        let more = ["--state", tree, "--config", config];
        let ran = virtfn(&[&["explain"], object, &more].concat());
        format!("$ explain {}\n{}{}", object.join(" "), ran.out, ran.err)
    };
    let told = [
        explain(&["vf", "0000:01:10.0"]),
        explain(&["0000:01:10.6"]),
        explain(&["pool", "all"]),
        explain(&["pool", "none"]),
    ];
    let told = told.concat().replace(dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!(told);
    let json = [
        explain(&["vf", "0000:01:10.0", "-o", "json"]),
        explain(&["pool", "all", "-o", "json"]),
    ];
    insta::assert_snapshot!(json.concat());
}

#[test]
fn pools_of_the_device_plugin_are_listed_for_any_host() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let pools = r#"{"resourceList": [
        {"resourceName": "net", "selectors": {"drivers": ["mlx5_core"]}},
        {"resourceName": "sf", "deviceType": "auxNetDevice", "selectors": {"auxTypes": ["sf"]}},
        {"resourceName": "bad", "selectors": 5}]}"#;
    std::fs::write(&config, pools).unwrap();
    let list = |more: &[&str]| {
        let tree = recording("mlx5-switchdev");
        let args = ["list", "pool", "--recorded", &tree];
        let ran = virtfn(&[&args, more].concat());
        format!("$ list pool {}\n{}{}", more.join(" "), ran.out, ran.err)
    };
    let config = config.to_str().unwrap();
    let told = [
        list(&["--config", config]),
        list(&["--config", config, "-o", "wide"]),
        list(&["--config", config, "-o", "name"]),
        list(&["--config", config, "-o", "json"]),
        list(&["--config", config, "-f", "x"]),
    ];
    let told = told.concat().replace(dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!(told);
}
