//! Files that a machine cannot show because this user may not read them.

use std::fs;

use super::ui;

/// Where things are that people miss; looking everywhere would take longer than a boot.
const LOOKED_AT: [&str; 6] = ["/root", "/etc", "/etc/ssl", "/etc/cni", "/boot", "/var/lib"];

/// Says what machines will lack, unless this is root.
pub(crate) fn warn() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let mut hidden: Vec<String> = Vec::new();
    for dir in LOOKED_AT {
        match fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                hidden.push(format!("{dir}/"));
            }
            Err(_) => {}
            Ok(entries) => {
                let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
                let denied = paths.filter(|path| {
                    let opened = if path.is_dir() {
                        fs::read_dir(path).map(drop)
                    } else {
                        fs::File::open(path).map(drop)
                    };
                    opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
                });
                hidden.extend(denied.map(|path| path.display().to_string()));
            }
        }
    }
    if !hidden.is_empty() {
        hidden.sort();
        let (count, some) = (
            hidden.len(),
            hidden
                .iter()
                .take(8)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        );
        ui::say(&format!(
            "not root: machines see only files that this user may read; at least {count} are hidden, such as {some}"
        ));
    }
}
