//! Files that others read: device-info for CNI plugins and CDI specifications for the runtime.
//!
//! They outlive the agent on purpose: a container that restarts while the agent is being replaced
//! still needs them. A file is removed when its device left its pool while the agent watched.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::cdi::{DeviceNode, Specification};
use api::device_info;
use host::{Checkpoint, Checkpoints};
use model::{DeviceId, Pool, PoolKind, ResourceName};
use policy::pool::PoolOffer;

use crate::grant::{Delivery, Facts, Grant};
use crate::options::Dirs;
use crate::snapshot::Snapshot;

/// Where files go, and which were written.
pub(crate) struct Outputs {
    dirs: Dirs,
    delivery: Delivery,
    /// By path, as text: comparing paths part by part is most of the work with a thousand of them.
    written: BTreeMap<String, String>,
    /// The nodes of devices, with CDI: those that they had last.
    nodes: BTreeMap<(ResourceName, DeviceId), Vec<DeviceNode>>,
    checkpoints: Arc<dyn Checkpoints>,
}

/// What a file should say.
struct Wanted {
    /// `None` leaves it as it is: its device is gone.
    text: Option<String>,
    /// Has a pod the device?
    held: bool,
}

/// A file could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}", path.display())]
pub(crate) struct OutputError {
    attempt: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Outputs {
    pub(crate) fn new(dirs: Dirs, delivery: Delivery, checkpoints: Arc<dyn Checkpoints>) -> Self {
        Self {
            dirs,
            delivery,
            written: BTreeMap::new(),
            nodes: BTreeMap::new(),
            checkpoints,
        }
    }

    /// Makes the files what `snapshot` wants, and returns everything that did not work.
    ///
    /// The snapshot learns its specifications, which [`write_for`] makes sure of.
    pub(crate) fn follow(&mut self, snapshot: &mut Snapshot) -> Vec<OutputError> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        let mut specifications = Vec::new();
        for (pool, offer) in snapshot.pools.iter().zip(&snapshot.offer.pools) {
            for (id, offered) in &offer.devices {
                let held = snapshot.held.resource_of(id).is_some();
                let facts = Facts::find(pool, &snapshot.seen, id, offered);
                if pool.kind == PoolKind::Net
                    && let Some(path) = info_path(&self.dirs, pool, id)
                {
                    let info = facts.as_ref().and_then(Facts::info);
                    let text = info.map(|info| info.to_json());
                    wanted.insert(path, Wanted { text, held });
                }
                if self.delivery == Delivery::Cdi {
                    let now = facts.map(|facts| facts.nodes(snapshot.node));
                    let key = (pool.resource.clone(), id.clone());
                    let kept = self.nodes.get(&key).filter(|_| held).cloned();
                    // While RDMA is exclusive the devices of a pod cannot be seen from here, and a
                    // container of it may start again.
                    let now = now.filter(|nodes| !nodes.is_empty()).or(kept);
                    nodes.extend(now.map(|now| (key, now)));
                }
            }
            if self.delivery == Delivery::Cdi {
                let text = specification(pool, offer, &nodes);
                specifications
                    .extend(text.map(|text| (specification_path(&self.dirs, pool), text)));
            }
        }
        self.nodes = nodes;
        let texts = specifications.iter().cloned();
        wanted.extend(texts.map(|(path, text)| {
            let text = Some(text);
            (path, Wanted { text, held: false })
        }));
        snapshot.specifications = specifications.into_iter().collect();
        self.make(wanted)
    }

    fn make(&mut self, wanted: BTreeMap<String, Wanted>) -> Vec<OutputError> {
        let mut errors = Vec::new();
        for path in self
            .written
            .keys()
            .filter(|path| !wanted.contains_key(*path))
        {
            match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    errors.push(OutputError {
                        attempt: "remove",
                        path: path.into(),
                        source,
                    });
                }
                _ => {}
            }
        }
        self.written.retain(|path, _| wanted.contains_key(path));
        for (path, Wanted { text, held }) in wanted {
            let known = self.written.get(&path);
            // What was told about a device when it was given away stays true for its pod, also when
            // the device is gone.
            let keep = held && (known.is_some() || Path::new(&path).exists());
            let Some(text) = text else {
                continue;
            };
            if known != Some(&text) && !keep {
                match write(&path, &text, self.checkpoints.as_ref()) {
                    Ok(()) => {}
                    Err(error) => {
                        errors.push(error);
                        continue;
                    }
                }
            }
            self.written.insert(path, text);
        }
        errors
    }
}

/// Writes what CNI plugins and the runtime read about devices that are given away now.
pub(crate) fn write_for(
    dirs: &Dirs,
    pool: &Pool,
    grant: &Grant,
    snapshot: &Snapshot,
    checkpoints: &dyn Checkpoints,
) -> Result<(), OutputError> {
    for (id, info) in &grant.infos {
        if let Some(path) = info_path(dirs, pool, id) {
            write_if_other(&path, &info.to_json(), checkpoints)?;
        }
    }
    let path = specification_path(dirs, pool);
    match snapshot.specifications.get(&path) {
        Some(text) => write_if_other(&path, text, checkpoints),
        None => Ok(()),
    }
}

