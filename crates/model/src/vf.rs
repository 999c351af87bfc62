//! Virtual functions: their numbers, and what a PF knows and can set of each.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::parse::{ParseError, digits, serde_as_text};
use crate::{Guid, MacAddr};

/// Number of a VF on its PF, from 0, as in `virtfn3` and `ip link set … vf 3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VfIndex(pub u16);

impl fmt::Display for VfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vf {}", self.0)
    }
}

/// VFs `first` to `last`, both included, written `2-5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VfRange {
    first: u16,
    last: u16,
}

impl VfRange {
    /// Returns the range, or `None` when `last` is before `first`.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Returns the range of all VFs of a PF that has `count` of them; `None` for 0.
    #[must_use]
    pub fn all(count: u16) -> Option<Self> {
        Some(Self {
            first: 0,
            last: count.checked_sub(1)?,
        })
    }

    /// Returns the first VF.
    #[must_use]
    pub fn first(self) -> VfIndex {
        VfIndex(self.first)
    }

    /// Returns the last VF.
    #[must_use]
    pub fn last(self) -> VfIndex {
        VfIndex(self.last)
    }

    /// Is `vf` in the range?
    #[must_use]
    pub fn contains(self, vf: VfIndex) -> bool {
        (self.first..=self.last).contains(&vf.0)
    }

    /// Do the two ranges share a VF?
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for VfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for VfRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (first, last) = text.split_once('-')?;
            Self::new(
                u16::try_from(digits(first, 10)?).ok()?,
                u16::try_from(digits(last, 10)?).ok()?,
            )
        };
        parse().ok_or_else(|| {
            ParseError::new(
                text,
                "a range of VFs such as 0-3, first to last, both included",
            )
        })
    }
}

/// VLAN id that a frame can carry as a member of a VLAN: 1 to 4094 (IEEE 802.1Q, section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// Returns the id, or `None` outside 1..=4094.
    #[must_use]
    pub fn new(id: u16) -> Option<Self> {
        (1..=4094).contains(&id).then_some(Self(id))
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VlanId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        digits(text, 10)
            .and_then(|id| u16::try_from(id).ok())
            .and_then(Self::new)
            .ok_or_else(|| ParseError::new(text, "a VLAN id from 1 to 4094"))
    }
}

/// Priority code point of a VLAN tag, 0 to 7; the kernel calls it QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pcp(u8);

impl Pcp {
    /// Returns the priority, or `None` above 7.
    #[must_use]
    pub fn new(pcp: u8) -> Option<Self> {
        (pcp <= 7).then_some(Self(pcp))
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Pcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Pcp {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        digits(text, 10)
            .and_then(|pcp| u8::try_from(pcp).ok())
            .and_then(Self::new)
            .ok_or_else(|| ParseError::new(text, "a VLAN priority (QoS) from 0 to 7"))
    }
}

/// Tag protocol of a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum VlanProto {
    /// IEEE 802.1Q customer tag, ethertype 0x8100.
    #[default]
    Dot1q,
    /// IEEE 802.1ad service tag, ethertype 0x88a8.
    Dot1ad,
}

impl VlanProto {
    /// Returns the ethertype of the tag, in host byte order.
    #[must_use]
    pub fn ethertype(self) -> u16 {
        match self {
            Self::Dot1q => 0x8100,
            Self::Dot1ad => 0x88a8,
        }
    }
}

impl fmt::Display for VlanProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dot1q => "802.1q",
            Self::Dot1ad => "802.1ad",
        })
    }
}

impl FromStr for VlanProto {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.to_ascii_lowercase().as_str() {
            "802.1q" => Ok(Self::Dot1q),
            "802.1ad" => Ok(Self::Dot1ad),
            _ => Err(ParseError::new(text, "a VLAN protocol: 802.1q or 802.1ad")),
        }
    }
}

