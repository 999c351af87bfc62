//! What the files that were named want of a host: policies, or the node state that somebody made of
//! them, and what is decided of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::crd::NodeStateDocument;
use api::ib_guids::read_guids;
use host::{
    BootId, HostPrograms, HostRoot, PfLedger, StateDir, Undecided, kernel_facts, see_firmware,
    see_rdma_mode, starved_before,
};
use model::{Code, Desired, Explain, GuidRule, Inventory, LinkType, NodePolicy, NodePool};
use policy::vendor::mellanox::FirmwareError;
use policy::{
    Circumstances, Decision, KeptVfs, Misfit, MisfitProblem, ResolveError, misfits, rdma_of_pools,
    resolve,
};

use crate::failure::Failure;
use crate::policies::{self, Documents};
use crate::ui::Ui;
use crate::workplace::Site;

/// The administrator's GUIDs of InfiniBand VFs.
const GUID_FILE: &str = "/etc/sriov-operator/infiniband/guids";

/// What is wanted, and the labels of this node.
pub(crate) struct Wanted {
    wish: Wish,
    labels: BTreeMap<String, String>,
    /// What VFs had that no policy says.
    vfs: KeptVfs,
}

enum Wish {
    Policies(Vec<NodePolicy>, Vec<NodePool>),
    State(Box<NodeStateDocument>),
}

