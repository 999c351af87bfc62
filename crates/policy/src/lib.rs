//! Pure decisions: what policies mean for a host, and the steps that get it there.
//!
//! ```text
//! policies ─ resolve ─▶ Desired ─ decide ─▶ Decision ─ check ─▶ performed by `host`
//!               ▲                   ▲   (plan, release, kernel, firmware)
//!           Inventory           Inventory
//!               ▼
//! AttachRequest ─ attach ─▶ AttachPlan
//!         Pools ─ pool::offer ─▶ Offer
//! ```
//!
//! Every function here is total and deterministic: the same inputs give the same result, byte for
//! byte. Nothing is read or changed, and no file format is known; that is why `virtfn plan`, the
//! agent and the tests show the same plan.

#![warn(clippy::wildcard_enum_match_arm)]

mod attach;
mod check;
mod decide;
mod drift;
mod drivers;
mod fit;
#[doc(hidden)]
pub mod fuzz;
mod guid;
mod keep;
pub mod kernel;
mod plan;
pub mod pool;
#[cfg(test)]
mod properties;
mod rdma;
mod release;
mod render;
mod resolve;
#[cfg(test)]
mod testing;
mod uplink;
pub mod vendor;

pub use attach::{AttachNote, AttachPlan, AttachRefused, attach, attach_rdma};
pub use check::{InUse, Interrupted, check};
pub use decide::{Circumstances, Decision, FirmwareNeed, decide};
pub use drift::{Difference, PfStanding, drift};
pub use drivers::{EswitchOrder, PfDriver, pf_driver};
pub use fit::{Misfit, MisfitProblem, NoVdpa, misfits};
pub use guid::{GuidError, vf_guid};
pub use keep::{KeptVfs, keep};
pub use plan::plan;
pub use rdma::{Keep, RdmaFacts, RdmaNeed, rdma_need, rdma_of_pools};
pub use release::{Original, Owned, Release, release};
pub use render::{render, render_decision};
pub use resolve::{Note, NoteKind, ResolveError, ResolveProblem, Resolved, Trouble, resolve};
pub use uplink::{
    Burden, Purpose, UplinkFacts, UplinkInUse, UplinkRefused, UplinkUse, check_uplinks, uplinks,
};
