//! vDPA devices of VFs, which exist in switchdev mode only: made once a VF has its kernel driver, removed
//! before it loses it.
//!
//! Only devices by virtfn's own name ([`model::vdpa_name`]) are looked at.

use model::{EswitchMode, Price, Step, VdpaDevice, VdpaKind, VfDriver};

use super::Planner;
use super::vfs::Wanted;

impl Planner<'_> {
    /// Removes a vDPA device that nobody wants, while the VF's driver is there to do it.
    pub(super) fn unwanted_vdpa(&mut self, vf: &Wanted<'_>) {
        let Some(seen) = vf.seen.filter(|_| !self.are_unbound) else {
            return;
        };
        let Some(has) = seen.own_vdpa() else { return };
        if self.wanted_vdpa(vf).is_some() {
            return;
        }
        let function = vf.address;
        let set = |kind| Step::SetVdpa { function, kind };
        let undo = has.kind.map(|kind| set(Some(kind)));
        let price = vdpa_price(vf);
        self.priced(set(None), Some(words(Some(has))), undo, price);
    }

    /// Makes the vDPA device that is wanted.
    pub(super) fn vdpa(&mut self, vf: &Wanted<'_>) {
        let Some(kind) = self.wanted_vdpa(vf) else {
            return;
        };
        let function = vf.address;
        let set = |kind| Step::SetVdpa { function, kind };
        if vf.is_new {
            return self.step(set(Some(kind)), None, None);
        }
        let has = vf.seen.and_then(model::Function::own_vdpa);
        let former = has.and_then(|device| device.kind);
        if former != Some(kind) {
            let price = vdpa_price(vf);
            self.priced(set(Some(kind)), Some(words(has)), Some(set(former)), price);
        }
    }

    fn wanted_vdpa(&self, vf: &Wanted<'_>) -> Option<VdpaKind> {
        let can = self.wanted.eswitch == Some(EswitchMode::Switchdev)
            && vf.group.driver == VfDriver::Kernel;
        vf.group.vdpa.filter(|_| can)
    }
}

/// Who has the VF has its vDPA device.
fn vdpa_price(vf: &Wanted<'_>) -> Price {
    let holder = vf.seen.and_then(|seen| seen.vf()?.holder.clone());
    Price {
        interrupts: holder
            .map(|holder| (vf.address, holder))
            .into_iter()
            .collect(),
        ..Price::default()
    }
}

fn words(device: Option<&VdpaDevice>) -> String {
    match device.map(|device| device.kind) {
        None => "no vDPA device".to_owned(),
        Some(None) => "a vDPA device without a driver".to_owned(),
        Some(Some(kind)) => format!("a {kind} vDPA device"),
    }
}
