//! Booting machines together, and ending them together.

use std::ops::Index;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::assets::{Assets, Choice};
use crate::bundle;
use crate::disk;
use crate::hub;
use crate::machine::qemu::{self, Place};
use crate::machine::{Channel, KillSwitch, Log, Machine, Process};
use crate::proto::{Config, Frame, Kind};
use crate::topology::{MAX_MACHINES, MAX_NICS, Nic, Topology};

/// Running machines, joined NIC by NIC.
///
/// They die with this value; and with this process, should it be killed. Only a static value
/// gets no chance to be dropped, and needs none: the end of the process is enough.
#[derive(Debug)]
pub struct Lab {
    machines: Vec<Machine>,
    assets: Assets,
    kvm: bool,
}

/// How to boot, for those who care.
pub struct Boot<'a> {
    /// Which QEMU and kernel.
    pub choice: Choice,
    /// Gets a line for each slow step.
    pub say: &'a (dyn Fn(&str) + Sync),
    /// Kills all machines from elsewhere.
    pub kill: KillSwitch,
    /// Directory that gets a copy of the serial logs.
    pub logs: Option<PathBuf>,
    /// Whether files on the host stay as they are while the machines run. Otherwise what a
    /// machine knows of them is forgotten before each command, which takes time.
    pub host_is_still: bool,
}

impl Default for Boot<'_> {
    fn default() -> Self {
        Self {
            choice: Choice::from_env(),
            say: &|_| {},
            kill: KillSwitch::default(),
            logs: None,
            host_is_still: true,
        }
    }
}

impl Lab {
    /// Boots machines; fetches what the lab needs first, when it is not there yet.
    pub fn boot(topology: &Topology) -> Result<Self> {
        Boot::default().boot(topology)
    }

    /// All machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// What they booted from.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Whether the processor runs them, instead of emulation.
    pub fn is_accelerated(&self) -> bool {
        self.kvm
    }

    /// Powers the machines off, and waits until they are.
    pub fn power_off(self) {
        self.machines.iter().for_each(Machine::ask_off);
        self.machines.iter().for_each(Machine::await_off);
    }

    /// Waits until the machines have powered off by themselves, as after `systemctl reboot`: then
    /// their disks may be used by others.
    pub fn await_off(self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        for machine in &self.machines {
            machine.await_own_end(deadline)?;
        }
        Ok(())
    }

    /// Collects logs and state of all machines into a directory for humans, and returns it.
    pub fn bundle(&self, why: &str) -> Result<PathBuf> {
        bundle::collect(&self.assets.cache, why, &self.machines)
    }

    /// The same of one of them.
    pub fn bundle_of(&self, machine: &Machine, why: &str) -> Result<PathBuf> {
        bundle::collect(&self.assets.cache, why, std::slice::from_ref(machine))
    }
}

impl Index<usize> for Lab {
    type Output = Machine;

    fn index(&self, index: usize) -> &Machine {
        &self.machines[index]
    }
}

