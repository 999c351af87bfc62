//! Networks of several plugins: `sriov`, then one of Debian's containernetworking-plugins.

use serde_json::{Value, json};

use crate::cni_support::*;
use crate::support::*;

const BLUE: &str = "/run/netns/blue";

/// A VLAN and an address of host-local, and behind it another plugin.
struct Chain {
    first: Value,
    second: Value,
}

impl Chain {
    fn with(plugin: &str, more: &Value) -> Self {
        let base = json!({"cniVersion": "1.0.0", "name": "blue", "type": plugin});
        Self {
            first: with(&sriov(&json!({"vlan": 9})), &host_local()),
            second: with(&base, more),
        }
    }

    fn call_second(&self, command: &str, previous: &Value) -> Answer {
        let config = with(&self.second, &json!({"prevResult": previous}));
        let plugin = self.second["type"].as_str().expect("a plugin has a name");
        call(command, "c1", BLUE, &config)
            .plugin(&format!("{DEBIAN}/{plugin}"))
            .make()
    }

    fn call_first(&self, command: &str, previous: &Value) {
        let config = with(&self.first, &json!({"prevResult": previous}));
        call(command, "c1", BLUE, &config).make().ok();
    }

    /// Adds and checks, lets `look` see what is there, and deletes, as libcni does.
    fn lives_and_ends(&self, look: impl Fn(&Namespace)) {
        let machine = Machine::with_vfs(1);
        let before = machine.settled();
        let kernel = machine.kernel_vfs();
        let blue = Namespace::new("blue");
        // Debian 12's `vrf` fails when there is a link-local address already: it restores what it found,
        // and the kernel was faster.
        let no_link_local = "net.ipv6.conf.default.addr_gen_mode=1";
        run(
            "ip",
            &["netns", "exec", blue.0, "sysctl", "-w", no_link_local],
        );
        let first = call("ADD", "c1", BLUE, &self.first).make().ok();
        let last = self.call_second("ADD", &first).ok();
        look(&blue);
        self.call_first("CHECK", &last);
        // Debian 12's `bandwidth` looks for the peer of a `veth` there, whatever it is to do.
        if self.second["type"] != "bandwidth" {
            self.call_second("CHECK", &last).ok();
        }
        self.call_second("DEL", &last).ok();
        self.call_first("DEL", &last);
        assert_eq!(machine.settled(), before);
        assert_eq!(machine.kernel_vfs(), kernel);
        assert_nothing_is_kept("after the chain");
    }
}

#[track_caller]
fn shows(blue: &Namespace, arguments: &[&str], text: &str) {
    let shown = blue.ip(arguments);
    assert!(shown.contains(text), "{text} is not in {shown}");
}

#[test]
fn tuning_changes_the_interface_and_changes_it_back() {
    let more = json!({"promisc": true, "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}});
    Chain::with("tuning", &more).lives_and_ends(|blue| {
        shows(blue, &["link", "show", "dev", "net1"], "PROMISC");
        shows(blue, &["link", "show", "dev", "net1"], "mtu 1400");
    });
}

#[test]
fn vrf_takes_the_interface_in() {
    run("modprobe", &["vrf"]);
    Chain::with("vrf", &json!({"vrfname": "green"})).lives_and_ends(|blue| {
        shows(blue, &["link", "show", "dev", "net1"], "master green");
    });
}

#[test]
fn sbr_routes_by_the_address() {
    Chain::with("sbr", &json!({})).lives_and_ends(|blue| {
        shows(blue, &["rule", "list"], "from 192.0.2.2 lookup 100");
        shows(blue, &["route", "show", "table", "100"], "dev net1");
    });
}

#[test]
fn bandwidth_without_a_rate_passes_by() {
    Chain::with("bandwidth", &json!({})).lives_and_ends(|blue| {
        shows(blue, &["address", "show", "dev", "net1"], "192.0.2.2/24");
    });
}

/// It wants the peer of a `veth` on the host, which a VF has not: rates are for the PF to keep
/// (`max_tx_rate`). The runtime then calls DEL on the whole chain.
#[test]
fn a_chain_that_bandwidth_fails_leaves_nothing_behind() {
    let machine = Machine::with_vfs(1);
    let before = machine.settled();
    let _blue = Namespace::new("blue");
    let rates = json!({"ingressRate": 1_000_000, "ingressBurst": 1_000_000});
    let chain = Chain::with("bandwidth", &rates);
    let first = call("ADD", "c1", BLUE, &chain.first).make().ok();
    let failed = chain.call_second("ADD", &first);
    assert!(!failed.output.status.success(), "{}", failed.stdout());
    let _its_own_business = chain.call_second("DEL", &first);
    chain.call_first("DEL", &first);
    assert_eq!(machine.settled(), before);
    assert_nothing_is_kept("after the failure");
}

/// Loses upstream's files between ADD and whoever comes next.
fn without_its_files(device: bool, next: impl Fn(Namespace)) {
    let machine = Machine::with_vfs(1);
    if device {
        bind(VF0, "vfio-pci");
    }
    let before = machine.settled();
    let kernel = machine.kernel_vfs();
    let blue = Namespace::new("blue");
    let config = with(
        &sriov(&json!({"vlan": 9, "mac": "02:00:00:00:00:09"})),
        &host_local(),
    );
    call("ADD", "c1", BLUE, &config).make().ok();
    std::fs::remove_dir_all("/var/lib/cni/sriov").expect("it is there");
    next(blue);
    assert_eq!(machine.settled(), before);
    assert_eq!(machine.kernel_vfs(), kernel);
    assert_nothing_is_kept("after the cache was lost");
}

#[test]
fn a_lost_cache_does_not_hinder_del() {
    for device in [false, true] {
        without_its_files(device, |_blue| {
            let config = with(&sriov(&json!({})), &host_local());
            call("DEL", "c1", BLUE, &config).make().ok();
        });
    }
}

#[test]
fn a_lost_cache_does_not_hinder_gc() {
    for device in [false, true] {
        without_its_files(device, |blue| {
            drop(blue);
            call("GC", "", "", &gc()).make().ok();
        });
    }
}
