//! Frames to and from a machine, sorted by the command they belong to.
//!
//! The other end is the guest's init or, for a machine that another process keeps, that
//! process's socket; both speak the same frames. The guest may be compromised or merely broken:
//! whoever breaks the rules of `proto` (length, kind, window) is cut off, never waited for.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::proto::{Frame, Kind, WINDOW, cost};

/// A guest that takes no bytes for this long is dead. Under emulation on a loaded host, seconds
/// are normal.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// One end of a conversation with a machine.
#[derive(Debug)]
pub(crate) struct Channel {
    writer: Mutex<UnixStream>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    routes: HashMap<u32, Route>,
    machine: Option<Receiver<Frame>>,
    next: u32,
    closed: Option<String>,
}

#[derive(Debug)]
struct Route {
    frames: Sender<Frame>,
    /// Cost of what is under way and not acknowledged: input, output, error output.
    ahead: [usize; 3],
}

impl Channel {
    /// Takes over a connected stream.
    pub(crate) fn new(stream: UnixStream, name: &str) -> Result<Arc<Self>> {
        let writer = stream.try_clone().context("share the channel")?;
        writer
            .set_write_timeout(Some(WRITE_LIMIT))
            .context("set a limit to writes on the channel")?;
        let (frames, machine) = mpsc::channel();
        let routes = HashMap::from([(
            0,
            Route {
                frames,
                ahead: [0; 3],
            },
        )]);
        let state = State {
            routes,
            machine: Some(machine),
            next: 1,
            closed: None,
        };
        let channel = Arc::new(Self {
            writer: Mutex::new(writer),
            state: Mutex::new(state),
        });
        let reader = Arc::clone(&channel);
        let thread = thread::Builder::new().name(format!("channel {name}"));
        thread
            .spawn(move || reader.read_all(stream))
            .context("start a thread for the channel")?;
        Ok(channel)
    }

    /// Frames that belong to no command; can be taken once.
    pub(crate) fn machine_events(&self) -> Option<Receiver<Frame>> {
        self.lock().machine.take()
    }

    /// Starts a conversation of its own and returns its number.
    pub(crate) fn open(&self) -> Result<(u32, Receiver<Frame>)> {
        let mut state = self.lock();
        if let Some(why) = &state.closed {
            bail!("{why}");
        }
        let id = state.next;
        // Wraps after four billion commands, long after the machine is gone.
        state.next = state
            .next
            .checked_add(1)
            .context("no number is left for another command")?;
        let (frames, received) = mpsc::channel();
        state.routes.insert(
            id,
            Route {
                frames,
                ahead: [0; 3],
            },
        );
        Ok((id, received))
    }

