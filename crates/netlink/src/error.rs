//! The one error of this crate: a request that did not succeed, and what the kernel said of it.
//!
//! One type for all operations, because the operation is data here: who asks for what is known to
//! the caller only, who wraps this in an error of its own.

use std::fmt;
use std::time::Duration;

use model::{Code, Explain};
use rustix::io::Errno;

/// A request that did not succeed.
///
/// It displays as the operation, such as `set vlan 100 of vf 3 on interface 4`; the source says
/// what went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct RequestError {
    operation: String,
    #[source]
    fault: Fault,
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The kernel refused the request.
    #[error("{refusal}")]
    Refused {
        /// What the kernel said.
        refusal: Refusal,
    },
    /// A system call on the socket returned an error.
    #[error("{call}: {errno}")]
    Call {
        /// Name of the system call.
        call: &'static str,
        /// What it returned.
        errno: Errno,
    },
    /// The kernel did not answer in time.
    #[error("no answer from the kernel within {} s", .0.as_secs_f32())]
    Deadline(Duration),
    /// The objects kept changing while they were listed.
    #[error("the list changed {0} times while it was read")]
    Unsettled(u32),
    /// The answer is longer than any that is sensible.
    #[error("an answer of {0} bytes")]
    AnswerTooLong(usize),
    /// The answer is not what the request asked for.
    #[error("an answer that makes no sense: {0}")]
    Malformed(&'static str),
    /// The request has an attribute that is longer than netlink can carry.
    #[error("an attribute longer than 65531 bytes")]
    RequestTooLong,
    /// The kernel has no such netlink family.
    #[error("this kernel has no {0} netlink; is its module loaded?")]
    NoFamily(&'static str),
}

/// How the kernel refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// Text of the extended acknowledgement, bounded.
    pub message: Option<String>,
    /// Types of the attribute that the kernel points at, from the outermost to the innermost.
    pub attribute: Vec<u16>,
    /// Type of an attribute that the kernel misses.
    pub missing: Option<u32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            write!(f, "{message}: ")?;
        }
        write!(f, "{}", self.errno)?;
        if let Some((first, rest)) = self.attribute.split_first() {
            write!(f, ", at attribute {first}")?;
            rest.iter().try_for_each(|kind| write!(f, ".{kind}"))?;
        }
        self.missing
            .map_or(Ok(()), |kind| write!(f, ", attribute {kind} is missing"))
    }
}

impl RequestError {
    pub(crate) fn new(operation: impl fmt::Display, fault: Fault) -> Self {
        Self {
            operation: operation.to_string(),
            fault,
        }
    }

    /// Returns what was asked, such as `set vlan 100 of vf 3 on interface 4`.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Returns the error number, when there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match &self.fault {
            Fault::Refused { refusal } => Some(refusal.errno),
            Fault::Call { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Returns the kernel's own words, when it had any.
    #[must_use]
    pub fn kernel_message(&self) -> Option<&str> {
        match &self.fault {
            Fault::Refused { refusal } => refusal.message.as_deref(),
            _ => None,
        }
    }

    /// Can the driver or the kernel not do this at all?
    #[must_use]
    pub fn is_not_supported(&self) -> bool {
        matches!(self.fault, Fault::NoFamily(_))
            || self.is_one_of(&[
                Errno::OPNOTSUPP,
                Errno::NOTSUP,
                Errno::PROTONOSUPPORT,
                Errno::NOSYS,
            ])
    }

    /// Is the device in the middle of something, so that the same request may succeed later?
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_one_of(&[Errno::BUSY, Errno::AGAIN])
    }

    /// Does the object not exist (any more)?
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is_one_of(&[Errno::NODEV, Errno::NOENT, Errno::NXIO, Errno::ADDRNOTAVAIL])
    }

    /// Does the object, or its name, exist already?
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        self.is_one_of(&[Errno::EXIST])
    }

    /// Does this process lack a privilege, usually `CAP_NET_ADMIN`?
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        self.is_one_of(&[Errno::PERM, Errno::ACCESS])
    }

    /// Did the kernel find a value wrong or out of range?
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.is_one_of(&[Errno::INVAL, Errno::RANGE])
    }

    /// Did the answer not fit the kernel's own buffer, as the VF lists of some kernels do not?
    #[must_use]
    pub fn is_answer_too_long(&self) -> bool {
        matches!(self.fault, Fault::AnswerTooLong(_)) || self.is_one_of(&[Errno::MSGSIZE])
    }

    /// Did the deadline pass?
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        matches!(self.fault, Fault::Deadline(_))
    }

    fn is_one_of(&self, errnos: &[Errno]) -> bool {
        self.errno().is_some_and(|errno| errnos.contains(&errno))
    }
}

impl Explain for RequestError {
    fn code(&self) -> Code {
        Code::new(match () {
            () if self.is_not_permitted() => "not-permitted",
            () if self.is_not_supported() => "not-supported",
            () if self.is_not_found() => "device-gone",
            () if self.is_busy() => "device-busy",
            () if self.is_already_there() => "already-there",
            () if self.is_deadline() => "kernel-timeout",
            () => "kernel-refused",
        })
    }

    fn remedy(&self) -> Option<String> {
        let remedy = match () {
            () if self.is_not_permitted() => "run as root or give the process CAP_NET_ADMIN",
            () if self.is_not_supported() => {
                "leave it out, or use a driver or a kernel that can do it"
            }
            () if self.is_not_found() => "see the devices of this host with `virtfn list`",
            () if self.is_busy() => "the device is in use or resetting: try again in a few seconds",
            () if self.is_already_there() => "choose another, or remove what is there",
            () if self.is_deadline() => "see the kernel log (dmesg) for a driver that hangs",
            () => "see the kernel log (dmesg) for the driver's reason",
        };
        Some(remedy.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno, message: Option<&str>) -> RequestError {
        RequestError::new(
            "set mtu 70000 on interface 4",
            Fault::Refused {
                refusal: Refusal {
                    errno,
                    message: message.map(str::to_owned),
                    attribute: vec![22, 1],
                    missing: None,
                },
            },
        )
    }

    #[test]
    fn the_chain_says_what_was_asked_and_what_the_kernel_said_once() {
        let error = refused(Errno::INVAL, Some("mtu greater than device maximum"));
        assert_eq!(error.to_string(), "set mtu 70000 on interface 4");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            source,
            "mtu greater than device maximum: Invalid argument (os error 22), at attribute 22.1"
        );
        assert_eq!(
            error.kernel_message(),
            Some("mtu greater than device maximum")
        );
    }

    #[test]
    fn predicates_and_codes_follow_the_errno() {
        assert!(refused(Errno::OPNOTSUPP, None).is_not_supported());
        assert_eq!(
            refused(Errno::OPNOTSUPP, None).code().as_str(),
            "not-supported"
        );
        assert!(refused(Errno::BUSY, None).is_busy());
        assert!(refused(Errno::NODEV, None).is_not_found());
        assert!(refused(Errno::MSGSIZE, None).is_answer_too_long());
        assert!(
            refused(Errno::PERM, None)
                .remedy()
                .unwrap()
                .contains("root")
        );
        let late = RequestError::new("list interfaces", Fault::Deadline(Duration::from_secs(1)));
        assert!(late.is_deadline() && late.errno().is_none());
    }
}
