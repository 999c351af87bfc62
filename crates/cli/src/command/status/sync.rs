//! How the host stands, in the two fields that upstream has for it.

use api::crd::{SyncResult, SyncStatus};

use super::{Fate, Report};

/// Most characters of `lastSyncError`: an etcd object must stay small.
const LONGEST: usize = 4096;

/// Says how the last attempt to give the host what is wanted went.
///
/// What is seen counts before what was recorded: a host that was repaired by hand has succeeded, and
/// one that changed since, or lacks a PF that is wanted, has not. (Upstream reports `Succeeded` for
/// such a PF.)
pub(super) fn sync(report: &Report) -> SyncResult {
    let fate = report
        .last
        .as_ref()
        .filter(|last| last.is_here)
        .map(|last| (last, last.fate()));
    let failures = || {
        fate.iter()
            .filter(|(_, fate)| !matches!(fate, Fate::Succeeded | Fate::Runs(_)))
            .flat_map(|(last, fate)| {
                let mut failures = last.failures(&report.seen);
                if *fate == Fate::Interrupted {
                    let pid = last.apply.pid;
                    failures.insert(0, format!("apply (process {pid}) died before its end"));
                }
                failures
            })
            .collect::<Vec<_>>()
    };
    let (status, errors) = match (&fate, &report.wanted) {
        (Some((_, Fate::Runs(_))), _) => (SyncStatus::InProgress, Vec::new()),
        (_, Some(_)) if report.is_as_wanted() => (SyncStatus::Succeeded, Vec::new()),
        (_, Some(_)) => {
            let mut errors = failures();
            errors.extend(differences(report));
            (SyncStatus::Failed, errors)
        }
        (Some((_, Fate::Succeeded)), None) => (SyncStatus::Succeeded, Vec::new()),
        (Some((_, Fate::Failed(_) | Fate::Interrupted)), None) => (SyncStatus::Failed, failures()),
        (None, None) => (SyncStatus::Unknown, Vec::new()),
    };
    let text: String = errors.join("; ").chars().take(LONGEST).collect();
    SyncResult {
        status,
        last_error: Some(text).filter(|text| !text.is_empty()),
    }
}

/// Names everything that differs, PF by PF.
fn differences(report: &Report) -> Vec<String> {
    let mut texts = Vec::new();
    for standing in &report.standings {
        let title = standing
            .name
            .as_ref()
            .map_or_else(|| standing.pf.to_string(), ToString::to_string);
        for difference in &standing.differences {
            let whose = difference.vf.map_or(String::new(), |vf| format!(" {vf}"));
            texts.push(format!(
                "{title}{whose}: {} is {}, wanted {}",
                difference.what, difference.seen, difference.wanted
            ));
        }
    }
    for (pf, vfs) in &report.unwanted {
        texts.push(format!("{pf}: has {vfs} VFs that no policy wants any more"));
    }
    let reboots = report.needed_reboots();
    texts.extend(
        reboots
            .iter()
            .map(|reason| format!("a reboot is needed for {reason}")),
    );
    if report.decision.is_none() {
        texts.extend(report.findings.iter().map(ToString::to_string));
    }
    texts
}
