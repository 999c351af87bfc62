//! Places between two changes, where tests kill the process to see that nothing is lost.
//!
//! In a shipped binary they do nothing. With the feature `kill-points`, [`KillAt`] kills the process
//! with SIGKILL at the n-th of them, which is as near to a power cut as a test can come without
//! one; the lab runs every attach, detach and apply once per checkpoint.

/// A place between two changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The locks are taken, nothing is written yet.
    Locked,
    /// What will be done, and how to take it back, is on the disk.
    Recorded,
    /// It is on record that the PF is ours.
    Owned,
    /// The record that the PF is ours is gone.
    Disowned,
    /// One of the writes of a step that binds a driver was made.
    DriverWrite,
    /// A step was made.
    StepMade,
    /// A step was taken back.
    StepUndone,
    /// All steps are made, the record does not say so yet.
    Unconfirmed,
    /// The record says that all is done.
    Confirmed,
    /// A file of those that keep a host as it was applied is about to be changed.
    FileToChange,
    /// The agent is about to replace a file that others read, and has the new one beside it.
    FileWritten,
    /// The agent has its hands on the place of a pool's socket, and has removed what was there.
    SocketCleared,
    /// The agent listens for the kubelet on a pool's socket.
    SocketMade,
    /// The kubelet is about to be told of a pool.
    Registering,
    /// The kubelet has taken a pool.
    Registered,
    /// Devices count as given to a container, and nothing was written or answered yet.
    Given,
    /// All is written that a container needs, and the kubelet has no answer yet.
    Answering,
}

/// Told of each checkpoint as it is passed.
pub trait Checkpoints: Send + Sync {
    /// Returns, unless the process is to die here.
    fn passed(&self, at: Checkpoint);
}

/// Lets everything pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uninterrupted;

impl Checkpoints for Uninterrupted {
    fn passed(&self, _at: Checkpoint) {}
}

/// Kills this process with SIGKILL at the n-th checkpoint, from 1.
#[cfg(feature = "kill-points")]
#[derive(Debug)]
pub struct KillAt {
    left: std::sync::atomic::AtomicU32,
}

#[cfg(feature = "kill-points")]
impl KillAt {
    /// Lets `nth - 1` checkpoints pass; 0 lets all of them.
    #[must_use]
    pub fn new(nth: u32) -> Self {
        Self {
            left: std::sync::atomic::AtomicU32::new(nth),
        }
    }
}

#[cfg(feature = "kill-points")]
impl Checkpoints for KillAt {
    fn passed(&self, _at: Checkpoint) {
        use rustix::process::{Signal, getpid, kill_process};
        use std::sync::atomic::Ordering;
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // SIGKILL to oneself does not fail and does not return.
            let _unreached = kill_process(getpid(), Signal::KILL);
        }
    }
}
