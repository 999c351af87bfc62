//! What kept a step from being made, before it is told which object it was about.

use std::fmt;
use std::time::Duration;

use model::{Code, Explain, StepError};
use netlink::RequestError;
use rustix::io::Errno;

use crate::netns::NetnsError;
use crate::root::AccessError;

/// Why a step was not made.
#[derive(Debug)]
pub(crate) struct Fault {
    code: Code,
    remedy: Option<String>,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl Fault {
    /// Takes a cause that speaks for itself.
    pub(crate) fn new(
        code: &'static str,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            code: Code::new(code),
            remedy: None,
            cause: cause.into(),
        }
    }

    /// Says what the user can do.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Names the trouble more exactly.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Code::new(code);
        self
    }

    /// Something did not happen in time.
    pub(crate) fn too_late(code: &'static str, what: impl fmt::Display, after: Duration) -> Self {
        Self::new(code, format!("{what} within {} s", after.as_secs()))
    }

    /// The function is not there.
    pub(crate) fn no_device() -> Self {
        Self::new("no-such-device", "there is no such PCI device")
            .remedy("see the devices of this host with `virtfn list`")
    }

    /// What the kernel refused, when it did.
    pub(crate) fn errno(&self) -> Option<Errno> {
        let cause: &(dyn std::error::Error + 'static) = self.cause.as_ref();
        if let Some(error) = cause.downcast_ref::<RequestError>() {
            return error.errno();
        }
        let error = cause.downcast_ref::<AccessError>()?;
        Some(Errno::from_raw_os_error(error.source.raw_os_error()?))
    }

    pub(crate) fn into_step_error(self, object: String, attempt: String) -> StepError {
        StepError {
            object,
            attempt,
            source: Some(self.cause),
            code: self.code,
            remedy: self.remedy,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        Self {
            code: error.code(),
            remedy: error.remedy(),
            cause: error.into(),
        }
    }
}

impl From<NetnsError> for Fault {
    fn from(error: NetnsError) -> Self {
        Self {
            code: error.code(),
            remedy: error.remedy(),
            cause: error.into(),
        }
    }
}

impl From<AccessError> for Fault {
    fn from(error: AccessError) -> Self {
        if error.is_gone() {
            return Self::new("no-such-device", error)
                .remedy("see the devices of this host with `virtfn list`");
        }
        match error.source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                Self::new("not-permitted", error).remedy("run virtfn as root")
            }
            std::io::ErrorKind::ReadOnlyFilesystem => Self::new("sysfs-read-only", error)
                .remedy("mount sysfs writable; in a container it needs `privileged`"),
            std::io::ErrorKind::TimedOut => Self::new("kernel-timeout", error)
                .remedy("see the kernel log (dmesg) for a driver that hangs"),
            _ => Self::new("kernel-refused", error)
                .remedy("see the kernel log (dmesg) for the driver's reason"),
        }
    }
}
