//! The GUID of an InfiniBand VF: from the administrator's file, or else derived, and then always the
//! same.
//!
//! A VF starts with a GUID of zeros and is no member of the fabric until it has one. Upstream draws a
//! random one each time that it configures a VF, so partitions and subnet managers lose track of it;
//! here the same VF of the same port always has the same GUID. What would surprise: with
//! a file, a PF that is not in it is an error and not an invitation to derive.

use model::{
    Code, Explain, Function, Guid, GuidPf, GuidRule, LinkType, MacAddr, PciAddress, VfIndex,
};

/// A VF cannot be given a GUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuidError {
    /// There is a file, and the PF is not in it.
    #[error("PF {title} is not in the file of GUIDs")]
    NotListed {
        /// The PF as people look for it.
        title: String,
        /// The PF.
        pf: PciAddress,
    },
    /// The file has fewer GUIDs than the PF has VFs.
    #[error("PF {title}: the file of GUIDs has {given} for its VFs, and none for {vf}")]
    TooFew {
        /// The PF as people look for it.
        title: String,
        /// How many there are.
        given: u64,
        /// The first VF without one.
        vf: VfIndex,
    },
    /// There is no file, and the PF has no address of its own to derive from.
    #[error("PF {title} has no GUID of its own to derive those of its VFs from")]
    NoBase {
        /// The PF as people look for it.
        title: String,
    },
}

impl Explain for GuidError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::NotListed { .. } => "guid-not-listed",
            Self::TooFew { .. } => "guid-too-few",
            Self::NoBase { .. } => "guid-no-base",
        })
    }

    fn remedy(&self) -> Option<String> {
        const FILE: &str = "/etc/sriov-operator/infiniband/guids";
        Some(match self {
            Self::NotListed { pf, .. } => format!("add an entry with pciAddress {pf} to {FILE}"),
            Self::TooFew { .. } => format!("give the PF more GUIDs in {FILE}, or fewer VFs"),
            Self::NoBase { .. } => format!("give the PF's VFs their GUIDs in {FILE}"),
        })
    }
}

/// Chooses the GUID of a VF, for its node and its port alike.
///
/// `file` is the administrator's, `None` when there is none; of two entries for one PF the last
/// counts. `seen` is the GUID that the VF has: without a file it is kept, whoever set it.
pub fn vf_guid(
    pf: &Function,
    vf: VfIndex,
    seen: Option<Guid>,
    file: Option<&[GuidRule]>,
) -> Result<Guid, GuidError> {
    let title = || pf.title();
    if let Some(rules) = file {
        let port = port_guid(pf);
        let is_it = |rule: &&GuidRule| match rule.pf {
            GuidPf::Address(address) => address == pf.address,
            GuidPf::Port(guid) => port == Some(guid),
        };
        let rule = rules.iter().rev().find(is_it);
        let rule = rule.ok_or_else(|| GuidError::NotListed {
            title: title(),
            pf: pf.address,
        })?;
        return rule.pool.get(vf).ok_or_else(|| GuidError::TooFew {
            title: title(),
            given: rule.pool.len(),
            vf,
        });
    }
    if let Some(guid) = seen.filter(|guid| !guid.is_zero()) {
        return Ok(guid);
    }
    let base = port_guid(pf)
        .or_else(|| pf.rdma.iter().find_map(|device| device.node_guid))
        .filter(|guid| !guid.is_zero());
    base.map(|base| derived(base, vf))
        .ok_or_else(|| GuidError::NoBase { title: title() })
}

/// Reads the GUID of a PF's port: the last 8 of the 20 bytes of its hardware address.
fn port_guid(pf: &Function) -> Option<Guid> {
    let netdev = pf.netdev()?;
    if netdev.link_type != LinkType::InfiniBand {
        return None;
    }
    // The permanent address is that of the port; the other begins with the queue pair, which moves.
    let addresses = [&netdev.permanent_address, &netdev.address];
    addresses
        .into_iter()
        .flatten()
        .find_map(|text| text.get(36..)?.parse().ok())
}

