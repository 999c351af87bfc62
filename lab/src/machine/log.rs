//! The end of a stream of text, kept in memory so that a killed lab leaves no file behind.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A whole boot with all messages takes about 100 KiB.
const KEPT: usize = 1 << 20;

/// What a process wrote last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    copy: Option<File>,
}

impl Log {
    /// A log that is also written to a file, as far as that works.
    pub(crate) fn with_copy(copy: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(State {
            bytes: Vec::new(),
            copy,
        })))
    }

    /// Reads a stream to its end, on the caller's thread.
    pub(crate) fn fill(&self, mut stream: impl Read) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            self.add(buffer.get(..count).unwrap_or_default());
        }
    }

    /// What was kept.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// The last lines, for an error message.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let bytes = self.bytes();
        let text = String::from_utf8_lossy(&bytes);
        let text: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        text.get(text.len().saturating_sub(lines)..)
            .unwrap_or_default()
            .join("\n")
    }

    fn add(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if let Some(copy) = &mut state.copy {
            // The disk may be full; the memory has it all the same.
            copy.write_all(bytes).ok();
        }
        state.bytes.extend(bytes);
        if state.bytes.len() > 2 * KEPT {
            let old = state.bytes.len() - KEPT;
            state.bytes.drain(..old);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
