use proptest::prelude::*;

use super::*;
use crate::testing::{attribute, message, words};

const OURS: u32 = 5;
const MULTI: u16 = 0x2;

fn errno_word(errno: u32) -> u32 {
    0_u32.wrapping_sub(errno)
}

/// Hears datagrams; returns how many answers there were and how it ended.
fn hear(is_dump: bool, datagrams: &[Vec<u8>]) -> (usize, Option<Result<(), Fault>>) {
    let mut conversation = Conversation::new(OURS, 0, is_dump);
    let mut answers = 0;
    for datagram in datagrams {
        match conversation.hear(datagram, &mut |_| answers += 1) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => {
                let path_of = |offset| vec![u16::try_from(offset).unwrap()];
                return (answers, Some(conversation.verdict(path_of)));
            }
            Err(fault) => return (answers, Some(Err(fault))),
        }
    }
    (answers, None)
}

fn ack(sequence: u32) -> Vec<u8> {
    message(NLMSG_ERROR, 0x100, sequence, &words(&[0, 36, 0, 0, 0]))
}

fn done() -> Vec<u8> {
    message(NLMSG_DONE, MULTI, OURS, &words(&[0]))
}

#[test]
fn one_answer_ends_with_its_acknowledgement() {
    let answer = message(16, 0, OURS, b"link");
    assert_eq!(hear(false, std::slice::from_ref(&answer)), (1, None));
    assert_eq!(hear(false, &[answer, ack(OURS)]), (1, Some(Ok(()))));
    assert_eq!(hear(false, &[ack(OURS)]), (0, Some(Ok(()))));
}

#[test]
fn a_list_in_several_datagrams_ends_when_it_says_so() {
    let part = [
        message(16, MULTI, OURS, b"a"),
        message(16, MULTI, OURS, b"b"),
    ]
    .concat();
    let last = [message(16, MULTI, OURS, b"c"), done()].concat();
    assert_eq!(hear(true, &[part, last]), (3, Some(Ok(()))));
}

#[test]
fn answers_to_a_former_request_and_events_are_not_ours() {
    let late = message(16, 0, OURS - 1, b"late");
    let event = message(16, 0, 0, b"event");
    let others = [late, event, ack(OURS - 1)].concat();
    assert_eq!(hear(false, &[others, ack(OURS)]), (0, Some(Ok(()))));
}

#[test]
fn a_list_that_changed_meanwhile_is_unsettled() {
    const INTERRUPTED: u16 = 0x10;
    let part = message(16, MULTI | INTERRUPTED, OURS, b"a");
    let (answers, end) = hear(true, &[part, done()]);
    assert_eq!((answers, end), (1, Some(Err(Fault::Unsettled(1)))));
    let end_only = message(NLMSG_DONE, MULTI | INTERRUPTED, OURS, &words(&[0]));
    assert_eq!(hear(true, &[end_only]).1, Some(Err(Fault::Unsettled(1))));
}

#[test]
fn a_refusal_carries_text_offset_and_number() {
    let explanations = [
        attribute(1, b"VF trust is not for this device\0"),
        attribute(2, &words(&[48])),
        attribute(5, &words(&[9])),
    ]
    .concat();
    let capped = [
        words(&[errno_word(95), 64, 0, OURS, 0]),
        explanations.clone(),
    ]
    .concat();
    // Without NETLINK_CAP_ACK the whole request of 64 bytes lies between.
    let whole = [
        words(&[errno_word(95), 64, 0, OURS, 0]),
        vec![0xff; 48],
        explanations,
    ]
    .concat();
    for (flags, payload) in [(0x300, capped), (0x200, whole)] {
        let end = hear(false, &[message(NLMSG_ERROR, flags, OURS, &payload)]).1;
        let Some(Err(Fault::Refused { refusal })) = end else {
            panic!("{end:?}");
        };
        assert_eq!(refusal.errno, Errno::OPNOTSUPP);
        assert_eq!(
            refusal.message.as_deref(),
            Some("VF trust is not for this device")
        );
        assert_eq!((refusal.attribute, refusal.missing), (vec![48], Some(9)));
    }
}

#[test]
fn a_list_can_end_with_an_error_and_its_text() {
    let payload = [words(&[errno_word(90)]), attribute(1, b"too many VFs\0")].concat();
    let (_, end) = hear(true, &[message(NLMSG_DONE, MULTI, OURS, &payload)]);
    let Some(Err(Fault::Refused { refusal })) = end else {
        panic!("{end:?}");
    };
    assert_eq!(refusal.errno, Errno::MSGSIZE);
    assert_eq!(refusal.message.as_deref(), Some("too many VFs"));
}

#[test]
fn what_no_kernel_says_is_malformed() {
    for (name, datagram) in [
        (
            "an error with no number",
            message(NLMSG_ERROR, 0, OURS, &[]),
        ),
        (
            "a positive errno",
            message(NLMSG_ERROR, 0, OURS, &words(&[95])),
        ),
        (
            "an errno out of range",
            message(NLMSG_ERROR, 0, OURS, &words(&[errno_word(5000)])),
        ),
        ("an overrun", message(NLMSG_OVERRUN, 0, OURS, &[])),
        (
            "half a message",
            message(16, 0, OURS, b"abcd")[..18].to_vec(),
        ),
    ] {
        let (_, end) = hear(false, &[datagram]);
        assert!(
            matches!(end, Some(Err(Fault::Malformed(_)))),
            "{name}: {end:?}"
        );
    }
}

#[test]
fn a_long_text_is_cut() {
    let text = [vec![b'x'; 5000], vec![0]].concat();
    let payload = [words(&[errno_word(22), 36, 0, 0, 0]), attribute(1, &text)].concat();
    let end = hear(false, &[message(NLMSG_ERROR, 0x300, OURS, &payload)]).1;
    let Some(Err(Fault::Refused { refusal })) = end else {
        panic!("{end:?}");
    };
    assert_eq!(refusal.message.unwrap().len(), LONGEST_TEXT);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        fuzz_conversation(&bytes);
    }

    #[test]
    fn arbitrary_errors_never_panic(kind in 0_u16..20, flags: u16, payload: Vec<u8>) {
        let mut bytes = message(kind, flags, 1, &payload);
        bytes.extend_from_slice(&payload);
        fuzz_conversation(&bytes);
    }
}
