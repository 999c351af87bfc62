//! A host's files as one text, so that a bug report is a test.
//!
//! ```text
//! # igb with two VFs                                a comment
//! /sys/class/net/eno1 -> ../../devices/…/net/eno1   a link and its target
//!
//! [/sys/devices/…/0000:01:00.0]                     names without '/' in front are below this
//! sriov_totalvfs = 7                                a file of one line
//! uevent = DRIVER=igb                               a file of two lines: the path is
//! uevent = PCI_CLASS=20000                          repeated
//! config := \xff\xff                                bytes as they are, no newline behind
//! vfio-dev/vfio0/                                   a directory
//! ```
//!
//! `\n`, `\t`, `\\` and `\xNN` are escapes in contents. `:=` with nothing behind it is an empty file.
//!
//! The text may be somebody else's. A path that leaves the tree, or leads through a link or a file,
//! is refused when the text is read, so unpacking into an empty directory writes nothing elsewhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Most entries of a tree: 2,048 functions with 30 entries each are 61,440.
const MOST_ENTRIES: usize = 1024 * 1024;
/// Longest path; what Linux takes.
const LONGEST_PATH: usize = 4096;

/// A host's files, by absolute path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Link(String),
    Directory,
}

/// The text is not a tree.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the recording: {reason}")]
pub struct TreeError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A tree could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[error("unpack {}", path.display())]
pub struct UnpackError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Tree {
    /// Reads the text of a tree.
    pub fn parse(text: &str) -> Result<Self, TreeError> {
        let mut tree = Self::default();
        let mut section = "";
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_ascii_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_ascii_end().strip_suffix(']').unwrap_or("");
                continue;
            }
            tree.take(section, line).map_err(|reason| TreeError {
                line: number + 1,
                reason,
            })?;
        }
        tree.check_ancestors()?;
        Ok(tree)
    }

    fn take(&mut self, section: &str, line: &str) -> Result<(), &'static str> {
        let end = line.find([' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let path: &str = &match name.starts_with('/') {
            true => Cow::Borrowed(name),
            false => Cow::Owned(format!("{section}/{name}")),
        };
        let rest = rest.trim_ascii_start();
        if let Some(directory) = path.strip_suffix('/').filter(|_| rest.is_empty()) {
            return self.insert(directory, Node::Directory);
        }
        if let Some(target) = rest.strip_prefix("->") {
            let target = target.trim_ascii();
            let fits = !target.is_empty() && target.len() < LONGEST_PATH && !target.contains('\0');
            return match fits {
                true => self.insert(path, Node::Link(target.to_owned())),
                false => Err("the link has no usable target"),
            };
        }
        if let Some(content) = rest.strip_prefix(":=") {
            let content = content.strip_prefix(' ').unwrap_or(content);
            return self.insert(path, Node::File(unescape(content)?));
        }
        let Some(content) = rest.strip_prefix('=') else {
            return Err("expected ' = content', ' := content', ' -> target' or a directory/");
        };
        let mut content = unescape(content.strip_prefix(' ').unwrap_or(content))?;
        content.push(b'\n');
        match self.entries.get_mut(path) {
            Some(Node::File(file)) => {
                file.append(&mut content);
                Ok(())
            }
            _ => self.insert(path, Node::File(content)),
        }
    }

    fn insert(&mut self, path: &str, node: Node) -> Result<(), &'static str> {
        check_path(path)?;
        if self.entries.len() == MOST_ENTRIES {
            return Err("too many entries");
        }
        match self.entries.entry(path.to_owned()) {
            Slot::Vacant(slot) => {
                slot.insert(node);
                Ok(())
            }
            Slot::Occupied(_) => Err("the path was used before"),
        }
    }

    /// Refuses a path below a file or a link.
    fn check_ancestors(&self) -> Result<(), TreeError> {
        for path in self.entries.keys() {
            let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
            let through = ends
                .filter_map(|end| self.entries.get(path.get(..end)?))
                .any(|node| !matches!(node, Node::Directory));
            if through {
                return Err(TreeError {
                    line: 0,
                    reason: "a path leads through a file or a link",
                });
            }
        }
        Ok(())
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: String, content: Vec<u8>) {
        self.entries.insert(path, Node::File(content));
    }

    /// Adds a link.
    pub(super) fn link(&mut self, path: String, target: String) {
        self.entries.insert(path, Node::Link(target));
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, path: String) {
        self.entries.entry(path).or_insert(Node::Directory);
    }

    /// Writes the files below `dir`, which must be an empty directory.
    pub fn unpack(&self, dir: &Path) -> Result<(), UnpackError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| UnpackError { path, source }
        };
        let empty = std::fs::read_dir(dir).map_err(at(dir))?.next().is_none();
        if !empty {
            let source = io::Error::from(io::ErrorKind::DirectoryNotEmpty);
            return Err(at(dir)(source));
        }
        for (path, node) in &self.entries {
            let path = dir.join(path.trim_start_matches('/'));
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(at(parent))?;
            }
            match node {
                Node::File(content) => std::fs::write(&path, content),
                Node::Link(target) => std::os::unix::fs::symlink(target, &path),
                Node::Directory => std::fs::create_dir_all(&path),
            }
            .map_err(at(&path))?;
        }
        Ok(())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A directory's own files stay together, whatever is below its sub-directories.
        let mut entries: Vec<(&str, &str, &str, &Node)> = Vec::new();
        for (path, node) in &self.entries {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            entries.push((directory, name, path, node));
        }
        entries.sort_unstable_by_key(|(directory, name, ..)| (*directory, *name));
        let mut section = "";
        for (directory, name, path, node) in entries {
            if directory != section {
                writeln!(f, "\n[{directory}]")?;
                section = directory;
            }
            // A name that would be read as a comment or a section keeps its whole path.
            let name = match name.starts_with(['#', '[']) {
                true => path,
                false => name,
            };
            match node {
                Node::Directory => writeln!(f, "{name}/")?,
                Node::Link(target) => writeln!(f, "{name} -> {target}")?,
                Node::File(content) => match lines(content) {
                    Some(lines) => {
                        for line in lines {
                            writeln!(f, "{name} = {}", escape(line))?;
                        }
                    }
                    None => writeln!(f, "{name} := {}", escape(content))?,
                },
            }
        }
        Ok(())
    }
}

