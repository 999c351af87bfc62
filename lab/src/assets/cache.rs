//! The directory that keeps what was fetched, and the proof that it is whole.
//!
//! ```text
//! lock              flock: one set-up at a time
//! NAME/             an unpacked tree
//! NAME.stamp        first line: note; then `size fingerprint path` for each file
//! NAME.part/        a tree in the making; never used, removed by the next set-up
//! initramfs-*.cpio  leash-*  failures/  up/
//! ```
//!
//! A tree counts only with its stamp, and the stamp is written last. Each use compares the
//! files' sizes with the stamp, which takes milliseconds; `virtfn-lab setup` compares contents.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Nobody boots for this long.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// The cache directory.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens `$VIRTFN_LAB_CACHE`, else `$XDG_CACHE_HOME/virtfn`, else `~/.cache/virtfn`.
    pub(crate) fn open() -> Result<Self> {
        let set = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let dir = set("VIRTFN_LAB_CACHE")
            .or_else(|| Some(set("XDG_CACHE_HOME")?.join("virtfn")))
            .or_else(|| Some(set("HOME")?.join(".cache/virtfn")))
            .context(
                "no place for the cache: none of VIRTFN_LAB_CACHE, XDG_CACHE_HOME, HOME is set",
            )?;
        Self::at(&dir)
    }

    /// Opens the cache in a given directory, which is made when missing.
    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let doing = || {
            format!(
                "make the cache {} (VIRTFN_LAB_CACHE names another)",
                dir.display()
            )
        };
        fs::create_dir_all(dir).with_context(doing)?;
        Ok(Self {
            dir: dir.canonicalize().with_context(doing)?,
        })
    }

    /// A place in the cache.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Waits for the lock, and holds it until the file is dropped.
    pub(crate) fn lock(&self, say: &dyn Fn(&str)) -> Result<File> {
        let path = self.path("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        if file.try_lock().is_err() {
            say("waiting for another set-up of the lab to finish");
            // No deadline: the kernel releases the lock of a process that dies.
            file.lock()
                .with_context(|| format!("lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// The note of a whole tree; `None` when the tree must be made again.
    pub(crate) fn whole(&self, name: &str) -> Option<String> {
        let stamp = fs::read_to_string(self.path(&format!("{name}.stamp"))).ok()?;
        let mut lines = stamp.strip_suffix("end\n")?.lines();
        let note = lines.next()?;
        let root = self.path(name);
        let whole = lines.all(|line| {
            let mut fields = line.splitn(3, ' ');
            let (size, path) = (
                fields.next().and_then(|size| size.parse().ok()),
                fields.nth(1),
            );
            let found = path.and_then(|path| root.join(path).symlink_metadata().ok());
            found.is_some_and(|meta| Some(meta.len()) == size)
        });
        whole.then(|| note.to_owned())
    }

    /// Makes a tree: `fill` gets an empty directory; the result replaces the old tree.
    pub(crate) fn make(
        &self,
        name: &str,
        note: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let (root, stamp) = (self.path(name), self.path(&format!("{name}.stamp")));
        let part = self.path(&format!("{name}.part"));
        for leftover in [&part, &root] {
            remove(leftover)?;
        }
        remove(&stamp)?;
        fs::create_dir(&part).with_context(|| format!("make {}", part.display()))?;
        fill(&part)?;
        let mut content = format!("{note}\n");
        for (path, size) in files(&part)? {
            let print = file_fingerprint(&part.join(&path))?;
            content.push_str(&format!("{size} {print:016x} {path}\n"));
        }
        content.push_str("end\n");
        fs::rename(&part, &root)
            .with_context(|| format!("rename {} to {}", part.display(), root.display()))?;
        write_atomic(&stamp, content.as_bytes(), 0o644)
            .with_context(|| format!("write {}", stamp.display()))
    }

    /// Removes files that other versions of this program made and used long ago.
    pub(crate) fn forget_old(&self, prefixes: &[&str], current: &[&Path]) {
        let is_old = |path: &Path| {
            let made = path.metadata().and_then(|meta| meta.modified());
            made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > OLD))
        };
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let ours = prefixes
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix));
            if ours && !current.contains(&path.as_path()) && is_old(&path) {
                // Left behind it costs a few megabytes.
                fs::remove_file(path).ok();
            }
        }
    }

    /// Compares a tree's contents with its stamp, and drops the stamp of a damaged one.
    pub(crate) fn check_content(&self, name: &str, say: &dyn Fn(&str)) -> Result<()> {
        let path = self.path(&format!("{name}.stamp"));
        let Ok(stamp) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let root = self.path(name);
        for line in stamp.lines().skip(1).take_while(|line| *line != "end") {
            let mut fields = line.splitn(3, ' ').skip(1);
            let (print, file) = (
                fields.next().unwrap_or_default(),
                fields.next().unwrap_or_default(),
            );
            if !file_fingerprint(&root.join(file))
                .is_ok_and(|found| format!("{found:016x}") == print)
            {
                say(&format!(
                    "{} is damaged; {name} will be fetched again",
                    root.join(file).display()
                ));
                return remove(&path);
            }
        }
        Ok(())
    }
}