/// What is wanted cannot be had, or cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WantedError {
    /// Policies and a node state were given.
    #[error("policies were given, and node state {name} ({origin}) too")]
    Both {
        /// The node state.
        name: String,
        /// Where it was read.
        origin: model::Origin,
    },
    /// Node states of several nodes were given, none of which is this one.
    #[error("node states of {} nodes were given, and none is called {host}: {}", names.len(), names.join(", "))]
    OtherNodes {
        /// The name of this host.
        host: String,
        /// The names of the nodes.
        names: Vec<String>,
    },
    /// Two node states are for one node.
    #[error("node state {name} was given twice: {first} and {second}")]
    StateTwice {
        /// The name of the node.
        name: String,
        /// Where one was read.
        first: model::Origin,
        /// Where the other was.
        second: model::Origin,
    },
    /// Policies ask for what cannot be.
    #[error(transparent)]
    Policies(#[from] ResolveError),
    /// Something that cannot be had is wanted of PFs.
    #[error("{}", lines(.0))]
    Misfits(Vec<Misfit>),
    /// The firmware of a NIC cannot be what is wanted.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// VFs cannot be given GUIDs.
    #[error(transparent)]
    Guid(#[from] policy::GuidError),
    /// The file of GUIDs cannot be used.
    #[error("read {GUID_FILE}")]
    GuidFile(#[source] api::ib_guids::GuidFileError),
    /// The file of GUIDs cannot be read.
    #[error(transparent)]
    GuidFileUnread(host::AccessError),
    /// It cannot be told what keeps the RDMA mode.
    #[error(transparent)]
    RdmaMode(#[from] host::RdmaModeError),
    /// It cannot be told which PFs were configured before.
    #[error(transparent)]
    Owned(#[from] host::ReadOwnedError),
}

fn lines(misfits: &[Misfit]) -> String {
    let lines: Vec<_> = misfits.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl Explain for WantedError {
    fn code(&self) -> Code {
        match self {
            Self::Both { .. } => Code::new("policies-and-node-state"),
            Self::OtherNodes { .. } => Code::new("node-state-of-others"),
            Self::StateTwice { .. } => Code::new("node-state-twice"),
            Self::Policies(error) => error.code(),
            Self::Misfits(misfits) => match misfits.as_slice() {
                [only] => only.code(),
                _ => Code::new("policies-impossible"),
            },
            Self::Firmware(error) => error.code(),
            Self::Guid(error) => error.code(),
            Self::GuidFile(error) => error.code(),
            Self::GuidFileUnread(_) => Code::new("guid-file"),
            Self::RdmaMode(error) => error.code(),
            Self::Owned(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Both { .. } => {
                Some("give one or the other: a node state is what policies mean for a node".into())
            }
            Self::OtherNodes { .. } => Some("give only the node state of this node".into()),
            Self::StateTwice { .. } => Some("keep the one that is meant".into()),
            Self::Policies(error) => error.remedy(),
            Self::Misfits(misfits) => match misfits.as_slice() {
                [only] => only.remedy(),
                many => {
                    let line = |misfit: &Misfit| {
                        Some(format!("PF {}: {}", misfit.title, misfit.remedy()?))
                    };
                    let lines: Vec<_> = many.iter().filter_map(line).collect();
                    (!lines.is_empty()).then(|| lines.join("\n"))
                }
            },
            Self::Firmware(error) => error.remedy(),
            Self::Guid(error) => error.remedy(),
            Self::GuidFile(error) => error.remedy(),
            Self::GuidFileUnread(_) => Some(format!("see that root can read {GUID_FILE}")),
            Self::RdmaMode(error) => error.remedy(),
            Self::Owned(error) => error.remedy(),
        }
    }
}

impl From<WantedError> for Failure {
    fn from(error: WantedError) -> Self {
        match error {
            WantedError::Owned(error) => Self::failed(error),
            WantedError::RdmaMode(error) => Self::failed(error),
            WantedError::Both { .. }
            | WantedError::OtherNodes { .. }
            | WantedError::StateTwice { .. }
            | WantedError::Policies(_)
            | WantedError::Misfits(_)
            | WantedError::Firmware(_)
            | WantedError::Guid(_)
            | WantedError::GuidFile(_)
            | WantedError::GuidFileUnread(_) => Self::input(error),
        }
    }
}

impl From<WantedError> for Undecided {
    fn from(error: WantedError) -> Self {
        Self::new(error)
    }
}

impl Wanted {
    /// Reads files and labels; what in them has no effect is told.
    pub(crate) fn read(
        files: &[PathBuf],
        labels: &[String],
        site: &Site,
        ui: &mut Ui,
    ) -> Result<Self, Failure> {
        let read = policies::read(files, ui).map_err(Failure::input)?;
        let labels = policies::labels(labels).map_err(Failure::input)?;
        Ok(Self::of(read, labels, site.host_name().as_deref(), ui)?)
    }

    /// Takes what was read. `host` is the name of the host; a recorded one has none.
    pub(crate) fn of(
        read: Documents,
        labels: BTreeMap<String, String>,
        host: Option<&str>,
        ui: &mut Ui,
    ) -> Result<Self, WantedError> {
        let wish = wish(read, host, ui)?;
        Ok(Self {
            wish,
            labels,
            vfs: KeptVfs::new(),
        })
    }

    /// Wants VFs to have what they had when `vfs` was taken down.
    pub(crate) fn keep_vfs(&mut self, vfs: KeptVfs) {
        self.vfs = vfs;
    }

    /// Returns how many objects were read.
    pub(crate) fn count(&self) -> usize {
        match &self.wish {
            Wish::Policies(policies, _) => policies.len(),
            Wish::State(_) => 1,
        }
    }

    /// Says what `seen` should have, and what of it has no effect there; all or nothing.
    pub(crate) fn on(&self, seen: &Inventory) -> Result<(Desired, Vec<String>), WantedError> {
        let (desired, mut notes) = match &self.wish {
            Wish::Policies(policies, pools) => {
                let (mut desired, notes) = resolve(seen, policies, &self.labels).accept()?;
                let mut notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
                match rdma_of_pools(pools, &self.labels) {
                    Ok(mode) => desired.rdma_netns = mode,
                    Err(names) => notes.push(format!(
                        "pools {} select this node, so none of them has an effect",
                        names.join(" and ")
                    )),
                }
                (desired, notes)
            }
            Wish::State(state) => (state.desired.clone(), Vec::new()),
        };
        let (absent, wrong): (Vec<_>, Vec<_>) = misfits(seen, &desired)
            .into_iter()
            .partition(|misfit| misfit.problem == MisfitProblem::NotSeen);
        if !wrong.is_empty() {
            return Err(WantedError::Misfits(wrong));
        }
        // Upstream passes over a PF that is not there; over all of them, the state is another node's.
        if !absent.is_empty() && absent.len() == desired.pfs.len() {
            return Err(WantedError::Misfits(absent));
        }
        notes.extend(
            absent
                .iter()
                .map(|misfit| format!("{misfit}; it is passed over")),
        );
        Ok((desired, notes))
    }

    /// Decides what is to be done to `seen`.
    pub(crate) fn decide(
        &self,
        seen: &Inventory,
        ledger: PfLedger<'_>,
        known: &Circumstances,
    ) -> Result<Decision, WantedError> {
        let (desired, _notes) = self.on(seen)?;
        let records = ledger.read()?;
        let mut kept = self.vfs.clone();
        for (pf, lost) in &records.lost {
            kept.entry(*pf).or_default().extend(lost);
        }
        let known = Circumstances {
            owned: records.owned(),
            kept,
            ..known.clone()
        };
        let decision = policy::decide(seen, &desired, &known);
        for need in &decision.firmware {
            need.change.as_ref().map_err(Clone::clone)?;
        }
        match decision.guid_errors.first() {
            Some(error) => Err(error.clone().into()),
            None => Ok(decision),
        }
    }
}

/// Takes the policies, or the node state of `host`; a recorded host has no name and may be any node.
fn wish(read: Documents, host: Option<&str>, ui: &mut Ui) -> Result<Wish, WantedError> {
    let Documents {
        policies,
        mut states,
        pools,
    } = read;
    if let (Some(state), false) = (states.first(), policies.is_empty()) {
        return Err(WantedError::Both {
            name: state.name.clone(),
            origin: state.origin.clone(),
        });
    }
    let ours = |state: &NodeStateDocument| host.is_none_or(|host| is_same_host(&state.name, host));
    let state = match states.len() {
        0 => return Ok(Wish::Policies(policies, pools)),
        1 => states.remove(0),
        _ => {
            if let Some((first, second)) = of_one_name(&states) {
                return Err(WantedError::StateTwice {
                    name: first.name.clone(),
                    first: first.origin.clone(),
                    second: second.origin.clone(),
                });
            }
            let found = states.iter().position(ours);
            let Some(found) = found.filter(|_| host.is_some()) else {
                return Err(WantedError::OtherNodes {
                    host: host.unwrap_or("this one").to_owned(),
                    names: states.into_iter().map(|state| state.name).collect(),
                });
            };
            states.swap_remove(found)
        }
    };
    if !ours(&state) {
        ui.note(format_args!(
            "{}: the node state is for {}, and this host is called {}",
            state.origin,
            state.name,
            host.unwrap_or_default()
        ));
    }
    Ok(Wish::State(Box::new(state)))
}

fn of_one_name(states: &[NodeStateDocument]) -> Option<(&NodeStateDocument, &NodeStateDocument)> {
    states.iter().enumerate().find_map(|(index, state)| {
        let mut later = states.iter().skip(index + 1);
        Some((state, later.find(|later| later.name == state.name)?))
    })
}

/// A node may be called by the first part of its host name, or the other way round.
fn is_same_host(node: &str, host: &str) -> bool {
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    node == host || (node == first(node) || host == first(host)) && first(node) == first(host)
}

/// Looks at what matters beside the devices: what the kernel offers, and firmware that lacks
/// something. A recording has neither, unless it holds the host's `/proc`.
pub(crate) fn circumstances(
    root: &HostRoot,
    seen: &Inventory,
    desired: &Desired,
    state: &StateDir,
    is_recorded: bool,
) -> Result<Circumstances, WantedError> {
    let ledger = PfLedger::new(root, state);
    let has_kernel = !is_recorded || root.read_text("/proc/cmdline").is_ok();
    let kernel = has_kernel.then(|| kernel_facts(root, &policy::kernel::modules_of(desired)));
    let firmware = if is_recorded {
        policy::vendor::mellanox::lacking(seen, desired)
            .iter()
            .map(|nic| (nic.nic, Err("the host is a recorded one".to_owned())))
            .collect()
    } else {
        let owned = ledger.read()?.owned();
        see_firmware(root, seen, desired, &owned, &mut HostPrograms::new(root))
    };
    let guids = if wants_infiniband(seen, desired) {
        read_guid_file(root)?
    } else {
        None
    };
    let rdma = match see_rdma_mode(root) {
        _ if is_recorded => None,
        Ok(facts) => Some(facts),
        Err(error) if desired.rdma_netns.is_some() => return Err(error.into()),
        // Nobody wants a mode: whatever is there may stay.
        Err(_) => None,
    };
    // A recording without a boot's id has no memory of one.
    let starved = BootId::read(root).map(|boot| starved_before(state, &boot));
    Ok(Circumstances {
        kernel,
        firmware,
        rdma,
        guids,
        starved: starved.unwrap_or_default(),
        ..Circumstances::default()
    })
}

fn wants_infiniband(seen: &Inventory, desired: &Desired) -> bool {
    let links = desired.pfs.keys().filter_map(|pf| seen.get(*pf)?.netdev());
    links
        .into_iter()
        .any(|netdev| netdev.link_type == LinkType::InfiniBand)
}

/// Reads the administrator's GUIDs. A file that cannot be read is not the same as none: other GUIDs
/// would be given out.
fn read_guid_file(root: &HostRoot) -> Result<Option<Vec<GuidRule>>, WantedError> {
    match root.read_text(GUID_FILE) {
        Ok(text) => Ok(Some(read_guids(&text).map_err(WantedError::GuidFile)?)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(WantedError::GuidFileUnread(error)),
    }
}

/// Returns where the records of a recorded host are: beneath its own root, never this host's.
pub(crate) fn recorded_state(root: &HostRoot) -> StateDir {
    let dir = root.path().join("var/lib/virtfn");
    StateDir::new(dir.clone(), dir.join("run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_be_called_by_its_short_name() {
        for (node, host, same) in [
            ("worker-1", "worker-1", true),
            ("worker-1", "worker-1.rack.example.com", true),
            ("worker-1.rack.example.com", "worker-1", true),
            ("worker-1.a.example.com", "worker-1.b.example.com", false),
            ("worker-1", "worker-2", false),
        ] {
            assert_eq!(is_same_host(node, host), same, "{node} {host}");
        }
    }
}