/// Splits a file of whole lines; `None` when it is empty or its last line is cut.
fn lines(content: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let content = content.strip_suffix(b"\n")?;
    Some(content.split(|byte| *byte == b'\n'))
}

/// Writes printable characters as they are, spaces at either end and all other bytes as escapes.
fn escape(content: &[u8]) -> String {
    let mut text = String::with_capacity(content.len());
    let last = content.len().saturating_sub(1);
    for (at, byte) in content.iter().enumerate() {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b' ' if at == 0 || at == last => text.push_str("\\x20"),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [b'n', tail @ ..]) => push(&mut bytes, b'\n', tail),
            (b'\\', [b't', tail @ ..]) => push(&mut bytes, b'\t', tail),
            (b'\\', [b'\\', tail @ ..]) => push(&mut bytes, b'\\', tail),
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let byte = digit(high).zip(digit(low)).map(|(h, l)| h << 4 | l);
                let byte = byte.and_then(|byte| u8::try_from(byte).ok());
                push(&mut bytes, byte.ok_or("\\x needs two digits")?, tail)
            }
            (b'\\', _) => return Err("unknown escape"),
            (byte, tail) => push(&mut bytes, *byte, tail),
        };
    }
    Ok(bytes)
}

fn push<'t>(bytes: &mut Vec<u8>, byte: u8, rest: &'t [u8]) -> &'t [u8] {
    bytes.push(byte);
    rest
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err("the path does not begin with '/'");
    };
    let good = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    if path.len() > LONGEST_PATH || path.contains('\0') || !relative.split('/').all(good) {
        return Err("the path is too long, or holds '..', '.' or an empty component");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_forms_are_read_and_written_the_same() {
        let text = "\
            # a comment\n\
            /link -> ../target with space\n\
            [/sys/dir]\n\
            one = 7\n\
            two = DRIVER=igb\n\
            two = PCI_CLASS=20000\n\
            raw := \\xff\\n\\\\\n\
            empty :=\n\
            blank =\n\
            sub/dir/\n";
        let tree = Tree::parse(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        tree.unpack(dir.path()).unwrap();
        let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
        assert_eq!(read("sys/dir/one"), b"7\n");
        assert_eq!(read("sys/dir/two"), b"DRIVER=igb\nPCI_CLASS=20000\n");
        assert_eq!(read("sys/dir/raw"), b"\xff\n\\");
        assert_eq!(read("sys/dir/empty"), b"");
        assert_eq!(read("sys/dir/blank"), b"\n");
        assert!(dir.path().join("sys/dir/sub/dir").is_dir());
        let link = std::fs::read_link(dir.path().join("link")).unwrap();
        assert_eq!(link.to_str(), Some("../target with space"));
        assert_eq!(Tree::parse(&tree.to_string()).unwrap(), tree);
    }

    #[test]
    fn a_hostile_tree_is_refused_before_anything_is_written() {
        for bad in [
            "/../etc/passwd = x",
            "/a/../../etc/passwd = x",
            "/a//b = x",
            "/a/./b = x",
            "relative = x\n[/..]\nb = y",
            "[..]\nb = y",
            "[]\n.. = y",
            "/a -> /etc\n/a/passwd = x",
            "/a = x\n/a/b = y",
            "/a/b = x\n/a -> /etc",
            "/a -> /etc\n/a -> /tmp",
            "/a = x\n/a := y",
            "/a -> ",
            "/a -> b\0c",
            "/a\0b = x",
            "/a",
            "/ = x",
            "//",
            "/a := \\x4",
            "/a := \\q",
        ] {
            assert!(Tree::parse(bad).is_err(), "{bad:?} was taken");
        }
        let long = format!("/{} = x", "a".repeat(256));
        assert!(Tree::parse(&long).is_err());
    }

    #[test]
    fn a_directory_with_something_in_it_is_not_unpacked_into() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("sys")).unwrap();
        let tree = Tree::parse("/sys/x = 1").unwrap();
        assert!(tree.unpack(dir.path()).is_err());
    }

    proptest! {
        #[test]
        fn any_content_survives_text(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            name in "[!-.0-~]{1,20}",
        ) {
            prop_assume!(name != "." && name != "..");
            let mut tree = Tree::default();
            tree.file(format!("/dir/{name}"), content);
            prop_assert_eq!(Tree::parse(&tree.to_string()).unwrap(), tree);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[/\\[\\]a.=:> \\\\\n-]{0,60}") {
            crate::fuzz::fuzz_tree(text.as_bytes());
        }
    }
}
