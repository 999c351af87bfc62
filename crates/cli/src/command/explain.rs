//! `virtfn explain`: the journal of one VF, and what the pools of the device plugin make of devices.
//!
//! The journal is told from the ledger alone: who has the VF, since when, what was changed from what to what,
//! and who had it before. What a VF is like now is `virtfn list`'s to show.

use std::fmt::Write as _;

use host::{Change, Claim, Happening, PastEvent, Stage};
use model::{AuxName, Code, DeviceId, Explain, Holder, PciAddress};
use serde::Serialize;

use super::attach::address_of;
use super::pools::{PoolFile, Pools};
use super::status::ago;
use super::target::VfName;
use crate::args::{ExplainArgs, PlanOutput};
use crate::failure::Failure;
use crate::sight::{Place, Sight};
use crate::ui::Ui;
use crate::view::{ContainerView, DeviceVerdictView};
use crate::workplace::{Site, Workplace};

/// Shows the journal.
pub(crate) fn run(args: &ExplainArgs, site: &Site, ui: &mut Ui) -> Result<(), Failure> {
    let site = super::site(&args.state, site);
    let name = match args.object.as_slice() {
        [kind, name] if kind == "pool" => return pool(name, args, &site, ui),
        [kind, name] if kind == "vf" => name,
        [name] if name != "vf" && name != "pool" => name,
        _ => return Err(Failure::input(NoObject)),
    };
    if let Ok(part) = name.parse() {
        return sub_function(part, args, &site, ui);
    }
    let vf = VfName::read(name);
    if let Place::Recording(_) = site.place {
        let pools = pools(args, &site, ui)?.ok_or_else(|| Failure::input(NoConfig))?;
        let vf = vf.find(&pools.seen).map_err(Failure::input)?.address;
        return told(
            &DeviceId::Pci(vf),
            &format!("vf {vf}\n"),
            None,
            Some(&pools),
            args,
            ui,
        );
    }
    let work = Workplace::open(&site)?;
    let vf = address_of(&vf, &work)?;
    let record = work.ledger.look(vf).map_err(Failure::failed)?;
    let journal = Journal {
        claim: record.and_then(|record| record.claim),
        history: work.ledger.history(vf).map_err(Failure::failed)?,
    };
    let pools = pools(args, &site, ui)?;
    let head = journal.render(vf, now());
    let journal = (args.output == PlanOutput::Json).then(|| journal.view());
    told(&DeviceId::Pci(vf), &head, journal, pools.as_ref(), args, ui)
}

/// Shows what pools make of a sub-function, which nobody keeps a journal of.
fn sub_function(
    part: AuxName,
    args: &ExplainArgs,
    site: &Site,
    ui: &mut Ui,
) -> Result<(), Failure> {
    let pools = pools(args, site, ui)?.ok_or_else(|| Failure::input(NoConfig))?;
    let head = format!("sub-function {part}\n");
    let is_here = pools.seen.sub_functions.contains_key(&part);
    let device = DeviceId::Aux(part);
    if !is_here && pools.container_of(&device).is_none() {
        return Err(Failure::input(NoPart { device }));
    }
    told(&device, &head, None, Some(&pools), args, ui)
}

fn told(
    device: &DeviceId,
    head: &str,
    journal: Option<JournalView>,
    pools: Option<&Pools>,
    args: &ExplainArgs,
    ui: &mut Ui,
) -> Result<(), Failure> {
    match args.output {
        PlanOutput::Text => {
            ui.result(head);
            if let Some(pools) = pools {
                ui.result(&pools.device(device));
            }
        }
        PlanOutput::Json => ui.line(super::json(&DeviceView {
            address: device.to_string(),
            journal,
            container: pools.and_then(|pools| pools.container_of(device)),
            pools: pools.map(|pools| pools.device_views(device)),
        })?),
    }
    Ok(())
}

/// Reads the pools and looks at the host; `None` when there is no configuration to read.
fn pools(args: &ExplainArgs, site: &Site, ui: &mut Ui) -> Result<Option<Pools>, Failure> {
    let Some(file) = PoolFile::find(&args.pools, ui)? else {
        return Ok(None);
    };
    let seen = Sight::open(site)?.inventory()?;
    file.on(seen, site, &args.pools, ui).map(Some)
}