/// The VLAN tag that the PF puts on a VF's traffic. "No VLAN" is `None` around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VlanTag {
    /// VLAN id.
    pub id: VlanId,
    /// Priority.
    pub pcp: Pcp,
    /// Tag protocol.
    pub proto: VlanProto,
}

impl fmt::Display for VlanTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        if self.pcp.get() != 0 {
            write!(f, " qos {}", self.pcp)?;
        }
        if self.proto != VlanProto::Dot1q {
            write!(f, " {}", self.proto)?;
        }
        Ok(())
    }
}

/// A rate in Mbit/s. "Unlimited" (the kernel's 0) is `None` around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mbps(NonZeroU32);

impl Mbps {
    /// Returns the rate, or `None` for the kernel's 0, which means unlimited.
    #[must_use]
    pub fn new(mbps: u32) -> Option<Self> {
        NonZeroU32::new(mbps).map(Self)
    }

    /// Returns the number of Mbit/s.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Mbps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Mbit/s", self.0)
    }
}

/// What link state a VF sees (`IFLA_VF_LINK_STATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkPolicy {
    /// The VF's link follows the port's.
    Auto,
    /// The VF's link is up whatever the port does, so VFs of one PF can talk.
    Enable,
    /// The VF's link is down.
    Disable,
}

impl fmt::Display for LinkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Enable => "enable",
            Self::Disable => "disable",
        })
    }
}

impl FromStr for LinkPolicy {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "auto" => Ok(Self::Auto),
            "enable" => Ok(Self::Enable),
            "disable" => Ok(Self::Disable),
            _ => Err(ParseError::new(
                text,
                "a link state: auto, enable or disable",
            )),
        }
    }
}

/// One attribute of a VF that its PF can set, with the value to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfAttr {
    /// Admin MAC; zero takes a former one back.
    Mac(MacAddr),
    /// VLAN tag, or none.
    Vlan(Option<VlanTag>),
    /// Lower and upper bound of the transmit rate; `None` is unlimited.
    Rate {
        /// Guaranteed rate.
        min: Option<Mbps>,
        /// Ceiling.
        max: Option<Mbps>,
    },
    /// Are frames with another source MAC dropped?
    SpoofCheck(bool),
    /// Link state as the VF sees it.
    Link(LinkPolicy),
    /// May the VF query the RSS table?
    RssQuery(bool),
    /// May the VF change its MAC and go promiscuous?
    Trust(bool),
    /// InfiniBand node GUID.
    NodeGuid(Guid),
    /// InfiniBand port GUID.
    PortGuid(Guid),
}

impl VfAttr {
    /// Returns the attribute's name as `ip link` and the CNI configuration spell it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mac(_) => "mac",
            Self::Vlan(_) => "vlan",
            Self::Rate { .. } => "rate",
            Self::SpoofCheck(_) => "spoofchk",
            Self::Link(_) => "link-state",
            Self::RssQuery(_) => "query_rss",
            Self::Trust(_) => "trust",
            Self::NodeGuid(_) => "node_guid",
            Self::PortGuid(_) => "port_guid",
        }
    }
}

impl fmt::Display for VfAttr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Mac(mac) if mac.is_zero() => write!(f, "{name} none"),
            Self::Mac(mac) => write!(f, "{name} {mac}"),
            Self::Vlan(None) => write!(f, "{name} none"),
            Self::Vlan(Some(tag)) => write!(f, "{name} {tag}"),
            Self::Rate { min, max } => {
                let text =
                    |rate: &Option<Mbps>| rate.map_or("unlimited".to_owned(), |r| r.to_string());
                write!(f, "{name} min {} max {}", text(min), text(max))
            }
            Self::SpoofCheck(on) | Self::RssQuery(on) | Self::Trust(on) => {
                write!(f, "{name} {}", if *on { "on" } else { "off" })
            }
            Self::Link(policy) => write!(f, "{name} {policy}"),
            Self::NodeGuid(guid) | Self::PortGuid(guid) => write!(f, "{name} {guid}"),
        }
    }
}

