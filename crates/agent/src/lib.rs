//! The node agent: one live inventory, and the kubelet's device plugins over it.
//!
//! ```text
//!  kernel ─ signals ─┐                          ┌─ endpoint, one a pool ─ the kubelet
//!  files ── signals ─┼─▶ owner ─▶ Snapshot ─▶───┼─ outputs ─ device-info, CDI
//!  host ─── scanner ─┘     ▲                    └─ http ─ health, metrics, state
//!                        pods
//! ```
//!
//! One task owns what is known and replaces it as a whole; everything else reads it. What is decided
//! is decided by pure functions: `policy::pool` says what is offered, [`grant`](mod@grant) what a
//! container is given. The next job of the agent is one more reader of the snapshot.
//!
//! Threads: one for all tasks, one that owns the host, one that listens to the kernel, one that watches
//! files.

mod board;
mod config;
mod endpoint;
mod grant;
mod http;
mod options;
mod outputs;
mod owner;
mod pods;
mod scanner;
mod signals;
mod snapshot;

pub use config::{CONFIGURATION_LIMIT, read_configuration};
pub use options::{Dirs, OpenHost, Options, Registration};
pub use owner::StartError;
pub use pods::PodDevice;

use std::path::Path;

use kubelet::CallError;

/// Runs the agent until a signal ends it.
pub fn run(options: Options) -> Result<(), StartError> {
    runtime()?.block_on(owner::run(options))
}

/// Asks the kubelet below `kubelet`, its root directory, which container has which device.
pub fn pod_devices(kubelet: &Path) -> Result<Result<Vec<PodDevice>, CallError>, StartError> {
    Ok(runtime()?.block_on(pods::pod_devices(kubelet)))
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError {
            attempt: "start the event loop".to_owned(),
            source,
        })
}
