//! Reads everything that the status tells. What cannot be read becomes a finding.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use host::persist::{self, Installed};
use host::{
    BootId, HostRoot, PfLedger, StateDir, asked_reboots, kernel_facts, last_apply, who_applies,
};
use model::{Code, Inventory, Role};
use policy::kernel::{modules_of, needs};

use super::super::wanted::{Wanted, WantedError};
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
    if !args.files.is_empty() {
        let labels = policies::labels(&args.node_labels).map_err(Failure::input)?;
        let read = policies::read(&args.files, ui).map_err(Failure::input)?;
        let source = match args.files.as_slice() {
            [one] => one.display().to_string(),
            many => format!("{} files", many.len()),
        };
        let wanted = Wanted::of(read, labels, report.host.as_deref(), ui)?;
        want(&mut report, source, &wanted)?;
    }
    if !matches!(site.place, Place::Recording(_)) {
        let root = site.root()?;
        kept(&mut report, args, &root, ui);
        remembered(&mut report, &root, &site.state());
    }
    compare(&mut report);
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
        vfs: policy::KeptVfs::new(),
    });
    Ok(())
}

/// Reads what is kept across reboots, and takes it for what is wanted unless `-f` says that.
pub(super) fn kept(report: &mut Report, args: &StatusArgs, root: &HostRoot, ui: &mut Ui) {
    let found = match persist::look(root) {
        Ok(found) => found,
        Err(error) => return report.findings.push(Finding::of(&error)),
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
        return;
    }
    let mut labels = found.boot.map(|boot| boot.node_labels).unwrap_or_default();
    match policies::labels(&args.node_labels) {
        Ok(more) => labels.extend(more),
        Err(error) => report.findings.push(Finding::of(&error)),
    }
    let dir: PathBuf = root.path().join(found.policies.trim_start_matches('/'));
    let read = match policies::read(&[dir], ui) {
        Ok(read) => read,
        Err(error) => return report.findings.push(Finding::of(&error)),
    };
    let wanted = Wanted::of(read, labels, report.host.as_deref(), ui);
    let source = found.policies.to_owned();
    if let Err(error) = wanted.and_then(|wanted| want(report, source, &wanted)) {
        report.findings.push(Finding::of(&error));
    }
    match persist::read_vf_settings(root, found.vf_settings) {
        Ok(vfs) => {
            if let Some(wants) = &mut report.wanted {
                wants.vfs = vfs;
            }
        }
        Err(error) => report.findings.push(Finding::of(&error)),
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
            if error.source.kind() == std::io::ErrorKind::InvalidData {
                finding.code = Code::new("journal-damaged");
                finding.remedy = Some(
                    "the next `virtfn apply` plans from what it sees, and writes a new one".into(),
                );
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
    let owned = match PfLedger::new(root, state).read() {
        Ok(owned) => owned,
        Err(error) => return report.findings.push(Finding::of(&error)),
    };
    report
        .findings
        .extend(owned.damaged.iter().map(Finding::of));
    if let Some(wants) = &report.wanted {
        for plan in policy::release(&report.seen, &wants.desired, &owned.owned()).plans {
            let vfs = report.seen.get(plan.pf).and_then(|pf| pf.pf());
            let vfs = vfs.map_or(0, |facts| facts.num_vfs);
            report.unwanted.insert(plan.pf, vfs);
        }
        let facts = kernel_facts(root, &modules_of(&wants.desired));
        report.needs = needs(&wants.desired, &facts, &std::collections::BTreeSet::new());
        // Modules are loaded when they are needed; only what cannot be mended is worth telling.
        report
            .findings
            .extend(report.needs.obstacles.iter().map(Finding::of));
    }
}

fn unreadable(error: &host::AccessError) -> Finding {
    Finding {
        code: Code::new("host-not-accessible"),
        text: format!("{error}: {}", error.source),
        remedy: None,
    }
}

pub(super) fn compare(report: &mut Report) {
    if let Some(wants) = &report.wanted {
        let plan = policy::plan(&report.seen, &wants.desired);
        let plan = policy::restore(&report.seen, &wants.desired, &wants.vfs, plan);
        report.standings = policy::drift(&report.seen, &wants.desired, &plan);
    }
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