impl Boot<'_> {
    /// Boots machines, all at the same time.
    pub fn boot(&self, topology: &Topology) -> Result<Lab> {
        check(topology)?;
        let assets = Assets::ready(&self.choice, topology, self.say)?;
        let kvm = assets.kvm_works(self.say);
        let machines = self.machines(topology, &assets, kvm)?;
        Ok(Lab {
            machines,
            assets,
            kvm,
        })
    }

    /// All machines or none: those that did boot have lost their wire to the one that did not.
    fn machines(&self, topology: &Topology, assets: &Assets, kvm: bool) -> Result<Vec<Machine>> {
        let deadline = Instant::now() + topology.boot_timeout;
        let wires = hub::wires(topology)?;
        thread::scope(|scope| {
            let boot = |(index, wires)| {
                scope.spawn(move || self.machine(topology, assets, kvm, index, wires, deadline))
            };
            let boots: Vec<_> = wires.into_iter().enumerate().map(boot).collect();
            // Joined in order, and all of them: a failure must not leave the others half started.
            let results: Vec<_> = boots.into_iter().map(|boot| boot.join()).collect();
            let died = |_| Err(anyhow!("a thread that boots a machine died"));
            results
                .into_iter()
                .map(|result| result.unwrap_or_else(died))
                .collect()
        })
    }

    fn machine(
        &self,
        topology: &Topology,
        assets: &Assets,
        kvm: bool,
        index: usize,
        wires: Vec<Option<OwnedFd>>,
        deadline: Instant,
    ) -> Result<Machine> {
        let name = format!("lab{index}");
        let disk = topology.keep.as_ref();
        let disk = disk.map(|dir| disk::ready(dir, &name)).transpose()?;
        let (ours, theirs) = UnixStream::pair().context("make a channel")?;
        let theirs = OwnedFd::from(theirs);
        let place = Place {
            index,
            channel: &theirs,
            wires: &wires,
            disk: disk.as_deref(),
            kvm,
        };
        let mut command = Command::new(&assets.leash);
        command
            .arg("leash")
            .arg(std::process::id().to_string())
            .arg(&assets.qemu.program);
        command
            .args(qemu::args(topology, assets, &place))
            .env("LC_ALL", "C");
        if let Some(libraries) = assets.qemu.library_path() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let copy = self
            .logs
            .as_ref()
            .map(|dir| dir.join(format!("{name}.serial.log")));
        let copy = copy.map(|path| {
            std::fs::File::create(&path).with_context(|| format!("write {}", path.display()))
        });
        let serial = Log::with_copy(copy.transpose()?);
        let inherited = wires.into_iter().flatten().chain([theirs]).collect();
        let process = Process::start(&name, command, inherited, serial.clone(), &self.kill)?;
        let errors = process.errors().clone();
        let channel = Channel::new(ours, &name)?;
        let config = Config {
            hostname: name.clone(),
            modules: path_text(&assets.kernel.modules)?,
            tools: assets.tools.is_some(),
            services: assets.services.is_some(),
            load: modules(topology),
            forget: !self.host_is_still,
            keep: topology.keep.is_some(),
            systemd: topology.systemd,
        };
        let config = Frame::new(Kind::Config, 0, config.encode());
        Machine::await_boot(&name, process, channel, &config, deadline).map_err(|error| {
            if self.kill.is_thrown() {
                return error;
            }
            match bundle::boot_failure(
                &assets.cache,
                &format!("{error:#}"),
                &name,
                &serial,
                &errors,
            ) {
                Ok(dir) => anyhow!("{error:#}\nwhole logs are in {}", dir.display()),
                Err(lost) => anyhow!("{error:#}\nthe logs could not be kept: {lost:#}"),
            }
        })
    }
}

fn check(topology: &Topology) -> Result<()> {
    let Topology {
        machines,
        nics,
        memory_mib,
        cpus,
        nvme_vfs,
        ..
    } = topology;
    ensure!(
        (1..=MAX_MACHINES).contains(machines),
        "{machines} machines: a lab has 1 to {MAX_MACHINES}"
    );
    ensure!(
        nics.len() <= MAX_NICS,
        "{} NICs: a machine has at most {MAX_NICS}",
        nics.len()
    );
    ensure!(
        *memory_mib >= 256,
        "{memory_mib} MiB of memory: a machine needs at least 256"
    );
    ensure!(
        (1..=16).contains(cpus),
        "{cpus} processors: a machine has 1 to 16"
    );
    ensure!(
        nvme_vfs.is_none_or(|vfs| (1..=32).contains(&vfs)),
        "an NVMe controller has 1 to 32 VFs"
    );
    Ok(())
}

fn modules(topology: &Topology) -> Vec<String> {
    let mut modules = Vec::new();
    if topology
        .nics
        .iter()
        .any(|nic| matches!(nic, Nic::Igb { .. }))
    {
        modules.extend(["igb", "igbvf", "vfio-pci", "vfio_iommu_type1"]);
    }
    if topology.nics.contains(&Nic::User) {
        modules.push("virtio_net");
    }
    if topology.nvme_vfs.is_some() {
        modules.extend(["nvme", "vfio-pci", "vfio_iommu_type1"]);
    }
    modules.into_iter().map(str::to_owned).collect()
}

fn path_text(path: &std::path::Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
