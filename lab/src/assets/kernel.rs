//! The kernel and its modules: Debian's stock kernel, or one that the caller names.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::apt::Apt;
use super::{Cache, Choice, on_host, tools};

/// Tree in the cache.
pub(crate) const NAME: &str = "kernel";
const META: &str = "linux-image-amd64";
const HINT: &str = "name a kernel with --kernel IMAGE --modules DIR \
                    (DIR is its /lib/modules/VERSION, with igb, igbvf, 9p, 9pnet_virtio and overlay)";

/// A kernel to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// Its modules: the directory that holds `modules.dep`.
    pub modules: PathBuf,
}

/// Finds or fetches the kernel. The tools must be there: they hold `depmod`.
pub(crate) fn find(choice: &Choice, cache: &Cache, apt: &mut Apt<'_>) -> Result<Kernel> {
    match (&choice.kernel, &choice.modules) {
        (Some(image), Some(modules)) => return named(image, modules),
        (None, None) => {}
        _ => bail!("--kernel and --modules belong together: {HINT}"),
    }
    let root = cache.path(NAME);
    if let Some(version) = cache.whole(NAME) {
        return Ok(in_tree(&root, &version));
    }
    if !Apt::usable() {
        return installed()
            .with_context(|| format!("no kernel: none below /boot can be read; {HINT}"));
    }
    let suite = Apt::suite_for_lab();
    let packages = apt.dependencies(META, suite)?;
    let package = packages
        .iter()
        .find(|name| name.starts_with("linux-image-"));
    let package = package.with_context(|| format!("{META} depends on no kernel package"))?;
    let version = package.trim_start_matches("linux-image-").to_owned();
    apt.say(&format!(
        "fetching the kernel {version} (not installed, only unpacked)"
    ));
    cache
        .make(NAME, &version, |root| {
            apt.unpack_alone(package, suite, root)?;
            depmod(cache, root, &version)
        })
        .with_context(|| format!("get the kernel package {package}"))?;
    Ok(in_tree(&root, &version))
}

fn named(image: &Path, modules: &Path) -> Result<Kernel> {
    fs::File::open(image).with_context(|| format!("open the kernel {}", image.display()))?;
    let modules = modules
        .canonicalize()
        .with_context(|| format!("find the modules {}", modules.display()))?;
    ensure!(
        modules.join("modules.dep").exists(),
        "{} holds no modules.dep; {HINT}",
        modules.display()
    );
    Ok(Kernel {
        image: image.to_owned(),
        modules,
    })
}

fn in_tree(root: &Path, version: &str) -> Kernel {
    Kernel {
        image: root.join(format!("boot/vmlinuz-{version}")),
        modules: root.join("lib/modules").join(version),
    }
}

/// The newest kernel installed on the host with its modules.
fn installed() -> Option<Kernel> {
    let mut names: Vec<_> = fs::read_dir("/lib/modules")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    names.sort();
    names.into_iter().rev().find_map(|modules| {
        let version = modules.file_name()?.to_str()?;
        let images = [
            PathBuf::from(format!("/boot/vmlinuz-{version}")),
            modules.join("vmlinuz"),
        ];
        images
            .into_iter()
            .find_map(|image| named(&image, &modules).ok())
    })
}

/// Writes the dependency files, which Debian's package makes only when it is installed.
fn depmod(cache: &Cache, root: &Path, version: &str) -> Result<()> {
    let unpacked = cache.path(tools::NAME).join("usr/bin/kmod");
    let (program, name) = match on_host("depmod") {
        Some(depmod) => (depmod.clone(), depmod),
        // kmod does what its name says.
        None if unpacked.exists() => (unpacked, "depmod".into()),
        None => (cache.path(tools::NAME).join("bin/kmod"), "depmod".into()),
    };
    let output = Command::new(&program)
        .arg0(&name)
        .arg("-b")
        .arg(root)
        .arg(version)
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    ensure!(
        output.status.success(),
        "depmod: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
