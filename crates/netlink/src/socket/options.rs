//! Socket options that rustix does not have.
#![expect(
    unsafe_code,
    reason = "rustix 1.1 offers no setsockopt for SOL_NETLINK, and there is no other way to ask"
)]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

const SOL_NETLINK: c_int = 270;
const NETLINK_CAP_ACK: c_int = 10;
const NETLINK_EXT_ACK: c_int = 11;
const NETLINK_GET_STRICT_CHK: c_int = 12;

unsafe extern "C" {
    /// `setsockopt(2)` of the C library that std links.
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: u32)
    -> c_int;
}

/// Asks for texts in errors, for acknowledgements without a copy of the request, and for lists
/// that honour their filters.
///
/// A kernel that does not know an option (before 4.12, 4.3 and 4.20) answers without it, and so
/// does a protocol that has no use for it: neither is an error.
pub(super) fn ask_for_explanations(fd: BorrowedFd<'_>) {
    for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK] {
        let on: c_int = 1;
        // SAFETY: the descriptor is open for the time of the borrow, and the value is a live
        // `int` of the four bytes that are announced; the kernel only reads it.
        unsafe {
            setsockopt(
                fd.as_raw_fd(),
                SOL_NETLINK,
                option,
                (&raw const on).cast(),
                4,
            );
        }
    }
}
