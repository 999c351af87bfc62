//! The real kernel, in a network namespace of the test's own.
//!
//! No test here needs root or changes the machine: without root the test runs itself again in a
//! user namespace (`unshare` of util-linux). Nothing is skipped silently.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use model::IfIndex;
use rustix::thread::{UnshareFlags, unshare_unsafe};

mod address;
mod events;
mod link;
mod route;

/// Set for a test that was started again in a user namespace.
const AGAIN: &str = "NETLINK_TEST_IN_USER_NAMESPACE";

/// Runs `body` on a thread in a new network namespace; `test` is the name of the calling test.
#[track_caller]
fn in_own_netns(test: &str, body: fn()) {
    let outcome = std::thread::spawn(move || {
        #[expect(
            unsafe_code,
            reason = "rustix marks unshare unsafe for another flag's sake"
        )]
        // SAFETY: only the flag FILES can leave descriptors dangling, and it is not used.
        let entered = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        entered.map(|()| body())
    })
    .join();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(errno)) => {
            assert!(
                std::env::var_os(AGAIN).is_none(),
                "no network namespace even in a user namespace: {errno}"
            );
            run_again(test);
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn run_again(test: &str) {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(AGAIN, "1")
        .output()
        .expect("this test needs root, or unshare of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in a user namespace: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Index of `lo`, the first interface of every namespace.
fn loopback_index() -> IfIndex {
    IfIndex::new(1).unwrap()
}
