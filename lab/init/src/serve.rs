//! Runs commands for the host, many at a time.
//!
//! One thread reads frames and only ever hands them on, so no command can hold up another;
//! every command has its own threads in [`crate::command`]. When the port ends, the runner on
//! the host is gone, and so is the reason to live: returning powers the machine off.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::command::{self, Inbox};
use crate::proto::{Exec, Exit, Frame, Kind};

/// Where frames to the host go; writes of one frame are not interleaved.
#[derive(Clone)]
pub(crate) struct Port(Arc<Mutex<File>>);

impl Port {
    /// Sends a frame, waiting for as long as the host does not read.
    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        frame.write_to(&mut *lock(&self.0))
    }
}

/// Serves until the host closes the port or asks for power-off.
///
/// With `forget`, each command sees the files of the host as they are when it starts.
pub(crate) fn run(forget: bool) -> io::Result<()> {
    let mut reader = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let port = Port(Arc::new(Mutex::new(reader.try_clone()?)));
    let running: Arc<Mutex<HashMap<u32, Inbox>>> = Arc::default();
    while let Some(frame) = Frame::read_from(&mut reader)? {
        match frame.kind {
            Kind::PowerOff => break,
            Kind::Exec => match Exec::decode(&frame.payload) {
                Some(exec) => start(frame.id, exec, forget, &port, &running)?,
                None => {
                    let exit = Exit::NotStarted(126, "malformed request".to_owned());
                    port.send(&Frame::new(Kind::Exit, frame.id, exit.encode()))?;
                }
            },
            _ => {
                if let Some(inbox) = lock(&running).get(&frame.id) {
                    inbox.deliver(&frame);
                }
            }
        }
    }
    Ok(())
}

fn start(
    id: u32,
    exec: Exec,
    forget: bool,
    port: &Port,
    running: &Arc<Mutex<HashMap<u32, Inbox>>>,
) -> io::Result<()> {
    let inbox = Inbox::default();
    lock(running).insert(id, inbox.clone());
    let (port, running) = (port.clone(), Arc::clone(running));
    thread::Builder::new()
        .name(format!("command {id}"))
        .spawn(move || {
            if forget {
                forget_host();
            }
            let exit = command::run(id, &exec, &port, &inbox);
            lock(&running).remove(&id);
            // A port that takes no more frames ends the reader too.
            port.send(&Frame::new(Kind::Exit, id, exit.encode())).ok();
        })?;
    Ok(())
}

/// Drops what the kernel keeps of the host's files and is not in use: pages, names, and names
/// that were not there.
///
/// 9p has no way to be told of changes, and the overlay above it holds on to what it has seen, so
/// no cache mode of the mount would do: a program that was replaced would still run as it was. (As it does while the
/// old one is running.)
fn forget_host() {
    // First 4, for silence in the kernel log; then 3, for pages and names. Twice, because a name
    // that was used may only be marked by the first pass, and be dropped by the second.
    for what in ["4", "3", "3"] {
        std::fs::write("/proc/sys/vm/drop_caches", what).ok();
    }
}

/// Locks; a thread that died while holding the lock left plain data behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
