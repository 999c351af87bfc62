//! Pools of the device plugin over what a host has: what they offer, and why a device is in one or in
//! none.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use agent::PodDevice;
use api::deviceplugin::{ReadConfigError, read_config};
use model::{Code, DeviceId, Explain, Inventory, Pool, ResourceName, with_causes};
use policy::pool::{
    DeviceStory, Held, Offered, PoolStory, PoolVerdict, explain_device, explain_pool, offer,
};

use crate::args::PoolArgs;
use crate::failure::Failure;
use crate::sight::Place;
use crate::ui::Ui;
use crate::view::{
    ContainerView, Containers, DevicePoolView, DeviceVerdictView, PoolStoryView, device_pool_view,
    device_verdict_views, pool_story_view,
};
use crate::workplace::Site;

/// Where the device plugin's configuration is when nobody says otherwise.
const USUAL: &str = "/etc/pcidp/config.json";

/// The pools cannot be explained.
#[derive(Debug, thiserror::Error)]
enum PoolsError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("read {} as the device plugin's configuration", path.display())]
    Config {
        path: PathBuf,
        source: ReadConfigError,
    },
    #[error("no pool {name} in {}", path.display())]
    NoPool {
        name: String,
        path: PathBuf,
        known: Vec<String>,
    },
}

impl Explain for PoolsError {
    fn code(&self) -> Code {
        match self {
            Self::Read { .. } => Code::new("config-not-read"),
            Self::Config { source, .. } => source.code(),
            Self::NoPool { .. } => Code::new("no-such-pool"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Read { .. } => {
                Some("name the file with --config, or pipe it into --config -".to_owned())
            }
            Self::Config { source, .. } => source.remedy(),
            Self::NoPool { known, .. } if known.is_empty() => None,
            Self::NoPool { known, .. } => Some(format!("it has {}", known.join(", "))),
        }
    }
}

/// The configuration of the device plugin, read.
pub(super) struct PoolFile {
    path: PathBuf,
    pools: Vec<Pool>,
}

impl PoolFile {
    /// Reads it. `None` when none was named and there is none in the usual place.
    pub(super) fn find(args: &PoolArgs, ui: &mut Ui) -> Result<Option<Self>, Failure> {
        let path = args.config.clone().unwrap_or_else(|| USUAL.into());
        let read = if path == Path::new("-") {
            let mut bytes = Vec::new();
            let mut stdin = io::stdin().take(agent::CONFIGURATION_LIMIT);
            stdin.read_to_end(&mut bytes).map(|_| bytes)
        } else {
            agent::read_configuration(&path)
        };
        let bytes = match read {
            Err(source) if args.config.is_none() && source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            read => read.map_err(|source| {
                let path = path.clone();
                Failure::input(PoolsError::Read { path, source })
            })?,
        };
        let config = read_config(&bytes, &args.resource_prefix).map_err(|source| {
            let path = path.clone();
            Failure::input(PoolsError::Config { path, source })
        })?;
        for refused in &config.refused {
            for problem in &refused.problems {
                ui.note(format_args!(
                    "{}: {problem}; {}",
                    path.display(),
                    problem.remedy
                ));
            }
        }
        for note in &config.notes {
            ui.note(format_args!("{}: {note}; {}", path.display(), note.remedy));
        }
        let pools = config.pools;
        Ok(Some(Self { path, pools }))
    }

    /// Holds it against a host, and asks the kubelet what pods have.
    pub(super) fn on(
        self,
        seen: Inventory,
        site: &Site,
        args: &PoolArgs,
        ui: &mut Ui,
    ) -> Result<Pools, Failure> {
        let mut held = Held::default();
        let mut pods = Vec::new();
        let kubelet = match site.place {
            // Of a recorded host nobody can be asked, unless somebody plays its kubelet.
            Place::Recording(_) => args.kubelet_dir.clone(),
            Place::Here | Place::Beneath(_) => {
                let usual = agent::Dirs::default().kubelet;
                Some(args.kubelet_dir.clone().unwrap_or(usual))
            }
        };
        if let Some(kubelet) = kubelet {
            match agent::pod_devices(&kubelet).map_err(Failure::failed)? {
                Ok(devices) => {
                    held.complete = true;
                    for found in &devices {
                        let known = held.by_pods.entry(found.resource.clone()).or_default();
                        known.insert(found.device.clone());
                    }
                    pods = devices;
                }
                Err(error) => {
                    let why = with_causes(&error);
                    ui.note(format_args!("which pod has what is not known: {why}"));
                }
            }
        }
        Ok(Pools {
            path: self.path,
            pools: self.pools,
            seen,
            held,
            pods,
        })
    }
}

/// Pools, the host, and what pods have.
pub(super) struct Pools {
    path: PathBuf,
    pools: Vec<Pool>,
    pub(super) seen: Inventory,
    held: Held,
    pods: Vec<PodDevice>,
}

impl Pools {
    /// Shows what each pool offers.
    pub(super) fn offered(&self) -> Vec<DevicePoolView> {
        let offer = offer(&self.pools, &self.seen, &self.held);
        let containers = self.containers();
        let pools = self.pools.iter().zip(&offer.pools);
        pools
            .map(|(pool, offer)| device_pool_view(pool, offer, &self.seen, &containers))
            .collect()
    }

