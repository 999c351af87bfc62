//! VFs as their PF reports them, and how to set their attributes through it.
//!
//! The structs are those of `linux/if_link.h` (`ifla_vf_*`): each starts with the VF's number and
//! is host-endian, with one big-endian field, the VLAN protocol. What would surprise:
//!
//! - The kernel fills in what a driver does not report: -1 for on/off attributes, which stays
//!   "not reported" here, but 0 for the link state, which cannot be told from "auto".
//! - The list is one attribute with a 16-bit length that wraps around above some 220 VFs, while
//!   all its bytes are there: see [`decode_list`].

mod decode;
mod encode;

use model::{VfIndex, VfState};
use serde::{Deserialize, Serialize};

pub(crate) use decode::decode_list;
pub use encode::set_vf;

const IFLA_VF_INFO: u16 = 1;

const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_TX_RATE: u16 = 3;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_RSS_QUERY_EN: u16 = 7;
const IFLA_VF_TRUST: u16 = 9;
const IFLA_VF_IB_NODE_GUID: u16 = 10;
const IFLA_VF_IB_PORT_GUID: u16 = 11;
const IFLA_VF_VLAN_LIST: u16 = 12;
const IFLA_VF_VLAN_INFO: u16 = 1;

/// `ARPHRD_INFINIBAND`.
const INFINIBAND: u16 = 32;

/// What a PF reports of one of its VFs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VfReport {
    /// Its number.
    pub index: VfIndex,
    /// Its settings; what the driver does not report is `None`.
    #[serde(default)]
    pub state: VfState,
}
