//! How RDMA devices relate to network namespaces: the line that keeps the mode, and the running kernel's.
//!
//! The line is in a file of the operator's, byte for byte, so that either can take over from the other. A
//! file by that name which holds anything else is somebody's and is left alone. What is to be done is
//! decided in [`policy::rdma_need`].

use model::{Code, Explain, RdmaNetnsMode};
use netlink::{Protocol, RequestError, Socket, rdma};
use policy::{Keep, RdmaFacts};

use crate::files::{Entry, Files};
use crate::root::{AccessError, HostRoot};

const DIR: &str = "/etc/modprobe.d";
const FILE: &str = "/etc/modprobe.d/sriov_network_operator_modules_config.conf";
/// The first line of the operator's file.
const MARKER: &str = "# This file is managed by sriov-network-operator do not edit.";

/// Where named namespaces are mounted.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The RDMA mode could not be kept or set.
#[derive(Debug, thiserror::Error)]
pub enum RdmaModeError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] AccessError),
    /// The file holds something that neither virtfn nor the operator wrote.
    #[error("{FILE} holds lines that are not the operator's")]
    Foreign,
    /// The kernel refused the mode, and not for other namespaces.
    #[error(transparent)]
    Kernel(#[from] RequestError),
}

impl Explain for RdmaModeError {
    fn code(&self) -> Code {
        match self {
            Self::File(_) => Code::new("rdma-mode-not-kept"),
            Self::Foreign => Code::new("rdma-mode-foreign"),
            Self::Kernel(error) => error.code(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::File(_) => Some(format!("see that root can write to {DIR}")),
            Self::Foreign => Some("move these lines to another file of /etc/modprobe.d".to_owned()),
            Self::Kernel(error) => error.remedy(),
        }
    }
}

/// Looks at what keeps the mode, and whether the running kernel can change it.
pub fn see_rdma_mode(root: &HostRoot) -> Result<RdmaFacts, RdmaModeError> {
    Ok(RdmaFacts {
        kept: kept(root)?,
        has_other_netns: has_other_netns(root),
    })
}

/// Writes the line that keeps the mode, or takes it back.
pub fn keep_rdma_mode(root: &HostRoot, keep: Keep) -> Result<(), RdmaModeError> {
    // Nothing is replaced that was not understood.
    kept(root)?;
    let files = Files::new(root);
    match keep {
        Keep::Write(mode) => {
            files.make_dir(DIR)?;
            Ok(files.replace(FILE, text(mode).as_bytes())?)
        }
        Keep::Remove => Ok(files.remove(FILE)?),
    }
}

/// Sets the mode of the running kernel; `false` when it cannot while other namespaces exist.
pub fn set_rdma_mode(mode: RdmaNetnsMode) -> Result<bool, RdmaModeError> {
    let Some(mut socket) = Socket::open_if_supported(Protocol::Rdma)? else {
        return Ok(true);
    };
    match rdma::set_netns_mode(&mut socket, mode) {
        Ok(()) => Ok(true),
        Err(error) if error.is_busy() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn text(mode: RdmaNetnsMode) -> String {
    let number = match mode {
        RdmaNetnsMode::Exclusive => 0,
        RdmaNetnsMode::Shared => 1,
    };
    format!("{MARKER}\noptions ib_core netns_mode={number}\n")
}

fn kept(root: &HostRoot) -> Result<Option<RdmaNetnsMode>, RdmaModeError> {
    let found = match Files::new(root).entry(FILE)? {
        Entry::Absent => return Ok(None),
        Entry::File(found) => found,
        Entry::Link(_) | Entry::Dir | Entry::Other => return Err(RdmaModeError::Foreign),
    };
    let modes = [RdmaNetnsMode::Exclusive, RdmaNetnsMode::Shared];
    let mode = modes
        .into_iter()
        .find(|mode| found == text(*mode).as_bytes());
    mode.map(Some).ok_or(RdmaModeError::Foreign)
}

/// Is some process, or some mount, in another network namespace? One that only a descriptor keeps is not
/// found; the kernel has the last word.
fn has_other_netns(root: &HostRoot) -> bool {
    let is_named = |dir: &&str| !root.list(dir).unwrap_or_default().is_empty();
    if NAMED.iter().any(is_named) {
        return true;
    }
    let of = |pid: &str| root.link_target(&format!("/proc/{pid}/ns/net")).ok();
    let Some(first) = of("1") else {
        return false;
    };
    let pids = root.list("/proc").unwrap_or_default();
    pids.iter()
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|pid| of(pid))
        .any(|other| other != first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, HostRoot) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn the_line_is_the_operators_and_is_given_back() {
        let (dir, root) = machine();
        let path = dir.path().join(FILE.trim_start_matches('/'));
        assert_eq!(see_rdma_mode(&root).unwrap().kept, None);
        for mode in [RdmaNetnsMode::Exclusive, RdmaNetnsMode::Shared] {
            keep_rdma_mode(&root, Keep::Write(mode)).unwrap();
            assert_eq!(see_rdma_mode(&root).unwrap().kept, Some(mode));
        }
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r"
        # This file is managed by sriov-network-operator do not edit.
        options ib_core netns_mode=1
        ");
        keep_rdma_mode(&root, Keep::Remove).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn somebody_elses_lines_are_left_alone() {
        let (dir, root) = machine();
        let path = dir.path().join(FILE.trim_start_matches('/'));
        keep_rdma_mode(&root, Keep::Write(RdmaNetnsMode::Shared)).unwrap();
        let mixed = format!("{}options mlx4_core x=1\n", text(RdmaNetnsMode::Shared));
        std::fs::write(&path, &mixed).unwrap();
        assert!(matches!(see_rdma_mode(&root), Err(RdmaModeError::Foreign)));
        for keep in [Keep::Remove, Keep::Write(RdmaNetnsMode::Exclusive)] {
            let error = keep_rdma_mode(&root, keep).unwrap_err();
            assert_eq!(error.code().as_str(), "rdma-mode-foreign");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), mixed);
    }
}
