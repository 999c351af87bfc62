//! Reads everything that the status tells. What cannot be read becomes a finding.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use host::persist::{self, Installed};
use host::{BootId, HostRoot, PfLedger, StateDir, asked_reboots, last_apply, who_applies};
use model::{Code, Inventory, Role};

use super::super::wanted::{Wanted, WantedError, circumstances, recorded_state};
use super::{Finding, Kept, Last, Report, Wants};
use crate::args::StatusArgs;
use crate::failure::Failure;
use crate::policies;
use crate::sight::{Place, Sight};
use crate::ui::Ui;
use crate::workplace::Site;

/// Gathers the report. Bad policies of `-f` are bad input; bad policies that are kept are a finding.
pub(super) fn gather(args: &StatusArgs, here: &Site, ui: &mut Ui) -> Result<Report, Failure> {
    let site = super::super::site(&args.state, here);
    let mut sight = Sight::open(&site)?;
    let mut report = Report {
        seen: sight.inventory()?,
        host: sight.host_name(),
        ..Report::default()
    };
    let mut wanted = None;
    if !args.files.is_empty() {
        let labels = policies::labels(&args.node_labels).map_err(Failure::input)?;
        let read = policies::read(&args.files, ui).map_err(Failure::input)?;
        let source = match args.files.as_slice() {
            [one] => one.display().to_string(),
            many => format!("{} files", many.len()),
        };
        let named = Wanted::of(read, labels, report.host.as_deref(), ui)?;
        want(&mut report, source, &named)?;
        wanted = Some(named);
    }
    let is_recorded = matches!(site.place, Place::Recording(_));
    let root = sight.linux().root();
    let state = if is_recorded {
        recorded_state(root)
    } else {
        site.state()
    };
    if !is_recorded {
        wanted = kept(&mut report, args, root, ui).or(wanted);
        remembered(&mut report, root, &state);
    }
    if let Some(wanted) = &wanted {
        compare(&mut report, wanted, root, &state, is_recorded);
    }
    for gap in &report.seen.gaps {
        report.notes.push(format!("{}: {}", gap.object, gap.reason));
    }
    Ok(report)
}

fn want(report: &mut Report, source: String, wanted: &Wanted) -> Result<(), WantedError> {
    let (desired, notes) = wanted.on(&report.seen)?;
    report.notes.extend(notes);
    report.wanted = Some(Wants {
        source,
        policies: wanted.count(),
        desired,
    });
    Ok(())
}

/// Reads what is kept across reboots, and takes it for what is wanted unless `-f` says that.
pub(super) fn kept(
    report: &mut Report,
    args: &StatusArgs,
    root: &HostRoot,
    ui: &mut Ui,
) -> Option<Wanted> {
    let found = match persist::look(root) {
        Ok(found) => found,
        Err(error) => {
            report.findings.push(Finding::of(&error));
            return None;
        }
    };
    report.kept = match found.installed {
        Installed::Absent => Kept::No,
        Installed::Enabled => Kept::Yes,
        Installed::HalfDone => Kept::HalfDone,
    };
    for (path, what) in &found.edited {
        report.findings.push(Finding {
            code: Code::new("file-in-the-way"),
            text: format!("{path}: {what}"),
            remedy: Some(
                "virtfn leaves it alone; move it away to let `virtfn apply --persist` write its own"
                    .to_owned(),
            ),
        });
    }
    if found.installed == Installed::Absent || !args.files.is_empty() {
        return None;
    }
    let mut labels = found.boot.map(|boot| boot.node_labels).unwrap_or_default();
    match policies::labels(&args.node_labels) {
        Ok(more) => labels.extend(more),
        Err(error) => report.findings.push(Finding::of(&error)),
    }
    let dir: PathBuf = root.path().join(found.policies.trim_start_matches('/'));
    let read = match policies::read(&[dir], ui) {
        Ok(read) => read,
        Err(error) => {
            report.findings.push(Finding::of(&error));
            return None;
        }
    };
    let wanted = Wanted::of(read, labels, report.host.as_deref(), ui);
    let source = found.policies.to_owned();
    let wanted = wanted.and_then(|wanted| {
        want(report, source, &wanted)?;
        Ok(wanted)
    });
    let vfs = persist::read_vf_settings(root, found.vf_settings);
    match (wanted, vfs) {
        (Ok(mut wanted), Ok(vfs)) => {
            wanted.keep_vfs(vfs);
            Some(wanted)
        }
        (wanted, vfs) => {
            let failures = [
                wanted.as_ref().err().map(Finding::of),
                vfs.err().map(|error| Finding::of(&error)),
            ];
            report.findings.extend(failures.into_iter().flatten());
            wanted.ok()
        }
    }
}

