//! The files of upstream's `sriov` plugin, read and written so that either plugin can take back what
//! the other gave.
//!
//! ```text
//! /var/lib/cni/sriov/<container>-<interface>    the configuration, and what the VF was like before
//! /var/lib/cni/sriov/pci/<VF>                   path of the namespace of whoever has the VF
//! /var/lib/cni/sriov/pci/vf_lock/<VF>.lock      locked while a plugin works on the VF
//! ```
//!
//! They are not what virtfn relies on for its own VFs: that is the ledger. So they are replaced in
//! one piece but not forced to the disk, and one that cannot be read is as good as none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::cni::SriovCache;
use host::{Lock, LockError, LockOf, exclusive_at};
use model::{Holder, PciAddress};

/// Most bytes of one of these files; a configuration with all fields has less than 2 KiB.
const LIMIT: u64 = 1024 * 1024;

/// The directory of upstream's files.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamFiles(PathBuf);

/// What upstream's files say of a VF that it gave away.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Who has it.
    pub(crate) holder: Holder,
    /// The file's content.
    pub(crate) cache: SriovCache,
    /// When it was written, in seconds since 1970.
    pub(crate) written_at: u64,
}

impl Default for UpstreamFiles {
    fn default() -> Self {
        Self::at(PathBuf::from("/var/lib/cni/sriov"))
    }
}

impl UpstreamFiles {
    /// Keeps the files below `dir`.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Takes the lock that upstream's plugin takes while it works on a VF (2.10 and later).
    pub(crate) fn lock(&self, vf: PciAddress, patience: Duration) -> Result<Lock, LockError> {
        let path = self.0.join("pci/vf_lock").join(format!("{vf}.lock"));
        exclusive_at(&path, LockOf::Vf(vf), patience)
    }

    /// Returns the path of the namespace that a VF was given to; `None` when to none.
    pub(crate) fn owner(&self, vf: PciAddress) -> Option<String> {
        let text = read(&self.owner_path(vf)).ok()?;
        let text = String::from_utf8(text).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Says to which namespace a VF was given.
    pub(crate) fn set_owner(&self, vf: PciAddress, netns: &str) -> io::Result<()> {
        replace(&self.owner_path(vf), netns.as_bytes())
    }

    /// Says that a VF is given to nobody.
    pub(crate) fn clear_owner(&self, vf: PciAddress) -> io::Result<()> {
        remove(&self.owner_path(vf))
    }

    fn owner_path(&self, vf: PciAddress) -> PathBuf {
        self.0.join("pci").join(vf.to_string())
    }

    /// Returns what is kept for a holder; `None` when there is nothing, or nothing that can be read.
    pub(crate) fn of_holder(&self, holder: &Holder) -> Option<Found> {
        let path = self.cache_path(holder)?;
        let written_at = fs::metadata(&path).ok()?.mtime();
        let bytes = read(&path).ok()?;
        match SriovCache::parse(&bytes) {
            Ok(cache) => Some(Found {
                holder: holder.clone(),
                cache,
                written_at: u64::try_from(written_at).unwrap_or(0),
            }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cached configuration not read");
                None
            }
        }
    }

    /// Returns what is kept for whichever holder of a VF.
    pub(crate) fn of_vf(&self, vf: PciAddress) -> Option<Found> {
        let mut holders = self.holders().into_iter();
        holders.find_map(|holder| {
            let found = self.of_holder(&holder)?;
            (found.cache.device().ok()? == vf).then_some(found)
        })
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
        let Ok(entries) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let mut holders: Vec<Holder> = entries
            .filter_map(|entry| holder_of(entry.ok()?.file_name().to_str()?))
            .collect();
        holders.sort_by(|a, b| (&a.id, &a.interface).cmp(&(&b.id, &b.interface)));
        holders
    }

    /// Keeps a configuration for a holder.
    pub(crate) fn keep(&self, holder: &Holder, cache: &SriovCache) -> io::Result<()> {
        match self.cache_path(holder) {
            Some(path) => replace(&path, cache.to_json().as_bytes()),
            None => Ok(()),
        }
    }

    /// Removes what is kept for a holder.
    pub(crate) fn forget(&self, holder: &Holder) -> io::Result<()> {
        self.cache_path(holder).map_or(Ok(()), |path| remove(&path))
    }

    fn cache_path(&self, holder: &Holder) -> Option<PathBuf> {
        let interface = holder.interface.as_ref()?;
        let plain = !holder.id.contains('/') && !holder.id.starts_with('.');
        plain.then(|| self.0.join(format!("{}-{interface}", holder.id)))
    }
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

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    // Not the name of a container: upstream reads each file of the directory as one.
    let mut name = std::ffi::OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _nothing_to_remove_is_fine = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, UpstreamFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = UpstreamFiles::at(dir.path().join("sriov"));
        (dir, files)
    }

    #[test]
    fn what_is_kept_is_found_by_holder_and_by_vf() {
        let (_dir, files) = files();
        let vf: PciAddress = "0000:01:10.0".parse().unwrap();
        let holder = holder_of("a-b-net1").unwrap();
        let cache = SriovCache {
            device_id: vf.to_string(),
            ..SriovCache::default()
        };
        files.keep(&holder, &cache).unwrap();
        assert_eq!(files.of_holder(&holder).unwrap().cache, cache);
        assert_eq!(files.of_vf(vf).unwrap().holder, holder);
        files.forget(&holder).unwrap();
        files.forget(&holder).unwrap();
        assert!(files.of_vf(vf).is_none());
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
