//! A machine that is played, with an IPAM plugin that writes down how it was called.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::cni::{Environment, ErrorObject};
use fixtures::{FakeHost, igb, inventory, parsed};
use host::netns::NetnsError;
use host::{Addressing, BootId, Checkpoint, Checkpoints, FoundInterface, Ground, StateDir};
use model::{DriverName, Host, IfName, Inventory, Netns, NetnsTarget, PciAddress, Step, StepError};
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::failure::Failure;
use crate::place::{Machine, Place};
use crate::plugin::Plugin;
use crate::serve;
use crate::upstream::UpstreamFiles;

pub(crate) const PF: &str = "0000:01:00.0";
pub(crate) const VF: &str = "0000:01:10.0";
const KILLED: &str = "killed at a checkpoint";

/// What lasts longer than a call.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: FakeHost,
    pub(crate) boot: &'static str,
    pub(crate) booted_at: u64,
    netns: BTreeMap<String, NetnsTarget>,
    pub(crate) addressed: Vec<(IfName, Addressing)>,
    pub(crate) fails_to_address: bool,
}

/// The machine during one call.
pub(crate) struct Played {
    host: FakeHost,
    ground: Known,
    netns: BTreeMap<String, NetnsTarget>,
    addressed: RefCell<Vec<(IfName, Addressing)>>,
    fails_to_address: bool,
    booted_at: u64,
}

struct Known(BTreeSet<u64>);

impl Ground for Known {
    fn pf_of(&self, vf: PciAddress) -> Option<PciAddress> {
        (vf.to_string() != PF).then(|| parsed(PF))
    }

    fn can_have(&self, target: &NetnsTarget, _vf: PciAddress) -> bool {
        match target {
            NetnsTarget::Host => true,
            NetnsTarget::Path { inode, .. } => self.0.contains(inode),
        }
    }
}

impl Machine for Played {
    type Host = FakeHost;

    fn parts(&mut self) -> (&mut FakeHost, &dyn Ground) {
        (&mut self.host, &self.ground)
    }

    fn driver_of(&self, function: PciAddress) -> Option<DriverName> {
        self.host.inventory().get(function)?.driver.clone()
    }

