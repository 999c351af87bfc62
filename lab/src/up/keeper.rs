//! The process that owns machines which stay up.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::dir::{Dir, Info};
use crate::lab::{Boot, Lab};
use crate::machine::Channel;
use crate::proto::{Frame, Kind};
use crate::topology::Topology;

/// How often the keeper looks whether its machines still run.
const LOOK: Duration = Duration::from_millis(500);

/// Boots machines and keeps them until somebody takes them down, or all have powered off.
///
/// `ready` is called when they take commands; if it fails, nobody wants them any more.
pub fn keep(
    dir: &Dir,
    topology: &Topology,
    boot: Boot<'_>,
    ready: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let _lock = dir.take()?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let devices = describe(topology);
    dir.write_info(&Info {
        pid,
        machines: 0,
        devices: devices.clone(),
    })?;
    let kill = boot.kill.clone();
    let result = (|| {
        let lab = Boot {
            logs: Some(dir.path().to_owned()),
            host_is_still: false,
            ..boot
        }
        .boot(topology)?;
        let listener = dir.listen()?;
        dir.write_info(&Info {
            pid,
            machines: topology.machines,
            devices,
        })?;
        ready()?;
        serve(&listener, &lab, &kill)?;
        lab.power_off();
        Ok(())
    })();
    dir.remove()?;
    result
}

fn describe(topology: &Topology) -> String {
    let nics = topology.nics.iter().map(ToString::to_string);
    let nvme = topology.nvme_vfs.map(|vfs| format!("nvme vfs={vfs}"));
    nics.chain(nvme).collect::<Vec<_>>().join(" ")
}

fn serve(listener: &UnixListener, lab: &Lab, kill: &crate::machine::KillSwitch) -> Result<()> {
    listener
        .set_nonblocking(true)
        .context("listen without waiting")?;
    let channels: Arc<Vec<_>> = Arc::new(
        lab.machines()
            .iter()
            .map(|machine| Arc::clone(&machine.channel))
            .collect(),
    );
    let (off, asked_off) = std::sync::mpsc::channel();
    let look = Timespec::try_from(LOOK).context("a short time")?;
    while !kill.is_thrown()
        && channels.iter().any(|channel| channel.is_open())
        && asked_off.try_recv().is_err()
    {
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&look)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for clients"),
        }
        // Nobody there, or gone again, or too many at once: the next round will tell.
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        let (channels, off) = (Arc::clone(&channels), off.clone());
        let client = thread::Builder::new().name("client".to_owned());
        client.spawn(move || {
            if let Ok(true) = Client::new(stream, channels).and_then(|mut client| client.serve()) {
                off.send(()).ok();
            }
        })?;
    }
    Ok(())
}

/// One connection: frames of the client's commands, renumbered.
struct Client {
    stream: UnixStream,
    writer: Arc<Mutex<UnixStream>>,
    channels: Arc<Vec<Arc<Channel>>>,
    selected: Option<Arc<Channel>>,
    /// The client's numbers and the machine's.
    commands: Arc<Mutex<HashMap<u32, u32>>>,
}

impl Client {
    fn new(stream: UnixStream, channels: Arc<Vec<Arc<Channel>>>) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let writer = Arc::new(Mutex::new(stream.try_clone()?));
        Ok(Self {
            stream,
            writer,
            channels,
            selected: None,
            commands: Arc::default(),
        })
    }

    /// Serves until the client goes; true when it wants the machines to be powered off.
    fn serve(&mut self) -> io::Result<bool> {
        let result = loop {
            match Frame::read_from(&mut self.stream) {
                Ok(Some(frame)) if frame.kind == Kind::PowerOff => break Ok(true),
                Ok(Some(frame)) => self.take(frame)?,
                Ok(None) => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        // Nobody waits for its commands any more.
        let abandoned: Vec<u32> = lock(&self.commands).drain().map(|(_, id)| id).collect();
        for (channel, id) in self
            .selected
            .iter()
            .flat_map(|channel| abandoned.iter().map(move |id| (channel, *id)))
        {
            let kill = u8::try_from(rustix::process::Signal::KILL.as_raw()).unwrap_or(9);
            channel.send(&Frame::new(Kind::Signal, id, [kill])).ok();
            channel.close(id);
        }
        result
    }

    fn take(&mut self, mut frame: Frame) -> io::Result<()> {
        if frame.kind == Kind::Select {
            return self.select(&frame);
        }
        let Some(channel) = &self.selected else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no machine is selected",
            ));
        };
        if frame.kind == Kind::Exec {
            let (id, frames) = channel.open().map_err(io::Error::other)?;
            lock(&self.commands).insert(frame.id, id);
            self.forward(frame.id, frames)?;
            frame.id = id;
        } else {
            match lock(&self.commands).get(&frame.id) {
                Some(id) => frame.id = *id,
                // The command has ended; the client does not know it yet.
                None => return Ok(()),
            }
        }
        channel.send(&frame).map_err(io::Error::other)
    }

    fn select(&mut self, frame: &Frame) -> io::Result<()> {
        let index = frame.payload.first().map(|index| usize::from(*index));
        self.selected = index
            .and_then(|index| self.channels.get(index))
            .map(Arc::clone);
        let answer = match &self.selected {
            Some(channel) if channel.is_open() => Frame::new(Kind::Ready, 0, []),
            Some(channel) => Frame::new(Kind::Failed, 0, channel.why_closed()),
            None => Frame::new(
                Kind::Failed,
                0,
                format!(
                    "the lab has {} machines, counted from 0",
                    self.channels.len()
                ),
            ),
        };
        answer.write_to(&mut *lock(&self.writer))
    }

    fn forward(&self, client_id: u32, frames: Receiver<Frame>) -> io::Result<()> {
        let (writer, commands) = (Arc::clone(&self.writer), Arc::clone(&self.commands));
        let forward = move || {
            let mut ended = false;
            for mut frame in &frames {
                ended = frame.kind == Kind::Exit;
                frame.id = client_id;
                if ended {
                    lock(&commands).remove(&client_id);
                }
                if frame.write_to(&mut *lock(&writer)).is_err() {
                    return;
                }
            }
            if !ended {
                // The machine is gone, and with it what this client came for.
                lock(&writer).shutdown(std::net::Shutdown::Both).ok();
            }
        };
        thread::Builder::new()
            .name(format!("command {client_id}"))
            .spawn(forward)
            .map(drop)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
