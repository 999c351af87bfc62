//! What a PF reported of one VF a moment ago.
//!
//! A PF answers for all its VFs at once, which some take long for. Whoever gives a VF away observes it
//! first, and nobody else of virtfn changes it meanwhile, so the PF is asked once: what was observed
//! tells which settings are so already. It holds for a moment only, and for each setting until it is
//! set.

use std::time::{Duration, Instant};

use model::{Function, PciAddress, Step, VfAttr, VfIndex, VfState};

/// An attach, emulated and under load, sets all there is to set within it.
const FRESH: Duration = Duration::from_secs(5);

/// What a PF reported of one VF.
#[derive(Debug)]
pub(crate) struct Reported {
    pf: PciAddress,
    vf: VfIndex,
    function: PciAddress,
    state: VfState,
    at: Instant,
}

impl Reported {
    /// Takes what was observed; `None` when nothing was reported.
    pub(crate) fn of(function: &Function) -> Option<Self> {
        let facts = function.vf()?;
        Some(Self {
            pf: facts.pf,
            vf: facts.index?,
            function: function.address,
            state: facts.state?,
            at: Instant::now(),
        })
    }

    /// Returns what was reported before an attribute is set; afterwards the attribute is not known
    /// any more. `None` when another VF was observed, or long ago.
    pub(super) fn before(&mut self, pf: PciAddress, vf: VfIndex, attr: &VfAttr) -> Option<VfState> {
        let is_it = self.pf == pf && self.vf == vf && self.at.elapsed() < FRESH;
        is_it.then(|| {
            let state = self.state;
            match attr {
                VfAttr::Mac(_) => self.state.mac = None,
                VfAttr::Vlan(_) => self.state.vlan = None,
                VfAttr::Rate { .. } => {
                    self.state.min_rate_mbps = None;
                    self.state.max_rate_mbps = None;
                }
                VfAttr::SpoofCheck(_) => self.state.spoof_check = None,
                VfAttr::Link(_) => self.state.link = None,
                VfAttr::RssQuery(_) => self.state.rss_query = None,
                VfAttr::Trust(_) => self.state.trust = None,
                VfAttr::NodeGuid(_) => self.state.node_guid = None,
                VfAttr::PortGuid(_) => self.state.port_guid = None,
            }
            state
        })
    }
}

/// Forgets what a step may change otherwise than through the PF.
pub(super) fn forget(reported: &mut Option<Reported>, step: &Step) {
    let is_of_pf = matches!(
        step,
        Step::SetNumVfs { .. } | Step::SetEswitch { .. } | Step::SetAutoprobe { .. }
    );
    if is_of_pf {
        *reported = None;
    }
    // Many PFs report the VF's own MAC.
    let sets_mac = matches!(
        step,
        Step::SetMac { .. } | Step::Rebind { .. } | Step::Bind { .. }
    );
    if let Some(known) = reported
        .as_mut()
        .filter(|known| known.function == step.function())
        && sets_mac
    {
        known.state.mac = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixtures::{igb, inventory, parsed};
    use model::MacAddr;

    #[test]
    fn what_was_observed_counts_until_it_is_set() {
        let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(2)]);
        let vf = parsed("0000:01:10.0");
        let mut known = Reported::of(seen.get(vf).unwrap()).unwrap();
        let (pf, vlan) = (parsed("0000:01:00.0"), VfAttr::Vlan(None));
        let before = known.before(pf, VfIndex(0), &vlan).unwrap();
        assert_eq!(before.vlan, Some(None));
        let again = known.before(pf, VfIndex(0), &vlan).unwrap();
        assert_eq!((again.vlan, again.trust), (None, Some(false)));
        assert!(known.before(pf, VfIndex(1), &vlan).is_none(), "another VF");
        known.at -= FRESH;
        assert!(known.before(pf, VfIndex(0), &vlan).is_none(), "long ago");
    }

    #[test]
    fn a_mac_that_the_vf_sets_is_not_what_was_observed() {
        let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(2)]);
        let function = parsed("0000:01:10.0");
        let mut known = seen.get(function).and_then(Reported::of);
        let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
        let set = Step::SetMac {
            function,
            netns: model::NetnsTarget::Host,
            mac,
        };
        forget(&mut known, &set);
        assert_eq!(known.as_ref().unwrap().state.mac, None);
        let pf = parsed("0000:01:00.0");
        forget(&mut known, &Step::SetNumVfs { pf, count: 0 });
        assert!(known.is_none());
    }
}
