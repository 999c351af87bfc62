//! The report for people.
//!
//! ```text
//! host worker-17: 1 of 2 PFs is not as wanted
//! wanted      2 policies of /etc/virtfn/policies.d, kept across reboots
//! last apply  done 3 min ago
//!
//! PF      ADDRESS       WANTED            SEEN              STATE
//! ens1f0  0000:3b:00.0  4 VFs, mtu 9000   4 VFs, mtu 9000   as wanted
//!   vf 0-1              vfio-pci, fast    vfio-pci          as wanted
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use model::{EswitchMode, Function, PciAddress, PfDesired, PfFacts, VfGroup, VfIndex};
use policy::{Difference, PfStanding};

use super::gather::in_use;
use super::{Fate, Kept, Last, Report};
use crate::table::{NOTHING, Table};
use crate::ui::Style;

/// Writes the report.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    headline(&mut text, report);
    field(&mut text, "wanted", &wanted(report));
    last(&mut text, report);
    for line in reboots(report) {
        field(&mut text, "reboot", &line);
    }
    let table = table(report);
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.render());
    }
    list(&mut text, "not as wanted:", differences(report));
    let findings = report.findings.iter().map(|finding| {
        let help = finding.remedy.as_ref();
        let help = help.map_or(String::new(), |help| format!("\n    help: {help}"));
        format!("[{}] {}{help}", finding.code, finding.text)
    });
    list(&mut text, "wrong:", findings.collect());
    list(&mut text, "notes:", report.notes.clone());
    text
}

fn headline(text: &mut String, report: &Report) {
    let host = report.host.as_deref().map_or("this host", |host| host);
    let differ = |standing: &&PfStanding| !standing.differences.is_empty();
    let different = report.standings.iter().filter(differ).count() + report.unwanted.len();
    let all = report.standings.len() + report.unwanted.len();
    let what = match (&report.wanted, different) {
        (None, _) => "nothing is wanted that virtfn knows of".to_owned(),
        (Some(_), 0) if report.is_as_wanted() => Style::Good.paint("as wanted"),
        (Some(_), 0) => Style::Warn.paint("not as wanted, see below"),
        (Some(_), 1) => {
            let all = counted(all, "PF");
            Style::Warn.paint(format_args!("1 of {all} is not as wanted"))
        }
        (Some(_), many) => Style::Warn.paint(format_args!("{many} of {all} PFs are not as wanted")),
    };
    line(text, &format!("{host}: {what}"));
}

fn wanted(report: &Report) -> String {
    let kept = match report.kept {
        Kept::NotAsked => "",
        Kept::No => ", not kept across reboots (virtfn apply --persist keeps it)",
        Kept::Yes => ", kept across reboots",
        Kept::HalfDone => {
            ", half kept: nothing happens at boot until `virtfn apply --persist` runs again"
        }
    };
    match (&report.wanted, report.kept) {
        (Some(wants), _) => {
            let s = if wants.policies == 1 {
                "policy"
            } else {
                "policies"
            };
            format!("{} {s} of {}{kept}", wants.policies, wants.source)
        }
        (None, Kept::Yes | Kept::HalfDone) => format!("cannot be told, see below{kept}"),
        (None, Kept::No | Kept::NotAsked) => {
            "nothing is kept, and no policies were named with -f".to_owned()
        }
    }
}

fn last(text: &mut String, report: &Report) {
    let Some(last) = &report.last else {
        if report.kept != Kept::NotAsked {
            field(text, "last apply", "none that changed anything");
        }
        return;
    };
    field(text, "last apply", &fate(last));
    if !matches!(last.fate(), Fate::Succeeded | Fate::Runs(_)) {
        for failure in last.failures(&report.seen) {
            field(text, "", &failure);
        }
    }
}

fn fate(last: &Last) -> String {
    let steps: usize = last.apply.pfs.iter().map(|pf| pf.made).sum();
    let ago = ago(last.ago);
    let boot = if last.is_here {
        ""
    } else {
        ", before this boot"
    };
    let pid = last.apply.pid;
    match last.fate() {
        Fate::Succeeded => format!("done {ago}{boot}: {}", counted(steps, "step")),
        Fate::Failed(pfs) => {
            let of = counted(last.apply.pfs.len(), "PF");
            format!("{} {ago}{boot}: {pfs} of {of}", Style::Bad.paint("failed"))
        }
        Fate::Runs(pid) => format!("under way (process {pid}, begun {ago})"),
        Fate::Interrupted => format!(
            "{} {ago}{boot}: process {pid} died before its end, after {}; the next apply goes on",
            Style::Bad.paint("interrupted"),
            counted(steps, "step")
        ),
    }
}

