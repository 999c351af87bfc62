//! `/etc/default/grub` as text: which arguments it gives to the kernel, and adding some.
//!
//! The file is a shell script that `grub-mkconfig` sources. It is edited as bytes: whatever is not
//! the value of `GRUB_CMDLINE_LINUX` stays as it is, comments, order and odd bytes included. What
//! cannot be understood without running it (control structures, here-documents, commands within the
//! value) is an error and never a guess; commands in other values are stepped over.
//!
//! It is pure: [`super::grub`] reads and writes the file.

use policy::kernel::KernelArgument;

/// The variable that goes to every entry, recovery ones too.
const LINUX: &str = "GRUB_CMDLINE_LINUX";
/// The variable that is put behind it for normal entries.
const DEFAULT: &str = "GRUB_CMDLINE_LINUX_DEFAULT";

/// Deepest nesting of quotes and substitutions; people write two.
const MAX_DEPTH: usize = 16;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {}", problem.as_str())]
pub struct GrubFileError {
    /// On which line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: GrubFileProblem,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrubFileProblem {
    /// A quote or a substitution does not end.
    Unterminated,
    /// It has a NUL or a carriage return, which the shell takes literally.
    ControlByte,
    /// Substitutions within substitutions, too deep to be meant.
    TooDeep,
    /// `if`, `for`, a function, a subshell or a here-document: what it does depends on its run.
    ControlStructure,
    /// `GRUB_CMDLINE_LINUX` is set or used in a way that needs the shell to be understood.
    NotPlain,
    /// It is a link or no file at all.
    NoFile,
}

impl GrubFileProblem {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unterminated => "a quote or a substitution does not end",
            Self::ControlByte => "there is a NUL or a carriage return",
            Self::TooDeep => "substitutions are nested too deep",
            Self::ControlStructure => "there is a control structure or a here-document",
            Self::NotPlain => "GRUB_CMDLINE_LINUX is not set to plain words",
            Self::NoFile => "it is no regular file",
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Unterminated | Self::TooDeep => "mend the file",
            Self::ControlByte => "convert the file to Unix line ends",
            Self::ControlStructure | Self::NotPlain | Self::NoFile => {
                "add the arguments by hand to the file"
            }
        }
    }
}

/// What a file sets, without what it says for other purposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrubFile {
    assignments: Vec<Assignment>,
}

/// One assignment to one of the two variables.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    is_default: bool,
    /// Its value; a variable in it stays as `$NAME`.
    value: String,
    /// Where its word begins and ends, as offsets.
    begin: usize,
    end: usize,
    shape: Shape,
}

/// How the word of a value is written, for adding to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Without any quote or backslash.
    Bare,
    /// Its last part is quoted, so there is a closing quote.
    Quoted,
    /// Otherwise.
    Mixed,
}

impl GrubFile {
    /// Reads a file.
    pub(crate) fn read(text: &[u8]) -> Result<Self, GrubFileError> {
        let mut reader = Reader { text, at: 0 };
        if let Some(at) = text.iter().position(|b| matches!(b, 0 | b'\r')) {
            return Err(reader.error(at, GrubFileProblem::ControlByte));
        }
        let mut assignments = Vec::new();
        while reader.peek().is_some() {
            reader.statement(&mut assignments)?;
        }
        Ok(Self { assignments })
    }

