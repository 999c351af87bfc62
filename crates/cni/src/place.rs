//! Where the plugin works: the machine, virtfn's state on it, and the files of upstream's plugin.
//!
//! The machine is a trait, so that every command can be tried on one that is played.

use host::netns::{self, NetnsError};
use host::{
    AccessError, Addressing, BootId, Checkpoint, Checkpoints, Engine, FoundInterface, Ground,
    HostRoot, Ledger, Linux, Memos, StateDir,
};
use model::{DriverName, Host, IfName, NetnsTarget, PciAddress, StepError};

use crate::failure::Failure;
use crate::upstream::UpstreamFiles;

/// What the plugin needs of a machine.
pub(crate) trait Machine {
    /// Its VFs.
    type Host: Host;

    /// Returns the two parts that an engine needs.
    fn parts(&mut self) -> (&mut Self::Host, &dyn Ground);

    /// Returns the driver that a function is bound to.
    fn driver_of(&self, function: PciAddress) -> Option<DriverName>;

    /// Finds the namespace that a path leads to.
    fn netns(&self, path: &str) -> Result<NetnsTarget, NetnsError>;

    /// Gives an interface its addresses and routes, and tells the neighbours.
    fn address(
        &self,
        vf: PciAddress,
        netns: &NetnsTarget,
        name: &IfName,
        wanted: &Addressing,
    ) -> Result<(), StepError>;

    /// Looks at an interface of a namespace.
    fn look(&self, netns: &NetnsTarget, name: &IfName)
    -> Result<Option<FoundInterface>, StepError>;

    /// Returns the PCI function that a device of the auxiliary bus is part of, and its RDMA devices on
    /// the host; `None` when there is no such device.
    fn auxiliary_rdma(&self, device: &str) -> Option<(PciAddress, Vec<String>)>;

    /// Returns when it was started, in seconds since 1970.
    fn booted_at(&self) -> Option<u64>;
}

/// The machine that this process runs on.
pub(crate) struct ThisMachine {
    root: HostRoot,
    linux: Linux,
}

impl Machine for ThisMachine {
    type Host = Linux;

    fn parts(&mut self) -> (&mut Linux, &dyn Ground) {
        (&mut self.linux, &self.root)
    }

    fn driver_of(&self, function: PciAddress) -> Option<DriverName> {
        let link = format!("/sys/bus/pci/devices/{function}/driver");
        self.root.link_name(&link).ok()?.parse().ok()
    }

    fn netns(&self, path: &str) -> Result<NetnsTarget, NetnsError> {
        netns::find(&self.root, path)
    }

    fn address(
        &self,
        vf: PciAddress,
        netns: &NetnsTarget,
        name: &IfName,
        wanted: &Addressing,
    ) -> Result<(), StepError> {
        host::address(&self.root, vf, netns, name, wanted)
    }

    fn look(
        &self,
        netns: &NetnsTarget,
        name: &IfName,
    ) -> Result<Option<FoundInterface>, StepError> {
        host::look_at_interface(&self.root, netns, name)
    }

    fn auxiliary_rdma(&self, device: &str) -> Option<(PciAddress, Vec<String>)> {
        let dir = format!("/sys/bus/auxiliary/devices/{device}");
        let target = self.root.link_target(&dir).ok()?;
        let function = target.rsplit('/').find_map(|part| part.parse().ok())?;
        let devices = self.root.list(&format!("{dir}/infiniband"));
        Some((function, devices.unwrap_or_default()))
    }

    fn booted_at(&self) -> Option<u64> {
        let stat = self.root.read_text("/proc/stat").ok()?;
        let mut lines = stat.lines();
        lines.find_map(|line| line.strip_prefix("btime ")?.parse().ok())
    }
}

/// A machine and what is kept on it.
pub(crate) struct Place<M> {
    pub(crate) machine: M,
    pub(crate) state: StateDir,
    pub(crate) ledger: Ledger,
    pub(crate) memos: Memos,
    pub(crate) files: UpstreamFiles,
    pub(crate) boot: BootId,
    checkpoints: Box<dyn Checkpoints>,
}

impl Place<ThisMachine> {
    /// Opens the machine that this process runs on.
    pub(crate) fn this_machine() -> Result<Self, Failure> {
        let open = || -> Result<_, AccessError> {
            let root = HostRoot::this_machine()?;
            let boot = BootId::read(&root)?;
            // Without the ledger: the engine reads the one record that matters.
            let linux = Linux::at(root.clone());
            Ok((ThisMachine { root, linux }, boot))
        };
        let (machine, boot) = open().map_err(|error| {
            Failure::new(
                "state-not-accessible",
                format!("{error}: {}", error.source),
                "run the plugin as root, in the host's namespaces",
            )
        })?;
        Ok(Self::new(
            machine,
            StateDir::default(),
            boot,
            UpstreamFiles::default(),
            checkpoints(),
        ))
    }
}

impl<M: Machine> Place<M> {
    pub(crate) fn new(
        machine: M,
        state: StateDir,
        boot: BootId,
        files: UpstreamFiles,
        checkpoints: Box<dyn Checkpoints>,
    ) -> Self {
        Self {
            machine,
            ledger: Ledger::new(state.clone(), boot.clone()),
            boot,
            memos: Memos::new(state.clone()),
            files,
            state,
            checkpoints,
        }
    }

    /// Returns the engine that gives VFs away and takes them back.
    pub(crate) fn engine(&mut self) -> Engine<'_, M::Host> {
        let (host, ground) = self.machine.parts();
        Engine {
            host,
            ground,
            state: &self.state,
            ledger: &self.ledger,
            checkpoints: self.checkpoints.as_ref(),
        }
    }

    /// Passes a checkpoint between two changes of the plugin's own.
    pub(crate) fn passed(&self, at: Checkpoint) {
        self.checkpoints.passed(at);
    }
}

#[cfg(feature = "kill-points")]
fn checkpoints() -> Box<dyn Checkpoints> {
    let nth = std::env::var("VIRTFN_KILL_AT").ok();
    match nth.and_then(|text| text.parse().ok()) {
        Some(nth) if nth > 0 => Box::new(host::KillAt::new(nth)),
        _ => Box::new(host::Uninterrupted),
    }
}

#[cfg(not(feature = "kill-points"))]
fn checkpoints() -> Box<dyn Checkpoints> {
    Box::new(host::Uninterrupted)
}