/// Reads virtfn's own records.
pub(super) fn remembered(report: &mut Report, root: &HostRoot, state: &StateDir) {
    match (last_apply(state), BootId::read(root)) {
        (Ok(None), _) => {}
        (Ok(Some(apply)), Ok(boot)) => {
            let since = apply.ended.map_or(apply.began, |end| end.at);
            report.last = Some(Last {
                is_here: apply.boot == boot,
                runs: who_applies(state).first().map(|holder| holder.pid),
                ago: now().saturating_sub(since),
                apply,
            });
        }
        (Err(error), _) => {
            let mut finding = Finding::of(&error);
            if finding.code == Code::new("state-damaged") {
                finding.code = Code::new("journal-damaged");
            }
            report.findings.push(finding);
        }
        (_, Err(error)) => report.findings.push(unreadable(&error)),
    }
    match asked_reboots(root) {
        Ok(asked) if asked.is_damaged => report.findings.push(Finding {
            code: Code::new("reboot-count-damaged"),
            text: "/var/lib/virtfn/reboots.json is damaged".to_owned(),
            remedy: Some("the next apply keeps it aside and counts anew".to_owned()),
        }),
        Ok(asked) => report.reboots = asked,
        Err(error) => report.findings.push(Finding::of(&error)),
    }
    match PfLedger::new(root, state).read() {
        Ok(owned) => {
            report
                .findings
                .extend(owned.damaged.iter().map(Finding::of));
            report.findings.extend(owned.unread.iter().map(Finding::of));
        }
        Err(error) => report.findings.push(Finding::of(&error)),
    }
}

fn unreadable(error: &host::AccessError) -> Finding {
    Finding {
        code: Code::new("host-not-accessible"),
        text: format!("{error}: {}", error.source),
        remedy: None,
    }
}

/// Decides as `plan` and `apply` do, so that the three agree. Where nothing can be decided it is still
/// told what differs from the policies.
pub(super) fn compare(
    report: &mut Report,
    wanted: &Wanted,
    root: &HostRoot,
    state: &StateDir,
    is_recorded: bool,
) {
    let Some(wants) = &report.wanted else { return };
    let seen = &report.seen;
    let known = circumstances(root, seen, &wants.desired, state, is_recorded);
    let ledger = PfLedger::new(root, state);
    let plan = match known.and_then(|known| wanted.decide(seen, ledger, &known)) {
        Ok(decision) => {
            for pf in &decision.released {
                let vfs = seen.get(*pf).and_then(model::Function::pf);
                report
                    .unwanted
                    .insert(*pf, vfs.map_or(0, |facts| facts.num_vfs));
            }
            // Modules are loaded when they are needed; only what cannot be mended is worth telling.
            let obstacles = decision.kernel.obstacles.iter();
            report.findings.extend(obstacles.map(Finding::of));
            let plan = decision.plan.clone();
            report.decision = Some(decision);
            plan
        }
        Err(error) => {
            let finding = Finding::of(&error);
            if !report.findings.contains(&finding) {
                report.findings.push(finding);
            }
            policy::plan(seen, &wants.desired)
        }
    };
    report.standings = policy::drift(seen, &wants.desired, &plan);
}

/// Returns how many VFs of `range` somebody holds.
pub(super) fn in_use(seen: &Inventory, pf: &model::PfFacts, range: model::VfRange) -> usize {
    let vfs = pf.vfs.iter().filter(|(index, _)| range.contains(**index));
    vfs.filter(|(_, vf)| match seen.get(**vf).map(|vf| &vf.role) {
        Some(Role::Vf(facts)) => facts.holder.is_some(),
        _ => false,
    })
    .count()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