fn reboots(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let pending = &report.reboots.pending;
    let asked = if pending.is_empty() {
        ""
    } else {
        " (asked for in this boot)"
    };
    let needed = report.needed_reboots();
    for reason in &needed {
        lines.push(Style::Warn.paint(format_args!("needed for {reason}{asked}")));
    }
    if needed.is_empty() && !pending.is_empty() {
        let what = pending.join(", ");
        lines.push(Style::Warn.paint(format_args!("pending, asked for {what}")));
    }
    for (cause, boots) in &report.reboots.unsettled {
        let times = counted(*boots, "reboot");
        lines.push(format!("{times} asked for {cause} before this boot"));
    }
    lines
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(["PF", "ADDRESS", "WANTED", "SEEN", "STATE"]);
    let standings: BTreeMap<PciAddress, &PfStanding> = report
        .standings
        .iter()
        .map(|standing| (standing.pf, standing))
        .collect();
    let desired = report.wanted.as_ref().map(|wants| &wants.desired.pfs);
    let mut addresses: Vec<PciAddress> = report.seen.pfs().map(|(pf, _)| pf.address).collect();
    addresses.extend(standings.keys());
    addresses.sort();
    addresses.dedup();
    for address in addresses {
        let pf = report.seen.get(address);
        let standing = standings.get(&address).copied();
        let wanted = desired.and_then(|pfs| pfs.get(&address));
        let name = pf
            .and_then(Function::netdev_name)
            .or_else(|| standing?.name.as_ref());
        table.row(vec![
            name.map_or(NOTHING.to_owned(), ToString::to_string),
            address.to_string(),
            wanted.map_or(NOTHING.to_owned(), wanted_pf),
            pf.map_or("not there".to_owned(), seen_pf),
            state(report, address, standing),
        ]);
        let facts = pf.and_then(Function::pf);
        for group in wanted.iter().flat_map(|wanted| &wanted.groups) {
            table.row(vec![
                format!("  {}", range(group.range.first(), group.range.last())),
                String::new(),
                wanted_group(group),
                facts.map_or(NOTHING.to_owned(), |facts| seen_group(report, facts, group)),
                group_state(standing, group),
            ]);
        }
    }
    table
}

fn wanted_pf(pf: &PfDesired) -> String {
    let mut text = counted(pf.num_vfs.into(), "VF");
    if let Some(mtu) = pf.mtu {
        text.push_str(&format!(", mtu {mtu}"));
    }
    if let Some(mode @ EswitchMode::Switchdev) = pf.eswitch {
        text.push_str(&format!(", {mode}"));
    }
    if pf.externally_managed {
        text.push_str(", externally managed");
    }
    text
}

fn seen_pf(pf: &Function) -> String {
    let Some(facts) = pf.pf() else {
        return "no SR-IOV".to_owned();
    };
    let mut text = counted(facts.num_vfs.into(), "VF");
    if let Some(netdev) = pf.netdev() {
        text.push_str(&format!(", mtu {}", netdev.mtu));
        if !netdev.admin_up {
            text.push_str(", down");
        }
    }
    if let Some(mode @ EswitchMode::Switchdev) = facts.eswitch {
        text.push_str(&format!(", {mode}"));
    }
    text
}

fn state(report: &Report, pf: PciAddress, standing: Option<&PfStanding>) -> String {
    if report.unwanted.contains_key(&pf) {
        return "not wanted any more".to_owned();
    }
    let Some(standing) = standing else {
        return NOTHING.to_owned();
    };
    match standing.differences.len() {
        0 => "as wanted".to_owned(),
        _ if report.seen.get(pf).is_none() => "absent".to_owned(),
        _ => "differs".to_owned(),
    }
}

fn wanted_group(group: &VfGroup) -> String {
    let mut text = format!("{} as {}", group.driver, group.resource);
    if let Some(mtu) = group.mtu {
        text.push_str(&format!(", mtu {mtu}"));
    }
    if let Some(vdpa) = group.vdpa {
        text.push_str(&format!(", vdpa {vdpa}"));
    }
    text
}

/// Counts the VFs of a group by driver and, if one is wanted, by MTU.
fn seen_group(report: &Report, facts: &PfFacts, group: &VfGroup) -> String {
    let vfs = facts.vfs.iter();
    let vfs = vfs.filter(|(index, _)| group.range.contains(**index));
    let mut drivers: BTreeMap<String, usize> = BTreeMap::new();
    let mut mtus: BTreeMap<u32, usize> = BTreeMap::new();
    for (_, address) in vfs {
        let vf = report.seen.get(*address);
        let driver = vf.and_then(|vf| vf.driver.as_ref());
        let driver = driver.map_or("no driver".to_owned(), ToString::to_string);
        *drivers.entry(driver).or_default() += 1;
        if let Some(netdev) = vf.and_then(Function::netdev) {
            *mtus.entry(netdev.mtu).or_default() += 1;
        }
    }
    let mut text = kinds(&drivers);
    if group.mtu.is_some() && !mtus.is_empty() {
        text.push_str(&format!(", mtu {}", kinds(&mtus)));
    }
    match in_use(&report.seen, facts, group.range) {
        0 => {}
        used => text.push_str(&format!(", {used} in use")),
    }
    text
}