    fn netns(&self, path: &str) -> Result<NetnsTarget, NetnsError> {
        if path == "/proc/self/ns/net" {
            return Ok(NetnsTarget::Host);
        }
        let found = self.netns.get(path).cloned();
        found.ok_or_else(|| NetnsError::Open {
            path: path.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    fn address(
        &self,
        _vf: PciAddress,
        _netns: &NetnsTarget,
        name: &IfName,
        wanted: &Addressing,
    ) -> Result<(), StepError> {
        if self.fails_to_address {
            return Err(StepError {
                object: "VF".to_owned(),
                attempt: "give it addresses".to_owned(),
                source: None,
                code: model::Code::new("duplicate-address"),
                remedy: None,
            });
        }
        let mut addressed = self.addressed.borrow_mut();
        addressed.push((name.clone(), wanted.clone()));
        Ok(())
    }

    fn look(
        &self,
        netns: &NetnsTarget,
        name: &IfName,
    ) -> Result<Option<FoundInterface>, StepError> {
        let seen = self.host.inventory();
        let mut all = seen.functions.values();
        let inode = |netns: &Netns| match netns {
            Netns::Host => None,
            Netns::Other { inode, .. } => Some(*inode),
        };
        Ok(all.find_map(|function| {
            let netdev = function.netdev()?;
            let is_there = inode(&netdev.netns) == inode(&netns.netns());
            let is_it = is_there && netdev.name == *name;
            let addressed = self.addressed.borrow();
            let addresses = addressed.iter().filter(|(of, _)| of == name);
            is_it.then(|| FoundInterface {
                function: Some(function.address),
                is_up: netdev.admin_up,
                mac: netdev.mac(),
                addresses: addresses
                    .flat_map(|(_, has)| has.addresses.clone())
                    .collect(),
            })
        }))
    }

    fn auxiliary_rdma(&self, device: &str) -> Option<(PciAddress, Vec<String>)> {
        (device == "mlx5_core.sf.4").then(|| {
            let at_home = self.host.rdma_netns("mlx5_sf4").is_none();
            let devices = at_home.then(|| "mlx5_sf4".to_owned());
            (parsed(PF), devices.into_iter().collect())
        })
    }

    fn booted_at(&self) -> Option<u64> {
        Some(self.booted_at)
    }
}

struct DiesAt(AtomicUsize);

impl Checkpoints for DiesAt {
    fn passed(&self, _at: Checkpoint) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::panic::panic_any(KILLED);
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(inventory([igb(PF, "ens1f0").with_vfs(2)]))
    }

    /// A world in which the PF is one of InfiniBand, and RDMA devices are in one namespace each.
    pub(crate) fn infiniband() -> Self {
        let pf = fixtures::mlx5(PF, "ib0").with_vfs(2).netdev(|netdev| {
            netdev.link_type = model::LinkType::InfiniBand;
        });
        let mut seen = inventory([pf
            .facts(|facts| facts.offset = Some(128))
            .facts(|facts| facts.stride = Some(2))]);
        seen.rdma_netns = Some(model::RdmaNetnsMode::Exclusive);
        Self::on(seen)
    }

    pub(crate) fn on(seen: Inventory) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut host = FakeHost::new(seen);
        let mut netns = BTreeMap::new();
        for name in ["blue", "red"] {
            let made = host.add_netns(name);
            netns.insert(format!("/run/netns/{name}"), made);
        }
        let world = Self {
            dir,
            host,
            boot: "boot-1",
            booted_at: 0,
            netns,
            addressed: Vec::new(),
            fails_to_address: false,
        };
        world.install_ipam(
            r#"{"cniVersion":"1.0.0","ips":[{"address":"192.0.2.7/24","gateway":"192.0.2.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#,
            0,
        );
        world
    }

    /// Installs the IPAM plugin: what it prints, and how it ends.
    pub(crate) fn install_ipam(&self, answer: &str, status: u8) {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let log = self.dir.path().join("ipam.log");
        let script = format!(
            "#!/bin/sh\ncat >/dev/null\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS\" >>{}\n[ $CNI_COMMAND = ADD ] || exit 0\necho '{answer}'\nexit {status}\n",
            log.display()
        );
        let path = bin.join("test-ipam");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns how the IPAM plugin was called, and forgets it.
    pub(crate) fn ipam_calls(&self) -> Vec<String> {
        let log = self.dir.path().join("ipam.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _none_is_fine = fs::remove_file(&log);
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    pub(crate) fn files(&self) -> UpstreamFiles {
        let dir = self.dir.path();
        UpstreamFiles::at(&dir.join("cni"), &dir.join("run/cni"))
    }

    pub(crate) fn netns_target(&self, path: &str) -> NetnsTarget {
        self.netns[path].clone()
    }

    /// Does what every plugin does at last: moves the VF into a namespace as `net1`, and sets it up.
    pub(crate) fn hand_over(&mut self, netns: NetnsTarget) {
        let function = parsed(VF);
        self.host.perform_all(&[Step::Move {
            function,
            from: NetnsTarget::Host,
            to: netns,
            name: parsed("net1"),
            up: true,
        }]);
    }

    pub(crate) fn vf_netdev(&self) -> model::Netdev {
        let seen = self.host.inventory();
        seen.get(parsed(VF)).unwrap().netdev().unwrap().clone()
    }

    pub(crate) fn destroy(&mut self, path: &str) {
        let netns = self.netns.remove(path).unwrap();
        self.host.remove_netns(&netns);
    }

    /// Takes its path from a namespace that lives on, in a process.
    pub(crate) fn lose_path(&mut self, path: &str) {
        let netns = self.netns.remove(path).unwrap();
        self.host.rename_netns(&netns, "/proc/4711/ns/net");
    }

    /// Gives a namespace a second path.
    pub(crate) fn also_at(&mut self, path: &str, other: &str) {
        let NetnsTarget::Path { inode, .. } = self.netns[path] else {
            panic!("{path} is the host's");
        };
        let path = other.to_owned();
        self.netns
            .insert(path.clone(), NetnsTarget::Path { path, inode });
    }

    pub(crate) fn revive(&mut self, name: &str) {
        let netns = self.host.add_netns(name);
        self.netns.insert(format!("/run/netns/{name}"), netns);
    }

    pub(crate) fn call(&self, command: &str, container: &str, netns: &str, config: &Value) -> Call {
        let variables = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_NETNS", netns.to_owned()),
            ("CNI_IFNAME", "net1".to_owned()),
            (
                "CNI_PATH",
                self.dir.path().join("bin").display().to_string(),
            ),
        ];
        let environment = Environment::read(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        });
        let stdin = config.to_string().into_bytes();
        let plugin = config["type"].as_str().unwrap();
        let plugin = Plugin::of(plugin.as_ref()).unwrap();
        Call::new(plugin, environment.unwrap(), stdin).unwrap()
    }

    /// Makes a call that dies at the n-th checkpoint, or never at 0; `None` when it died.
    pub(crate) fn serve_dying(
        &mut self,
        call: &Call,
        nth: usize,
    ) -> Option<Result<Answer, Failure>> {
        let alive = self.netns.values().filter_map(|netns| match netns {
            NetnsTarget::Host => None,
            NetnsTarget::Path { inode, .. } => Some(*inode),
        });
        let played = Played {
            host: std::mem::take(&mut self.host),
            ground: Known(alive.collect()),
            netns: self.netns.clone(),
            addressed: RefCell::new(std::mem::take(&mut self.addressed)),
            fails_to_address: self.fails_to_address,
            booted_at: self.booted_at,
        };
        let place = Mutex::new(Place::new(
            played,
            StateDir::new(self.dir.path().join("lib"), self.dir.path().join("run")),
            BootId::new(self.boot),
            self.files(),
            Box::new(DiesAt(AtomicUsize::new(nth))),
        ));
        let outcome = catch_unwind(AssertUnwindSafe(|| serve(call, &mut place.lock().unwrap())));
        let place = place
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.host = place.machine.host;
        self.addressed = place.machine.addressed.into_inner();
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(panic) if panic.downcast_ref::<&str>() == Some(&KILLED) => None,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    pub(crate) fn serve(&mut self, call: &Call) -> Result<Answer, Failure> {
        self.serve_dying(call, 0).unwrap()
    }

    /// Makes a call that must succeed.
    #[track_caller]
    pub(crate) fn make(
        &mut self,
        command: &str,
        container: &str,
        netns: &str,
        config: &Value,
    ) -> Answer {
        let call = self.call(command, container, netns, config);
        let answer = self.serve(&call);
        answer.map_err(|failure| object(&failure)).unwrap()
    }

    /// Calls ADD for container `c1`, which must succeed, and returns the result.
    #[track_caller]
    pub(crate) fn add(&mut self, config: &Value) -> Value {
        match self.make("ADD", "c1", "/run/netns/blue", config) {
            Answer::Result(text) => serde_json::from_str(&text).unwrap(),
            Answer::Silent => panic!("ADD without a result"),
        }
    }

    #[track_caller]
    pub(crate) fn del(&mut self, config: &Value) {
        self.make("DEL", "c1", "/run/netns/blue", config);
    }

    /// Makes a call that must fail, and returns the error as the runtime sees it.
    #[track_caller]
    pub(crate) fn refused(
        &mut self,
        command: &str,
        container: &str,
        config: &Value,
    ) -> ErrorObject {
        let call = self.call(command, container, "/run/netns/red", config);
        object(&self.serve(&call).unwrap_err())
    }

    /// Returns what must be as before once nobody has the VF. Indices are the kernel's business.
    pub(crate) fn seen(&self) -> Inventory {
        let mut seen = self.host.inventory();
        let netdevs = seen.functions.values_mut().flat_map(|f| &mut f.netdevs);
        netdevs.for_each(|netdev| netdev.index = model::IfIndex::new(1).unwrap());
        seen
    }

    /// Returns the namespace that the VF's netdev is in.
    pub(crate) fn netns_of_vf(&self) -> Netns {
        let seen = self.host.inventory();
        seen.get(parsed(VF))
            .unwrap()
            .netdev()
            .unwrap()
            .netns
            .clone()
    }

    /// Asserts that nothing of a holder is left.
    #[track_caller]
    pub(crate) fn assert_free(&self, before: &Inventory, why: &str) {
        assert_eq!(self.seen(), *before, "{why}");
        let state = StateDir::new(self.dir.path().join("lib"), self.dir.path().join("run"));
        let ledger = host::Ledger::new(state.clone(), BootId::new(self.boot));
        assert_eq!(ledger.holders().by_vf.len(), 0, "{why}");
        assert_eq!(host::Memos::new(state).vfs(), [], "{why}");
        assert_eq!(self.files().all().len(), 0, "{why}");
        assert_eq!(self.files().owner(parsed(VF)), None, "{why}");
    }
}

/// Performs steps that nobody of virtfn performs.
pub(crate) trait PerformAll {
    fn perform_all(&mut self, steps: &[Step]);
}

impl PerformAll for FakeHost {
    fn perform_all(&mut self, steps: &[Step]) {
        for step in steps {
            self.perform(step).unwrap();
        }
    }
}

pub(crate) fn object(failure: &Failure) -> ErrorObject {
    failure.to_object(None, false)
}

/// A configuration with the test's IPAM plugin, and what is added to it.
pub(crate) fn config(more: &Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "blue", "type": "sriov", "deviceID": VF,
        "ipam": {"type": "test-ipam"},
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}
