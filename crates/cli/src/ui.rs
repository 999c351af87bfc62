//! The one way out: everything that a command says goes through [`Ui`].
//!
//! Results go to stdout, everything else to stderr. Colour and the live line appear only on a
//! terminal, and not with `NO_COLOR`. A reader that went away (`virtfn list | head -1`) is normal:
//! the rest is dropped and the command goes on, because a change that has begun must be finished
//! whoever still listens. Any other write error is kept and told at the end.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use model::{Code, Explain};

/// Looks of a piece of text; dropped where colour is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Names and headings.
    Bold,
    /// Less important.
    Dim,
    /// Done, up, as wanted.
    Good,
    /// Costs somebody something.
    Warn,
    /// Went wrong.
    Bad,
    /// One of a cycle of colours that tell groups, such as VLANs, apart.
    Group(usize),
}

impl Style {
    /// Returns the ANSI sequence that switches the style on; empty for [`Style::Plain`].
    #[must_use]
    pub fn on(self) -> &'static str {
        const CYCLE: [&str; 6] = [
            "\x1b[36m", "\x1b[35m", "\x1b[33m", "\x1b[34m", "\x1b[32m", "\x1b[31m",
        ];
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[1;31m",
            Self::Group(n) => CYCLE[n % CYCLE.len()],
        }
    }

    /// Wraps `text` in the style.
    #[must_use]
    pub fn paint(self, text: impl Display) -> String {
        match self.on() {
            "" => text.to_string(),
            on => format!("{on}{text}\x1b[0m"),
        }
    }
}

/// Not all of the result was written.
#[derive(Debug, thiserror::Error)]
#[error("write the result")]
pub(crate) struct OutputError {
    source: io::Error,
}

impl Explain for OutputError {
    fn code(&self) -> Code {
        Code::new("output-not-written")
    }
}

/// Where a command speaks.
pub struct Ui {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    live: bool,
    live_shown: bool,
    unicode: bool,
    quiet_out: bool,
    failed: Option<io::Error>,
}

impl Ui {
    /// Speaks to the process's stdout and stderr.
    ///
    /// `locale` is the value of the first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set. Box
    /// drawing is used unless a locale is set that is not UTF-8: minimal images and machines set
    /// none, and their terminals can draw.
    #[must_use]
    pub fn process(locale: Option<&str>) -> Self {
        let unicode = locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.is_empty() || locale.contains("utf-8") || locale.contains("utf8")
        });
        let stderr = AutoStream::auto(io::stderr());
        Self {
            // A pass-through stream is a terminal that takes colour.
            live: io::stderr().is_terminal() && stderr.current_choice() != ColorChoice::Never,
            out: Box::new(io::BufWriter::new(AutoStream::auto(io::stdout()))),
            err: Box::new(stderr),
            live_shown: false,
            unicode,
            quiet_out: false,
            failed: None,
        }
    }

    /// Speaks to the given writers, with no terminal and no colour.
    #[must_use]
    pub fn plain(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self {
            out: Box::new(anstream::StripStream::new(out)),
            err: Box::new(anstream::StripStream::new(err)),
            live: false,
            live_shown: false,
            unicode: true,
            quiet_out: false,
            failed: None,
        }
    }

    /// May box-drawing characters be used?
    #[must_use]
    pub fn unicode(&self) -> bool {
        self.unicode
    }

    /// Writes a part of the result, as it is.
    pub fn result(&mut self, text: &str) {
        if self.quiet_out {
            return;
        }
        self.clear_live();
        let written = self.out.write_all(text.as_bytes());
        self.keep(written);
    }

    /// Writes a line of the result.
    pub fn line(&mut self, text: impl Display) {
        self.result(&format!("{text}\n"));
    }

    /// Flushes the result, so that it stands before what happens next.
    pub fn flush(&mut self) {
        if !self.quiet_out {
            let flushed = self.out.flush();
            self.keep(flushed);
        }
    }

    /// Says something that is not the result: a line on stderr.
    pub fn say(&mut self, text: impl Display) {
        self.flush();
        self.clear_live();
        // Nobody can be told that stderr is gone.
        drop(writeln!(self.err, "{text}"));
    }

    /// Says a line that begins with `note:`.
    pub fn note(&mut self, text: impl Display) {
        self.say(format_args!("{} {text}", Style::Dim.paint("note:")));
    }

    /// Says a line that begins with `warning:`.
    pub fn warn(&mut self, text: impl Display) {
        self.say(format_args!("{} {text}", Style::Warn.paint("warning:")));
    }

    /// Shows what goes on at this moment, on a terminal only; the next output replaces it.
    pub fn live(&mut self, text: impl Display) {
        if !self.live {
            return;
        }
        self.flush();
        self.clear_live();
        drop(write!(self.err, "{text}").and_then(|()| self.err.flush()));
        self.live_shown = true;
    }

    /// Ends the output and says whether all of the result was written.
    pub(crate) fn end(&mut self) -> Result<(), OutputError> {
        self.clear_live();
        self.flush();
        match self.failed.take() {
            Some(source) => Err(OutputError { source }),
            None => Ok(()),
        }
    }

    fn clear_live(&mut self) {
        if self.live_shown {
            drop(write!(self.err, "\r\x1b[K"));
            self.live_shown = false;
        }
    }

    fn keep(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.quiet_out = true;
            if error.kind() != ErrorKind::BrokenPipe {
                self.failed = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
        for (kind, fails) in [
            (ErrorKind::BrokenPipe, false),
            (ErrorKind::StorageFull, true),
        ] {
            let mut ui = Ui::plain(Box::new(Broken(kind)), Box::new(io::sink()));
            ui.line("one");
            ui.line("two");
            assert_eq!(ui.end().is_err(), fails, "{kind}");
        }
    }

    #[test]
    fn styles_are_dropped_where_there_is_no_terminal() {
        assert_eq!(Style::Plain.paint("x"), "x");
        assert_eq!(Style::Bold.paint("x"), "\x1b[1mx\x1b[0m");
    }
}
