//! The only crate that reads or changes Linux.
//!
//! [`Linux`] is a real host. It reaches the host's files through a [`HostRoot`], so that the real
//! machine, a container's `/host` and a recording ([`Tree`]) are one code path, and the kernel
//! through netlink.
//!
//! | To | See |
//! |---|---|
//! | see what a host has | [`Linux`], `discover` |
//! | make one step | [`Linux`], `perform`: one file per kind of step |
//! | give a VF to somebody, take it back | [`Engine::attach`], [`Engine::detach`] |
//! | give its interface addresses and routes | [`address()`] |
//! | make a plan true | [`apply()`] |
//! | know who has which VF | [`Ledger`] |
//! | know which interfaces the host itself needs | [`see_uplinks`] |
//! | know which PFs were configured, and what they had before | [`PfLedger`] |
//! | ask and write the firmware of NICs | [`see_firmware`], [`write_firmware`] |
//! | keep it so across reboots | [`persist`] |
//! | see what the kernel offers, write its arguments | [`kernel_facts`], [`write_kernel_arguments`] |

mod addressing;
mod apply;
mod attach;
mod autoprobe;
mod checkpoint;
mod discover;
mod driver;
mod engine;
mod files;
mod firmware;
#[doc(hidden)]
pub mod fuzz;
mod heal;
mod journal;
mod kernel_args;
mod ledger;
mod linux;
mod lock;
mod memo;
mod modprobe;
pub mod netns;
mod owned;
mod pci_ids;
mod perform;
pub mod persist;
mod program;
mod queries;
mod rdma_mode;
mod record;
mod root;
mod state;
mod undo;
mod uplink;
mod wait;

pub use addressing::{Addressing, FoundInterface, address, look_at_interface};
pub use apply::{
    Applied, ApplyContext, ApplyError, Decide, Event, PfApplied, PfFault, Undecided, VfFault, apply,
};
pub use attach::{Adoption, AttachError, Attached, DetachError, Detached, HealError, StepFault};
#[cfg(feature = "kill-points")]
pub use checkpoint::KillAt;
pub use checkpoint::{Checkpoint, Checkpoints, Uninterrupted};
pub use discover::{config, nearest_function};
pub use engine::{Engine, Ground};
pub use firmware::{FirmwareToolError, reset_firmware, see_firmware, write_firmware};
pub use heal::{Healed, Mended};
pub use journal::{End, FailedStep, LastApply, LastPf, last_apply, starved_before};
pub use kernel_args::{
    AskedReboots, BootLoader, GrubFileError, GrubFileProblem, KernelArgumentError, RebootLog,
    RebootLogError, Written, asked_reboots, kernel_facts, starved_pfs, write_kernel_arguments,
};
pub use ledger::{
    Before, BootId, Change, Claim, Damage, Happening, Holders, Ledger, LedgerError, PastEvent,
    Record, RecordedStep, Stage,
};
pub use linux::Linux;
pub use lock::{
    Lock, LockError, LockHolder, LockOf, exclusive, exclusive_at, shared, shared_at, who_applies,
};
pub use memo::Memos;
pub use owned::{DamagedPfRecord, OwnedPf, OwnedPfs, PfLedger, ReadOwnedError};
pub use pci_ids::{PciNames, pci_names};
pub use program::{Call, HostPrograms, ProgramError, ProgramFault, Programs};
pub use queries::QueryError;
pub use rdma_mode::{RdmaModeError, keep_rdma_mode, see_rdma_mode, set_rdma_mode};
pub use record::{RecordError, Tree, TreeError, UnpackError};
pub use root::{AccessError, HostRoot};
pub use state::{StateDir, StateError, check_dir};
pub use undo::UndoError;
pub use uplink::{SeenUplinks, UplinksError, see_uplinks};
