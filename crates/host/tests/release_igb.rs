//! A real SR-IOV NIC that is configured, recorded and given back; and one that the host needs.
//!
//! ```text
//! virtfn-lab run --nic igb -- target/debug/deps/release_igb-… --ignored
//! ```
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::crd::{SriovNetworkNodeStateStatus, SyncResult};
use host::{HostRoot, Linux, PfLedger, StateDir, see_uplinks};
use model::{
    Desired, Explain, Host, Inventory, Mtu, NetnsTarget, PciAddress, PfDesired, Plan, Scope, Step,
};

/// The tests share one NIC.
static NIC: Mutex<()> = Mutex::new(());

fn pf() -> PciAddress {
    "0000:01:00.0".parse().unwrap()
}

fn linux() -> Linux {
    Linux::this_machine().unwrap()
}

fn seen() -> Inventory {
    linux().observe(Scope::All).unwrap()
}

fn perform(plan: &Plan) {
    let mut linux = linux();
    for planned in plan.steps() {
        linux.perform(&planned.step).unwrap();
    }
}

fn ip(words: &[&str]) {
    let done = Command::new("ip").args(words).status().unwrap();
    assert!(done.success(), "ip {words:?}");
}

fn wanted() -> Desired {
    let pf = PfDesired {
        pf: pf(),
        name: None,
        num_vfs: 3,
        mtu: Mtu::new(9000),
        link_type: None,
        eswitch: None,
        externally_managed: false,
        groups: Vec::new(),
    };
    Desired {
        pfs: [(pf.pf, pf)].into(),
        ..Desired::default()
    }
}

/// Takes the NIC and puts it back to no VFs, MTU 1500 and up.
fn take() -> MutexGuard<'static, ()> {
    let alone = NIC.lock().unwrap_or_else(PoisonError::into_inner);
    let netns = NetnsTarget::Host;
    let steps = [
        Step::SetNumVfs { pf: pf(), count: 0 },
        Step::SetMtu {
            function: pf(),
            netns: netns.clone(),
            mtu: Mtu::new(1500).unwrap(),
        },
        Step::SetUp {
            function: pf(),
            netns,
            up: true,
        },
    ];
    let mut linux = linux();
    for step in steps {
        linux.perform(&step).unwrap();
    }
    alone
}

#[test]
#[ignore = "needs an SR-IOV NIC: run it in the lab"]
fn a_pf_that_nobody_wants_any_more_is_as_it_was() {
    let _alone = take();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
    let root = HostRoot::this_machine().unwrap();
    let ledger = PfLedger::new(&root, &state);
    let before = seen();

    ledger.note_original(before.get(pf()).unwrap()).unwrap();
    perform(&policy::plan(&before, &wanted()));
    ledger.own(&wanted().pfs[&pf()]).unwrap();
    let configured = seen();
    let facts = configured.get(pf()).unwrap();
    assert_eq!(facts.pf().unwrap().num_vfs, 3);
    assert_eq!(facts.netdev().unwrap().mtu, 9000);

    let status = SriovNetworkNodeStateStatus::of(&configured, |_| true, &SyncResult::default());
    let nic = &status
        .interfaces
        .iter()
        .find(|nic| nic.pci_address == pf().to_string())
        .unwrap();
    assert_eq!(
        (nic.num_vfs, nic.mtu, nic.vfs.len()),
        (Some(3), Some(9000), 3)
    );
    assert_eq!(nic.vfs[0].driver.as_deref(), Some("igbvf"));

    let owned = ledger.read().unwrap();
    assert!(
        policy::release(&configured, &wanted(), &owned.owned())
            .plans
            .is_empty()
    );
    let release = policy::release(&configured, &Desired::default(), &owned.owned());
    perform(&Plan { pfs: release.plans });
    let after = seen();
    assert_eq!(after.get(pf()).unwrap().pf().unwrap().num_vfs, 0);
    assert_eq!(after.get(pf()).unwrap().netdev().unwrap().mtu, 1500);

    let again = policy::release(&after, &Desired::default(), &owned.owned());
    assert_eq!(
        (again.plans.len(), again.forget.as_slice()),
        (0, [pf()].as_slice())
    );
    ledger.disown(pf()).unwrap();
    assert!(ledger.read().unwrap().pfs.is_empty());
}

#[test]
#[ignore = "needs an SR-IOV NIC: run it in the lab"]
fn a_pf_below_a_bridge_and_a_vlan_with_the_default_route_is_kept_off() {
    let _alone = take();
    let before = seen();
    let name = before.get(pf()).unwrap().netdev_name().unwrap().to_string();
    let root = HostRoot::this_machine().unwrap();
    let check = || {
        let uplinks = see_uplinks(&root, &[]).unwrap();
        let plan = policy::plan(&before, &wanted());
        policy::check_uplinks(&before, &plan, &uplinks.facts, false)
    };
    check().unwrap();

    ip(&[
        "link", "add", "link", &name, "name", "up.100", "type", "vlan", "id", "100",
    ]);
    ip(&["link", "add", "up-br", "type", "bridge"]);
    ip(&["link", "set", "up.100", "master", "up-br", "up"]);
    ip(&["link", "set", "up-br", "up"]);
    ip(&["address", "add", "192.0.2.2/24", "dev", "up-br"]);
    ip(&[
        "route",
        "add",
        "default",
        "via",
        "192.0.2.1",
        "metric",
        "4711",
    ]);
    let refused = check().map_err(|error| (error.code(), error.to_string()));
    ip(&["link", "del", "up-br"]);
    ip(&["link", "del", "up.100"]);

    let (code, text) = refused.unwrap_err();
    assert_eq!(code.as_str(), "pf-carries-route");
    let expected = "carries the IPv4 default route below up-br and up.100";
    assert!(text.contains(expected), "{text}");
    check().unwrap();
}
