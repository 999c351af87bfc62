//! Checks that the compiler does not make: who may depend on whom, how long a file may be, and
//! which hosts text may name.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build;

/// Crates whose functions are total and pure: nothing below them may reach a kernel or a network.
const PURE: [&str; 3] = ["model", "policy", "doctor"];

/// What may not stand anywhere below a pure crate.
const IMPURE: [&str; 7] = [
    "kube",
    "libc",
    "netlink-sys",
    "nix",
    "reqwest",
    "rustix",
    "tokio",
];

/// Lines of a Rust file above which it must be split.
const LONGEST_FILE: usize = 600;

/// Files that may be longer, each with its reason.
const LONGER: [(&str, &str); 0] = [];

/// Hosts that text may link to: citations for a reader. What a build downloads comes from where
/// the machine is configured to get it, so no other host has a place here.
const CITED: [&str; 6] = [
    "github.com",
    "docs.kernel.org",
    "www.kernel.org",
    "www.apache.org",
    "keepachangelog.com",
    "semver.org",
];

/// Runs all checks and reports every fault, not only the first.
pub(crate) fn run() -> Result<()> {
    let mut faults = layers(&metadata()?);
    faults.extend(files()?);
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    ensure!(faults.is_empty(), "{} faults", faults.len());
    Ok(())
}

fn metadata() -> Result<Value> {
    let output = build::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("start cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata ended with {}; is Cargo.lock committed?",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

/// A package of the workspace with its layer.
struct Member<'a> {
    name: &'a str,
    layer: u64,
    package: &'a Value,
}

/// Finds members that depend on their own or a higher layer, and impure crates below pure ones.
fn layers(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut members = Vec::new();
    for package in array(&metadata["packages"]) {
        let own = array(&metadata["workspace_members"]).any(|member| *member == package["id"]);
        let name = package["name"].as_str().unwrap_or_default();
        match package["metadata"]["virtfn"]["layer"].as_u64() {
            Some(layer) if own => members.push(Member {
                name,
                layer,
                package,
            }),
            None if own => faults.push(format!(
                "{name}: no layer; add [package.metadata.virtfn] layer = N to its manifest"
            )),
            _ => {}
        }
    }
    let layer_of: BTreeMap<&str, u64> = members.iter().map(|m| (m.name, m.layer)).collect();
    for member in &members {
        for dependency in array(&member.package["dependencies"]) {
            let name = dependency["name"].as_str().unwrap_or_default();
            let in_tests = dependency["kind"] == "dev";
            if name == "fixtures" && !in_tests {
                faults.push(format!("{}: fixtures is for tests only", member.name));
            }
            if let Some(layer) = layer_of.get(name)
                && *layer >= member.layer
                && !(in_tests && name == "fixtures")
            {
                faults.push(format!(
                    "{} (layer {}) depends on {name} (layer {layer}); only lower layers may be used",
                    member.name, member.layer
                ));
            }
        }
        if PURE.contains(&member.name) {
            for impure in reached(metadata, &member.package["id"]) {
                faults.push(format!("{}: {impure} below a pure crate", member.name));
            }
        }
    }
    faults
}

/// Returns the impure crates that normal dependencies of `root` reach.
fn reached<'a>(metadata: &'a Value, root: &'a Value) -> Vec<&'a str> {
    let mut open = vec![root];
    let mut seen: Vec<&Value> = Vec::new();
    let mut found = Vec::new();
    while let Some(id) = open.pop() {
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        let package = array(&metadata["packages"]).find(|package| package["id"] == *id);
        let name = package
            .and_then(|package| package["name"].as_str())
            .unwrap_or_default();
        if IMPURE.contains(&name) {
            found.push(name);
        }
        let Some(node) = array(&metadata["resolve"]["nodes"]).find(|node| node["id"] == *id) else {
            continue;
        };
        open.extend(
            array(&node["deps"])
                .filter(|dep| array(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()))
                .map(|dep| &dep["pkg"]),
        );
    }
    found
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Finds files that are too long or name foreign hosts, among all that git knows or would add.
fn files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(build::root())
        .output()
        .context("start git ls-files")?;
    ensure!(
        output.status.success(),
        "git ls-files ended with {}",
        output.status
    );
    let listing = String::from_utf8(output.stdout).context("read file names")?;
    let mut faults = Vec::new();
    for name in listing.split('\0').filter(|name| !name.is_empty()) {
        // A deleted file that is not yet committed, or one that is not text, has nothing to check.
        let Ok(text) = std::fs::read_to_string(build::root().join(name)) else {
            continue;
        };
        faults.extend(faults_of_file(name, &text));
        for target in fuzz_targets(name, &text) {
            if !build::root().join(&target).is_file() {
                faults.push(format!("{name}: its fuzz function has no {target}"));
            }
        }
    }
    Ok(faults)
}

fn faults_of_file(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    let excused = LONGER.iter().any(|(longer, _)| *longer == name);
    if Path::new(name).extension().is_some_and(|end| end == "rs")
        && lines > LONGEST_FILE
        && !excused
    {
        faults.push(format!(
            "{name}: {lines} lines, {LONGEST_FILE} is the most; split it"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        for host in hosts(line).filter(|host| !CITED.contains(host) && !is_example(host)) {
            faults.push(format!(
                "{name}:{}: names host {host}; derive it from the machine's configuration, or add \
                 it to the cited ones in tidy",
                number + 1
            ));
        }
    }
    faults
}

/// Returns the fuzz targets that should call the functions of a crate's `fuzz.rs`.
fn fuzz_targets(name: &str, text: &str) -> Vec<String> {
    let Some(krate) = name
        .strip_prefix("crates/")
        .and_then(|rest| rest.strip_suffix("/src/fuzz.rs"))
    else {
        return Vec::new();
    };
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("pub fn fuzz_")?.split('(').next())
        .map(|function| format!("fuzz/targets/{krate}_{function}.rs"))
        .collect()
}

/// Returns the hosts of the web addresses in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')));
        let host = rest.split_at(end.unwrap_or(rest.len())).0;
        host.contains('.').then_some(host)
    })
}

