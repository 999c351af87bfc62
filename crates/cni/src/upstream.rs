//! The files of upstream's plugins, read and written so that either plugin can take back what the
//! other gave.
//!
//! ```text
//! /var/lib/cni/sriov/<container>-<interface>      the configuration, and what the VF was like before
//! /var/lib/cni/sriov/pci/<VF>                     path of the namespace of whoever has the VF
//! /var/lib/cni/sriov/pci/vf_lock/<VF>.lock        locked while a plugin works on the VF
//! /var/lib/cni/ib-sriov/<container>-<interface>   the same of an InfiniBand VF
//! /var/run/cni/ib-sriov/cni.lock                  locked while upstream's works on any VF
//! /var/lib/cni/rdma/<network>-<container>-<interface>   an RDMA device that was moved
//! ```
//!
//! Those of VFs are not what virtfn relies on for its own: that is the ledger. So they are written in
//! place, as upstream writes them, and one that cannot be read is as good as none. The file of an RDMA
//! device may be all there is, when another plugin gave the VF; it is replaced in one piece and forced to
//! the disk.

mod rdma;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::cni::{CacheFile as _, IbSriovCache, ParseCacheError, SriovCache};
use host::{Lock, LockError, LockOf, StateError, check_dir, exclusive_at, shared_at};
use model::{Holder, PciAddress};

/// Most bytes of one of these files; a configuration with all fields has less than 2 KiB.
const LIMIT: u64 = 1024 * 1024;

/// The directories of upstream's files.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamFiles {
    sriov: PathBuf,
    infiniband: PathBuf,
    infiniband_lock: PathBuf,
    rdma: PathBuf,
}

/// What upstream's files say of a VF that it gave away.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Who has it.
    pub(crate) holder: Holder,
    /// The file's content.
    pub(crate) kept: Kept,
    /// When it was written, in seconds since 1970.
    pub(crate) written_at: u64,
}

impl Found {
    /// Is it the file of this holder? Its name tells that; where container and interface meet in it
    /// does not always show, and so [`Found::holder`] may be told wrong.
    pub(crate) fn is_of(&self, holder: &Holder) -> bool {
        file_name(&self.holder) == file_name(holder)
    }

    /// Does it tell of this VF?
    pub(crate) fn is_about(&self, vf: PciAddress) -> bool {
        self.kept.device().is_ok_and(|device| device == vf)
    }
}

/// The content of a file, by the plugin that writes such files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Of `sriov`.
    Sriov(SriovCache),
    /// Of `ib-sriov`.
    Infiniband(IbSriovCache),
}

impl Kept {
    /// Returns the VF.
    pub(crate) fn device(&self) -> Result<PciAddress, ParseCacheError> {
        match self {
            Self::Sriov(cache) => cache.device(),
            Self::Infiniband(cache) => cache.device(),
        }
    }

    /// Did virtfn write it?
    pub(crate) fn is_ours(&self) -> bool {
        self.boot().is_some()
    }

    /// Returns the boot in which virtfn wrote it; `None` when upstream's plugin did.
    pub(crate) fn boot(&self) -> Option<&str> {
        match self {
            Self::Sriov(cache) => cache.virtfn_boot.as_deref(),
            Self::Infiniband(cache) => cache.virtfn_boot.as_deref(),
        }
    }
}

impl Default for UpstreamFiles {
    fn default() -> Self {
        Self::at(Path::new("/var/lib/cni"), Path::new("/var/run/cni"))
    }
}

impl UpstreamFiles {
    /// Keeps the files below `lib`, and the lock of all InfiniBand VFs below `run`.
    pub(crate) fn at(lib: &Path, run: &Path) -> Self {
        Self {
            sriov: lib.join("sriov"),
            infiniband: lib.join("ib-sriov"),
            infiniband_lock: run.join("ib-sriov/cni.lock"),
            rdma: lib.join("rdma"),
        }
    }

    /// Can the files be written that every ADD writes?
    pub(crate) fn check(&self) -> Result<(), StateError> {
        check_dir(&self.sriov)
    }

