//! Other people's formats, faithful and dumb.
//!
//! A type here has the names, the optional fields and the oddities of the format that it stands
//! for, and nothing else: no decision is made in this crate. Values get their meaning when they
//! are turned into those of `model` with `TryFrom`, which says everything that is wrong at once.
//!
//! Everything is read from people and programs outside, so every reader is bounded in size, depth
//! and repetition, and never panics ([`fuzz`]).

pub mod cdi;
pub mod cni;
pub mod crd;
pub mod device_info;
pub mod deviceplugin;
mod field;
#[doc(hidden)]
pub mod fuzz;
pub mod ib_guids;
pub mod kubeconfig;
pub mod kubelet_checkpoint;
mod yaml;

pub use field::{FieldPath, FieldProblem};
