//! What a live host answered once, read from files of a recording.
//!
//! The files are JSON, one object a line, below `/netlink` of the recorded root; the recorder in
//! [`crate::record`] writes them. A file that is missing is "the kernel has none of it", so a tree
//! written by hand needs only the lines that matter to it.

use std::collections::BTreeMap;

use model::{
    EswitchMode, Function, IfIndex, IfName, NodeUse, PciAddress, RdmaNetnsMode, SteeringMode,
};
use netlink::{Link, Socket};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Elsewhere, Firmware, Queries, QueryError};
use crate::root::HostRoot;

/// Netdevs of the recorded namespace.
pub(crate) const LINKS: &str = "/netlink/links";
/// Netdevs of the other namespaces.
pub(crate) const ELSEWHERE: &str = "/netlink/elsewhere";
/// What devlink and ethtool said of each PF.
pub(crate) const PFS: &str = "/netlink/pfs";
/// How RDMA relates to namespaces: `shared` or `exclusive`.
pub(crate) const RDMA: &str = "/netlink/rdma";

/// What netdevs do for the node itself.
pub(crate) const NODE_USES: &str = "/netlink/node-uses";

/// Longest file of answers: 4,096 netdevs and 65,536 VFs at some 500 bytes each.
const ANSWERS_LIMIT: usize = 40 * 1024 * 1024;

/// What was said of one PF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PfAnswers {
    pub(crate) pf: PciAddress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) eswitch: Option<EswitchMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) steering: Option<SteeringMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tc_offload: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) firmware: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ddp: Option<String>,
}

/// What one netdev does for the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeUseAnswer {
    pub(crate) index: IfIndex,
    #[serde(rename = "use")]
    pub(crate) used: NodeUse,
}

/// Answers from the files of a recording.
#[derive(Debug)]
pub(crate) struct Recorded {
    root: HostRoot,
    pfs: Option<BTreeMap<PciAddress, PfAnswers>>,
}

impl Recorded {
    pub(crate) fn new(root: HostRoot) -> Self {
        Self { root, pfs: None }
    }

    /// Reads a file of JSON lines; nothing when it is not there.
    fn lines<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, QueryError> {
        self.lines_that(path, |_| true)
    }

    /// Reads those lines of a file that are wanted; to ask is cheaper than to decode.
    fn lines_that<T: DeserializeOwned>(
        &self,
        path: &str,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<T>, QueryError> {
        let bytes = match self.root.read_bounded(path, ANSWERS_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if error.is_gone() => return Ok(Vec::new()),
            Err(error) => return Err(QueryError::new(error.to_string(), error.source)),
        };
        let lines = bytes.split(|byte| *byte == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty() && wanted(line));
        lines
            .map(|(number, line)| {
                let line_of = || format!("read {path}, line {}", number + 1);
                serde_json::from_slice(line).map_err(|error| QueryError::new(line_of(), error))
            })
            .collect()
    }

    fn pf(&mut self, pf: PciAddress) -> Result<Option<&PfAnswers>, QueryError> {
        if self.pfs.is_none() {
            let answers: Vec<PfAnswers> = self.lines(PFS)?;
            self.pfs = Some(answers.into_iter().map(|said| (said.pf, said)).collect());
        }
        Ok(self.pfs.as_ref().and_then(|pfs| pfs.get(&pf)))
    }
}

impl Queries for Recorded {
    fn links(&mut self) -> Result<Vec<Link>, QueryError> {
        self.lines(LINKS)
    }

    fn links_without_vfs(&mut self) -> Result<Vec<Link>, QueryError> {
        let mut links = self.links()?;
        for link in &mut links {
            (link.num_vf, link.vfs, link.vfs_truncated) = (None, None, false);
        }
        Ok(links)
    }

    fn link(&mut self, index: IfIndex) -> Result<Option<Link>, QueryError> {
        #[derive(Deserialize)]
        struct Indexed {
            index: IfIndex,
        }
        let wanted = |line: &[u8]| {
            serde_json::from_slice(line).is_ok_and(|link: Indexed| link.index == index)
        };
        Ok(self.lines_that(LINKS, wanted)?.into_iter().next())
    }

    fn links_on(
        &mut self,
        _root: &HostRoot,
        _functions: &mut dyn Iterator<Item = &Function>,
    ) -> Result<Option<Vec<Link>>, QueryError> {
        // A recording does not say which netdevs a function has, only which function a netdev is on.
        Ok(None)
    }

    fn elsewhere(&mut self, _root: &HostRoot) -> (Vec<Elsewhere>, Vec<QueryError>) {
        match self.lines(ELSEWHERE) {
            Ok(namespaces) => (namespaces, Vec::new()),
            Err(error) => (Vec::new(), vec![error]),
        }
    }

    fn eswitch(&mut self, pf: PciAddress) -> Result<Option<EswitchMode>, QueryError> {
        Ok(self.pf(pf)?.and_then(|said| said.eswitch))
    }

    fn steering(&mut self, pf: PciAddress) -> Result<Option<SteeringMode>, QueryError> {
        Ok(self.pf(pf)?.and_then(|said| said.steering))
    }

    fn tc_offload(&mut self, pf: PciAddress, _netdev: IfIndex) -> Result<Option<bool>, QueryError> {
        Ok(self.pf(pf)?.and_then(|said| said.tc_offload))
    }

    fn firmware(
        &mut self,
        pf: PciAddress,
        _netdev: Option<&IfName>,
    ) -> Result<Firmware, QueryError> {
        let said = self.pf(pf)?;
        let firmware = said.map(|said| Firmware {
            version: said.firmware.clone(),
            ddp: said.ddp.clone(),
        });
        Ok(firmware.unwrap_or_default())
    }

    fn node_uses(&mut self) -> Result<BTreeMap<IfIndex, NodeUse>, QueryError> {
        let answers: Vec<NodeUseAnswer> = self.lines(NODE_USES)?;
        Ok(answers
            .into_iter()
            .map(|said| (said.index, said.used))
            .collect())
    }

    fn take_route(&mut self) -> Option<Socket> {
        None
    }

    fn rdma_netns(&mut self) -> Result<Option<RdmaNetnsMode>, QueryError> {
        match self.root.read_text(RDMA).as_deref() {
            Ok("shared") => Ok(Some(RdmaNetnsMode::Shared)),
            Ok("exclusive") => Ok(Some(RdmaNetnsMode::Exclusive)),
            Ok(other) => {
                let found = format!("{other:?} is neither shared nor exclusive");
                Err(QueryError::new(format!("read {RDMA}"), found))
            }
            Err(_) => Ok(None),
        }
    }
}
