//! Claims about what VFs have by hand: an apply that makes them anew gives it back, however often it
//! dies.

use std::fs;

use model::{VfAttr, VfIndex, VfState};

use super::*;

const MAC: &str = "02:00:00:00:00:51";

impl World {
    /// Gives VF 1 of the first PF, which is about to have 3 VFs in place of 2, a MAC and trust.
    fn with_settings() -> Self {
        let world = Self::new();
        for attr in [VfAttr::Mac(parsed(MAC)), VfAttr::Trust(true)] {
            let (pf, vf) = (parsed(PF0), VfIndex(1));
            let step = Step::SetVf { pf, vf, attr };
            world.host.clone().perform(&step).unwrap();
        }
        world
    }

    fn vf(&self) -> VfState {
        let seen = self.host.clone().observe(Scope::All).unwrap();
        let vf = seen.vf_of(parsed(PF0), VfIndex(1)).unwrap();
        vf.vf().unwrap().state.unwrap()
    }

    #[track_caller]
    fn has_its_settings(&self) {
        assert_eq!(self.vf().mac, Some(parsed(MAC)));
        assert_eq!(self.vf().trust, Some(true));
        let noted = fs::read_dir(self.state.all_lost());
        let noted = noted.into_iter().flatten().count();
        assert_eq!(noted, 0, "what VFs have again is still on record");
    }
}

#[test]
fn a_vf_that_is_made_anew_has_what_it_was_given() {
    let world = World::with_settings();
    assert!(world.apply().0.is_complete());
    world.has_its_settings();
    assert!(world.plan().is_empty());
}

#[test]
fn killed_anywhere_and_again_nothing_that_a_vf_was_given_is_lost() {
    for nth in 1..100 {
        let world = World::with_settings();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            world.apply_dying(&DiesAt::nth(nth), None, &mut |_| {})
        }));
        // The second one dies as well, further on or not.
        let second = catch_unwind(AssertUnwindSafe(|| {
            world.apply_dying(&DiesAt::nth(nth / 2 + 3), None, &mut |_| {})
        }));
        drop(second);
        assert!(world.apply().0.is_complete(), "killed at {nth}");
        world.has_its_settings();
        if outcome.is_ok() {
            assert!(nth > 10, "only {} checkpoints", nth - 1);
            return;
        }
    }
    panic!("apply passes checkpoints for ever");
}

#[test]
fn what_could_not_be_noted_is_not_destroyed() {
    let world = World::with_settings();
    fs::create_dir_all(world.dir.path().join("lib")).unwrap();
    fs::write(world.state.all_lost(), "in the way").unwrap();
    let (applied, _) = world.apply();
    let failed = applied.pfs.iter().find(|pf| pf.pf == parsed(PF0)).unwrap();
    assert!(
        matches!(failed.outcome, Err(PfFault::Record(_))),
        "{failed:?}"
    );
    assert_eq!(world.vf().mac, Some(parsed(MAC)));
    let seen = world.host.clone().observe(Scope::All).unwrap();
    let count = |pf: &str| seen.get(parsed(pf)).unwrap().pf().unwrap().num_vfs;
    assert_eq!((count(PF0), count(PF1)), (2, 3));
}

#[test]
fn whatever_step_fails_the_next_apply_gives_it_back_and_the_way_out_is_told() {
    let mut ways_out = 0;
    for nth in 0..30 {
        let mut world = World::with_settings();
        // With one PF alone the n-th step is the same one each time.
        world.desired.pfs.remove(&parsed(PF1));
        let calls = world.made();
        world.host.0.lock().unwrap().fail_at = Some(calls + nth);
        let (applied, _) = world.apply();
        let failed = !applied.is_complete();
        assert!(failed || nth > 10, "step {nth} did not fail");
        let note = world.state.lost(parsed(PF0)).display().to_string();
        for fault in applied.pfs.iter().flat_map(|pf| &pf.vfs) {
            let remedy = fault.remedy().unwrap_or_default();
            let is_about_it = fault.source.attempt.starts_with("vf ");
            assert_eq!(remedy.contains(&note), is_about_it, "{fault:?}");
            ways_out += usize::from(is_about_it);
        }
        assert!(world.apply().0.is_complete(), "step {nth} failed");
        world.has_its_settings();
    }
    assert_eq!(ways_out, 3, "the MACs of both VFs and the trust of one");
}

#[test]
fn a_note_that_cannot_be_read_is_kept_aside_and_one_of_a_former_boot_is_void() {
    let world = World::with_settings();
    let path = world.state.lost(parsed(PF0));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{").unwrap();
    let (applied, events) = world.apply();
    assert!(applied.is_complete(), "{applied:?}");
    let told = events
        .iter()
        .any(|event| matches!(event, Event::SetAside { path: told, .. } if *told == path));
    assert!(told && path.with_extension("damaged").exists());
    let former = r#"{"version":1,"boot":"former","vfs":{"1":{"trust":true}}}"#;
    fs::write(&path, former).unwrap();
    assert!(world.plan().is_empty());
}
