//! The log, in upstream's format: one line of `key="value"` per event, on stderr or in `logFile`.
//!
//! Operators search these lines by `msg`, `cniName`, `containerID`, `netns` and `ifname`, so the names
//! stay. A file that is a symbolic link is refused: whoever may write beside it could point it
//! anywhere. So is what is no regular file: a pipe could keep a pod waiting for ever. What would surprise:
//! `func`, the name of a Go function, is our module.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use api::cni::{LogLevel, RdmaConfig, SriovConfig};
use rustix::fs::OFlags;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::call::Call;
use crate::plugin::Plugin;

/// Longest log file before it is put aside, as upstream's.
const LONGEST: u64 = 100 * 1024 * 1024;

/// Starts logging for a call.
pub(crate) fn start(call: &Call) {
    let (level, path) = SriovConfig::log_of(&call.config);
    let (file, refused) = match path.as_deref().map(open) {
        None => (None, None),
        Some(Ok(file)) => (Some(Mutex::new(file)), None),
        Some(Err(error)) => (None, Some(error)),
    };
    let environment = &call.environment;
    let mut labels = format!(" cniName=\"{}\"", call.plugin.log_name());
    for (label, value) in [
        (
            "containerID",
            environment.container.as_ref().map(ToString::to_string),
        ),
        ("netns", environment.netns.clone()),
        (
            "ifname",
            environment.interface.as_ref().map(ToString::to_string),
        ),
    ] {
        let _a_string_takes_all = write!(labels, " {label}={:?}", value.unwrap_or_default());
    }
    let is_verbose = call.plugin == Plugin::Rdma
        && RdmaConfig::read(&call.config).is_ok_and(|config| config.is_verbose);
    let log = Log {
        most: match level {
            _ if is_verbose => Level::DEBUG,
            LogLevel::Error => Level::ERROR,
            LogLevel::Warning => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
        },
        labels,
        file,
    };
    // It is set once per process; a test that makes two calls keeps the first.
    let _first_stays = tracing::subscriber::set_global_default(log);
    if let Some(error) = refused {
        tracing::warn!(%error, "log file not opened, stderr has the log");
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    // Opening a pipe must not wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(i32::from_ne_bytes(flags.bits().to_ne_bytes()))
            .open(path)
    };
    let file = open()?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if metadata.len() < LONGEST {
        return Ok(file);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".1");
    std::fs::rename(path, &aside)?;
    open()
}

struct Log {
    most: Level,
    labels: String,
    file: Option<Mutex<File>>,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        // One call is one process: the labels say what a span would.
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, others } = fields;
        let line = format!(
            "time=\"{}\" level=\"{level}\" msg={message:?}{} func=\"{}\"{others}\n",
            Rfc3339::now(),
            self.labels,
            metadata.target(),
        );
        let written = match &self.file {
            Some(file) => file
                .lock()
                .map_or(Ok(()), |mut file| file.write_all(line.as_bytes())),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
        // A log that cannot be written must not keep a pod from starting.
        let _lost = written;
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let text = format!("{value:?}");
            let _a_string_takes_all = write!(self.others, " {}={text:?}", field.name());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// A moment in UTC, written as RFC 3339 with nanoseconds.
struct Rfc3339 {
    seconds: u64,
    nanos: u32,
}

impl Rfc3339 {
    fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: since.as_secs(),
            nanos: since.subsec_nanos(),
        }
    }
}

impl fmt::Display for Rfc3339 {
    /// Counts days from 1 March of year 0, so that leap days come last in their years.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.seconds / 86_400 + 719_468, self.seconds % 86_400);
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let date = of_year - (153 * month + 2) / 5 + 1;
        let calendar = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + u64::from(calendar <= 2);
        write!(
            f,
            "{year:04}-{calendar:02}-{date:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3_600,
            second / 60 % 60,
            second % 60,
            self.nanos
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        let at = |seconds| Rfc3339 { seconds, nanos: 7 }.to_string();
        assert_eq!(at(0), "1970-01-01T00:00:00.000000007Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56.000000007Z");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59.000000007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000007Z");
    }

    #[test]
    fn a_log_file_is_no_link_and_no_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("file"), &link).unwrap();
        assert!(open(&link).is_err());
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        assert!(open(&pipe).is_err());
        let _reader = std::fs::File::options().read(true).write(true).open(&pipe);
        assert!(open(&pipe).is_err());
        open(&dir.path().join("file")).unwrap();
    }
}
