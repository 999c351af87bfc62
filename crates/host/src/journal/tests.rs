//! Claims about the journal of apply.

use model::{Code, Explain, Price};

use super::*;

fn plan() -> PfPlan {
    let pf = "0000:01:00.0".parse().unwrap();
    let have = |count| Step::SetNumVfs { pf, count };
    let planned = |step, undo| PlannedStep {
        step,
        before: None,
        undo,
        price: Price::default(),
    };
    PfPlan {
        pf,
        name: None,
        vfs: std::collections::BTreeMap::new(),
        is_cut: false,
        steps: vec![
            planned(have(0), Some(have(4))),
            planned(have(7), Some(have(0))),
        ],
    }
}

fn journal() -> (tempfile::TempDir, StateDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
    let journal = Journal::begin(&state, &BootId::new("b"), &[plan()]).unwrap();
    (dir, state, journal)
}

#[test]
fn an_apply_that_died_tells_how_far_it_came() {
    let (_dir, state, journal) = journal();
    journal.step_begun(plan().pf, 0);
    journal.step_made(plan().pf, 0);
    journal.step_begun(plan().pf, 1);
    let last = last_apply(&state).unwrap().unwrap();
    assert!(last.was_interrupted(&BootId::new("b")));
    assert!(!last.was_interrupted(&BootId::new("c")));
    assert_eq!((last.pfs[0].made, last.pfs[0].begun), (1, true));
    assert_eq!(last.pfs[0].steps[1].undo, plan().steps[1].undo);
    assert!(journal.end(0).is_none());
    let last = last_apply(&state).unwrap().unwrap();
    assert!(!last.was_interrupted(&BootId::new("b")));
}

#[test]
fn a_torn_line_hides_only_itself() {
    let (_dir, state, journal) = journal();
    journal.step_made(plan().pf, 0);
    let path = state.apply_journal();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"made\":{\"pf\":\"0000:0");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(last_apply(&state).unwrap().unwrap().pfs[0].made, 1);
    std::fs::write(&path, b"").unwrap();
    assert!(last_apply(&state).is_err());
}

/// A file that every write to fails on, as on a full disk.
fn full() -> File {
    OpenOptions::new().append(true).open("/dev/full").unwrap()
}

#[test]
fn lines_that_cannot_be_written_are_told_once_and_stop_nobody() {
    let journal = Journal::over("/var/lib/virtfn/journal/apply.jsonl".into(), full());
    journal.step_begun(plan().pf, 0);
    journal.step_made(plan().pf, 0);
    let fault = journal.end(0).unwrap();
    assert_eq!(fault.code(), Code::new("state-full"));
    assert!(fault.remedy().unwrap().contains("free space"));
}

#[test]
fn a_line_behind_a_torn_one_is_read() {
    let (_dir, state, journal) = journal();
    let mut torn = OpenOptions::new()
        .append(true)
        .open(state.apply_journal())
        .unwrap();
    torn.write_all(b"{\"begin\":{\"pf").unwrap();
    journal.writer.lock().unwrap().is_torn = true;
    journal.step_made(plan().pf, 0);
    journal.step_made(plan().pf, 1);
    assert_eq!(last_apply(&state).unwrap().unwrap().pfs[0].made, 2);
}

#[test]
fn what_the_kernel_had_no_room_for_is_remembered() {
    let fault = |code: &'static str| StepError {
        object: "PF".to_owned(),
        attempt: "have 7 VFs".to_owned(),
        source: Some("no space".into()),
        code: Code::new(code),
        remedy: None,
    };
    for (code, step, wanted) in [
        (NO_ROOM_FOR_VFS, 1, Some(7)),
        ("device-busy", 1, None),
        (NO_ROOM_FOR_VFS, 9, None),
    ] {
        let (_dir, state, journal) = journal();
        journal.step_failed(plan().pf, step, &fault(code));
        let failed = last_apply(&state).unwrap().unwrap().pfs[0].failed.clone();
        let told = FailedStep {
            at: step,
            error: "PF: have 7 VFs: no space".to_owned(),
        };
        assert_eq!(failed, Some(told));
        let boot = BootId::new("b");
        let starved = || starved_before(&state, &boot).get(&plan().pf).copied();
        assert_eq!(starved(), wanted, "{code}");
        assert!(starved_before(&state, &BootId::new("c")).is_empty());
        // An apply that does not try again forgets nothing, one that has VFs made does.
        let again = Journal::begin(&state, &boot, &[plan()]).unwrap();
        again.step_made(plan().pf, 0);
        assert_eq!(starved(), wanted, "{code}");
        again.step_made(plan().pf, 1);
        assert_eq!(starved(), None);
    }
}
