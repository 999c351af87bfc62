//! Switching the autoprobe of a PF on for the moment of one probe.
//!
//! While `sriov_drivers_autoprobe` of a PF is off, the kernel gives none of its VFs a driver, not even
//! when it is told to probe one. So it is switched on for that moment, and two things can go wrong:
//! somebody else's moment ends meanwhile, or this process does. Against the first there is a lock.
//! Against the second what it was is written down before (`/run/virtfn/autoprobe/<pf>`, gone with a
//! reboot as the setting is), and whoever gives or takes VFs next pays that debt back ([`settle`]).
//!
//! What would surprise: while an apply makes VFs one by one autoprobe is off as well, for longer. That is
//! a step of its plan, and no debt: what the PF had at first is on record, so the next plan has the
//! step that brings it back.

use std::fs;
use std::io;
use std::time::Duration;

use model::{Host, PciAddress, Step};

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::lock::{LockOf, exclusive, if_free};
use crate::perform::{Fault, Tools, device};
use crate::state::{StateDir, create_parent};

/// Somebody else's probe can take as long as ours, and is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does `work` while new drivers may take the VF.
pub(crate) fn on_while<T>(
    tools: &Tools<'_>,
    vf: PciAddress,
    work: impl FnOnce() -> T,
) -> Result<T, Fault> {
    let path = format!("{}/physfn/sriov_drivers_autoprobe", device(vf));
    let is_off = || tools.root.read_text(&path).is_ok_and(|on| on == "0");
    let pf = tools.root.link_name(&format!("{}/physfn", device(vf)));
    let pf = pf.ok().and_then(|name| name.parse::<PciAddress>().ok());
    let (Some(pf), Some(state)) = (pf, tools.state) else {
        return if is_off() {
            switched(tools, &path, work)
        } else {
            Ok(work())
        };
    };
    // Somebody else may be in the middle of his moment, and end it in the middle of ours.
    let is_shared = state.autoprobe(pf).exists();
    if !is_off() && !is_shared {
        return Ok(work());
    }
    let _turn = exclusive(state, LockOf::Autoprobe(pf), PATIENCE)
        .map_err(|error| Fault::new("locked", error))?;
    if !is_off() {
        return Ok(work());
    }
    let is_ours = !state.autoprobe(pf).exists() && note(state, pf);
    tools.checkpoints.passed(Checkpoint::DriverWrite);
    let done = switched(tools, &path, work)?;
    if is_ours {
        forget(state, pf);
    }
    Ok(done)
}

fn switched<T>(tools: &Tools<'_>, path: &str, work: impl FnOnce() -> T) -> Result<T, Fault> {
    tools.root.write(path, "1")?;
    tools.checkpoints.passed(Checkpoint::DriverWrite);
    let done = work();
    tools.checkpoints.passed(Checkpoint::DriverWrite);
    tools.root.write(path, "0")?;
    tools.checkpoints.passed(Checkpoint::DriverWrite);
    Ok(done)
}

/// Switches the autoprobe of a PF off again if a process died while it was on for a moment, and says
/// whether it was so.
pub(crate) fn settle(
    host: &mut impl Host,
    state: &StateDir,
    pf: PciAddress,
    at: &dyn Checkpoints,
) -> bool {
    if !state.autoprobe(pf).exists() {
        return false;
    }
    // Whoever has the lock lives, and settles it himself.
    let Ok(Some(_turn)) = if_free(state, LockOf::Autoprobe(pf)) else {
        return false;
    };
    if !state.autoprobe(pf).exists() {
        return false;
    }
    match host.perform(&Step::SetAutoprobe { pf, on: false }) {
        Ok(()) => {
            at.passed(Checkpoint::StepMade);
            forget(state, pf);
            true
        }
        // The next one tries again, unless there is no such PF any more.
        Err(error) if error.code.as_str() == "no-such-device" => {
            forget(state, pf);
            false
        }
        Err(error) => {
            tracing::warn!(%pf, %error, "autoprobe not switched off again");
            false
        }
    }
}

/// Returns the PFs whose autoprobe a process may have left on.
pub(crate) fn owing(state: &StateDir) -> Vec<PciAddress> {
    let names = fs::read_dir(state.autoprobes()).into_iter().flatten();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pfs: Vec<PciAddress> = names.filter_map(|name| name.parse().ok()).collect();
    pfs.sort_unstable();
    pfs
}

