//! GUIDs that an administrator gives to the VFs of InfiniBand PFs.

use crate::{Guid, PciAddress, VfIndex};

/// The GUIDs for the VFs of one PF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuidRule {
    /// The PF.
    pub pf: GuidPf,
    /// What its VFs get.
    pub pool: GuidPool,
}

/// How a PF is named where GUIDs are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuidPf {
    /// By its address.
    Address(PciAddress),
    /// By the GUID of its port, the last 8 bytes of its hardware address.
    Port(Guid),
}

/// GUIDs in the order of the VFs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuidPool {
    /// One by one.
    List(Vec<Guid>),
    /// From the first to the last, both included; never empty.
    Range {
        /// GUID of VF 0.
        first: Guid,
        /// The last one that may be given.
        last: Guid,
    },
}

impl GuidPool {
    /// Returns the GUID of a VF; `None` when there are not that many.
    #[must_use]
    pub fn get(&self, vf: VfIndex) -> Option<Guid> {
        match self {
            Self::List(guids) => guids.get(usize::from(vf.0)).copied(),
            Self::Range { first, last } => first
                .get()
                .checked_add(u64::from(vf.0))
                .filter(|guid| guid <= &last.get())
                .map(Guid::new),
        }
    }

    /// Returns how many VFs can have one.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::List(guids) => u64::try_from(guids.len()).unwrap_or(u64::MAX),
            Self::Range { first, last } => {
                let more = last.get().saturating_sub(first.get());
                more.saturating_add(1)
            }
        }
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_with_its_last_guid() {
        let pool = GuidPool::Range {
            first: Guid::new(u64::MAX - 1),
            last: Guid::new(u64::MAX),
        };
        assert_eq!(pool.len(), 2);
        assert_eq!(pool.get(VfIndex(1)), Some(Guid::new(u64::MAX)));
        assert_eq!(pool.get(VfIndex(2)), None);
    }
}
