//! Claims about the records of PFs, and files that cannot be believed.

use std::fs;
use std::path::PathBuf;

use super::*;

impl World {
    fn record(&self, pf: &str) -> PathBuf {
        self.dir.path().join("etc/sriov-operator/pci").join(pf)
    }

    fn num_vfs(&self, pf: &str) -> u16 {
        let seen = self.host.clone().observe(Scope::All).unwrap();
        seen.get(parsed(pf)).unwrap().pf().unwrap().num_vfs
    }
}

#[test]
fn what_is_configured_is_owned_and_given_back_when_nobody_wants_it() {
    let mut world = World::new();
    world.apply();
    let text = fs::read_to_string(world.record(PF0)).unwrap();
    assert!(
        text.starts_with(r#"{"pciAddress":"0000:01:00.0","numVfs":3,"mtu":9000"#),
        "{text}"
    );
    world.desired.pfs.remove(&parsed::<PciAddress>(PF0));
    let (applied, _) = world.apply();
    assert!(applied.is_complete(), "{applied:#?}");
    assert_eq!((world.num_vfs(PF0), world.num_vfs(PF1)), (0, 3));
    let seen = world.host.clone().observe(Scope::All).unwrap();
    assert_eq!(seen.get(parsed(PF0)).unwrap().netdev().unwrap().mtu, 1500);
    assert!(!world.record(PF0).exists() && world.record(PF1).exists());
    let made = world.made();
    assert!(world.apply().0.is_complete());
    assert_eq!(world.made(), made);
}

#[test]
fn a_pf_without_a_record_is_never_reset() {
    let mut world = World::new();
    world.desired = Desired::default();
    assert!(world.apply().0.is_complete());
    assert_eq!((world.num_vfs(PF0), world.made()), (2, 0));
}

#[test]
fn a_pf_that_is_as_wanted_already_is_owned_too() {
    let world = World::new();
    world.apply();
    fs::remove_file(world.record(PF1)).unwrap();
    world.apply();
    assert!(world.record(PF1).exists());
}

#[test]
fn a_pf_that_was_not_changed_after_all_is_not_owned() {
    let world = World::new();
    world.host.0.lock().unwrap().fail_at = Some(0);
    let (applied, _) = world.apply();
    let failed = applied.pfs.iter().find(|pf| pf.outcome.is_err()).unwrap();
    assert!(!world.record(&failed.pf.to_string()).exists());
}

/// Who makes directories of virtfn's files may do so again.
#[test]
fn directories_in_place_of_files_are_kept_aside_each_time() {
    let world = World::new();
    world.apply();
    for time in 1..=2 {
        let journal = world.state.apply_journal();
        let original = world.state.original(parsed(PF1));
        for path in [world.record(PF0), journal, original] {
            let _it_was_none = fs::remove_file(&path);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("somebody's"), "").unwrap();
        }
        let (applied, events) = world.apply();
        assert!(applied.is_complete(), "{applied:#?}");
        let is_aside =
            |event: &&Event| matches!(event, Event::SetAside { kept, .. } if kept.is_dir());
        assert_eq!(
            events.iter().filter(is_aside).count(),
            3,
            "time {time}: {events:?}"
        );
    }
}

#[test]
fn files_that_cannot_be_believed_are_kept_aside_and_told() {
    let world = World::new();
    world.apply();
    fs::write(world.record(PF0), "{").unwrap();
    fs::write(world.state.apply_journal(), "no journal").unwrap();
    fs::write(world.state.original(parsed(PF1)), r#"{"version":"#).unwrap();
    let (applied, events) = world.apply();
    assert!(applied.is_complete(), "{applied:#?}");
    let kept: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::SetAside { kept, error, .. } => {
                assert!(error.code().as_str().ends_with("-damaged"), "{error:?}");
                assert!(error.remedy().is_some(), "{error:?}");
                Some(kept.clone())
            }
            _ => None,
        })
        .collect();
    let names: Vec<_> = kept.iter().map(|kept| kept.file_name().unwrap()).collect();
    assert_eq!(
        names,
        [
            "apply.damaged",
            "0000:02:00.0.damaged",
            "0000:01:00.0.damaged"
        ]
    );
    assert!(
        fs::read_to_string(world.record(PF0)).unwrap().len() > 10,
        "no new record"
    );
    let (_, events) = world.apply();
    assert!(events.is_empty(), "{events:?}");
}

#[test]
fn giving_back_killed_anywhere_is_completed_by_the_next() {
    for nth in 1..100 {
        let mut world = World::new();
        world.apply();
        world.desired = Desired::default();
        let dies = DiesAt::nth(nth);
        let shown = world.plan();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            world.apply_dying(&dies, Some(&shown), &mut |_| {})
        }));
        if outcome.is_ok() {
            assert!(nth > 6, "only {} checkpoints", nth - 1);
            return;
        }
        assert!(world.apply().0.is_complete(), "killed at {nth}");
        assert_eq!((world.num_vfs(PF0), world.num_vfs(PF1)), (0, 0));
        assert!(!world.record(PF0).exists() && !world.record(PF1).exists());
    }
    panic!("apply passes checkpoints for ever");
}

#[test]
fn whatever_a_killed_apply_made_can_be_given_back() {
    for nth in 1..100 {
        let mut world = World::new();
        let dies = DiesAt::nth(nth);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            world.apply_dying(&dies, None, &mut |_| {})
        }));
        let was_killed = outcome.is_err();
        world.desired = Desired::default();
        let (applied, _) = world.apply();
        assert!(applied.is_complete(), "killed at {nth}");
        // PF1 had none before, so whatever it has now is what the apply made.
        assert_eq!(world.num_vfs(PF1), 0, "killed at {nth}");
        if !was_killed {
            return;
        }
    }
    panic!("apply passes checkpoints for ever");
}
