//! A real SR-IOV NIC while it is changed: Intel 82576 (`igb`), as the lab emulates it.
//!
//! ```text
//! virtfn-lab run --nic igb -- target/debug/deps/change_igb-… --ignored
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, and plays a death so"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::{
    ApplyContext, BootId, Checkpoint, Checkpoints, Engine, HostRoot, Ledger, Linux, PfLedger,
    StateDir, Uninterrupted, netns,
};
use model::{
    AttachInterface, AttachRequest, BindTarget, Desired, Explain, Function, Holder, HolderKind,
    Host, Inventory, Mtu, Netns, NetnsTarget, PciAddress, Pcp, PfDesired, Scope, Step, VfAttr,
    VfDriver, VfGroup, VfIndex, VfRange, VfSettings, VlanId, VlanProto, VlanTag,
};

/// The tests share one NIC.
static NIC: Mutex<()> = Mutex::new(());

const PF: &str = "0000:01:00.0";
const KILLED: &str = "killed at a checkpoint";

/// A NIC with two VFs and its PF up, and an empty state directory.
struct Bench {
    _alone: MutexGuard<'static, ()>,
    _dir: tempfile::TempDir,
    root: HostRoot,
    state: StateDir,
    boot: BootId,
    ledger: Ledger,
}

impl Bench {
    fn new() -> Self {
        let alone = NIC.lock().unwrap_or_else(PoisonError::into_inner);
        for name in ["blue", "red"] {
            // What a test that failed left behind.
            let _nothing_was_left = Command::new("ip").args(["netns", "del", name]).output();
        }
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
        let root = HostRoot::this_machine().unwrap();
        let boot = BootId::read(&root).unwrap();
        let bench = Self {
            _alone: alone,
            ledger: Ledger::new(state.clone(), boot.clone()),
            state,
            boot,
            root,
            _dir: dir,
        };
        let mut linux = bench.linux();
        let up = Step::SetUp {
            function: pf(),
            netns: NetnsTarget::Host,
            up: true,
        };
        linux.perform(&up).unwrap();
        if !bench.is_pristine() {
            for count in [0, 2] {
                linux.perform(&Step::SetNumVfs { pf: pf(), count }).unwrap();
            }
        }
        bench
    }

    /// Are there two VFs as fresh ones are? Making new ones takes three seconds.
    fn is_pristine(&self) -> bool {
        let seen = self.seen();
        let vfs: Vec<_> = seen.vfs().collect();
        vfs.len() == 2
            && vfs.iter().all(|(function, facts)| {
                let state = facts.state.unwrap_or_default();
                function.netdev().is_some_and(|netdev| {
                    netdev.netns == Netns::Host
                        && netdev.mtu == 1500
                        && netdev.name.as_str().starts_with("eth")
                        && netdev.alt_names.is_empty()
                }) && state.vlan == Some(None)
                    && state.trust == Some(false)
            })
    }

    fn linux(&self) -> Linux {
        Linux::this_machine()
            .unwrap()
            .with_ledger(self.ledger.clone())
    }

    fn seen(&self) -> Inventory {
        let mut seen = self.linux().observe(Scope::All).unwrap();
        assert_eq!(seen.gaps, []);
        // Indices and the moment's link state are the kernel's business.
        for netdev in seen.functions.values_mut().flat_map(|f| &mut f.netdevs) {
            netdev.index = model::IfIndex::new(1).unwrap();
            netdev.oper = model::OperState::Unknown;
            netdev.speed_mbps = None;
            // igbvf takes whatever MAC it had when it last went up for its permanent one.
            netdev.permanent_address = None;
        }
        seen
    }

    fn vf(&self, index: u16) -> Function {
        self.seen().vf_of(pf(), VfIndex(index)).unwrap().clone()
    }