/// Writes what all are, or how many of each.
fn kinds<K: ToString>(counts: &BTreeMap<K, usize>) -> String {
    match counts.len() {
        0 => "no VFs".to_owned(),
        1 => counts.keys().map(K::to_string).collect(),
        _ => {
            let each = counts.iter();
            let each = each.map(|(kind, count)| format!("{count} {}", kind.to_string()));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

fn group_state(standing: Option<&PfStanding>, group: &VfGroup) -> String {
    let Some(standing) = standing else {
        return NOTHING.to_owned();
    };
    let of_group = |vf: VfIndex| group.range.contains(vf);
    let vfs = standing.differences.iter().filter_map(|d| d.vf);
    let mut vfs: Vec<VfIndex> = vfs.filter(|vf| of_group(*vf)).collect();
    vfs.dedup();
    let is_missing = |d: &Difference| d.vf.is_none() && d.what == "number of VFs";
    match vfs.len() {
        // Which VFs there are is told in the line of the PF.
        0 if standing.differences.iter().any(is_missing) => NOTHING.to_owned(),
        0 => "as wanted".to_owned(),
        1 => "1 VF differs".to_owned(),
        many => format!("{many} VFs differ"),
    }
}

/// Tells every difference; equal ones of neighbouring VFs are one line.
fn differences(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for standing in &report.standings {
        let name = standing.name.as_ref();
        let name = name.map_or_else(|| standing.pf.to_string(), ToString::to_string);
        let mut runs: Vec<(Option<(VfIndex, VfIndex)>, &Difference)> = Vec::new();
        for difference in &standing.differences {
            let continues = |run: &&mut (Option<(VfIndex, VfIndex)>, &Difference)| {
                let follows = run
                    .0
                    .zip(difference.vf)
                    .is_some_and(|((_, last), vf)| last.0.checked_add(1) == Some(vf.0));
                follows
                    && run.1.what == difference.what
                    && run.1.wanted == difference.wanted
                    && run.1.seen == difference.seen
            };
            match (runs.iter_mut().rev().find(continues), difference.vf) {
                (Some((Some((_, last)), _)), Some(vf)) => *last = vf,
                (_, vf) => runs.push((vf.map(|vf| (vf, vf)), difference)),
            }
        }
        for (vfs, difference) in runs {
            let vfs = vfs.map_or(String::new(), |(a, b)| format!(" {}", range(a, b)));
            lines.push(format!(
                "{name}{vfs}: {} is {}, wanted {}",
                difference.what, difference.seen, difference.wanted
            ));
        }
    }
    for (pf, vfs) in &report.unwanted {
        let title = report
            .seen
            .get(*pf)
            .map_or_else(|| pf.to_string(), Function::title);
        lines.push(format!(
            "{title}: virtfn configured it ({}), and no policy wants it any more; the next apply \
             gives it back",
            counted((*vfs).into(), "VF")
        ));
    }
    let firmware = report.decision.iter().flat_map(|d| &d.firmware);
    lines.extend(firmware.filter_map(|need| {
        let change = need.change.as_ref().ok()?;
        let command = change.command()?;
        let guessed = need.unseen.as_ref();
        let guessed = guessed.map_or(String::new(), |why| {
            format!(", as far as can be told ({why})")
        });
        Some(format!(
            "firmware of {}: `{command}` is to be run{guessed}",
            change.nic
        ))
    }));
    let rdma = report.decision.iter().filter_map(|d| d.rdma.as_ref());
    for need in rdma {
        let mode = need.mode.map(|mode| format!("the mode is to be {mode}"));
        let kept = need.kept.map(|kept| kept.to_string());
        let what: Vec<String> = mode.into_iter().chain(kept).collect();
        lines.push(format!("RDMA: {}", what.join(", ")));
    }
    lines
}

fn range(first: VfIndex, last: VfIndex) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{}", last.0)
    }
}

fn counted(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// Writes how long ago something was, to two digits or so.
pub(in crate::command) fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn list(text: &mut String, head: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    text.push('\n');
    line(text, head);
    for entry in lines {
        line(text, &format!("  {entry}"));
    }
}

fn field(text: &mut String, name: &str, value: &str) {
    line(text, &format!("{name:<11} {value}"));
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}
