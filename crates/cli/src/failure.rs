//! How a command fails: one exit status, one code, the causes, and what the user can do.

use std::error::Error;
use std::fmt::Display;

use model::{Code, Explain};

use crate::ui::{Style, Ui};

/// Exit status of `virtfn`; the numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    /// What was asked for did not happen.
    Failed,
    /// Bad usage or bad input; nothing was changed.
    Input,
    /// There is something to do, there are findings, or a reboot is waited for.
    Pending,
    /// Refused, because somebody's traffic would stop; nothing was changed.
    Refused,
    /// A bug in virtfn.
    Bug,
}

impl Exit {
    /// Returns the number that the process exits with.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Input => 2,
            Self::Pending => 3,
            Self::Refused => 4,
            Self::Bug => 70,
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status.
    pub(crate) exit: Exit,
    /// Stable code.
    pub(crate) code: Code,
    /// What happened, with its causes.
    pub(crate) error: Box<dyn Error>,
    /// What the user can do.
    pub(crate) remedy: Option<String>,
}

impl Failure {
    /// The operation failed.
    pub(crate) fn failed(error: impl Explain + 'static) -> Self {
        Self::of(Exit::Failed, error)
    }

    /// What the user gave cannot be used; nothing was changed.
    pub(crate) fn input(error: impl Explain + 'static) -> Self {
        Self::of(Exit::Input, error)
    }

    /// It would cost somebody something; nothing was changed.
    pub(crate) fn refused(error: impl Explain + 'static) -> Self {
        Self::of(Exit::Refused, error)
    }

    fn of(exit: Exit, error: impl Explain + 'static) -> Self {
        Self {
            exit,
            code: error.code(),
            remedy: error.remedy(),
            error: Box::new(error),
        }
    }

    /// Prints `error[code]: …`, each cause once, and the remedy.
    pub(crate) fn tell(&self, ui: &mut Ui) {
        let head = Style::Bad.paint(format_args!("error[{}]:", self.code));
        ui.say(format_args!("{head} {}", indented(&self.error)));
        let mut cause = self.error.source();
        while let Some(error) = cause {
            ui.say(format_args!("  caused by: {}", indented(error)));
            cause = error.source();
        }
        if let Some(remedy) = &self.remedy {
            let head = Style::Good.paint("help:");
            ui.say(format_args!("{head} {}", indented(remedy)));
        }
    }
}

/// Keeps the second and later lines of a message below its first.
fn indented(text: impl Display) -> String {
    text.to_string().trim_end().replace('\n', "\n  ")
}