    /// Tells what each pool says about a device.
    pub(super) fn device(&self, device: &DeviceId) -> String {
        self.told(&self.story(device))
    }

    /// Shows what each pool says about a device.
    pub(super) fn device_views(&self, device: &DeviceId) -> Vec<DeviceVerdictView> {
        device_verdict_views(&self.story(device), &self.seen, &self.containers())
    }

    /// Shows the container that has a device.
    pub(super) fn container_of(&self, device: &DeviceId) -> Option<ContainerView> {
        self.containers().remove(&device.to_string())
    }

    fn story(&self, device: &DeviceId) -> DeviceStory {
        explain_device(&self.pools, &self.seen, &self.held, device)
    }

    fn containers(&self) -> Containers {
        let containers = self.pods.iter().map(|found| {
            let container = ContainerView {
                pod: found.pod.clone(),
                name: found.container.clone(),
                resource: found.resource.to_string(),
            };
            (found.device.to_string(), container)
        });
        containers.collect()
    }

    fn told(&self, story: &DeviceStory) -> String {
        // Writing to a string cannot fail, here and below.
        let mut text = String::new();
        for pod in self.pods.iter().filter(|pod| pod.device == story.device) {
            let PodDevice {
                pod,
                container,
                resource,
                ..
            } = pod;
            let _always = writeln!(
                text,
                "  pod     {pod}, container {container}, as {resource}"
            );
        }
        for verdict in &story.pools {
            let offered = story.offered.as_ref();
            let own = offered.filter(|(resource, _)| *resource == verdict.resource);
            let said = match own {
                Some((_, offered)) => mine(offered),
                None => others(verdict),
            };
            let _always = writeln!(text, "  pool    {}: {said}", verdict.resource);
        }
        text
    }

    /// Tells what a pool makes of each device of its kind.
    pub(super) fn pool(&self, name: &str) -> Result<String, Failure> {
        let (pool, story) = self.pool_story(name)?;
        Ok(self.pool_told(&pool.resource, &story))
    }

    /// Shows what a pool makes of each device of its kind.
    pub(super) fn pool_view(&self, name: &str) -> Result<PoolStoryView, Failure> {
        let (pool, story) = self.pool_story(name)?;
        Ok(pool_story_view(
            pool,
            &story,
            &self.seen,
            &self.containers(),
        ))
    }

    fn pool_story(&self, name: &str) -> Result<(&Pool, PoolStory), Failure> {
        let mut pools = self.pools.iter();
        let pool =
            pools.find(|pool| pool.resource.as_str() == name || pool.resource.name() == name);
        let story = pool.and_then(|pool| {
            let story = explain_pool(&self.pools, &self.seen, &self.held, &pool.resource)?;
            Some((pool, story))
        });
        story.ok_or_else(|| {
            let known = self.pools.iter().map(|pool| pool.resource.to_string());
            Failure::input(PoolsError::NoPool {
                name: name.to_owned(),
                path: self.path.clone(),
                known: known.collect(),
            })
        })
    }

    fn pool_told(&self, resource: &ResourceName, story: &PoolStory) -> String {
        let mut text = String::new();
        let count = match story.offered.len() {
            1 => "1 device".to_owned(),
            count => format!("{count} devices"),
        };
        let _always = writeln!(text, "pool {resource}: {count} offered");
        for (id, offered) in &story.offered {
            let pod = self.pods.iter().find(|pod| pod.device == *id);
            let pod = pod.map_or(String::new(), |pod| format!(", in pod {}", pod.pod));
            let _always = writeln!(text, "  {id}  {}{pod}", mine(offered));
        }
        if !story.others.is_empty() {
            let _always = writeln!(text, "not offered");
        }
        for (id, verdict) in &story.others {
            let _always = writeln!(text, "  {id}  {}", others(verdict));
        }
        text
    }
}

fn mine(offered: &Offered) -> String {
    let numa = offered
        .numa
        .map_or(String::new(), |numa| format!(", NUMA node {numa}"));
    format!(
        "offered by selector {}, {}{numa}",
        offered.selector, offered.health
    )
}

fn others(verdict: &PoolVerdict) -> String {
    match &verdict.taken_by {
        Some(taker) => format!("{}, but {taker} is asked first", verdict.verdict),
        None => verdict.verdict.to_string(),
    }
}
