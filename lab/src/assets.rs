//! What a machine is made of: QEMU, a kernel with its modules, and tools that the host lacks.
//!
//! Everything is found once, kept in one [`Cache`] and checked before each use. The order is:
//! what the caller names, what the cache holds, what the host has, what the host's Debian mirror
//! offers. The host itself is never changed: packages are unpacked into the cache and run there.

mod apt;
mod cache;
mod initramfs;
mod kernel;
mod kvm;
mod qemu;
mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::topology::Topology;

pub(crate) use cache::{Cache, write_atomic};
pub(crate) use initramfs::initramfs;
pub use kernel::Kernel;
pub use qemu::Qemu;

/// The init of a machine; on the host it serves as a leash for child processes.
pub(crate) static INIT: &[u8] = include_bytes!(env!("LAB_INIT"));

/// Paths that the caller chose; `None` leaves the choice to the lab.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// QEMU for x86-64, with the `igb` device.
    pub qemu: Option<PathBuf>,
    /// Kernel image.
    pub kernel: Option<PathBuf>,
    /// The kernel's module tree, the directory that holds `modules.dep`.
    pub modules: Option<PathBuf>,
}

impl Choice {
    /// Reads `VIRTFN_LAB_QEMU`, `VIRTFN_LAB_KERNEL` and `VIRTFN_LAB_MODULES`.
    pub fn from_env() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            qemu: path("VIRTFN_LAB_QEMU"),
            kernel: path("VIRTFN_LAB_KERNEL"),
            modules: path("VIRTFN_LAB_MODULES"),
        }
    }
}

/// Everything that machines boot from.
#[derive(Clone, Debug)]
pub struct Assets {
    /// The emulator.
    pub qemu: Qemu,
    /// The kernel.
    pub kernel: Kernel,
    /// Tree of tools to lay under the host's files.
    pub tools: Option<PathBuf>,
    /// Tree of what systemd as process 1 takes, to lay under those.
    pub services: Option<PathBuf>,
    /// Program that keeps a child process from outliving this one.
    pub(crate) leash: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) cache: Cache,
}

impl Assets {
    /// Finds everything that machines of `topology` take, fetching what is missing; `say` gets a line
    /// for each slow step.
    pub fn ready(choice: &Choice, topology: &Topology, say: &dyn Fn(&str)) -> Result<Self> {
        let cache = Cache::open()?;
        let leash = leash(&cache)?;
        let _lock = cache.lock(say)?;
        let mut apt = apt::Apt::new(&cache, &leash, say);
        let qemu = qemu::find(choice, &cache, &mut apt)?;
        let tools = tools::find(&cache, &mut apt, say)?;
        let services = if topology.systemd {
            tools::services(&cache, &mut apt, say)?
        } else {
            None
        };
        let kernel = kernel::find(choice, &cache, &mut apt)?;
        apt.clean();
        let initramfs = initramfs(&cache, &kernel)?;
        cache.forget_old(&["initramfs-", "leash-"], &[&initramfs, &leash]);
        Ok(Self {
            qemu,
            kernel,
            tools,
            services,
            leash,
            initramfs,
            cache,
        })
    }

    /// Finds or fetches the container engines of the host's Debian: containerd, runc and podman. `None`
    /// when the host has them itself.
    ///
    /// They are not part of every machine, because they are large and few want them: the tree is
    /// seen inside machines where it is on the host, and whoever wants it lays it over `/usr`.
    pub fn container_engines(say: &dyn Fn(&str)) -> Result<Option<PathBuf>> {
        let cache = Cache::open()?;
        let leash = leash(&cache)?;
        let _lock = cache.lock(say)?;
        let mut apt = apt::Apt::new(&cache, &leash, say);
        let engines = tools::engines(&cache, &mut apt, say)?;
        apt.clean();
        Ok(engines)
    }

    /// Reads every file of the cache and drops what is damaged, so that [`Assets::ready`] redoes it.
    pub fn check_content(say: &dyn Fn(&str)) -> Result<()> {
        let cache = Cache::open()?;
        let _lock = cache.lock(say)?;
        for name in [
            qemu::NAME,
            tools::NAME,
            tools::SERVICES,
            tools::ENGINES,
            kernel::NAME,
        ] {
            cache.check_content(name, say)?;
        }
        Ok(())
    }
}

fn leash(cache: &Cache) -> Result<PathBuf> {
    let path = cache.path(&format!("leash-{:016x}", cache::fingerprint(&[INIT])));
    if !path.exists() {
        write_atomic(&path, INIT, 0o755).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(path)
}

/// Value of `key` in the host's os-release.
fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches('"').to_owned())
}

/// Whether a program is on the host's PATH, or where root would have it.
pub(crate) fn on_host(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
