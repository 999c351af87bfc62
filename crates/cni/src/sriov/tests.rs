//! Claims about the plugin's commands, on a machine that is played.

mod add;
mod collect;
mod errors;
mod foreign;
mod infiniband;
mod kill;
pub(crate) mod world;
