//! `virtfn plan` and `virtfn list pool` as processes, on recorded hosts.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use crate::{Ran, command, recording, virtfn};

const FOUR_VFS: &str = "\
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: rack-a, namespace: sriov-network-operator}
spec:
  resourceName: fast
  nodeSelector: {}
  nicSelector: {pfNames: ['ens1f1np1']}
  numVfs: 4
  mtu: 9000
";

/// A directory with policy files.
pub(crate) struct Files(pub(crate) tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Shows a run without the name of the directory.
    pub(crate) fn shown(&self, ran: &Ran) -> String {
        let text = format!("{}{}[{}]\n", ran.out, ran.err, ran.status);
        text.replace(&*self.0.path().to_string_lossy(), "DIR")
    }
}

fn plan(file: &str, more: &[&str]) -> Ran {
    let tree = recording("mlx5-legacy");
    virtfn(&[&["plan", "-f", file, "--recorded", &tree], more].concat())
}

#[test]
fn a_plan_says_what_would_be_done_and_whom_it_costs() {
    let files = Files::new();
    let file = files.write("p.yaml", FOUR_VFS);
    insta::assert_snapshot!("plan", files.shown(&plan(&file, &[])));
    insta::assert_snapshot!("plan-check", files.shown(&plan(&file, &["--check"])));
    insta::assert_snapshot!("plan-json", files.shown(&plan(&file, &["-o", "json"])));
    insta::assert_snapshot!(
        "list-pool",
        files.shown(&virtfn(&[
            "list",
            "pool",
            "-f",
            &file,
            "--recorded",
            &recording("mlx5-legacy")
        ]))
    );
}

#[test]
fn policies_for_other_nodes_change_nothing() {
    let files = Files::new();
    let text = FOUR_VFS.replace("nodeSelector: {}", "nodeSelector: {rack: b}");
    let file = files.write("p.yaml", text);
    assert_eq!(plan(&file, &["--check"]).status, 0);
    assert_eq!(
        plan(&file, &["--check", "--node-label", "rack=b"]).status,
        3
    );
    let ran = plan(&file, &[]);
    assert_eq!(ran.out, "nothing to do\n");
    assert!(ran.err.contains("rack=b"), "{}", ran.err);
}

#[test]
fn policies_come_from_stdin_too() {
    let tree = recording("mlx5-legacy");
    let mut child = command(&["plan", "--check", "-f", "-", "--recorded", &tree])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(FOUR_VFS.as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn bad_input_is_named_with_file_and_remedy() {
    let files = Files::new();
    let mut all = String::new();
    let empty_dir = files.0.path().join("empty");
    fs::create_dir(&empty_dir).unwrap();
    let range = |range: &str| FOUR_VFS.replace("ens1f1np1", &format!("ens1f1np1#{range}"));
    for file in [
        files
            .0
            .path()
            .join("missing")
            .to_string_lossy()
            .into_owned(),
        empty_dir.to_string_lossy().into_owned(),
        files.write("huge.yaml", vec![b'#'; 5 << 20]),
        files.write("latin1.yaml", b"a: \xe9\n"),
        files.write("broken.yaml", "a: [1\nb: }"),
        files.write(
            "pod.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n",
        ),
        files.write("backwards.yaml", range("5-2")),
        files.write("letters.yaml", range("a-b")),
        files.write("lost.yaml", FOUR_VFS.replace("ens1f1np1", "ens9")),
        files.write("typo.yaml", FOUR_VFS.replace("mtu: 9000", "mtuu: 9000")),
    ] {
        all.push_str(&files.shown(&plan(&file, &[])));
        all.push('\n');
    }
    insta::assert_snapshot!(all);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let files = Files::new();
    let file = files.write("p.yaml", FOUR_VFS);
    let mut all = String::new();
    for args in [
        vec!["list", "pool"],
        vec!["list", "vf", "-f", &file],
        vec!["plan", "-f", &file, "--node-label", "rack"],
        vec!["plan"],
    ] {
        all.push_str(&files.shown(&virtfn(&args)));
        all.push('\n');
    }
    insta::assert_snapshot!(all);
}

/// A recorded host with two VFs, whose last apply found no memory space for eight.
fn starved_host() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tree = fs::read_to_string(recording("ixgbe")).unwrap();
    host::Tree::parse(&tree)
        .unwrap()
        .unpack(dir.path())
        .unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/cmdline", "quiet\n");
    write("proc/sys/kernel/random/boot_id", "boot-7\n");
    let journal = r#"{"version":1,"boot":"boot-7","pid":1,"began":1,"pfs":[{"pf":"0000:5f:00.0","steps":[
        {"step":{"do":"set-num-vfs","pf":"0000:5f:00.0","count":0}},
        {"step":{"do":"set-num-vfs","pf":"0000:5f:00.0","count":8}}]}]}"#;
    let failed =
        r#"{"failed":{"pf":"0000:5f:00.0","step":1,"error":"no room","code":"no-room-for-vfs"}}"#;
    let journal = format!("{}\n{failed}\n", journal.replace('\n', ""));
    write("var/lib/virtfn/journal/apply.jsonl", &journal);
    dir
}

#[test]
fn memory_space_that_was_lacking_is_remembered_until_the_next_boot() {
    let files = Files::new();
    let host = starved_host();
    let state = host.path().to_string_lossy().into_owned();
    let ran = |command: &str, count: u16| {
        let policy = FOUR_VFS
            .replace("ens1f1np1", "eno1")
            .replace("numVfs: 4", &format!("numVfs: {count}"));
        let file = files.write("p.yaml", policy);
        let ran = virtfn(&[command, "--check", "-f", &file, "--state", &state]);
        assert_eq!(ran.status, 3, "{}{}", ran.out, ran.err);
        ran.out
    };
    let plan = ran("plan", 8);
    assert!(plan.contains("pci=realloc   needed"), "{plan}");
    assert!(
        plan.contains("have 8 VFs") && plan.contains("after a reboot"),
        "{plan}"
    );
    assert!(ran("status", 8).contains("needed for kernel arguments pci=realloc"));
    let fewer = ran("plan", 4);
    assert!(!fewer.contains("pci=realloc"), "{fewer}");
    fs::write(
        host.path().join("proc/sys/kernel/random/boot_id"),
        "boot-8\n",
    )
    .unwrap();
    let later = ran("plan", 8);
    assert!(!later.contains("pci=realloc"), "{later}");
}