/// Notes that autoprobe was off. That the file is there says it all.
fn note(state: &StateDir, pf: PciAddress) -> bool {
    let path = state.autoprobe(pf);
    let noted = create_parent(&path)
        .map_err(|error| error.source)
        .and_then(|()| fs::write(&path, ""));
    // A driver for the VF is worth more than a note for the case that this process is killed.
    noted
        .inspect_err(|error| tracing::warn!(%pf, %error, "autoprobe switched on without a note"))
        .is_ok()
}

fn forget(state: &StateDir, pf: PciAddress) {
    match fs::remove_file(state.autoprobe(pf)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%pf, %error, "note of autoprobe not removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fixtures::{FakeHost, igb, inventory};

    use super::*;
    use crate::checkpoint::Uninterrupted;
    use crate::perform::Sockets;
    use crate::root::HostRoot;

    const KILLED: &str = "killed at a checkpoint";

    struct DiesAt(AtomicUsize);

    impl Checkpoints for DiesAt {
        fn passed(&self, _at: Checkpoint) {
            if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
                std::panic::panic_any(KILLED);
            }
        }
    }

    fn pf() -> PciAddress {
        "0000:01:00.0".parse().unwrap()
    }

    fn vf() -> PciAddress {
        "0000:01:10.0".parse().unwrap()
    }

    /// A PF whose autoprobe is off, with a VF, as files.
    struct Place {
        dir: tempfile::TempDir,
        root: HostRoot,
        state: StateDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let beneath = |path: String| dir.path().join(path.trim_start_matches('/'));
            for function in [pf(), vf()] {
                fs::create_dir_all(beneath(device(function))).unwrap();
            }
            let physfn = beneath(format!("{}/physfn", device(vf())));
            std::os::unix::fs::symlink(format!("../{}", pf()), physfn).unwrap();
            let place = Self {
                root: HostRoot::open(dir.path()).unwrap(),
                state: StateDir::new(dir.path().join("lib"), dir.path().join("run")),
                dir,
            };
            place.set("0");
            place
        }

        fn path(&self) -> std::path::PathBuf {
            let path = format!("{}/sriov_drivers_autoprobe", device(pf()));
            self.dir.path().join(path.trim_start_matches('/'))
        }

        fn set(&self, on: &str) {
            fs::write(self.path(), on).unwrap();
        }

        fn is(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }

        /// Probes, and returns what autoprobe was meanwhile; `None` when killed.
        fn probe(&self, checkpoints: &dyn Checkpoints) -> Option<String> {
            let mut sockets = Sockets::default();
            let tools = Tools {
                root: &self.root,
                sockets: &mut sockets,
                reported: &mut None,
                state: Some(&self.state),
                checkpoints,
            };
            let probe = || on_while(&tools, vf(), || self.is()).unwrap();
            catch_unwind(AssertUnwindSafe(probe)).ok()
        }

        /// Settles as the next process does, on a host that is played beside the files.
        fn settle(&self) {
            let mut host = FakeHost::new(inventory([igb("0000:01:00.0", "ens1").with_vfs(1)]));
            for pf in owing(&self.state) {
                assert!(settle(&mut host, &self.state, pf, &Uninterrupted));
            }
            for step in host.performed() {
                assert_eq!(
                    *step,
                    Step::SetAutoprobe {
                        pf: pf(),
                        on: false
                    }
                );
                self.set("0");
            }
        }
    }

    #[test]
    fn autoprobe_is_on_for_a_moment_and_off_again() {
        let place = Place::new();
        assert_eq!(place.probe(&Uninterrupted).unwrap(), "1");
        assert_eq!((place.is().as_str(), owing(&place.state)), ("0", vec![]));
        place.set("1");
        assert_eq!(place.probe(&Uninterrupted).unwrap(), "1");
        assert_eq!((place.is().as_str(), owing(&place.state)), ("1", vec![]));
    }

    #[test]
    fn killed_in_that_moment_once_or_twice_it_is_off_again_after_the_next() {
        for first in 1..100 {
            let mut last = false;
            for second in 0..6 {
                let place = Place::new();
                last = place.probe(&DiesAt(AtomicUsize::new(first))).is_some();
                // The second one dies too; at 0 it lives.
                place.probe(&DiesAt(AtomicUsize::new(second)));
                place.settle();
                let left = (place.is(), owing(&place.state));
                assert_eq!(left, ("0".to_owned(), vec![]), "{first} {second}");
            }
            if last {
                assert!(first > 4, "only {} checkpoints", first - 1);
                return;
            }
        }
        panic!("probing passes checkpoints for ever");
    }
}
