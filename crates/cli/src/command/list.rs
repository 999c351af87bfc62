//! `virtfn list`: what a host has.

mod columns;

use model::{Code, Explain};

use super::WithNames;
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
    let wanted = pools_of(args, &site, ui)?;
    let (inventory, view) = super::see(&site, names_of(args))?;
    let mut view = narrow(view, args.what);
    if let Some(wanted) = wanted {
        let (desired, notes) = wanted.on(&inventory)?;
        for note in notes {
            ui.note(note);
        }
        view.pools = Some(pool_views(&inventory, &desired));
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

/// `list pool` was asked for without policies, or policies without `pool`.
#[derive(Debug, thiserror::Error)]
enum PoolsError {
    #[error("list pool: no policies were given")]
    NoPolicies,
    #[error("-f and --node-label go with `virtfn list pool` only")]
    NoPools,
}

impl Explain for PoolsError {
    fn code(&self) -> Code {
        Code::new("bad-option")
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::NoPolicies => {
                Some("pools are what policies offer: name the policies with -f".to_owned())
            }
            Self::NoPools => None,
        }
    }
}

/// Reads the policies whose pools are asked for.
fn pools_of(args: &ListArgs, site: &Site, ui: &mut Ui) -> Result<Option<Wanted>, Failure> {
    let given = !args.files.is_empty() || !args.node_labels.is_empty();
    if args.what != Some(ListWhat::Pool) {
        return if given {
            Err(Failure::input(PoolsError::NoPools))
        } else {
            Ok(None)
        };
    }
    if args.files.is_empty() {
        return Err(Failure::input(PoolsError::NoPolicies));
    }
    Wanted::read(&args.files, &args.node_labels, site, ui).map(Some)
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