/// Chooses the MAC of an Ethernet VF, from the PF's own, and then always the same; `None` when the PF has
/// none.
pub(crate) fn vf_mac(pf: &Function, vf: VfIndex) -> Option<MacAddr> {
    let netdev = pf.netdev()?;
    let addresses = [&netdev.permanent_address, &netdev.address];
    let mac: MacAddr = addresses
        .into_iter()
        .flatten()
        .find_map(|text| text.parse().ok())?;
    let [a, b, c, d, e, f] = mac.bytes();
    let base = Guid::new(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    // The first byte says "locally administered, for one", as that of the GUID does.
    let [first, _, _, d, e, f, g, h] = derived(base, vf).get().to_be_bytes();
    Some(MacAddr::new([first, d, e, f, g, h]))
}

/// Derives the GUID of a VF from that of its port.
///
/// The result is spread over all values, because GUIDs of ports follow each other: the VFs of
/// neighbours must not meet. Its first byte says "locally administered, for one" (EUI-64), which
/// no manufacturer's GUID does. The numbers are those of SplitMix64; they must never change.
fn derived(port: Guid, vf: VfIndex) -> Guid {
    let step = (u64::from(vf.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut mixed = port.get().wrapping_add(step);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    Guid::new(mixed & !(0x03 << 56) | 0x02 << 56)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fixtures::{inventory, mlx5, parsed};
    use model::GuidPool;
    use proptest::prelude::*;

    use super::*;

    const PORT: &str = "00:00:10:29:fe:80:00:00:00:00:00:00:b8:59:9f:03:00:a6:1b:10";

    fn pf() -> Function {
        let seen = inventory([mlx5("0000:3b:00.0", "ib0").netdev(|netdev| {
            netdev.link_type = LinkType::InfiniBand;
            netdev.address = Some(PORT.to_owned());
            netdev.permanent_address = None;
        })]);
        seen.get(parsed("0000:3b:00.0")).unwrap().clone()
    }

    fn rule(pf: GuidPf, first: u64, count: u64) -> GuidRule {
        GuidRule {
            pf,
            pool: GuidPool::Range {
                first: Guid::new(first),
                last: Guid::new(first + count - 1),
            },
        }
    }

    #[test]
    fn the_file_decides_and_its_last_entry_counts() {
        let address = GuidPf::Address(parsed("0000:3b:00.0"));
        let port = GuidPf::Port(parsed("b8:59:9f:03:00:a6:1b:10"));
        let other = GuidPf::Address(parsed("0000:5e:00.0"));
        let rules = [
            rule(address, 100, 8),
            rule(port, 200, 8),
            rule(other, 300, 8),
        ];
        let seen = Some(Guid::new(7));
        assert_eq!(
            vf_guid(&pf(), VfIndex(3), seen, Some(&rules)),
            Ok(Guid::new(203))
        );
    }

    #[test]
    fn a_pf_that_the_file_does_not_serve_is_refused() {
        let other = [rule(GuidPf::Address(parsed("0000:5e:00.0")), 300, 8)];
        let error = vf_guid(&pf(), VfIndex(0), None, Some(&other)).unwrap_err();
        insta::assert_snapshot!(error, @"PF ib0 (0000:3b:00.0) is not in the file of GUIDs");
        insta::assert_snapshot!(error.remedy().unwrap(), @"add an entry with pciAddress 0000:3b:00.0 to /etc/sriov-operator/infiniband/guids");
        let few = [rule(GuidPf::Address(parsed("0000:3b:00.0")), 300, 2)];
        let error = vf_guid(&pf(), VfIndex(2), None, Some(&few)).unwrap_err();
        insta::assert_snapshot!(error, @"PF ib0 (0000:3b:00.0): the file of GUIDs has 2 for its VFs, and none for vf 2");
    }

    #[test]
    fn without_a_file_a_guid_that_is_there_stays() {
        let there = Guid::new(7);
        assert_eq!(vf_guid(&pf(), VfIndex(0), Some(there), None), Ok(there));
        let unset = vf_guid(&pf(), VfIndex(0), Some(Guid::new(0)), None).unwrap();
        assert_eq!(Ok(unset), vf_guid(&pf(), VfIndex(0), None, None));
    }

    /// A golden: these values are out in the world.
    #[test]
    fn derived_guids_never_change() {
        let guids: Vec<_> = (0..3)
            .map(|vf| vf_guid(&pf(), VfIndex(vf), None, None).unwrap().to_string())
            .collect();
        insta::assert_snapshot!(guids.join("\n"), @r"
        d2:c7:4d:38:98:57:10:46
        c6:0b:5e:30:d8:cc:48:bb
        de:c5:40:e2:cf:80:57:56
        ");
    }

    #[test]
    fn a_pf_without_an_address_has_nothing_to_derive_from() {
        let mut bare = pf();
        bare.netdevs.clear();
        let error = vf_guid(&bare, VfIndex(0), None, None).unwrap_err();
        assert_eq!(error.code().as_str(), "guid-no-base");
    }

    #[test]
    fn vfs_of_neighbouring_ports_do_not_meet() {
        let mut guids = BTreeSet::new();
        for port in 0..64 {
            for vf in 0..256 {
                guids.insert(derived(
                    Guid::new(0xb859_9f03_00a6_1b10 + port),
                    VfIndex(vf),
                ));
            }
        }
        assert_eq!(guids.len(), 64 * 256);
    }

    proptest! {
        #[test]
        fn derived_guids_are_local_and_never_zero(port: u64, vf: u16) {
            let [first, ..] = derived(Guid::new(port), VfIndex(vf)).get().to_be_bytes();
            prop_assert_eq!(first & 0x03, 0x02);
        }
    }
}