/// Shows what a pool makes of each device.
fn pool(name: &str, args: &ExplainArgs, site: &Site, ui: &mut Ui) -> Result<(), Failure> {
    let pools = pools(args, site, ui)?.ok_or_else(|| Failure::input(NoConfig))?;
    match args.output {
        PlanOutput::Text => ui.result(&pools.pool(name)?),
        PlanOutput::Json => ui.line(super::json(&pools.pool_view(name)?)?),
    }
    Ok(())
}

/// The two words name nothing.
#[derive(Debug, thiserror::Error)]
#[error("neither `vf` and a VF nor `pool` and a pool")]
struct NoObject;

impl Explain for NoObject {
    fn code(&self) -> Code {
        Code::new("bad-option")
    }
}

/// The host has no such sub-function, and no container either.
#[derive(Debug, thiserror::Error)]
#[error("no sub-function {device}")]
struct NoPart {
    device: DeviceId,
}

impl Explain for NoPart {
    fn code(&self) -> Code {
        Code::new("no-such-sub-function")
    }

    fn remedy(&self) -> Option<String> {
        Some("`ls /sys/bus/auxiliary/devices` shows those of this host".to_owned())
    }
}

/// Pools are asked for and there is no configuration.
#[derive(Debug, thiserror::Error)]
#[error("no configuration of the device plugin")]
struct NoConfig;

impl Explain for NoConfig {
    fn code(&self) -> Code {
        Code::new("config-not-read")
    }

