//! The operator's kinds: `sriovnetwork.openshift.io/v1`.
//!
//! [`read_policies`] and [`read_documents`] read files that people write; the types are the wire
//! form. The schema of a kind is a table of its own ([`schema`](self)), compared with upstream's in a
//! test, because an error of a derived reader names neither the line nor all that is wrong.

mod node_policy;
mod node_state;
mod pf_record;
mod pool_config;
mod read;
mod review;
mod schema;

pub use node_policy::{
    Bridge, InvalidNodePolicy, Metadata, NicSelector, OvsBridge, OvsConfig, OvsInterface,
    OvsUplink, SriovNetworkNodePolicy, SriovNetworkNodePolicySpec,
};
pub use node_state::{
    Bridges, Interface, InterfaceStatus, InvalidNodeState, NodeOvsBridge, NodeOvsUplink,
    SriovNetworkNodeState, SriovNetworkNodeStateSpec, SriovNetworkNodeStateStatus, SyncResult,
    SyncStatus, System, VfGroup, VfStatus,
};
pub use pf_record::{ParsePfRecordError, PfRecord};
pub use pool_config::{
    OvsHardwareOffloadConfig, SriovNetworkPoolConfig, SriovNetworkPoolConfigSpec, WireExpression,
    WireSelector,
};
pub use read::{
    NodeStateDocument, PolicyDocuments, PolicyFileError, PolicyProblem, Warning, read_documents,
    read_policies,
};
pub use review::review_node_policy;

/// Group and version of all kinds of the operator.
pub const API_VERSION: &str = "sriovnetwork.openshift.io/v1";