    fn engine<'a>(
        &'a self,
        host: &'a mut Linux,
        checkpoints: &'a dyn Checkpoints,
    ) -> Engine<'a, Linux> {
        Engine {
            host,
            ground: &self.root,
            state: &self.state,
            ledger: &self.ledger,
            checkpoints,
        }
    }

    fn attach(&self, request: &AttachRequest) -> Result<host::Attached, host::AttachError> {
        self.engine(&mut self.linux(), &Uninterrupted)
            .attach(request)
    }

    fn detach(&self, vf: PciAddress) -> Result<host::Detached, host::DetachError> {
        self.engine(&mut self.linux(), &Uninterrupted)
            .detach(vf, None)
    }

    /// Runs `work` as a process that dies at the n-th checkpoint; `false` when it died.
    fn dying(&self, nth: usize, work: impl FnOnce(&mut Engine<'_, Linux>)) -> bool {
        let dies = DiesAt(AtomicUsize::new(nth));
        let mut linux = self.linux();
        let mut engine = self.engine(&mut linux, &dies);
        match catch_unwind(AssertUnwindSafe(|| work(&mut engine))) {
            Ok(()) => true,
            Err(panic) if panic.downcast_ref() == Some(&KILLED) => false,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Unwinds at the n-th checkpoint, from 1. Nothing but locks is given back on the way, as when the
/// process is killed; the guest tests of the lab kill a real one.
struct DiesAt(AtomicUsize);

impl Checkpoints for DiesAt {
    fn passed(&self, _at: Checkpoint) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::panic::panic_any(KILLED);
        }
    }
}

fn pf() -> PciAddress {
    PF.parse().unwrap()
}

fn vf0() -> PciAddress {
    pf().with_routing_id(pf().routing_id() + 128)
}

/// Compares two inventories and shows only the lines that differ.
#[track_caller]
fn check_same(now: &Inventory, before: &Inventory, when: &str) {
    if now == before {
        return;
    }
    let (now, before) = (format!("{now:#?}"), format!("{before:#?}"));
    let lines = before.lines().zip(now.lines());
    let changed: Vec<_> = lines.filter(|(then, now)| then != now).take(20).collect();
    panic!("{when}: before and now differ: {changed:#?}");
}

/// A namespace that goes when this is dropped.
struct Space(&'static str);

impl Space {
    fn new(name: &'static str) -> Self {
        ip(&["netns", "add", name]);
        Self(name)
    }

    fn target(&self) -> NetnsTarget {
        netns::find(&HostRoot::this_machine().unwrap(), self.0).unwrap()
    }

    fn show(&self) -> String {
        ip(&["-n", self.0, "address"])
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Some tests delete it themselves.
        let _deleted = Command::new("ip").args(["netns", "del", self.0]).output();
    }
}

fn ip(words: &[&str]) -> String {
    let output = Command::new("ip").args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn request(netns: NetnsTarget) -> AttachRequest {
    let tag = VlanTag {
        id: VlanId::new(100).unwrap(),
        pcp: Pcp::new(3).unwrap(),
        proto: VlanProto::Dot1q,
    };
    AttachRequest {
        vf: vf0(),
        holder: Holder {
            kind: HolderKind::Attach,
            id: netns.to_string(),
            interface: Some("net1".parse().unwrap()),
        },
        settings: VfSettings {
            vlan: Some(Some(tag)),
            spoof_check: Some(false),
            trust: Some(true),
            ..VfSettings::default()
        },
        interface: Some(AttachInterface {
            netns,
            name: Some("net1".parse().unwrap()),
            mac: Some("02:00:00:00:00:42".parse().unwrap()),
            mtu: Mtu::new(1400),
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
        }),
        with_rdma: false,
        lives_in: None,
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn an_attached_vf_is_as_asked_for_and_a_detached_one_as_before() {
    let bench = Bench::new();
    let before = bench.seen();
    let blue = Space::new("blue");
    let attached = bench.attach(&request(blue.target())).unwrap();
    assert_eq!(attached.notes, []);
    let shown = blue.show();
    for text in [
        "net1",
        "192.0.2.1/24",
        "02:00:00:00:00:42",
        "mtu 1400",
        "UP",
    ] {
        assert!(shown.contains(text), "{text} is not in {shown}");
    }
    let state = bench.vf(0).vf().unwrap().state.unwrap();
    assert_eq!(state.vlan.flatten().unwrap().id.get(), 100);
    assert_eq!((state.trust, state.spoof_check), (Some(true), Some(false)));
    assert_eq!(state.mac.unwrap().to_string(), "02:00:00:00:00:42");
    assert!(bench.attach(&request(blue.target())).unwrap().already);
    bench.detach(vf0()).unwrap();
    check_same(&bench.seen(), &before, "");
    assert_eq!(
        bench.detach(vf0()).unwrap_err().code().as_str(),
        "vf-not-attached"
    );
    // And once more, because the first round may have left something that only the second meets.
    bench.attach(&request(blue.target())).unwrap();
    bench.detach(vf0()).unwrap();
    check_same(&bench.seen(), &before, "");
}

#[test]
#[ignore = "needs the lab's igb"]
fn every_step_of_an_attach_can_be_made_twice() {
    let bench = Bench::new();
    let blue = Space::new("blue");
    let mut linux = bench.linux();
    let seen = linux.observe(Scope::Function(vf0())).unwrap();
    let plan = policy::attach(&seen, &request(blue.target())).unwrap();
    let both = plan.steps.iter().map(|planned| planned.step.clone());
    for step in both.chain(plan.undo()) {
        linux.perform(&step).unwrap();
        let once = bench.seen();
        linux.perform(&step).unwrap();
        check_same(&bench.seen(), &once, &format!("{step:?}"));
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn an_attach_killed_anywhere_is_done_by_the_next_and_undone_by_detach() {
    let bench = Bench::new();
    let before = bench.seen();
    let blue = Space::new("blue");
    let request = request(blue.target());
    for nth in 1.. {
        let lived = bench.dying(nth, |engine| drop(engine.attach(&request).unwrap()));
        if nth % 2 == 0 {
            bench.attach(&request).unwrap();
            assert!(blue.show().contains("192.0.2.1/24"), "killed at {nth}");
        }
        if let Err(error) = bench.detach(vf0()) {
            assert_eq!(error.code().as_str(), "vf-not-attached", "killed at {nth}");
        }
        check_same(&bench.seen(), &before, &format!("killed at {nth}"));
        if lived {
            assert!(nth > 8, "only {nth} checkpoints");
            break;
        }
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_namespace_that_dies_gives_its_vf_back_wherever_attach_was_killed() {
    let bench = Bench::new();
    let before = bench.seen();
    for nth in 1.. {
        let blue = Space::new("blue");
        let request = request(blue.target());
        let lived = bench.dying(nth, |engine| drop(engine.attach(&request).unwrap()));
        drop(blue);
        // At once: the kernel may still be taking the namespace down.
        let healed = bench.engine(&mut bench.linux(), &Uninterrupted).heal();
        let failed: Vec<_> = healed.iter().filter(|h| h.outcome.is_err()).collect();
        assert!(failed.is_empty(), "killed at {nth}: {failed:?}");
        check_same(&bench.seen(), &before, &format!("killed at {nth}"));
        if lived {
            break;
        }
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_detach_killed_anywhere_is_finished_by_the_next() {
    let bench = Bench::new();
    let before = bench.seen();
    let blue = Space::new("blue");
    let request = request(blue.target());
    for nth in 1.. {
        bench.attach(&request).unwrap();
        let lived = bench.dying(nth, |engine| drop(engine.detach(vf0(), None).unwrap()));
        if let Err(error) = bench.detach(vf0()) {
            assert_eq!(error.code().as_str(), "vf-not-attached", "killed at {nth}");
        }
        check_same(&bench.seen(), &before, &format!("killed at {nth}"));
        if lived {
            break;
        }
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn of_two_racing_attaches_one_wins() {
    let bench = Bench::new();
    let before = bench.seen();
    let spaces = [Space::new("blue"), Space::new("red")];
    for _round in 0..4 {
        let start = Barrier::new(2);
        let race = |space: &Space| {
            let request = request(space.target());
            let mut linux = bench.linux();
            start.wait();
            bench.engine(&mut linux, &Uninterrupted).attach(&request)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let race = &race;
            let threads = spaces
                .each_ref()
                .map(|space| scope.spawn(move || race(space)));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let lost: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
        assert_eq!(lost.len(), 1, "{results:?}");
        assert_eq!(lost[0].code().as_str(), "vf-in-use");
        bench.detach(vf0()).unwrap();
        check_same(&bench.seen(), &before, "");
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_name_that_is_taken_spares_both_interfaces() {
    let bench = Bench::new();
    let before = bench.seen();
    let blue = Space::new("blue");
    ip(&["-n", "blue", "link", "add", "net1", "type", "dummy"]);
    let error = bench.attach(&request(blue.target())).unwrap_err();
    assert_eq!(error.code().as_str(), "interface-name-taken");
    check_same(&bench.seen(), &before, "");
    assert!(blue.show().contains("net1"));
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_vf_comes_home_although_its_name_is_taken_there() {
    let bench = Bench::new();
    let name = bench.vf(0).netdev_name().unwrap().clone();
    let blue = Space::new("blue");
    bench.attach(&request(blue.target())).unwrap();
    ip(&["link", "add", name.as_str(), "type", "dummy"]);
    let detached = bench.detach(vf0());
    let home = bench.vf(0);
    ip(&["link", "del", name.as_str()]);
    detached.unwrap();
    assert_eq!(home.netdev().unwrap().netns, Netns::Host);
    assert_eq!(home.netdev_name().unwrap().as_str(), "vf00180");
}

#[test]
#[ignore = "needs the lab's igb"]
fn an_alternative_name_does_not_stand_in_the_way() {
    let bench = Bench::new();
    let name = bench.vf(0).netdev_name().unwrap().clone();
    ip(&[
        "link",
        "property",
        "add",
        "dev",
        name.as_str(),
        "altname",
        "net1",
    ]);
    let blue = Space::new("blue");
    bench.attach(&request(blue.target())).unwrap();
    bench.detach(vf0()).unwrap();
    assert_eq!(bench.vf(0).netdev_name(), Some(&name));
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_vf_that_its_holder_put_on_vfio_comes_home() {
    let bench = Bench::new();
    let before = bench.seen();
    let blue = Space::new("blue");
    bench.attach(&request(blue.target())).unwrap();
    let take = Step::Bind {
        function: vf0(),
        to: BindTarget::Driver("vfio-pci".parse().unwrap()),
    };
    bench.linux().perform(&take).unwrap();
    bench.detach(vf0()).unwrap();
    let (now, then) = (bench.vf(0), before.get(vf0()).unwrap().clone());
    assert_eq!(now.driver, then.driver);
    assert_eq!(now.vf(), then.vf());
    assert_eq!(now.netdev_name(), then.netdev_name());
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_setting_that_the_driver_lacks_names_it_and_changes_nothing() {
    let bench = Bench::new();
    let before = bench.seen();
    let link = Step::SetVf {
        pf: pf(),
        vf: VfIndex(0),
        attr: VfAttr::Link(model::LinkPolicy::Enable),
    };
    let error = bench.linux().perform(&link).unwrap_err();
    assert_eq!(error.code.as_str(), "not-supported");
    let remedy = error.remedy.unwrap();
    assert!(remedy.contains("driver igb has no link state"), "{remedy}");
    check_same(&bench.seen(), &before, "");
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_policy_becomes_true_and_a_second_run_does_nothing() {
    let bench = Bench::new();
    let decide = |seen: &Inventory| {
        let known = policy::Circumstances::default();
        Ok(policy::decide(seen, &desired(), &known))
    };
    let open = || Ok(bench.linux());
    let apply = || host::apply(bench.context(), &open, &decide, None, &mut |_| {}).unwrap();
    let applied = apply();
    assert!(applied.is_complete(), "{applied:#?}");
    let driver = |index| bench.vf(index).driver.unwrap().to_string();
    let drivers = [0, 1, 2].map(driver);
    assert_eq!(drivers, ["igbvf", "igbvf", "vfio-pci"]);
    assert!(apply().pfs.is_empty(), "the second run did something");
    bench.context().owned.disown(pf()).unwrap();
}

impl Bench {
    fn context(&self) -> ApplyContext<'_> {
        ApplyContext {
            state: &self.state,
            ledger: &self.ledger,
            owned: PfLedger::new(&self.root, &self.state),
            boot: &self.boot,
            ground: &self.root,
            checkpoints: &Uninterrupted,
            patience: Duration::from_secs(1),
        }
    }
}

/// Three VFs, the last one on vfio-pci.
fn desired() -> Desired {
    let group = |first, last, driver| VfGroup {
        resource: "r".to_owned(),
        policy: "p".to_owned(),
        range: VfRange::new(first, last).unwrap(),
        driver,
        mtu: None,
        is_rdma: false,
        vdpa: None,
    };
    let wanted = PfDesired {
        pf: pf(),
        name: None,
        num_vfs: 3,
        mtu: None,
        link_type: None,
        eswitch: None,
        externally_managed: false,
        groups: vec![
            group(0, 1, VfDriver::Kernel),
            group(2, 2, VfDriver::Named("vfio-pci".parse().unwrap())),
        ],
    };
    Desired {
        pfs: BTreeMap::from([(pf(), wanted)]),
        ..Desired::default()
    }
}
