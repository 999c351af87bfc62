//! The files of upstream's `rdma` plugin: one per RDMA device that was moved.

use std::fs;
use std::io;
use std::path::PathBuf;

use api::cni::RdmaState;
use model::Holder;

use super::{UpstreamFiles, file_name, read, remove, replace};

impl UpstreamFiles {
    /// Returns what is kept of the RDMA device of a holder.
    pub(crate) fn rdma(&self, network: &str, holder: &Holder) -> Option<RdmaState> {
        let path = self.rdma_path(network, holder)?;
        let bytes = read(&path).ok()?;
        match RdmaState::parse(&bytes) {
            Ok(state) => Some(state),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "file of an RDMA device not read");
                None
            }
        }
    }

    /// Returns all that is kept of RDMA devices of a network, with the names of the files.
    pub(crate) fn rdma_of_network(&self, network: &str) -> Vec<(String, RdmaState)> {
        let prefix = format!("{network}-");
        self.rdma_files()
            .into_iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .collect()
    }

    /// Is a device kept for anybody but a holder?
    pub(crate) fn is_rdma_of_another(&self, network: &str, holder: &Holder, device: &str) -> bool {
        let own = self.rdma_path(network, holder);
        self.rdma_files().into_iter().any(|(name, state)| {
            state.device_id == device && own.as_ref() != Some(&self.rdma.join(name))
        })
    }

    fn rdma_files(&self) -> Vec<(String, RdmaState)> {
        let entries = fs::read_dir(&self.rdma).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter(|name| !name.starts_with('.'))
            .filter_map(|name| {
                let bytes = read(&self.rdma.join(&name)).ok()?;
                Some((name, RdmaState::parse(&bytes).ok()?))
            })
            .collect()
    }

    /// Keeps, on the disk, that an RDMA device is moved for a holder.
    pub(crate) fn keep_rdma(
        &self,
        network: &str,
        holder: &Holder,
        state: &RdmaState,
    ) -> io::Result<()> {
        self.rdma_path(network, holder)
            .map_or(Ok(()), |path| replace(&path, state.to_json().as_bytes()))
    }

    /// Removes what is kept of the RDMA device of a holder.
    pub(crate) fn forget_rdma(&self, network: &str, holder: &Holder) -> io::Result<()> {
        let path = self.rdma_path(network, holder);
        path.map_or(Ok(()), |path| remove(&path))
    }

    /// Removes a file that [`UpstreamFiles::rdma_of_network`] named.
    pub(crate) fn forget_rdma_file(&self, name: &str) -> io::Result<()> {
        remove(&self.rdma.join(name))
    }

    /// Returns the name of the file of a holder.
    pub(crate) fn rdma_name(network: &str, holder: &Holder) -> Option<String> {
        Some(format!("{network}-{}", file_name(holder)?))
    }

    fn rdma_path(&self, network: &str, holder: &Holder) -> Option<PathBuf> {
        Some(self.rdma.join(Self::rdma_name(network, holder)?))
    }
}
