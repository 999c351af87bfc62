//! The wires: NIC *n* of every machine is on segment *n*.
//!
//! Two machines share a socket pair and QEMU talks to QEMU. With any other number, each
//! machine's wire ends here, and a thread per machine copies every Ethernet frame to the others,
//! as a hub would; a machine that is alone thus has a link, and nobody at its other end.
//! Frames come with their length in front (`-netdev stream`): u32, big-endian.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use crate::topology::{Nic, Topology};

/// QEMU's own limit is 68 KiB; jumbo frames and offloads stay below.
const MAX_FRAME: usize = 128 * 1024;

/// For each machine, the end of the wire of each of its NICs; `None` where there is none.
pub(crate) fn wires(topology: &Topology) -> Result<Vec<Vec<Option<OwnedFd>>>> {
    let mut ends: Vec<Vec<Option<OwnedFd>>> = (0..topology.machines).map(|_| Vec::new()).collect();
    for nic in &topology.nics {
        let segment = match nic {
            Nic::Igb { .. } => segments(topology).context("lay a wire between machines")?,
            Nic::User => Vec::new(),
        };
        let mut segment = segment.into_iter();
        ends.iter_mut()
            .for_each(|machine| machine.push(segment.next()));
    }
    Ok(ends)
}

/// One end for each machine: of a segment for all, or of one each.
fn segments(topology: &Topology) -> Result<Vec<OwnedFd>> {
    if !topology.apart {
        return segment(topology.machines);
    }
    let alone = (0..topology.machines).map(|_| segment(1));
    Ok(alone
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn segment(machines: usize) -> Result<Vec<OwnedFd>> {
    match machines {
        2 => {
            let (one, other) = UnixStream::pair()?;
            Ok(vec![one.into(), other.into()])
        }
        _ => {
            let pairs = (0..machines)
                .map(|_| UnixStream::pair())
                .collect::<io::Result<Vec<_>>>()?;
            let (theirs, ours): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            hub(ours)?;
            Ok(theirs.into_iter().map(OwnedFd::from).collect())
        }
    }
}

fn hub(ports: Vec<UnixStream>) -> Result<()> {
    let writers: Vec<_> = ports
        .iter()
        .map(UnixStream::try_clone)
        .collect::<io::Result<Vec<_>>>()?;
    let writers: Arc<Vec<_>> = Arc::new(writers.into_iter().map(Mutex::new).collect());
    for (number, port) in ports.into_iter().enumerate() {
        let writers = Arc::clone(&writers);
        thread::Builder::new()
            .name(format!("hub port {number}"))
            .spawn(move || {
                // Ends when the machine does; its frames are then nobody's.
                copy(port, number, &writers).ok();
            })?;
    }
    Ok(())
}

fn copy(mut from: UnixStream, number: usize, to: &[Mutex<UnixStream>]) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if size > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
        }
        frame.clear();
        frame.extend(length);
        frame.resize(4 + size, 0);
        from.read_exact(frame.get_mut(4..).unwrap_or_default())?;
        for (_, port) in to.iter().enumerate().filter(|(port, _)| *port != number) {
            // A machine that is off is no longer on the wire.
            port.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(&frame)
                .ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sends a frame from the first of three machines; returns who got it.
    fn hears(topology: &Topology) -> Vec<bool> {
        let ends = wires(topology).unwrap().into_iter().flatten().flatten();
        let mut ends: Vec<UnixStream> = ends.map(UnixStream::from).collect();
        ends[0].write_all(&[0, 0, 0, 2, 8, 8]).unwrap();
        ends.iter_mut()
            .map(|end| {
                // Long for who gets it at once; who gets nothing waits so long.
                end.set_read_timeout(Some(Duration::from_millis(500)))
                    .unwrap();
                end.read_exact(&mut [0; 6]).is_ok()
            })
            .collect()
    }

    #[test]
    fn machines_hear_each_other_unless_they_are_apart() {
        let topology = Topology::igb(3);
        assert_eq!(hears(&topology), [false, true, true]);
        assert_eq!(hears(&topology.apart()), [false, false, false]);
    }
}