    fn remedy(&self) -> Option<String> {
        Some("name the file with --config".to_owned())
    }
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A device, as JSON.
#[derive(Debug, Serialize)]
struct DeviceView {
    address: String,
    /// Absent on a recorded host, which has no journal.
    #[serde(flatten)]
    journal: Option<JournalView>,
    /// The container that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<ContainerView>,
    /// What each pool says; absent without a configuration of the device plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pools: Option<Vec<DeviceVerdictView>>,
}

/// A VF's journal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JournalView {
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<HeldView>,
    history: Vec<EventView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeldView {
    holder: String,
    /// `attaching`, `attached` or `detaching`.
    stage: &'static str,
    /// In seconds since 1970.
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<String>,
    asked: String,
    changes: Vec<ChangeView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView {
    /// In seconds since 1970.
    at: u64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<ChangeView>,
}

#[derive(Debug, Serialize)]
struct ChangeView {
    done: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

impl From<&Change> for ChangeView {
    fn from(change: &Change) -> Self {
        Self {
            done: change.done.clone(),
            before: change.before.clone(),
        }
    }
}

/// What the ledger knows of a VF.
struct Journal {
    claim: Option<Claim>,
    /// The oldest first.
    history: Vec<PastEvent>,
}

impl Journal {
    fn view(&self) -> JournalView {
        JournalView {
            held: self.claim.as_ref().map(|claim| HeldView {
                holder: claim.holder.to_string(),
                stage: stage(claim.stage),
                since: claim.since,
                netns: claim.netns.as_ref().map(ToString::to_string),
                asked: claim.asked.clone(),
                changes: changes(claim).iter().map(Into::into).collect(),
            }),
            history: self.history.iter().map(EventView::from).collect(),
        }
    }

    fn render(&self, vf: PciAddress, now: u64) -> String {
        let mut text = String::new();
        let mut say = |line: &str| {
            let _a_string_takes_all = writeln!(text, "{line}");
        };
        let when = |at: u64| ago(now.saturating_sub(at));
        match &self.claim {
            None if self.history.is_empty() => say(&format!("vf {vf}: nothing in its journal")),
            None => say(&format!("vf {vf}: nobody has it by its journal")),
            Some(claim) => {
                let netns = claim.netns.as_ref();
                let place = netns.map_or(String::new(), |netns| format!(", in namespace {netns}"));
                let half = match claim.stage {
                    Stage::Attached => "",
                    Stage::Attaching => "; its attach is under way, or died half way",
                    Stage::Detaching => "; its detach is under way, or died half way",
                };
                say(&format!("vf {vf}: held by {}{place}{half}", claim.holder));
                say(&format!("  since   {}", when(claim.since)));
                if !claim.asked.is_empty() {
                    say(&format!("  asked   {}", claim.asked));
                }
                say("  changed, in this order; a detach goes back from the last to the first");
                changes(claim)
                    .iter()
                    .for_each(|change| say(&format!("    {}", sentence(change))));
            }
        }
        if !self.history.is_empty() {
            say("  history");
        }
        for past in self.history.iter().rev() {
            let line = match &past.what {
                Happening::Attached { holder, .. } => format!("given to {holder}"),
                Happening::Detached { holder } => format!("taken back from {holder}"),
                Happening::Healed { holder } => {
                    format!("taken back: an attach or detach for {holder} died half way")
                }
                Happening::Deserted { holder } => {
                    format!("taken back: the namespace of {holder} was gone")
                }
                Happening::VoidAfterReboot => "free again: the host was rebooted".to_owned(),
                Happening::Damaged => "its record was damaged, and kept aside".to_owned(),
                Happening::Unknown => "something that a later virtfn knows".to_owned(),
            };
            say(&format!("    {}: {line}", when(past.at)));
            let (_, _, changes) = parts(&past.what);
            changes
                .iter()
                .for_each(|change| say(&format!("      {}", sentence(change))));
        }
        text
    }
}

impl From<&PastEvent> for EventView {
    fn from(past: &PastEvent) -> Self {
        let (event, holder, changes) = parts(&past.what);
        Self {
            at: past.at,
            event,
            holder: holder.map(ToString::to_string),
            changes: changes.iter().map(Into::into).collect(),
        }
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Attaching => "attaching",
        Stage::Attached => "attached",
        Stage::Detaching => "detaching",
    }
}

fn changes(claim: &Claim) -> Vec<Change> {
    claim.steps.iter().map(Into::into).collect()
}

fn parts(what: &Happening) -> (&'static str, Option<&Holder>, &[Change]) {
    match what {
        Happening::Attached { holder, changes } => ("attached", Some(holder), changes),
        Happening::Detached { holder } => ("detached", Some(holder), &[]),
        Happening::Healed { holder } => ("healed", Some(holder), &[]),
        Happening::Deserted { holder } => ("deserted", Some(holder), &[]),
        Happening::VoidAfterReboot => ("void-after-reboot", None, &[]),
        Happening::Damaged => ("damaged", None, &[]),
        Happening::Unknown => ("unknown", None, &[]),
    }
}

fn sentence(change: &Change) -> String {
    match &change.before {
        Some(before) => format!("{} (before: {before})", change.done),
        None => change.done.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: &str = r#"{
        "pf": "0000:01:00.0", "stage": "attached", "since": 1000, "asked": "vlan 100",
        "holder": {"kind": "cni", "id": "c1", "interface": "net1"},
        "netns": {"path": {"path": "/run/netns/blue", "inode": 7}}, "before": {},
        "steps": [{
            "step": {"do": "rebind", "function": "0000:01:10.0"}, "before": "as it was"
        }]
    }"#;

    const HISTORY: &str = r#"[
        {"at": 500, "event": "attached", "holder": {"kind": "cni", "id": "c0"},
         "changes": [{"done": "vf 0: set vlan 7", "before": "vlan none"}]},
        {"at": 700, "event": "deserted", "holder": {"kind": "cni", "id": "c0"}},
        {"at": 800, "event": "from-the-future"}
    ]"#;

    fn vf() -> PciAddress {
        "0000:01:10.0".parse().unwrap()
    }

    #[test]
    fn a_journal_tells_who_when_and_what() {
        let journal = Journal {
            claim: serde_json::from_str(CLAIM).unwrap(),
            history: serde_json::from_str(HISTORY).unwrap(),
        };
        insta::assert_snapshot!(journal.render(vf(), 1060));
        let view = serde_json::to_value(journal.view()).unwrap();
        assert_eq!(view["held"]["changes"][0]["before"], "as it was");
        assert_eq!(view["history"][0]["changes"][0]["done"], "vf 0: set vlan 7");
        assert_eq!(view["history"][2]["event"], "unknown");
    }

    #[test]
    fn a_journal_with_nothing_in_it_does_not_say_that_the_vf_is_free() {
        let journal = Journal {
            claim: None,
            history: Vec::new(),
        };
        let text = journal.render(vf(), 0);
        assert_eq!(text, "vf 0000:01:10.0: nothing in its journal\n");
    }
}
