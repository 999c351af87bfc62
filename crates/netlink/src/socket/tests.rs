//! Requests that only read, to the namespace the tests run in.

use super::*;
use crate::link::{link_message, links};

fn socket() -> Socket {
    Socket::open(Protocol::Route).unwrap()
}

#[test]
fn an_answer_longer_than_the_buffer_is_asked_for_again() {
    let mut socket = socket();
    let whole = links(&mut socket).unwrap();
    for length in [1, 16, 700] {
        socket.buffer = Vec::with_capacity(length);
        assert_eq!(links(&mut socket).unwrap().len(), whole.len());
        assert!(socket.buffer.capacity() > length);
    }
}

#[test]
fn an_answer_beyond_all_bounds_is_refused() {
    let mut socket = socket();
    let fault = socket.grow(LONGEST_ANSWER + 1);
    assert_eq!(fault, Err(Fault::AnswerTooLong(LONGEST_ANSWER + 1)));
    assert_eq!(socket.buffer.capacity(), BUFFER);
}

#[test]
fn no_answer_ends_with_the_deadline_and_the_socket_stays_usable() {
    let mut socket = socket();
    let port = socket.port;
    // What the kernel answers is for another port now, as far as the socket knows.
    socket.port = port ^ 1;
    socket.set_deadline(Duration::from_millis(20));
    let before = Instant::now();
    let error = links(&mut socket).unwrap_err();
    assert!(error.is_deadline(), "{error:?}");
    assert!(before.elapsed() >= Duration::from_millis(20));
    socket.port = port;
    assert!(!links(&mut socket).unwrap().is_empty());
}

#[test]
fn a_request_that_cannot_be_built_is_not_sent() {
    let mut socket = socket();
    let mut request = Request::new(18, &[0; 16]);
    request.text(3, &"x".repeat(70_000));
    let error = socket
        .collect(format_args!("look up x"), &mut request, link_message)
        .unwrap_err();
    assert_eq!(*error.fault(), Fault::RequestTooLong);
    assert_eq!(socket.sequence, 1);
}

#[test]
fn sequence_numbers_go_round_without_the_one_of_events() {
    let mut socket = socket();
    socket.sequence = u32::MAX;
    assert!(!links(&mut socket).unwrap().is_empty());
    assert_eq!(socket.sequence, 1);
}

#[test]
fn a_deadline_can_be_any_length() {
    let mut socket = socket();
    socket.set_deadline(Duration::MAX);
    assert!(!links(&mut socket).unwrap().is_empty());
}