    /// Adds arguments to `text`, which this was read from. They are not looked for before.
    pub(crate) fn with(&self, text: &[u8], arguments: &[KernelArgument]) -> Vec<u8> {
        let words: Vec<&str> = arguments.iter().map(KernelArgument::as_str).collect();
        let words = words.join(" ");
        let last = self.assignments.iter().rfind(|a| !a.is_default);
        let Some(last) = last else {
            let mut edited = text.to_vec();
            if !edited.is_empty() && !edited.ends_with(b"\n") {
                edited.push(b'\n');
            }
            if edited.ends_with(b"\\\n") {
                // The last line goes on; an empty one ends it.
                edited.push(b'\n');
            }
            edited.extend(format!("{LINUX}=\"{words}\"\n").bytes());
            return edited;
        };
        let gap = match last.value.chars().next_back() {
            None | Some(' ' | '\t' | '\n') => "",
            Some(_) => " ",
        };
        let old = text.get(last.begin..last.end).unwrap_or_default();
        let (old, added): (&[u8], String) = match (last.shape, old.split_last()) {
            (Shape::Quoted, Some((quote, old))) => {
                (old, format!("{gap}{words}{}", char::from(*quote)))
            }
            (Shape::Bare, _) => (old, format!("{gap}{words}\"")),
            (Shape::Quoted | Shape::Mixed, _) => (old, format!("\"{gap}{words}\"")),
        };
        let before = text.get(..last.begin).unwrap_or_default();
        let after = text.get(last.end..).unwrap_or_default();
        let quote: &[u8] = if last.shape == Shape::Bare {
            b"\""
        } else {
            b""
        };
        [before, quote, old, added.as_bytes(), after].concat()
    }

    /// Returns the words that normal entries get from files that are sourced in this order.
    pub(crate) fn words<'f>(files: impl IntoIterator<Item = &'f Self>) -> Vec<String> {
        let (mut linux, mut default) = (String::new(), String::new());
        for assignment in files.into_iter().flat_map(|file| &file.assignments) {
            // The longer name first: it begins with the shorter one.
            let value = expand(&assignment.value, DEFAULT, &default);
            let value = expand(&value, LINUX, &linux);
            if assignment.is_default {
                default = value;
            } else {
                linux = value;
            }
        }
        words_of(&format!("{linux} {default}"))
    }
}