    /// Takes the lock that upstream's plugin takes while it works on a VF (2.10 and later).
    pub(crate) fn lock(&self, vf: PciAddress, patience: Duration) -> Result<Lock, LockError> {
        let path = self.sriov.join("pci/vf_lock").join(format!("{vf}.lock"));
        exclusive_at(&path, LockOf::Vf(vf), patience)
    }

    /// Keeps upstream's `ib-sriov` from working on any VF meanwhile; virtfn's own calls go on side by side.
    pub(crate) fn lock_infiniband(
        &self,
        vf: PciAddress,
        patience: Duration,
    ) -> Result<Lock, LockError> {
        shared_at(&self.infiniband_lock, LockOf::Vf(vf), patience)
    }

    /// Returns the path of the namespace that a VF was given to; `None` when to none.
    pub(crate) fn owner(&self, vf: PciAddress) -> Option<String> {
        let text = read(&self.owner_path(vf)).ok()?;
        let text = String::from_utf8(text).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Says to which namespace a VF was given.
    pub(crate) fn set_owner(&self, vf: PciAddress, netns: &str) -> io::Result<()> {
        write(&self.owner_path(vf), netns.as_bytes())
    }

    /// Says that a VF is given to nobody.
    pub(crate) fn clear_owner(&self, vf: PciAddress) -> io::Result<()> {
        remove(&self.owner_path(vf))
    }

    fn owner_path(&self, vf: PciAddress) -> PathBuf {
        self.sriov.join("pci").join(vf.to_string())
    }

    /// Returns what is kept for a holder; `None` when there is nothing, or nothing that can be read.
    pub(crate) fn of_holder(&self, holder: &Holder) -> Option<Found> {
        let name = file_name(holder)?;
        let of_sriov = found(holder, &self.sriov.join(&name), |bytes| {
            SriovCache::parse(bytes).map(Kept::Sriov)
        });
        of_sriov.or_else(|| {
            found(holder, &self.infiniband.join(&name), |bytes| {
                IbSriovCache::parse(bytes).map(Kept::Infiniband)
            })
        })
    }

    /// Returns what is kept for the last holder of a VF.
    pub(crate) fn of_vf(&self, vf: PciAddress) -> Option<Found> {
        self.by_vf().remove(&vf)
    }

    /// Returns what is kept for the last holder of each VF. Files of former ones may be left; of two that
    /// were written in one second upstream's is the later, because virtfn removes those it knows of.
    pub(crate) fn by_vf(&self) -> BTreeMap<PciAddress, Found> {
        let mut all = self.all();
        all.sort_by_key(|found| (found.written_at, !found.kept.is_ours()));
        let all = all.into_iter();
        all.filter_map(|found| Some((found.kept.device().ok()?, found)))
            .collect()
    }

    /// Returns what is kept, of all holders.
    pub(crate) fn all(&self) -> Vec<Found> {
        let holders = self.holders().into_iter();
        holders
            .filter_map(|holder| self.of_holder(&holder))
            .collect()
    }

    /// Returns all holders for which something is kept.
    fn holders(&self) -> Vec<Holder> {
        let dirs = [&self.sriov, &self.infiniband].into_iter();
        let entries = dirs.flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
        let mut holders: Vec<Holder> = entries
            .filter_map(|entry| holder_of(entry.ok()?.file_name().to_str()?))
            .collect();
        holders.sort_by(|a, b| (&a.id, &a.interface).cmp(&(&b.id, &b.interface)));
        holders.dedup();
        holders
    }

    /// Keeps a configuration for a holder.
    pub(crate) fn keep(&self, holder: &Holder, kept: &Kept) -> io::Result<()> {
        let Some(name) = file_name(holder) else {
            return Ok(());
        };
        let (dir, text) = match kept {
            Kept::Sriov(cache) => (&self.sriov, cache.to_json()),
            Kept::Infiniband(cache) => (&self.infiniband, cache.to_json()),
        };
        write(&dir.join(name), text.as_bytes())
    }

    /// Removes what is kept for a holder.
    pub(crate) fn forget(&self, holder: &Holder) -> io::Result<()> {
        let Some(name) = file_name(holder) else {
            return Ok(());
        };
        remove(&self.sriov.join(&name)).and(remove(&self.infiniband.join(&name)))
    }
}

fn found(
    holder: &Holder,
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<Kept, ParseCacheError>,
) -> Option<Found> {
    let written_at = fs::metadata(path).ok()?.mtime();
    let bytes = read(path).ok()?;
    match parse(&bytes) {
        Ok(kept) => Some(Found {
            holder: holder.clone(),
            kept,
            written_at: u64::try_from(written_at).unwrap_or(0),
        }),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cached configuration not read");
            None
        }
    }
}

