//! Events of the real kernel.

use std::time::{Duration, Instant};

use netlink::{Event, Events, LinkChange, Protocol, Socket, change_link};

use crate::{in_own_netns, loopback_index};

/// Waits for an event that is no device's: those of the whole host are heard here too.
fn next_of_links(events: &mut Events, deadline: Instant) -> Option<Event> {
    loop {
        let event = events.wait(deadline).unwrap();
        if !matches!(event, Some(Event::Device(_))) {
            return event;
        }
    }
}

#[test]
fn a_change_is_heard_and_silence_ends_with_the_deadline() {
    in_own_netns(
        "events::a_change_is_heard_and_silence_ends_with_the_deadline",
        || {
            let mut events = Events::open().unwrap();
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let up = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            change_link(&mut socket, loopback_index(), &up).unwrap();
            let soon = Instant::now() + Duration::from_secs(5);
            assert_eq!(
                next_of_links(&mut events, soon),
                Some(Event::LinkChanged(loopback_index()))
            );
            while events.wait(Instant::now()).unwrap().is_some() {}
            let before = Instant::now();
            let quiet = before + Duration::from_millis(30);
            assert_eq!(next_of_links(&mut events, quiet), None);
            assert!(before.elapsed() >= Duration::from_millis(30));
        },
    );
}
