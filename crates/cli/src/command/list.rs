//! `virtfn list`: what a host has.

mod columns;

use crate::args::{ListArgs, ListOutput, ListWhat};
use crate::failure::Failure;
use crate::sight::Place;
use crate::ui::Ui;
use crate::view::{HostView, VfView};

pub(crate) use columns::render;
pub(crate) use columns::{short_id, vlan_of};

/// Lists what was asked for.
pub(crate) fn run(args: &ListArgs, here: Place, ui: &mut Ui) -> Result<(), Failure> {
    let view = super::see(&super::place(&args.state, here))?;
    let view = narrow(view, args.what);
    match args.output {
        ListOutput::Json => ui.line(super::json(&view)?),
        ListOutput::Yaml => ui.result(&super::yaml(&view)?),
        ListOutput::Table | ListOutput::Wide | ListOutput::Name => {
            ui.result(&render(&view, args.output, ui.unicode()));
            for gap in &view.gaps {
                ui.note(format_args!("{}: {}", gap.object, gap.reason));
            }
            if is_empty(&view) {
                ui.note("this host shows no SR-IOV device");
            }
        }
    }
    Ok(())
}

fn is_empty(view: &HostView) -> bool {
    let none = |count: Option<usize>| count.is_none_or(|count| count == 0);
    none(view.pfs.as_ref().map(Vec::len))
        && none(view.vfs.as_ref().map(Vec::len))
        && none(view.pools.as_ref().map(Vec::len))
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