    /// Ends a conversation; what still comes for it is dropped.
    pub(crate) fn close(&self, id: u32) {
        self.lock().routes.remove(&id);
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &Frame) -> Result<()> {
        if let Some(route) = self.lock().routes.get_mut(&frame.id) {
            route.account_sent(frame);
        }
        let written =
            frame.write_to(&mut *self.writer.lock().unwrap_or_else(PoisonError::into_inner));
        written.map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::WouldBlock => format!("it took no input for {WRITE_LIMIT:?}"),
                _ => error.to_string(),
            };
            self.shut(&why);
            anyhow::anyhow!("{}", self.why_closed())
        })
    }

    /// Ends everything, with a reason for those who ask.
    pub(crate) fn shut(&self, why: &str) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| why.to_owned());
        state.routes.clear();
        drop(state);
        // Ends the reader, and tells the guest.
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.shutdown(Shutdown::Both).ok();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().closed.is_none()
    }

    pub(crate) fn why_closed(&self) -> String {
        self.lock()
            .closed
            .clone()
            .unwrap_or_else(|| "the channel is open".to_owned())
    }

    fn read_all(&self, mut stream: UnixStream) {
        let why = loop {
            match Frame::read_from(&mut stream) {
                Ok(None) => break "the machine is off".to_owned(),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    break format!("the machine breaks the rules of its channel: {error}");
                }
                Err(error) => break format!("the channel broke: {error}"),
                Ok(Some(frame)) => {
                    if let Err(why) = self.sort(frame) {
                        break why;
                    }
                }
            }
        };
        self.shut(&why);
    }

    fn sort(&self, frame: Frame) -> Result<(), String> {
        let mut state = self.lock();
        let Some(route) = state.routes.get_mut(&frame.id) else {
            return Ok(());
        };
        route.account_received(&frame)?;
        let last = matches!(frame.kind, Kind::Exit | Kind::Ready | Kind::Failed);
        let id = frame.id;
        // A receiver that is gone has lost its interest.
        if route.frames.send(frame).is_err() || last {
            state.routes.remove(&id);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that is queued for a command is paid for out of a window, so the queues need no
/// bound of their own.
impl Route {
    fn account_sent(&mut self, frame: &Frame) {
        let [input, output, errors] = &mut self.ahead;
        match (frame.kind, frame.as_credit()) {
            (Kind::Stdin, _) if !frame.payload.is_empty() => *input += cost(frame.payload.len()),
            (Kind::Credit, Some((Kind::Stdout, consumed))) => {
                *output = output.saturating_sub(consumed);
            }
            (Kind::Credit, Some((Kind::Stderr, consumed))) => {
                *errors = errors.saturating_sub(consumed);
            }
            _ => {}
        }
    }

    fn account_received(&mut self, frame: &Frame) -> Result<(), String> {
        let [input, output, errors] = &mut self.ahead;
        let kept = match (frame.kind, frame.as_credit()) {
            (Kind::Stdout, _) => add_within_window(output, frame),
            (Kind::Stderr, _) => add_within_window(errors, frame),
            (Kind::Credit, Some((Kind::Stdin, consumed @ 1..))) => {
                let within = consumed <= *input;
                *input = input.saturating_sub(consumed);
                within
            }
            (Kind::Exit, _) => true,
            // One of them, before any command.
            (Kind::Ready | Kind::Failed, _) => frame.id == 0,
            _ => false,
        };
        if kept {
            Ok(())
        } else {
            Err(format!(
                "the machine breaks the rules of its channel: unexpected {:?}",
                frame.kind
            ))
        }
    }
}

fn add_within_window(ahead: &mut usize, frame: &Frame) -> bool {
    *ahead += cost(frame.payload.len());
    *ahead <= WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SOON: Duration = Duration::from_secs(10);

    /// A channel with one open command, and the guest's end of it.
    fn channel() -> (Arc<Channel>, u32, Receiver<Frame>, UnixStream) {
        let (ours, guest) = UnixStream::pair().unwrap();
        let channel = Channel::new(ours, "test").unwrap();
        let (id, frames) = channel.open().unwrap();
        (channel, id, frames, guest)
    }

    #[track_caller]
    fn check_cut_off(channel: &Channel, frames: &Receiver<Frame>, why: &str) {
        while frames.recv_timeout(SOON).is_ok() {}
        let closed = channel.why_closed();
        assert!(closed.contains(why), "{closed}");
        assert!(channel.open().is_err());
    }

    #[test]
    fn a_guest_that_sends_more_than_its_window_is_cut_off() {
        let (channel, id, frames, mut guest) = channel();
        // Empty frames are not free either. Writing fails once the other side has hung up.
        while Frame::new(Kind::Stdout, id, [])
            .write_to(&mut guest)
            .is_ok()
        {}
        check_cut_off(&channel, &frames, "unexpected Stdout");
    }

    #[test]
    fn a_window_opens_with_credit() {
        let (channel, id, frames, mut guest) = channel();
        for _ in 0..100 {
            Frame::new(Kind::Stderr, id, vec![0; 32 * 1024])
                .write_to(&mut guest)
                .unwrap();
            let frame = frames.recv_timeout(SOON).unwrap();
            channel
                .send(&Frame::credit(id, frame.kind, frame.payload.len()))
                .unwrap();
        }
        assert!(channel.is_open());
    }

    #[test]
    fn a_guest_that_breaks_the_frames_is_cut_off() {
        let (channel, _, frames, mut guest) = channel();
        guest.write_all(&[0xff; 64]).unwrap();
        check_cut_off(&channel, &frames, "frame of 4294967295 bytes");
    }

    #[test]
    fn credit_that_was_not_spent_is_refused() {
        let (channel, id, frames, mut guest) = channel();
        Frame::credit(id, Kind::Stdin, 1)
            .write_to(&mut guest)
            .unwrap();
        check_cut_off(&channel, &frames, "unexpected Credit");
    }

    #[test]
    fn frames_for_nobody_are_dropped() {
        let (channel, id, frames, mut guest) = channel();
        Frame::new(Kind::Stdout, 77, b"?".as_slice())
            .write_to(&mut guest)
            .unwrap();
        Frame::new(Kind::Exit, id, [0; 5])
            .write_to(&mut guest)
            .unwrap();
        assert_eq!(frames.recv_timeout(SOON).unwrap().kind, Kind::Exit);
        assert!(channel.is_open());
    }
}
