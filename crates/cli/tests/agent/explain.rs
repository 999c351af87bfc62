//! Which pod has a device, as the kubelet says: also one that hangs, and one that is not there.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::fake_kubelet::FakeKubelet;
use super::running::{Place, make_fifo, pools};
use super::trouble::hung_kubelet;

const VF: &str = "0000:08:00.3";

/// Runs `virtfn` on the recorded host of a test.
fn output(place: &Place, arguments: &[&str]) -> Output {
    let path = |name: &str| place.path(name).to_string_lossy().into_owned();
    Command::new(env!("CARGO_BIN_EXE_virtfn"))
        .args(arguments)
        .args(["--state", &path("root")])
        .args(["--config", &path("config/config.json")])
        .args(["--kubelet-dir", &path("kubelet")])
        .output()
        .unwrap()
}

/// The same, where it succeeds: what it writes to both streams.
fn virtfn(place: &Place, arguments: &[&str]) -> (String, String) {
    let output = output(place, arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    (out, err)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pod_of_a_device_is_told() {
    let place = Place::of("mlx5-switchdev");
    place.config(&pools(&["a"]));
    let kubelet = FakeKubelet::start(&place.kubelet());
    kubelet.pod_has("intel.com/a", VF);
    let (out, err) = virtfn(&place, &["explain", "vf", VF]);
    let told = "pod     default/pod, container main, as intel.com/a";
    assert!(out.contains(told) && err.is_empty(), "{out}{err}");
    let (out, _) = virtfn(&place, &["explain", "pool", "a"]);
    let line = out.lines().find(|line| line.contains(VF)).unwrap();
    assert!(line.ends_with(", in pod default/pod"), "{out}");
    assert_eq!(out.matches("in pod").count(), 1, "{out}");
    let (out, _) = virtfn(&place, &["explain", "vf", VF, "-o", "json"]);
    let view: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(view.to_string().contains("default/pod"), "{view}");
    // The pod ended.
    kubelet.no_pods();
    let (out, _) = virtfn(&place, &["explain", "vf", VF]);
    assert!(!out.contains("default/pod"), "{out}");
}

#[test]
fn a_configuration_is_a_file_or_piped_in_and_a_fifo_holds_nobody_up() {
    let place = Place::of("mlx5-switchdev");
    let fifo = place.path("fifo");
    make_fifo(&fifo);
    let root = place.path("root").to_string_lossy().into_owned();
    let virtfn = |config: &str, what: &[&str]| {
        let mut virtfn = Command::new(env!("CARGO_BIN_EXE_virtfn"));
        virtfn.args(what).args(["--config", config]);
        virtfn.args(["--state", &root]).stdin(Stdio::piped());
        virtfn.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = virtfn.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Whoever does not read it is gone by now.
        let _unread = stdin.write_all(pools(&["a"]).as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    for what in [&["list", "pool"][..], &["explain", "pool", "a"]] {
        let refused = virtfn(&fifo.to_string_lossy(), what);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("it is no file"), "{told}");
        let piped = virtfn("-", what);
        assert!(piped.status.success(), "{piped:?}");
    }
}

#[test]
fn without_a_kubelet_that_answers_the_rest_is_told() {
    let place = Place::of("mlx5-switchdev");
    place.config(&pools(&["a"]));
    let mut hung = None;
    for why in ["No such file", "no answer in"] {
        let (out, err) = virtfn(&place, &["explain", "vf", VF]);
        assert!(
            out.contains("pool    intel.com/a: offered by selector 0"),
            "{out}"
        );
        let told = err.contains("which pod has what is not known") && err.contains(why);
        assert!(told, "{why}: {err}");
        hung.get_or_insert_with(|| hung_kubelet(&place));
    }
}

#[test]
fn a_name_of_nothing_is_bad_input() {
    let place = Place::of("mlx5-switchdev");
    place.config(&pools(&["a"]));
    let table = [
        (&["vf", "0000:99:00.0"][..], "no-such-vf"),
        (&["vf", "0000:08:00.0"], "not-a-vf"),
        (&["vf", "mlx5_core.sf.99"], "no-such-sub-function"),
        (&["mlx5_core.sf.99"], "no-such-sub-function"),
        (&["pool", "b"], "no-such-pool"),
        (&["pool"], "bad-option"),
        (&["vf"], "bad-option"),
    ];
    for (words, code) in table {
        let output = output(&place, &[&["explain"], words].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            told.contains(&format!("error[{code}]: ")),
            "{words:?}: {told}"
        );
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
