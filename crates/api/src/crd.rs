//! The operator's kinds: `sriovnetwork.openshift.io/v1`.
//!
//! [`read_policies`] reads files that people write; the types are the wire form. The schema of a
//! kind is a table of its own ([`schema`](self)), compared with upstream's in a test, because an
//! error of a derived reader names neither the line nor all that is wrong.

mod node_policy;
mod read;
mod review;
mod schema;

pub use node_policy::{
    Bridge, InvalidNodePolicy, Metadata, NicSelector, OvsBridge, OvsConfig, OvsInterface,
    OvsUplink, SriovNetworkNodePolicy, SriovNetworkNodePolicySpec,
};
pub use read::{PolicyDocuments, PolicyFileError, PolicyProblem, Warning, read_policies};
pub use review::review_node_policy;

/// Group and version of all kinds of the operator.
pub const API_VERSION: &str = "sriovnetwork.openshift.io/v1";