fn file_name(holder: &Holder) -> Option<String> {
    let interface = holder.interface.as_ref()?;
    let plain = !holder.id.contains('/') && !holder.id.starts_with('.');
    plain.then(|| format!("{}-{interface}", holder.id))
}

/// Reads the name of a file: the interface is behind the last `-` that leaves two good names.
///
/// Both may have `-` in them, so this may be wrong; it is only used to find the file again, whose
/// name is the same either way.
fn holder_of(name: &str) -> Option<Holder> {
    let (container, interface) = name.rsplit_once('-')?;
    let container: api::cni::ContainerId = container.parse().ok()?;
    Some(crate::call::holder(&container, &interface.parse().ok()?))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file as upstream's plugin does, in place: one that a kill cuts short is as good as none.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let written = open(path).and_then(|mut file| file.write_all(content));
    if written.is_err() {
        let _nothing_to_remove_is_fine = fs::remove_file(path);
    }
    written
}

/// Replaces a file in one piece, on the disk.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    // Not the name of a container: upstream reads each file of the directory as one.
    let mut name = std::ffi::OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(name);
    let written = open(&new).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(dir)?.sync_all()
    });
    if written.is_err() {
        let _nothing_to_remove_is_fine = fs::remove_file(&new);
    }
    written
}

/// Opens an empty file to write it, in a directory that is made when it is not there.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(Path::new("/"));
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
            options.open(path)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, UpstreamFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = UpstreamFiles::at(dir.path(), dir.path());
        (dir, files)
    }

    #[test]
    fn what_is_kept_is_found_by_holder_and_by_vf() {
        let (_dir, files) = files();
        let vf: PciAddress = "0000:01:10.0".parse().unwrap();
        let holder = holder_of("a-b-net1").unwrap();
        let cache = Kept::Sriov(SriovCache {
            device_id: vf.to_string(),
            ..SriovCache::default()
        });
        files.keep(&holder, &cache).unwrap();
        assert_eq!(files.of_holder(&holder).unwrap().kept, cache);
        assert_eq!(files.of_vf(vf).unwrap().holder, holder);
        files.forget(&holder).unwrap();
        files.forget(&holder).unwrap();
        assert!(files.of_vf(vf).is_none());
    }

    #[test]
    fn what_is_kept_of_an_infiniband_vf_is_found_too() {
        let (dir, files) = files();
        let vf: PciAddress = "0000:3b:02.3".parse().unwrap();
        let holder = holder_of("c1-net1").unwrap();
        let kept = Kept::Infiniband(IbSriovCache {
            device_id: vf.to_string(),
            ..IbSriovCache::default()
        });
        files.keep(&holder, &kept).unwrap();
        assert!(dir.path().join("ib-sriov/c1-net1").exists());
        assert_eq!(files.of_vf(vf).unwrap().kept, kept);
        files.forget(&holder).unwrap();
        assert!(files.all().is_empty());
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let (dir, files) = files();
        fs::create_dir(dir.path().join("sriov")).unwrap();
        fs::write(dir.path().join("sriov/c1-net1"), b"{\"deviceID\":").unwrap();
        assert!(files.of_holder(&holder_of("c1-net1").unwrap()).is_none());
    }

    #[test]
    fn an_owner_is_a_path() {
        let (_dir, files) = files();
        let vf: PciAddress = "0000:01:10.0".parse().unwrap();
        assert_eq!(files.owner(vf), None);
        files.set_owner(vf, "/run/netns/blue").unwrap();
        assert_eq!(files.owner(vf).as_deref(), Some("/run/netns/blue"));
        files.clear_owner(vf).unwrap();
        assert_eq!(files.owner(vf), None);
    }
}
