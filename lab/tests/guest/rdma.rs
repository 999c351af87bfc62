//! The RDMA namespace mode of a pool of nodes, on the kernel's own RDMA in software.

use std::fs;

use crate::support::*;

const FILE: &str = "/etc/modprobe.d/sriov_network_operator_modules_config.conf";

fn pool(mode: &str) -> String {
    format!(
        "apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkPoolConfig
metadata: {{name: racks}}
spec:
  nodeSelector: {{matchLabels: {{rack: a}}}}
  rdmaMode: {mode}
"
    )
}

/// What the kernel itself says, apart from virtfn's eyes.
fn mode() -> String {
    let said = run("rdma", &["system", "show"]);
    let words: Vec<_> = said.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "netns");
    at.and_then(|at| words.get(at + 1))
        .unwrap_or(&"none")
        .to_string()
}

/// Waits until a namespace that is on its way out is gone: the kernel counts it until then.
fn set_back() {
    eventually("no other network namespace", || {
        let set = std::process::Command::new("rdma")
            .args(["system", "set", "netns", "shared"])
            .output();
        set.is_ok_and(|set| set.status.success())
    });
}

#[test]
fn the_rdma_mode_of_a_pool_is_set_kept_and_given_back() {
    let machine = Machine::fresh();
    let _absent = fs::remove_file(FILE);
    fs::create_dir_all("/etc/modprobe.d").expect("/etc is writable");
    run("modprobe", &["ib_core"]);
    set_back();
    let policy = policy("vfs", PF0, 2, "netdevice");
    machine.apply(&policy).ok();
    let file = write_policy(&format!("{policy}---\n{}", pool("exclusive")));
    let of_rack = |verb: &'static str, rack: &'static str| {
        let label = if rack == "a" { "rack=a" } else { "rack=b" };
        virtfn(&[verb, "-f", &file, "--node-label", label])
    };
    assert_eq!(of_rack("plan", "b").ok().stdout(), "nothing to do\n");

    let blue = Namespace::new("blue");
    let plan = of_rack("plan", "a").ok().stdout();
    assert!(
        plan.contains("set namespace mode exclusive") && plan.contains("reboot"),
        "{plan}"
    );
    of_rack("apply", "a").refused(3, &["a reboot is needed: RDMA namespace mode exclusive"]);
    assert_eq!(mode(), "shared");
    let kept = fs::read_to_string(FILE).expect("it is kept all the same");
    assert!(kept.contains("options ib_core netns_mode=0"), "{kept}");

    drop(blue);
    eventually("the mode", || of_rack("apply", "a").code() == Some(0));
    assert_eq!(mode(), "exclusive");
    assert_eq!(of_rack("plan", "a").ok().stdout(), "nothing to do\n");
    let status = virtfn(&["status", "-f", &file, "-o", "json"]);
    assert!(
        status.stdout().contains("\"rdmaMode\": \"exclusive\""),
        "{}",
        status.stdout()
    );

    // A node of no pool: the file goes, the running kernel stays.
    of_rack("apply", "b").ok();
    assert!(fs::read_to_string(FILE).is_err());
    assert_eq!(mode(), "exclusive");
    assert_eq!(of_rack("plan", "b").ok().stdout(), "nothing to do\n");
    set_back();
}