/// Tells whether a host stands for any host: an address that is never on the internet, or a name
/// that RFC 2606 keeps for examples.
fn is_example(host: &str) -> bool {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_private() || address.is_loopback() || address.is_documentation();
    }
    let host = host.to_ascii_lowercase();
    [
        "example",
        "test",
        "example.com",
        "example.net",
        "example.org",
    ]
    .iter()
    .any(|kept| {
        host.strip_suffix(kept)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_crate_may_not_use_its_own_or_a_higher_layer() {
        let package = |name: &str, layer: u64, dependency: &str, kind: Value| {
            json!({"id": name, "name": name, "metadata": {"virtfn": {"layer": layer}},
                   "dependencies": [{"name": dependency, "kind": kind}]})
        };
        let metadata = json!({
            "packages": [
                package("model", 0, "serde", Value::Null),
                package("api", 1, "host", Value::Null),
                package("host", 2, "fixtures", json!("dev")),
                package("fixtures", 1, "model", Value::Null),
                package("cli", 5, "fixtures", Value::Null),
            ],
            "workspace_members": ["model", "api", "host", "fixtures", "cli"],
            "resolve": {"nodes": []},
        });
        let faults = layers(&metadata);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("api (layer 1) depends on host"));
        assert!(faults[1].contains("cli: fixtures is for tests only"));
    }

    #[test]
    fn a_pure_crate_may_not_reach_a_runtime() {
        let metadata = json!({
            "packages": [
                {"id": "p", "name": "policy", "metadata": {"virtfn": {"layer": 1}}, "dependencies": []},
                {"id": "x", "name": "x", "dependencies": []},
                {"id": "t", "name": "tokio", "dependencies": []},
            ],
            "workspace_members": ["p"],
            "resolve": {"nodes": [
                {"id": "p", "deps": [{"pkg": "x", "dep_kinds": [{"kind": null}]}]},
                {"id": "x", "deps": [{"pkg": "t", "dep_kinds": [{"kind": null}]}]},
            ]},
        });
        assert_eq!(layers(&metadata), ["policy: tokio below a pure crate"]);
    }

    #[test]
    fn every_fuzz_function_needs_a_target() {
        let text = "/// Reads.\npub fn fuzz_tree(data: &[u8]) {\n";
        assert_eq!(
            fuzz_targets("crates/host/src/fuzz.rs", text),
            ["fuzz/targets/host_tree.rs"]
        );
        assert!(fuzz_targets("crates/host/src/tree.rs", text).is_empty());
    }

    #[test]
    fn long_files_and_foreign_hosts_are_found() {
        let long = "x\n".repeat(LONGEST_FILE + 1);
        assert_eq!(faults_of_file("a.rs", &long).len(), 1);
        assert!(faults_of_file("a.md", &long).is_empty());
        let foreign = ["https:", "//mirror.elsewhere.net/x"].concat();
        assert_eq!(faults_of_file("a.md", &foreign).len(), 1);
        assert!(faults_of_file("a.md", "see https://docs.kernel.org/PCI/").is_empty());
        assert!(faults_of_file("a.md", "unix:///run/x.sock").is_empty());
        assert!(faults_of_file("a.md", "https://10.0.0.1:6443 https://API.example.org").is_empty());
        let lookalike = ["https:", "//notexample.org"].concat();
        assert_eq!(faults_of_file("a.md", &lookalike).len(), 1);
    }
}
