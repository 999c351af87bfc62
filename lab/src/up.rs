//! Machines that stay up between commands.
//!
//! ```text
//! virtfn-lab exec ──┐                       ┌── channel ── lab0
//! virtfn-lab exec ──┼── socket ── keeper ───┤
//! virtfn-lab down ──┘   (frames)            └── channel ── lab1
//! ```
//!
//! A *keeper* process owns the machines and hands frames on between its socket and their
//! channels; only the numbers of the commands are changed. Everything about it is in one
//! directory, of which it holds the lock: a directory whose lock is free belongs to nobody and
//! is removed by whoever finds it, so a killed keeper leaves nothing for long.

mod dir;
mod keeper;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use dir::{Dir, Name, ParseNameError};
pub use keeper::keep;

use crate::machine::{Channel, Machine};
use crate::proto::{Frame, Kind};

/// Powering off takes half a second; on a loaded host more.
const DOWN_LIMIT: Duration = Duration::from_secs(40);

/// Connects to a machine of a lab that is up.
pub fn machine(dir: &Dir, index: usize) -> Result<Machine> {
    let channel = Channel::new(dir.connect()?, &format!("lab{index}"))?;
    let events = channel
        .machine_events()
        .context("the channel's events are taken")?;
    let number = u8::try_from(index).context("a machine's number")?;
    channel.send(&Frame::new(Kind::Select, 0, [number]))?;
    // The keeper answers at once, whatever its machines do.
    let answer = events.recv_timeout(Duration::from_secs(10));
    let answer = answer.with_context(|| format!("lab {} does not answer", dir.name()))?;
    ensure!(
        answer.kind == Kind::Ready,
        "{}",
        String::from_utf8_lossy(&answer.payload)
    );
    Ok(Machine::remote(&format!("lab{index}"), channel))
}

/// Powers the machines of a lab off and waits for its keeper to be gone.
pub fn down(dir: &Dir) -> Result<()> {
    let deadline = Instant::now() + DOWN_LIMIT;
    if let Ok(mut stream) = dir.connect() {
        Frame::new(Kind::PowerOff, 0, []).write_to(&mut stream).ok();
    }
    if dir.await_free(deadline)? {
        return dir.remove();
    }
    // It holds the lock, so the process that wrote its number into the directory is alive.
    dir.kill_keeper()?;
    if !dir.await_free(Instant::now() + Duration::from_secs(5))? {
        bail!(
            "lab {} does not end; its keeper is process {}",
            dir.name(),
            dir.info().pid
        );
    }
    dir.remove()
}
