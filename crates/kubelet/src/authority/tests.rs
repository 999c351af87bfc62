use proptest::prelude::*;

use super::*;

/// The first request of grpc-go 1.72 as the kubelet's plugin watcher sends it, taken down from
/// RFC 7541's rules: indexed method and scheme, literals with incremental indexing.
fn block(authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x44, 4];
    block.extend(b"/a/B");
    block.push(0x41);
    block.push(u8::try_from(authority.len()).unwrap());
    block.extend(authority);
    block.extend([0x5f, 16]);
    block.extend(b"application/grpc");
    block
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, 1]);
    frame.extend(payload);
    frame
}

fn rewrite(frames: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'P'; PREFACE];
    bytes.extend(frames);
    let mut out = Vec::new();
    Rewriter::default().feed(&bytes, &mut out);
    out.split_off(PREFACE)
}

#[test]
fn an_authority_of_any_form_becomes_a_letter() {
    for authority in [
        &b"%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fa.sock"[..],
        b"/var/lib/kubelet/plugins_registry/a.sock",
        b"localhost",
        b"\xff",
    ] {
        let sent = frame(HEADERS, END_HEADERS, &block(authority));
        assert_eq!(rewrite(&sent), frame(HEADERS, END_HEADERS, &block(b"k")));
    }
}

#[test]
fn padding_goes_and_priority_stays() {
    let priority = [0, 0, 0, 0, 15];
    let mut payload = vec![3];
    payload.extend(priority);
    payload.extend(block(b"%2Fx"));
    payload.extend([0; 3]);
    let plain = [&priority[..], &block(b"k")].concat();
    assert_eq!(
        rewrite(&frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &payload)),
        frame(HEADERS, END_HEADERS | PRIORITY, &plain)
    );
}

#[test]
fn all_else_passes_as_it_is() {
    for sent in [
        frame(0, 1, &block(b"%2Fx")),
        frame(HEADERS, 0, &block(b"%2Fx")),
        frame(HEADERS, END_HEADERS, &block(b"")),
        // Cut in the middle of a string, an endless integer, more padding than there is.
        frame(HEADERS, END_HEADERS, &[0x41, 9, b'x']),
        frame(HEADERS, END_HEADERS, &[0xff; 32]),
        frame(HEADERS, END_HEADERS | PADDED, &[9]),
        frame(HEADERS, END_HEADERS, &vec![0x82; LARGEST_FRAME + 1]),
        frame(4, 0, &[]),
    ] {
        assert_eq!(rewrite(&sent), sent);
    }
}

proptest! {
    #[test]
    fn where_reads_end_makes_no_difference(
        frames in proptest::collection::vec((0_u8..10, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        cut in 1_usize..20,
    ) {
        let mut bytes = vec![0; PREFACE];
        for (kind, flags, payload) in frames {
            bytes.extend(frame(kind, flags, &payload));
        }
        let mut whole = Vec::new();
        Rewriter::default().feed(&bytes, &mut whole);
        let mut parts = Vec::new();
        let mut rewriter = Rewriter::default();
        for part in bytes.chunks(cut) {
            rewriter.feed(part, &mut parts);
        }
        prop_assert_eq!(whole, parts);
    }
}
