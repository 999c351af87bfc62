//! `virtfn list`: what a host has.

mod columns;

use model::{Code, Explain};

use super::WithNames;
use super::pools::PoolFile;
use super::wanted::Wanted;
use crate::args::{ListArgs, ListOutput, ListWhat};
use crate::failure::Failure;
use crate::ui::Ui;
use crate::view::{HostView, VfView, pool_views};
use crate::workplace::Site;

pub(crate) use columns::render;
pub(crate) use columns::{short_id, vlan_of};

/// Lists what was asked for.
pub(crate) fn run(args: &ListArgs, site: &Site, ui: &mut Ui) -> Result<(), Failure> {
    let site = super::site(&args.state, site);
    let pools = pools_of(args, &site, ui)?;
    let (inventory, view) = super::see(&site, names_of(args))?;
    let mut view = narrow(view, args.what);
    match pools {
        None => {}
        Some(Pools::OfPolicies(wanted)) => {
            let (desired, notes) = wanted.on(&inventory)?;
            for note in notes {
                ui.note(note);
            }
            view.pools = Some(pool_views(&inventory, &desired));
        }
        Some(Pools::OfDevicePlugin(file)) => {
            let pools = file.on(inventory, &site, &args.pools, ui)?;
            view.device_pools = Some(pools.offered());
        }
    }
    match args.output {
        ListOutput::Json => ui.line(super::json(&view)?),
        ListOutput::Yaml => ui.result(&super::yaml(&view)?),
        ListOutput::Table | ListOutput::Wide | ListOutput::Name => {
            ui.result(&render(&view, args.output, ui.unicode()));
            for gap in &view.gaps {
                ui.note(format_args!("{}: {}", gap.object, gap.reason));
            }
            if let Some(nothing) = nothing(&view) {
                ui.note(nothing);
            }
        }
    }
    Ok(())
}

/// Pools were asked for and none named, or named and not asked for.
#[derive(Debug, thiserror::Error)]
enum PoolsError {
    #[error(
        "list pool: no policies were given, and there is no configuration of the device plugin"
    )]
    Neither,
    #[error("list pool: -f and --config are for two kinds of pools")]
    Both,
    #[error("-f, --node-label and --config go with `virtfn list pool` only")]
    NoPools,
}

impl Explain for PoolsError {
    fn code(&self) -> Code {
        Code::new("bad-option")
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Neither => Some(
                "name policies with -f, or the device plugin's configuration with --config"
                    .to_owned(),
            ),
            Self::Both => Some("name one of them".to_owned()),
            Self::NoPools => None,
        }
    }
}

/// Where pools come from.
enum Pools {
    OfPolicies(Box<Wanted>),
    OfDevicePlugin(PoolFile),
}

/// Reads the policies, or else the configuration of the device plugin, whose pools are asked for.
fn pools_of(args: &ListArgs, site: &Site, ui: &mut Ui) -> Result<Option<Pools>, Failure> {
    let of_policies = !args.files.is_empty() || !args.node_labels.is_empty();
    if args.what != Some(ListWhat::Pool) {
        return if of_policies || args.pools.config.is_some() {
            Err(Failure::input(PoolsError::NoPools))
        } else {
            Ok(None)
        };
    }
    if of_policies && args.pools.config.is_some() {
        return Err(Failure::input(PoolsError::Both));
    }
    if !args.files.is_empty() {
        let wanted = Wanted::read(&args.files, &args.node_labels, site, ui)?;
        return Ok(Some(Pools::OfPolicies(Box::new(wanted))));
    }
    let file = PoolFile::find(&args.pools, ui)?;
    let file = file.ok_or_else(|| Failure::input(PoolsError::Neither))?;
    Ok(Some(Pools::OfDevicePlugin(file)))
}

/// Columns name the models of PFs; JSON and YAML name everything.
fn names_of(args: &ListArgs) -> WithNames {
    match (args.output, args.what) {
        (ListOutput::Name, _)
        | (ListOutput::Table | ListOutput::Wide, Some(ListWhat::Vf | ListWhat::Pool)) => {
            WithNames::No
        }
        (ListOutput::Json | ListOutput::Yaml, _)
        | (ListOutput::Table | ListOutput::Wide, None | Some(ListWhat::Pf)) => WithNames::Yes,
    }
}

/// Says it, when there is nothing to list.
fn nothing(view: &HostView) -> Option<&'static str> {
    let empty = |count: Option<usize>| count.is_none_or(|count| count == 0);
    if view.pools.is_some() {
        return empty(view.pools.as_ref().map(Vec::len))
            .then_some("the policies offer nothing on this host");
    }
    if view.device_pools.is_some() {
        return empty(view.device_pools.as_ref().map(Vec::len))
            .then_some("the configuration has no pool that can be served");
    }
    let none = empty(view.pfs.as_ref().map(Vec::len)) && empty(view.vfs.as_ref().map(Vec::len));
    none.then_some("nothing to show: this host has no such SR-IOV device")
}

/// Keeps of a whole host what was asked for.
#[must_use]
pub(crate) fn narrow(mut view: HostView, what: Option<ListWhat>) -> HostView {
    match what {
        None => {}
        Some(ListWhat::Pf) => {
            view.vfs = None;
            for pf in view.pfs.iter_mut().flatten() {
                pf.vfs = None;
            }
        }
        Some(ListWhat::Vf) => {
            let nested = view.pfs.take().unwrap_or_default();
            let mut vfs: Vec<VfView> = nested
                .into_iter()
                .flat_map(|pf| pf.vfs.unwrap_or_default())
                .collect();
            vfs.extend(view.vfs.take().unwrap_or_default());
            view.vfs = Some(vfs);
        }
        Some(ListWhat::Pool) => {
            view.pfs = None;
            view.vfs = None;
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::target::VfName;
    use crate::testing;

    fn shown(what: Option<ListWhat>, output: ListOutput) -> String {
        render(&narrow(testing::view("worker-17"), what), output, true)
    }

    #[test]
    fn tables_tell_not_reported_from_off() {
        insta::assert_snapshot!("list", shown(None, ListOutput::Table));
        insta::assert_snapshot!("list-wide", shown(None, ListOutput::Wide));
        insta::assert_snapshot!("list-pf", shown(Some(ListWhat::Pf), ListOutput::Table));
        insta::assert_snapshot!("list-pf-wide", shown(Some(ListWhat::Pf), ListOutput::Wide));
        insta::assert_snapshot!("list-vf", shown(Some(ListWhat::Vf), ListOutput::Table));
        insta::assert_snapshot!("list-vf-wide", shown(Some(ListWhat::Vf), ListOutput::Wide));
    }

    #[test]
    fn names_are_what_attach_takes() {
        let names = shown(Some(ListWhat::Vf), ListOutput::Name);
        let host = testing::inventory();
        assert_eq!(names.lines().count(), 5);
        for name in names.lines() {
            VfName::read(name).find(&host).unwrap();
        }
    }
}