/// What a PF reports of one of its VFs. `None` is "the driver does not say".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VfState {
    /// Admin MAC; zero when none was set. Some drivers report the VF's own last MAC here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// VLAN: `Some(None)` is reported as "no VLAN".
    #[serde(skip_serializing_if = "Option::is_none", with = "reported_vlan")]
    pub vlan: Option<Option<VlanTag>>,
    /// Guaranteed rate in Mbit/s, 0 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rate_mbps: Option<u32>,
    /// Highest rate in Mbit/s, 0 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate_mbps: Option<u32>,
    /// Spoof checking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spoof_check: Option<bool>,
    /// Link state as the VF sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkPolicy>,
    /// RSS query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_query: Option<bool>,
    /// Trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
    /// InfiniBand node GUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_guid: Option<Guid>,
    /// InfiniBand port GUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_guid: Option<Guid>,
}

/// `Some(None)` ("no VLAN is set") is written as the text `none`.
mod reported_vlan {
    use super::VlanTag;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Text {
        Tag(VlanTag),
        None(None),
    }

    #[derive(Serialize, Deserialize)]
    enum None {
        #[serde(rename = "none")]
        None,
    }

    #[expect(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        vlan: &Option<Option<VlanTag>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match vlan {
            Some(Some(tag)) => Text::Tag(*tag).serialize(serializer),
            _ => Text::None(None::None).serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<VlanTag>>, D::Error> {
        Ok(Some(match Text::deserialize(deserializer)? {
            Text::Tag(tag) => Some(tag),
            Text::None(_) => Option::None,
        }))
    }
}

/// What somebody wants of one VF. `None` is "leave alone".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VfSettings {
    /// Admin MAC.
    pub mac: Option<MacAddr>,
    /// VLAN: `Some(None)` is "explicitly no VLAN".
    pub vlan: Option<Option<VlanTag>>,
    /// Guaranteed rate: `Some(None)` is "explicitly unlimited".
    pub min_rate: Option<Option<Mbps>>,
    /// Highest rate: `Some(None)` is "explicitly unlimited".
    pub max_rate: Option<Option<Mbps>>,
    /// Spoof checking.
    pub spoof_check: Option<bool>,
    /// Link state.
    pub link: Option<LinkPolicy>,
    /// RSS query.
    pub rss_query: Option<bool>,
    /// Trust.
    pub trust: Option<bool>,
    /// InfiniBand node GUID.
    pub node_guid: Option<Guid>,
    /// InfiniBand port GUID.
    pub port_guid: Option<Guid>,
}

serde_as_text!(VfRange, VlanId, Pcp, VlanProto, LinkPolicy);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_first_to_last() {
        let range: VfRange = "2-5".parse().unwrap();
        assert!(range.contains(VfIndex(2)) && range.contains(VfIndex(5)));
        assert!(!range.contains(VfIndex(6)));
        assert!(range.overlaps("5-9".parse().unwrap()));
        assert!(!range.overlaps("6-9".parse().unwrap()));
        for bad in [
            "", "5", "5-2", "a-b", "-", "1-2-3", "1 -2", "+1-2", "0-70000",
        ] {
            assert!(bad.parse::<VfRange>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn vlan_ids_exclude_the_two_reserved_ones() {
        assert!(VlanId::new(0).is_none() && VlanId::new(4095).is_none());
        assert_eq!("4094".parse::<VlanId>().unwrap().get(), 4094);
        assert!("4095".parse::<VlanId>().is_err());
    }

    #[test]
    fn a_state_keeps_no_vlan_apart_from_not_reported() {
        let tag = VlanTag {
            id: VlanId::new(100).unwrap(),
            pcp: Pcp::default(),
            proto: VlanProto::Dot1q,
        };
        for vlan in [None, Some(None), Some(Some(tag))] {
            let state = VfState {
                vlan,
                ..VfState::default()
            };
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(
                serde_json::from_str::<VfState>(&text).unwrap(),
                state,
                "{text}"
            );
        }
    }
}
