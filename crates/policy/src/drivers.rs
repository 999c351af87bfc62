//! What PF drivers do differently, in one table.
//!
//! Only what changes a decision is here. A driver that is not listed is taken to do what the kernel's
//! interface promises: the step is tried, and the kernel's answer is shown. Sources: the `ndo_set_vf_*`
//! functions of each driver in Linux 6.12 (`drivers/net/ethernet/…`), and what users of sriov-cni
//! reported (its issues 34, 106, 213, 232, 239, 285).

use model::DriverName;

/// How a PF driver treats the settings of its VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PfDriver {
    /// Name of the driver; empty for one that is not listed.
    pub name: &'static str,
    /// Can the link state of a VF be set? Without it the kernel answers EOPNOTSUPP.
    pub sets_link: bool,
    /// Can a VF have a guaranteed rate? Without it only 0 is accepted.
    pub sets_min_rate: bool,
    /// Can a VF have an 802.1ad tag? Without it the kernel answers EPROTONOSUPPORT.
    pub tags_dot1ad: bool,
    /// Once the PF set a VF's MAC, is the VF refused another one, until the PF takes its own back?
    pub pins_mac: bool,
    /// Spoof checking of a new VF, for a driver that does not report it.
    pub spoof_check: Option<bool>,
    /// Does a VF make the GUID of its RDMA device of the MAC that its PF gave it?
    pub has_guid_of_mac: bool,
    /// What must be first when the eswitch goes to switchdev mode.
    pub eswitch_order: EswitchOrder,
    /// Module that makes vDPA devices of its VFs, where that is another one.
    pub vdpa_module: Option<&'static str>,
}

/// What must be first when the eswitch of a PF goes to switchdev mode. The orders are those of the
/// operator's daemon, which has them from the drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EswitchOrder {
    /// The VFs, without drivers: before some kernels the mode cannot even be read without VFs
    /// (`mlx5`, before 5.0), and `bnxt_en` has no switch without them.
    VfsFirst,
    /// The mode: with VFs the driver refuses.
    ModeFirst,
}

/// What the kernel's interface promises.
const PROMISED: PfDriver = PfDriver {
    name: "",
    sets_link: true,
    sets_min_rate: true,
    tags_dot1ad: true,
    pins_mac: true,
    spoof_check: None,
    has_guid_of_mac: false,
    eswitch_order: EswitchOrder::VfsFirst,
    vdpa_module: None,
};

const DRIVERS: [PfDriver; 6] = [
    // 82576, I350. `igbvf` may set its MAC until the PF set one ("attempted to override
    // administratively set MAC address"); the zero MAC lifts that again.
    PfDriver {
        name: "igb",
        sets_link: false,
        sets_min_rate: false,
        tags_dot1ad: false,
        spoof_check: Some(true),
        ..PROMISED
    },
    // 82599, X540, X550. `enable` of the link state succeeds without an effect.
    PfDriver {
        name: "ixgbe",
        sets_min_rate: false,
        tags_dot1ad: false,
        spoof_check: Some(true),
        ..PROMISED
    },
    // X710. MAC, trust and VLAN each reset the VF, which takes a while.
    PfDriver {
        name: "i40e",
        sets_min_rate: false,
        tags_dot1ad: false,
        spoof_check: Some(true),
        ..PROMISED
    },
    // E810. 802.1ad depends on the firmware's VLAN mode, so the kernel is asked. "Changing eswitch mode is
    // allowed only if there is no VFs created" (`ice_eswitch_mode_set`).
    PfDriver {
        name: "ice",
        spoof_check: Some(true),
        eswitch_order: EswitchOrder::ModeFirst,
        ..PROMISED
    },
    // ConnectX. The admin MAC does not reach a VF whose driver runs: its netdev is set too, and may
    // always be.
    PfDriver {
        name: "mlx5_core",
        tags_dot1ad: false,
        pins_mac: false,
        spoof_check: Some(false),
        has_guid_of_mac: true,
        vdpa_module: Some("mlx5_vdpa"),
        ..PROMISED
    },
    // NetXtreme-C/E.
    PfDriver {
        name: "bnxt_en",
        spoof_check: Some(true),
        ..PROMISED
    },
];

/// Returns what is known of a PF driver.
#[must_use]
pub fn pf_driver(name: Option<&DriverName>) -> PfDriver {
    name.and_then(|name| DRIVERS.iter().find(|known| known.name == name.as_str()))
        .copied()
        .unwrap_or(PROMISED)
}
