//! The first file system of a machine: our init and the modules it needs to see the host.
//!
//! Written by hand as a newc archive, so that it needs neither root nor host tools, and the same
//! inputs give the same bytes. Not compressed, and neither are the modules: QEMU loads bytes for
//! nothing, and an emulated processor pays for every bit it has to unpack.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::cache::{Cache, fingerprint, write_atomic};
use super::{INIT, Kernel};

/// Modules without which no machine boots.
const NEEDED: [&str; 3] = ["9p", "9pnet_virtio", "overlay"];

/// Drivers of the devices that a machine may have; the last three are for a disk that is kept. ext4
/// asks for `crc32c` by an alias, which no dependency names; later kernels have it built in.
const DRIVERS: [&str; 9] = [
    "igb",
    "igbvf",
    "nvme",
    "vfio-pci",
    "vfio_iommu_type1",
    "virtio_net",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
];

/// Finds or builds the initramfs for a kernel.
pub(crate) fn initramfs(cache: &Cache, kernel: &Kernel) -> Result<PathBuf> {
    let dep = read(&kernel.modules.join("modules.dep"))?;
    let key = fingerprint(&[INIT, &dep, kernel.modules.as_os_str().as_encoded_bytes()]);
    let path = cache.path(&format!("initramfs-{key:016x}.cpio"));
    if !path.exists() {
        let doing = || format!("build {}", path.display());
        write_atomic(
            &path,
            &build(INIT, &kernel.modules).with_context(doing)?,
            0o644,
        )
        .with_context(doing)?;
    }
    Ok(path)
}

fn build(init: &[u8], modules: &Path) -> Result<Vec<u8>> {
    let dep = Dependencies::read(modules)?;
    let mut order = String::new();
    let mut files = BTreeSet::new();
    for name in NEEDED.iter().chain(&DRIVERS) {
        let Some(paths) = dep.load_order(name) else {
            ensure!(
                !NEEDED.contains(name),
                "the kernel of {} has no module {name}",
                modules.display()
            );
            continue;
        };
        let names: Vec<String> = paths.iter().map(|path| stem(path)).collect();
        order.push_str(&format!("{name}: {}\n", names.join(" ")));
        files.extend(paths);
    }
    let mut archive = Archive::default();
    for dir in [
        "dev", "proc", "sys", "modules", "root", "rw", "host", "tools", "services",
    ] {
        archive.add(dir, 0o040_755, (0, 0), &[]);
    }
    // The kernel opens it as the standard streams of init before init can mount /dev.
    archive.add("dev/console", 0o020_600, (5, 1), &[]);
    archive.add("init", 0o100_755, (0, 0), init);
    archive.add("modules/order", 0o100_644, (0, 0), order.as_bytes());
    for path in files {
        archive.add(
            &format!("modules/{}", stem(&path)),
            0o100_644,
            (0, 0),
            &module(&modules.join(&path))?,
        );
    }
    Ok(archive.finish())
}

/// What `modules.dep` and `modules.builtin` say, by module name.
struct Dependencies {
    loadable: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Dependencies {
    fn read(modules: &Path) -> Result<Self> {
        let dep = String::from_utf8(read(&modules.join("modules.dep"))?)
            .context("modules.dep is not text")?;
        let builtin = fs::read_to_string(modules.join("modules.builtin")).unwrap_or_default();
        Ok(Self::parse(&dep, &builtin))
    }

    fn parse(dep: &str, builtin: &str) -> Self {
        let line = |line: &str| {
            let (module, needs) = line.split_once(':')?;
            // Last comes first: a module's own line lists the nearest dependency first.
            let paths = needs
                .split_whitespace()
                .rev()
                .chain([module])
                .map(str::to_owned)
                .collect();
            Some((name_of(module), paths))
        };
        Self {
            loadable: dep.lines().filter_map(line).collect(),
            builtin: builtin.lines().map(name_of).collect(),
        }
    }

    /// Files to load for a module, in order; none for one that is built in.
    fn load_order(&self, name: &str) -> Option<Vec<String>> {
        let name = name.replace('-', "_");
        let built_in = || self.builtin.contains(&name).then(Vec::new);
        self.loadable.get(&name).cloned().or_else(built_in)
    }
}

/// `kernel/fs/9p/9p.ko.xz` is named `9p`; dashes and underscores are the same.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn stem(path: &str) -> String {
    format!("{}.ko", name_of(path))
}

fn module(path: &Path) -> Result<Vec<u8>> {
    let bytes = read(path)?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(bytes),
        Some("xz") => {
            let mut image = Vec::new();
            let unpacked = liblzma::read::XzDecoder::new(bytes.as_slice()).read_to_end(&mut image);
            unpacked.with_context(|| format!("decompress {}", path.display()))?;
            Ok(image)
        }
        _ => bail!(
            "{} is compressed in a way this lab cannot read (plain and xz it can)",
            path.display()
        ),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// A newc archive in the making: no times, no owners, inode numbers by position.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size(content.len()),
            0,
            0,
            device.0,
            device.1,
            size(name.len() + 1),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
                       kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko\n\
                       kernel/net/9p/9pnet.ko:\nkernel/fs/netfs/netfs.ko:\n\
                       kernel/drivers/vfio/pci/vfio-pci.ko: kernel/drivers/vfio/vfio.ko\n\
                       kernel/drivers/vfio/vfio.ko:\n";

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("modules.dep"), DEP).unwrap();
        fs::write(
            dir.path().join("modules.builtin"),
            "kernel/fs/overlayfs/overlay.ko\n",
        )
        .unwrap();
        for line in DEP.lines() {
            let path = dir.path().join(line.split(':').next().unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name_of(line)).unwrap();
        }
        dir
    }

    #[test]
    fn dependencies_come_first() {
        let dep = Dependencies::parse(DEP, "kernel/fs/overlayfs/overlay.ko\n");
        let names = |name: &str| {
            dep.load_order(name)
                .map(|paths| paths.iter().map(|path| name_of(path)).collect())
        };
        assert_eq!(
            names("9p"),
            Some(vec![
                "netfs".to_owned(),
                "9pnet".to_owned(),
                "9p".to_owned()
            ])
        );
        assert_eq!(
            names("vfio-pci"),
            Some(vec!["vfio".to_owned(), "vfio_pci".to_owned()])
        );
        assert_eq!(names("overlay"), Some(vec![]));
        assert_eq!(names("igb"), None);
    }

    #[test]
    fn same_inputs_give_the_same_bytes() {
        let (one, two) = (
            build(b"init", tree().path()).unwrap(),
            build(b"init", tree().path()).unwrap(),
        );
        assert!(one == two, "two builds differ");
        assert!(
            one != build(b"tini", tree().path()).unwrap(),
            "the init is not in it"
        );
    }

    #[test]
    fn archive_is_what_the_kernel_reads() {
        let bytes = build(b"init", tree().path()).unwrap();
        let mut reader = cpio_names(&bytes);
        reader.sort();
        assert!(
            reader.contains(&"init".to_owned()) && reader.contains(&"modules/9p.ko".to_owned()),
            "{reader:?}"
        );
    }

    /// Walks the archive as the kernel's `init/initramfs.c` does.
    fn cpio_names(mut bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let field = |at: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * at..14 + 8 * at]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (size, name_size) = (field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return names;
            }
            names.push(name);
            bytes = &bytes[(110 + name_size).next_multiple_of(4) + size.next_multiple_of(4)..];
        }
    }
}