/// Splits a command line; quotes are left in the words.
pub(crate) fn words_of(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Puts the value of one variable into a text, bounded: a file may double it on every line.
fn expand(text: &str, name: &str, value: &str) -> String {
    const MAX_VALUE: usize = 64 * 1024;
    let expanded = text.replace(&format!("${{{name}}}"), value);
    let dollar = format!("${name}");
    let mut out = String::new();
    let mut rest = expanded.as_str();
    while let Some((before, after)) = rest.split_once(&dollar) {
        let is_longer = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        out.push_str(before);
        out.push_str(if is_longer { &dollar } else { value });
        rest = after;
    }
    out.push_str(rest);
    if out.len() > MAX_VALUE {
        out.clear();
    }
    out
}

/// Steps through a shell script, as far as that is possible without running it.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

/// Words that begin or end something whose course cannot be seen.
const STRUCTURES: [&[u8]; 18] = [
    b"if",
    b"then",
    b"else",
    b"elif",
    b"fi",
    b"for",
    b"while",
    b"until",
    b"do",
    b"done",
    b"case",
    b"esac",
    b"{",
    b"}",
    b"!",
    b"[[",
    b"function",
    b"select",
];

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, at: usize, problem: GrubFileProblem) -> GrubFileError {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        GrubFileError { line, problem }
    }

    /// Steps over one statement, and notes it when it is an assignment of ours.
    fn statement(&mut self, assignments: &mut Vec<Assignment>) -> Result<(), GrubFileError> {
        // After `&&`, `||` and `|` the statement depends on the one before, also on a new line.
        let mut is_joined = false;
        while let Some(byte @ (b' ' | b'\t' | b'\n' | b';' | b'&' | b'|')) = self.peek() {
            is_joined |= byte == b'|' || self.rest().starts_with(b"&&");
            self.at += 1;
        }
        match self.peek() {
            None if is_joined => return Err(self.error(self.at, GrubFileProblem::Unterminated)),
            None => return Ok(()),
            Some(b'#') if is_joined => {
                return Err(self.error(self.at, GrubFileProblem::NotPlain));
            }
            Some(b'#') => {
                self.comment();
                return Ok(());
            }
            Some(_) => {}
        }
        let begin = self.at;
        let export: &[u8] = b"export ";
        if self.rest().starts_with(export) {
            self.at += export.len();
        }
        for (name, is_default) in [(LINUX, false), (DEFAULT, true)] {
            let rest = self.rest();
            if rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&b'=') {
                if is_joined {
                    // Whether it happens depends on the command before, as in `false && …`.
                    return Err(self.error(begin, GrubFileProblem::NotPlain));
                }
                self.at += name.len() + 1;
                assignments.push(self.value(is_default)?);
                return Ok(());
            }
        }
        self.at = begin;
        self.other(begin)
    }

    fn comment(&mut self) {
        while self.peek().is_some_and(|b| b != b'\n') {
            self.at += 1;
        }
    }

    /// Reads the word of a value, which must end the statement.
    fn value(&mut self, is_default: bool) -> Result<Assignment, GrubFileError> {
        let begin = self.at;
        let mut value = Vec::new();
        let mut shape = Shape::Bare;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' => break,
                b'\'' | b'"' => {
                    self.plain_quoted(byte, &mut value)?;
                    shape = Shape::Quoted;
                    continue;
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek() {
                        None => return Err(self.error(self.at, GrubFileProblem::Unterminated)),
                        Some(b'\n') => {}
                        Some(byte) => value.push(byte),
                    }
                    shape = Shape::Mixed;
                }
                b'`' | b'(' | b')' | b'<' | b'>' | b'&' | b'|' | b'*' | b'?' | b'[' | b'~' => {
                    return Err(self.error(self.at, GrubFileProblem::NotPlain));
                }
                b'$' => {
                    // Unquoted, the shell would not split it in an assignment; it is seldom meant.
                    self.variable()?;
                    value.push(byte);
                    shape = Shape::Mixed;
                }
                byte => {
                    value.push(byte);
                    if shape == Shape::Quoted {
                        shape = Shape::Mixed;
                    }
                }
            }
            self.at += 1;
        }
        let end = self.at;
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            self.at += 1;
        }
        match self.peek() {
            Some(b'#') if self.at > end => self.comment(),
            None | Some(b'\n' | b';') => {}
            // A command follows, and the assignment holds for that command only.
            Some(_) => return Err(self.error(self.at, GrubFileProblem::NotPlain)),
        }
        let value =
            String::from_utf8(value).map_err(|_| self.error(begin, GrubFileProblem::NotPlain))?;
        Ok(Assignment {
            is_default,
            value,
            begin,
            end,
            shape,
        })
    }

    /// Reads a quoted part of a value, with variables but without commands.
    fn plain_quoted(&mut self, quote: u8, value: &mut Vec<u8>) -> Result<(), GrubFileError> {
        let begin = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                byte if byte == quote => return Ok(()),
                b'\\' if quote == b'"' => match self.peek() {
                    Some(b'\n') => self.at += 1,
                    Some(escaped @ (b'"' | b'\\' | b'$' | b'`')) => {
                        value.push(escaped);
                        self.at += 1;
                    }
                    _ => value.push(b'\\'),
                },
                b'`' if quote == b'"' => {
                    return Err(self.error(self.at, GrubFileProblem::NotPlain));
                }
                b'$' if quote == b'"' => {
                    self.at -= 1;
                    self.variable()?;
                    self.at += 1;
                    value.push(b'$');
                }
                byte => value.push(byte),
            }
        }
        Err(self.error(begin, GrubFileProblem::Unterminated))
    }

    /// Refuses at a `$` what is more than the plain value of a variable.
    fn variable(&self) -> Result<(), GrubFileError> {
        let rest = self.rest();
        let is_plain = match rest.get(1) {
            Some(b'(') => false,
            Some(b'{') => {
                let name = rest.iter().skip(2).take_while(|b| is_word(**b)).count();
                rest.get(2 + name) == Some(&b'}')
            }
            _ => true,
        };
        if is_plain {
            Ok(())
        } else {
            Err(self.error(self.at, GrubFileProblem::NotPlain))
        }
    }

    /// Steps over a statement that is none of ours.
    fn other(&mut self, begin: usize) -> Result<(), GrubFileError> {
        let word = self.rest();
        let length = word
            .iter()
            .take_while(|b| !matches!(b, b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'('))
            .count();
        if STRUCTURES.contains(&word.get(..length).unwrap_or_default()) {
            return Err(self.error(begin, GrubFileProblem::ControlStructure));
        }
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' | b';' | b'&' | b'|' => break,
                b'#' if self.at == begin || self.is_after_blank() => {
                    self.comment();
                    break;
                }
                b'(' | b')' => {
                    return Err(self.error(self.at, GrubFileProblem::ControlStructure));
                }
                b'<' if self.rest().starts_with(b"<<") => {
                    return Err(self.error(self.at, GrubFileProblem::ControlStructure));
                }
                _ => self.step(0)?,
            }
        }
        self.check_mention(begin)
    }

    fn is_after_blank(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.text.get(at));
        matches!(before, Some(b' ' | b'\t'))
    }

    /// Refuses a statement that may set one of our variables by other means: `unset`, `eval`,
    /// `A=1 GRUB_CMDLINE_LINUX=x`. Using its value is fine.
    fn check_mention(&self, begin: usize) -> Result<(), GrubFileError> {
        let statement = self.text.get(begin..self.at).unwrap_or_default();
        for (at, window) in statement.windows(LINUX.len()).enumerate() {
            if window != LINUX.as_bytes() {
                continue;
            }
            let before = at.checked_sub(1).and_then(|at| statement.get(at));
            let after = statement.get(at + LINUX.len()..).unwrap_or_default();
            let after = after.strip_prefix(b"_DEFAULT").unwrap_or(after);
            let is_longer =
                after.first().is_some_and(|b| is_word(*b)) || before.is_some_and(|b| is_word(*b));
            let is_use = matches!(before, Some(b'$' | b'{'));
            if !is_longer && !is_use {
                return Err(self.error(begin + at, GrubFileProblem::NotPlain));
            }
        }
        Ok(())
    }

    /// Steps over one byte, or over all that a quote or a substitution encloses.
    fn step(&mut self, depth: usize) -> Result<(), GrubFileError> {
        if depth > MAX_DEPTH {
            return Err(self.error(self.at, GrubFileProblem::TooDeep));
        }
        let begin = self.at;
        let unterminated = |reader: &Self| reader.error(begin, GrubFileProblem::Unterminated);
        let byte = self.peek();
        self.at += 1;
        match (byte, self.peek()) {
            (Some(b'\\'), Some(_)) => self.at += 1,
            (Some(b'\\'), None) => return Err(unterminated(self)),
            (Some(b'\''), _) => {
                while self.peek().ok_or_else(|| unterminated(self))? != b'\'' {
                    self.at += 1;
                }
                self.at += 1;
            }
            (Some(b'"'), _) => {
                while self.peek().ok_or_else(|| unterminated(self))? != b'"' {
                    // Within double quotes a single quote is a character.
                    if self.peek() == Some(b'\'') {
                        self.at += 1;
                    } else {
                        self.step(depth + 1)?;
                    }
                }
                self.at += 1;
            }
            (Some(b'`'), _) => {
                while self.peek().ok_or_else(|| unterminated(self))? != b'`' {
                    let escaped = self.peek() == Some(b'\\');
                    self.at += 1 + usize::from(escaped);
                }
                self.at += 1;
            }
            (Some(b'$'), Some(open @ (b'(' | b'{'))) => {
                self.at += 1;
                let close = if open == b'(' { b')' } else { b'}' };
                self.enclosed(open, close, begin, depth)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Steps over what `$(` or `${` encloses, with the closing byte.
    fn enclosed(
        &mut self,
        open: u8,
        close: u8,
        begin: usize,
        depth: usize,
    ) -> Result<(), GrubFileError> {
        let mut level = 1_usize;
        while level > 0 {
            match self.peek() {
                None => return Err(self.error(begin, GrubFileProblem::Unterminated)),
                Some(byte) if byte == close => {
                    level -= 1;
                    self.at += 1;
                }
                Some(byte) if byte == open => {
                    level += 1;
                    self.at += 1;
                }
                Some(_) => self.step(depth + 1)?,
            }
        }
        Ok(())
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