fn specification(
    pool: &Pool,
    offer: &PoolOffer,
    nodes: &BTreeMap<(ResourceName, DeviceId), Vec<DeviceNode>>,
) -> Option<String> {
    let devices = offer.devices.keys().filter_map(|id| {
        let nodes = nodes.get(&(pool.resource.clone(), id.clone()))?;
        Some((id, nodes.as_slice()))
    });
    let specification = Specification {
        resource: &pool.resource,
        kind: pool.kind,
        devices: devices.collect(),
    };
    specification.to_yaml()
}

fn info_path(dirs: &Dirs, pool: &Pool, id: &DeviceId) -> Option<String> {
    let name = device_info::file_name(&pool.resource, id)?;
    Some(format!("{}/{name}", dirs.device_info.display()))
}

fn specification_path(dirs: &Dirs, pool: &Pool) -> String {
    let name = api::cdi::file_name(&pool.resource, pool.kind);
    format!("{}/{name}", dirs.cdi.display())
}

/// Writes a file unless it says so already: an allocation waits for this.
fn write_if_other(
    path: &str,
    text: &str,
    checkpoints: &dyn Checkpoints,
) -> Result<(), OutputError> {
    if fs::read(path).ok().as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    write(path, text, checkpoints)
}

/// Replaces a file in one instant. Not synced: these directories do not outlive a boot.
fn write(path: &str, text: &str, checkpoints: &dyn Checkpoints) -> Result<(), OutputError> {
    let path = Path::new(path);
    let error = |attempt| {
        move |source| OutputError {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    if !dir.is_dir() {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(dir);
        made.map_err(error("make the directory of"))?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = dir.join(format!(".{name}.new"));
    let written = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644);
        options.open(&fresh)?.write_all(text.as_bytes())?;
        // Upstream's mode; a specification stays writable for root as everywhere.
        if dir.file_name().is_some_and(|name| name == "dp") {
            fs::set_permissions(&fresh, Permissions::from_mode(0o444))?;
        }
        checkpoints.passed(Checkpoint::FileWritten);
        fs::rename(&fresh, path)
    };
    written().map_err(error("write"))
}

#[cfg(test)]
mod tests {
    use host::Uninterrupted;
    use policy::pool::Held;

    use super::*;
    use crate::grant::{NodeHas, tests::recorded};

    #[test]
    fn files_follow_their_devices_and_those_of_pods_stay() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs {
            device_info: dir.path().join("devinfo/dp"),
            cdi: dir.path().join("cdi"),
            ..Dirs::default()
        };
        let config = br#"{"resourceList": [{"resourceName": "a", "selectors": {"drivers": ["igbvf", "vfio-pci"]}}]}"#;
        let pools = api::deviceplugin::read_config(config, "intel.com").unwrap();
        let pools = Arc::new(pools.pools);
        let mut seen = recorded("igb-4-vfs");
        let mut outputs = Outputs::new(dirs.clone(), Delivery::Cdi, Arc::new(Uninterrupted));
        let mut follow = |seen: &model::Inventory, held: &Held| {
            let seen = Arc::new(seen.clone());
            let mut snapshot =
                Snapshot::new(Arc::clone(&pools), seen, held.clone(), NodeHas::default());
            assert!(outputs.follow(&mut snapshot).is_empty());
            let names = fs::read_dir(&dirs.device_info).unwrap();
            names.count()
        };
        assert_eq!(follow(&seen, &Held::default()), 4);
        let spec = dirs.cdi.join("sriov-dp-intel.com-net-pci-a.yaml");
        let text = fs::read_to_string(&spec).unwrap();
        assert!(
            text.contains("0000:01:10.6") && !text.contains("0000:01:10.0"),
            "{text}"
        );
        let mut held = Held::default();
        let id = "0000:01:10.0".parse().unwrap();
        held.by_pods
            .entry(pools[0].resource.clone())
            .or_default()
            .insert(id);
        for gone in ["0000:01:10.0", "0000:01:10.2", "0000:01:10.6"] {
            seen.functions.remove(&gone.parse().unwrap());
        }
        assert_eq!(follow(&seen, &held), 2);
        assert!(!spec.exists());
        // Of a device that was gone before it had a file there is none.
        let late = "0000:01:11.0".parse().unwrap();
        held.by_pods.values_mut().next().unwrap().insert(late);
        assert_eq!(follow(&seen, &held), 2);
        let kept = dirs
            .device_info
            .join("intel.com-a-0000:01:10.0-device.json");
        assert!(fs::read_to_string(kept).unwrap().contains("0000:01:10.0"));
    }
}
