//! Claims about records on the disk.

use super::*;
use model::{HolderKind, NetnsTarget};

fn vf() -> PciAddress {
    "0000:01:10.0".parse().unwrap()
}

fn ledger(dir: &tempfile::TempDir, boot: &str) -> Ledger {
    let state = StateDir::new(dir.path().join("lib"), dir.path().join("run"));
    Ledger::new(state, BootId::new(boot))
}

fn holder(id: &str) -> Holder {
    Holder {
        kind: HolderKind::Attach,
        id: id.to_owned(),
        interface: Some("net1".parse().unwrap()),
    }
}

fn claimed(ledger: &Ledger) -> Record {
    let mut record = Record::free(vf(), ledger.boot.clone());
    record.claim = Some(Claim {
        pf: "0000:01:00.0".parse().unwrap(),
        holder: holder("blue"),
        stage: Stage::Attached,
        netns: Some(NetnsTarget::Path {
            path: "/run/netns/blue".to_owned(),
            inode: 4_026_532_700,
        }),
        asked: "as net1".to_owned(),
        since: 1,
        before: Before::default(),
        steps: Vec::new(),
    });
    record
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    assert_eq!(ledger.look(vf()).unwrap(), None);
    let record = claimed(&ledger);
    ledger.write(&record).unwrap();
    assert_eq!(ledger.open(vf(), false).unwrap(), (record, None));
    assert_eq!(ledger.holders().by_vf[&vf()], holder("blue"));
}

#[test]
fn the_last_whole_mark_says_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    assert!(ledger.mark(vf(), Stage::Attached).is_err(), "no record");
    ledger.write(&claimed(&ledger)).unwrap();
    let stage = || {
        ledger
            .look(vf())
            .map(|record| record.unwrap().claim.unwrap().stage)
    };
    ledger.mark(vf(), Stage::Attaching).unwrap();
    ledger.mark(vf(), Stage::Detaching).unwrap();
    assert_eq!(stage().unwrap(), Stage::Detaching);
    let path = ledger.state.record(vf());
    let whole = fs::read(&path).unwrap();
    let torn = &whole[..whole.len() - 4];
    fs::write(&path, torn).unwrap();
    assert_eq!(stage().unwrap(), Stage::Attaching);
    ledger.mark(vf(), Stage::Attached).unwrap();
    assert_eq!(stage().unwrap(), Stage::Attached);
    fs::write(&path, [&whole[..], b"\0\0"].concat()).unwrap();
    assert!(stage().is_err(), "what is behind it is no mark");
}

#[test]
fn a_claim_of_a_former_boot_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let before = ledger(&dir, "one");
    before.write(&claimed(&before)).unwrap();
    let after = ledger(&dir, "two");
    assert_eq!(after.holders(), Holders::default());
    // Nobody opened it since the boot.
    assert_eq!(after.history(vf()).unwrap().len(), 1);
    let (record, damage) = after.open(vf(), false).unwrap();
    assert_eq!((record.claim, damage), (None, None));
    assert_eq!(after.recorded().unwrap(), []);
    let told = |events: Vec<PastEvent>| events.into_iter().map(|event| event.what);
    let history = told(after.history(vf()).unwrap());
    assert_eq!(history.collect::<Vec<_>>(), [Happening::VoidAfterReboot]);
}

#[test]
fn a_damaged_record_is_kept_aside_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    ledger.write(&claimed(&ledger)).unwrap();
    let path = ledger.state.record(vf());
    let whole = fs::read(&path).unwrap();
    let half = &whole[..whole.len() / 2];
    fs::write(&path, half).unwrap();

    assert_eq!(ledger.holders().gaps[0].object, "0000:01:10.0");
    assert!(ledger.look(vf()).is_err());
    let (record, damage) = ledger.open(vf(), false).unwrap();
    assert_eq!(record.claim, None);
    assert_eq!(fs::read(damage.unwrap().kept).unwrap(), half);
    // Only what is written next takes its place.
    assert_eq!(ledger.recorded().unwrap(), [vf()]);
    assert!(ledger.look(vf()).is_err());
    ledger.write(&record).unwrap();
    assert_eq!(ledger.look(vf()).unwrap(), Some(record));
}

/// Takes the VF's lock and lets it go, as whoever writes a record does.
fn lock_once(ledger: &Ledger) {
    let lock = crate::lock::exclusive(&ledger.state, LockOf::Vf(vf()), std::time::Duration::ZERO);
    drop(lock.unwrap());
}

