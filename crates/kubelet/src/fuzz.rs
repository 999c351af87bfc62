//! Entry points for fuzzers: what comes over a socket, on any bytes at all.

use crate::authority::Rewriter;
use crate::grpc::Frames;

/// Rewrites bytes as a connection, whole and byte by byte.
pub fn fuzz_authority(data: &[u8]) {
    let mut whole = Vec::new();
    Rewriter::default().feed(data, &mut whole);
    let mut parts = Vec::new();
    let mut rewriter = Rewriter::default();
    for byte in data {
        rewriter.feed(&[*byte], &mut parts);
    }
    assert!(whole.len() <= data.len(), "it never grows");
    // In parts a frame of another kind passes as it comes, and whole ones too: the same bytes.
    assert_eq!(whole, parts);
}

/// Takes messages out of bytes.
pub fn fuzz_frames(data: &[u8]) {
    let mut frames = Frames::new(4096);
    frames.push(data);
    let mut total = 0;
    while let Ok(Some(message)) = frames.next() {
        total += message.len() + 5;
    }
    assert!(total <= data.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_pass() {
        for (name, run) in [
            ("authority", fuzz_authority as fn(&[u8])),
            ("frames", fuzz_frames),
        ] {
            let dir = format!("{}/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut seeds = 0;
            for entry in std::fs::read_dir(dir).unwrap() {
                run(&std::fs::read(entry.unwrap().path()).unwrap());
                seeds += 1;
            }
            assert!(seeds > 0, "{name} has no seeds");
        }
    }
}
