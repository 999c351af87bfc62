//! What `virtfn attach`, the CNI plugin and `virtfn agent` know of a VF agrees.

use std::path::Path;

use serde_json::json;

use crate::agent::{Agent, POOLS, block_on, healthy, place, soon};
use crate::cni_support::{call, sriov};
use crate::fake_kubelet::{FakeKubelet, Known};
use crate::support::{Machine, Namespace, PF1, VF0, VF1, netdev, run, virtfn};

/// Starts a kubelet and an agent, and waits until both VFs are offered.
async fn begin(dir: &Path) -> (FakeKubelet, Agent) {
    let kubelet = FakeKubelet::start(&dir.join("kubelet"));
    let agent = Agent::start(dir, POOLS, &[]);
    kubelet
        .until("intel.com/net", |known| healthy(known) == 2)
        .await;
    (kubelet, agent)
}

/// Each way to take a VF outside Kubernetes, and to give it back.
type Door = (fn(), fn());

/// Puts something on the VF, here or in a container. Not a VLAN, which has to be told to the PF: in a busy
/// machine igbvf was seen to refuse that.
fn put_on_vf(kind: &str, place: &[&str]) {
    let on = netdev(VF0);
    run("ip", &["link", "set", &on, "up"]);
    let link = ["link", "add", "link", &on, "name", "over"];
    run("ip", &[&link, place, &["type", kind]].concat());
}

fn cni(command: &str) {
    let call = call(command, "c1", "/run/netns/blue", &sriov(&json!({})));
    call.make().ok();
}

#[test]
fn a_vf_that_is_held_outside_kubernetes_is_not_offered_until_it_is_back() {
    let _machine = Machine::with_vfs(2);
    let dir = place("ledger");
    let _blue = Namespace::new("blue");
    let doors: [Door; 4] = [
        (
            || drop(virtfn(&["attach", VF0, "--netns", "blue"]).ok()),
            || drop(virtfn(&["detach", VF0]).ok()),
        ),
        (|| cni("ADD"), || cni("DEL")),
        (
            || put_on_vf("ipvlan", &[]),
            || drop(run("ip", &["link", "delete", "over"])),
        ),
        (
            || put_on_vf("macvlan", &["netns", "blue"]),
            || drop(run("ip", &["-n", "blue", "link", "delete", "over"])),
        ),
    ];
    block_on(async {
        let (kubelet, _agent) = begin(&dir).await;
        for (take, give_back) in doors {
            let known = soon(&kubelet, "intel.com/net", take, |known| {
                known.devices.len() == 1
            });
            assert!(known.await.devices.contains_key(VF1));
            soon(&kubelet, "intel.com/net", give_back, |known| {
                healthy(known) == 2
            })
            .await;
        }
        // Without virtfn's knowledge a namespace tells it too.
        run("ip", &["link", "set", &netdev(VF1), "netns", "blue"]);
        kubelet
            .until("intel.com/net", |known| !known.devices.contains_key(VF1))
            .await;
    });
}

#[test]
fn a_nic_that_something_is_on_is_not_offered_until_that_is_gone() {
    let _machine = Machine::fresh();
    let dir = place("nic");
    let blue = Namespace::new("blue");
    let nic = netdev(PF1);
    let add = ["link", "add", "link", &nic, "name", "over"];
    let on = |more: &[&str]| drop(run("ip", &[&add[..], more].concat()));
    let pools = r#"{"resourceList": [{"resourceName": "nic", "selectors": {"drivers": ["igb"]}}]}"#;
    run("ip", &["link", "set", &nic, "up"]);
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let _agent = Agent::start(&dir, pools, &[]);
        let is_offered = |known: &Known| known.devices.contains_key(PF1);
        kubelet.until("intel.com/nic", is_offered).await;
        for (vlan, place) in [
            (["type", "vlan", "id", "40"].as_slice(), None),
            (&["netns", blue.0, "type", "macvlan"], Some(&blue)),
        ] {
            soon(
                &kubelet,
                "intel.com/nic",
                || on(vlan),
                |known| !is_offered(known),
            )
            .await;
            let take_away = || match place {
                Some(netns) => drop(netns.ip(&["link", "delete", "over"])),
                None => drop(run("ip", &["link", "delete", "over"])),
            };
            soon(&kubelet, "intel.com/nic", take_away, is_offered).await;
        }
    });
    run("ip", &["link", "set", &nic, "down"]);
}

#[test]
fn a_vf_that_the_plugin_gave_a_pod_stays_offered_to_it() {
    let _machine = Machine::with_vfs(2);
    let dir = place("pod-ledger");
    let _blue = Namespace::new("blue");
    block_on(async {
        let (kubelet, _agent) = begin(&dir).await;
        let given = kubelet.allocate("intel.com/net", &[VF0]).await;
        given.expect("it is given");
        kubelet.pod_has("intel.com/net", VF0);
        cni("ADD");
        // Something that certainly comes after it.
        virtfn(&["attach", VF1, "--netns", "blue"]).ok();
        let known = kubelet
            .until("intel.com/net", |known| known.devices.len() == 1)
            .await;
        assert_eq!(known.devices.get(VF0), Some(&true), "{known:?}");
        cni("DEL");
    });
}