/// Writes a file so that after a crash there is the old one or the new one, never half of it.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let dir = path.parent().context("a path without directory")?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// FNV-1a over 8 bytes at a time: finds accidents. Authenticity is apt's business.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut print = Fingerprint::default();
    for part in parts {
        print.add(part);
    }
    print.0
}

struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .chain(rest.iter().map(|byte| (*byte).into()))
        {
            self.0 = (self.0 ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(29);
        }
    }
}

fn file_fingerprint(path: &Path) -> Result<u64> {
    let mut print = Fingerprint::default();
    if path.is_symlink() {
        print.add(fs::read_link(path)?.as_os_str().as_encoded_bytes());
        return Ok(print.0);
    }
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file
            .read(&mut buffer)
            .with_context(|| format!("read {}", path.display()))?
        {
            0 => return Ok(print.0),
            count => print.add(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Every file and link below `root` with its size, sorted.
fn files(root: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            let meta = path.symlink_metadata()?;
            if meta.is_dir() {
                todo.push(path);
                continue;
            }
            let Some(name) = path
                .strip_prefix(root)?
                .to_str()
                .filter(|name| !name.contains('\n'))
            else {
                bail!("{} has a name that the stamp cannot hold", path.display());
            };
            found.push((name.to_owned(), meta.len()));
        }
    }
    found.sort();
    Ok(found)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_with_a_tree() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        fill(&cache).unwrap();
        (dir, cache)
    }

    fn fill(cache: &Cache) -> Result<()> {
        cache.make("tree", "note 1", |root| {
            fs::create_dir(root.join("sub"))?;
            fs::write(root.join("sub/a file"), "content")?;
            std::os::unix::fs::symlink("a file", root.join("sub/link"))?;
            Ok(())
        })
    }

    #[test]
    fn a_tree_counts_only_while_it_is_whole() {
        let (_dir, cache) = cache_with_a_tree();
        assert_eq!(cache.whole("tree").as_deref(), Some("note 1"));
        assert_eq!(cache.whole("other"), None);
        let file = cache.path("tree/sub/a file");
        fs::write(&file, "conten").unwrap();
        assert_eq!(cache.whole("tree"), None, "a file was cut");
        fs::remove_file(&file).unwrap();
        assert_eq!(cache.whole("tree"), None, "a file is gone");
        fill(&cache).unwrap();
        assert!(cache.whole("tree").is_some());
        let stamp = fs::read_to_string(cache.path("tree.stamp")).unwrap();
        fs::write(cache.path("tree.stamp"), &stamp[..stamp.len() - 5]).unwrap();
        assert_eq!(cache.whole("tree"), None, "the stamp was cut");
    }

    #[test]
    fn a_tree_that_was_interrupted_is_made_again() {
        let (_dir, cache) = cache_with_a_tree();
        let failed = cache.make("tree", "note 2", |root| {
            fs::write(root.join("half"), "")?;
            bail!("killed")
        });
        assert!(failed.is_err());
        assert_eq!(cache.whole("tree"), None);
        fill(&cache).unwrap();
        assert!(cache.whole("tree").is_some());
        assert!(!cache.path("tree").join("half").exists() && !cache.path("tree.part").exists());
    }

    #[test]
    fn damage_of_the_same_size_is_found_by_content() {
        let (_dir, cache) = cache_with_a_tree();
        let said = std::cell::RefCell::new(Vec::new());
        let say = |text: &str| said.borrow_mut().push(text.to_owned());
        cache.check_content("tree", &say).unwrap();
        assert!(said.borrow().is_empty() && cache.whole("tree").is_some());
        fs::write(cache.path("tree/sub/a file"), "cOntent").unwrap();
        cache.check_content("tree", &say).unwrap();
        assert!(said.borrow()[0].contains("a file is damaged"), "{said:?}");
        assert_eq!(cache.whole("tree"), None);
    }

    #[test]
    fn the_lock_is_held_until_dropped() {
        let (_dir, cache) = cache_with_a_tree();
        let lock = cache.lock(&|_| {}).unwrap();
        let other = File::open(cache.path("lock")).unwrap();
        assert!(other.try_lock().is_err());
        drop(lock);
        assert!(other.try_lock().is_ok());
    }
}
