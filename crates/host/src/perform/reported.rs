//! What a PF reported of one VF a moment ago, and the netdevs of both.
//!
//! A PF answers for all its VFs at once, which some take long for. Whoever gives a VF away observes it
//! first, and nobody else of virtfn changes it meanwhile, so the PF is asked once: what was observed
//! tells which settings are so already. It holds for a moment only, and for each setting until it is
//! set.

use std::time::{Duration, Instant};

use model::{Function, IfIndex, Inventory, Netns, PciAddress, Step, VfAttr, VfIndex, VfState};
use netlink::Link;

/// An attach, emulated and under load, sets all there is to set within it.
const FRESH: Duration = Duration::from_secs(5);

/// What a PF reported of one VF.
#[derive(Debug)]
pub(crate) struct Reported {
    pf: PciAddress,
    vf: VfIndex,
    /// The netdev through which the PF said it.
    netdev: Option<IfIndex>,
    function: PciAddress,
    /// The VF's own netdev on the host; `None` when it has none, or may have another one by now.
    own: Option<Known>,
    state: VfState,
    at: Instant,
}

/// A netdev, as far as whoever moves it must know it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) index: IfIndex,
    pub(super) alt_names: Vec<String>,
}

impl From<Link> for Known {
    fn from(link: Link) -> Self {
        Self {
            index: link.index,
            alt_names: link.alt_names,
        }
    }
}

impl Reported {
    /// Takes what was observed; `None` when nothing was reported.
    pub(crate) fn of(seen: &Inventory, function: PciAddress) -> Option<Self> {
        let function = seen.get(function)?;
        let facts = function.vf()?;
        let pf = seen.get(facts.pf).and_then(Function::netdev);
        let own = function.netdev().filter(|own| own.netns == Netns::Host);
        Some(Self {
            pf: facts.pf,
            vf: facts.index?,
            netdev: pf.map(|netdev| netdev.index),
            own: own.map(|own| Known {
                index: own.index,
                alt_names: own.alt_names.clone(),
            }),
            function: function.address,
            state: facts.state?,
            at: Instant::now(),
        })
    }

    /// Returns the netdev of a PF through which a VF is set; `None` when another VF was observed, or long
    /// ago.
    pub(super) fn netdev_of(&self, pf: PciAddress, vf: VfIndex) -> Option<IfIndex> {
        self.netdev.filter(|_| self.is_of(pf, vf))
    }

    /// Returns the netdev that a VF has on the host, if it was observed a moment ago; whoever asks moves
    /// it away.
    pub(super) fn take_own(&mut self, function: PciAddress) -> Option<Known> {
        let is_it = self.function == function && self.at.elapsed() < FRESH;
        self.own.take().filter(|_| is_it)
    }

    fn is_of(&self, pf: PciAddress, vf: VfIndex) -> bool {
        self.pf == pf && self.vf == vf && self.at.elapsed() < FRESH
    }

    /// Returns what was reported before an attribute is set; afterwards the attribute is not known
    /// any more. `None` when another VF was observed, or long ago.
    pub(super) fn before(&mut self, pf: PciAddress, vf: VfIndex, attr: &VfAttr) -> Option<VfState> {
        self.is_of(pf, vf).then(|| {
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
    {
        if sets_mac {
            known.state.mac = None;
        }
        // It is moved once; and a driver that is bound makes another, as does a moved RDMA device.
        let stays = matches!(
            step,
            Step::SetVf { .. } | Step::SetUp { .. } | Step::SetMac { .. } | Step::SetMtu { .. }
        );
        if !stays && !matches!(step, Step::Move { .. }) {
            known.own = None;
        }
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
        let mut known = Reported::of(&seen, vf).unwrap();
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
        let mut known = Reported::of(&seen, function);
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