#[test]
fn a_vf_whose_record_cannot_be_used_counts_as_somebody_s() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    let path = ledger.state.record(vf());
    lock_once(&ledger);
    for (content, why) in [
        (&b"{\"version\":1,"[..], "its record is damaged"),
        (b"", "its record is damaged"),
        (b"{\"version\":2}", "its record is of a later virtfn"),
    ] {
        write_atomic(&path, content).unwrap();
        let found = ledger.holders();
        let holder = found.unknown_of(vf()).unwrap();
        assert_eq!(holder.to_string(), format!("somebody unknown ({why})"));
        assert!(found.by_vf.is_empty() && found.unlisted.is_none());
        let gap = &found.gaps[0].reason;
        assert!(gap.contains("detach"), "no remedy: {gap}");
    }
    // As a directory, it is neither read nor taken for none.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let holder = ledger.holders().unknown[&vf()].to_string();
    assert_eq!(holder, "somebody unknown (its record cannot be read)");
}

#[test]
fn what_cannot_be_used_and_nobody_wrote_since_the_host_started_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    let path = ledger.state.record(vf());
    for content in [&b"\0\0\0"[..], b"{\"version\":2}"] {
        write_atomic(&path, content).unwrap();
        let found = ledger.holders();
        assert_eq!(found.unknown_of(vf()), None);
        assert!(found.gaps[0].reason.ends_with("and so void"), "{found:?}");
        let (record, damage) = ledger.open(vf(), true).unwrap();
        assert_eq!(fs::read(damage.unwrap().kept).unwrap(), content);
        assert_eq!((ledger.look(vf()).unwrap(), record.claim), (None, None));
        assert_eq!(ledger.holders(), Holders::default());
    }
}

#[test]
fn records_that_cannot_be_listed_are_a_gap_and_not_none() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    assert_eq!(ledger.holders(), Holders::default());
    let place = ledger.state.ledger();
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "in the way").unwrap();
    let found = ledger.holders();
    let gap = &found.gaps[0].reason;
    assert!(gap.contains("who has which VF"), "{gap}");
    let holder = found.unknown_of(vf()).unwrap();
    assert_eq!(holder.kind, HolderKind::Unknown);
}

#[test]
fn a_record_of_another_vf_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    ledger.write(&claimed(&ledger)).unwrap();
    let other = "0000:01:10.2".parse().unwrap();
    fs::rename(ledger.state.record(vf()), ledger.state.record(other)).unwrap();
    let (_, damage) = ledger.open(other, false).unwrap();
    assert_eq!(damage.unwrap().reason, "it is about 0000:01:10.0");
}

#[test]
fn a_record_of_a_later_virtfn_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    let path = ledger.state.record(vf());
    let record = r#"{"version": 2, "vf": {"a new": "form"}}"#;
    for behind in ["", "\n\n{\"stage\":\"attached\"}"] {
        write_atomic(&path, format!("{record}{behind}").as_bytes()).unwrap();
        let error = ledger.open(vf(), false).unwrap_err();
        assert_eq!(error.code(), Code::new("state-of-later-version"));
        assert!(path.exists());
    }
}

/// Who is killed in the middle, played by a record that cannot be removed.
#[test]
fn what_happened_is_told_before_a_vf_is_free_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    let record = ledger.state.record(vf());
    fs::create_dir_all(&record).unwrap();
    let detached = || Happening::Detached {
        holder: somebody("pod"),
    };
    for _twice in 0..2 {
        ledger.free(vf(), [detached()]).unwrap_err();
    }
    fs::remove_dir(&record).unwrap();
    let history = ledger.history(vf()).unwrap();
    assert_eq!(history.len(), 1, "{history:?}");
    assert_eq!(history[0].what, detached());
}

#[test]
fn a_vf_can_be_said_free_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(&dir, "one");
    ledger.write(&claimed(&ledger)).unwrap();
    // A directory in the place of the new file makes every write fail, as a full disk would.
    fs::create_dir(dir.path().join("lib/ledger/0000:01:10.0.json.new")).unwrap();
    assert!(ledger.write(&claimed(&ledger)).is_err());
    ledger.free(vf(), []).unwrap();
    ledger.free(vf(), []).unwrap();
    assert_eq!(ledger.holders(), Holders::default());
}
