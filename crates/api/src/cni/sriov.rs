//! The configuration of the `sriov` plugin.

use std::path::PathBuf;

use model::{LinkPolicy, MacAddr, Mbps, PciAddress, Pcp, VfSettings, VlanId, VlanProto, VlanTag};

use super::arguments::Arguments;
use super::config::{ConfigError, NetworkConfig, problems, shortened};
use super::json::Fields;

/// What the configuration of the `sriov` plugin asks for, with all precedence decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SriovConfig {
    /// The VF (`deviceID`).
    pub device: PciAddress,
    /// What the PF is to set, without the MAC.
    pub settings: VfSettings,
    /// The MAC: of the runtime, else of `CNI_ARGS`, else of `mac`.
    pub mac: Option<MacAddr>,
    /// `spoofchk` and `trust` as written, for those who read our files.
    pub spoof_check: SwitchText,
    /// As `spoof_check`.
    pub trust: SwitchText,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Where it is logged; stderr when `None`.
    pub log_file: Option<PathBuf>,
}

/// A switch as it was written: `on` is on, and any other text that is not empty is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchText(pub String);

impl SwitchText {
    /// Returns what is meant; `None` when nothing was written.
    #[must_use]
    pub fn meaning(&self) -> Option<bool> {
        (!self.0.is_empty()).then(|| self.0 == "on")
    }

    /// Is it neither `on` nor `off`, and so perhaps not what its writer meant?
    #[must_use]
    pub fn is_odd(&self) -> bool {
        !matches!(self.0.as_str(), "" | "on" | "off")
    }
}

/// `logLevel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `panic` and `error`.
    Error,
    /// `warning`.
    Warning,
    /// `info`, also for a word that is none.
    #[default]
    Info,
    /// `debug` and `verbose`.
    Debug,
}

impl LogLevel {
    fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "panic" | "error" => Self::Error,
            "warning" => Self::Warning,
            "debug" | "verbose" => Self::Debug,
            _ => Self::Info,
        }
    }
}

impl SriovConfig {
    /// Reads the fields of the plugin; all that are wrong are reported at once.
    pub fn read(config: &NetworkConfig, arguments: &Arguments) -> Result<Self, ConfigError> {
        let mut fields = Fields::of(&config.json);
        let device = device(&mut fields);
        let settings = VfSettings {
            vlan: vlan(&mut fields),
            min_rate: rate(&mut fields, "min_tx_rate"),
            max_rate: rate(&mut fields, "max_tx_rate"),
            link: link(&mut fields),
            ..VfSettings::default()
        };
        if let (Some(Some(min)), Some(Some(max))) = (settings.min_rate, settings.max_rate)
            && min > max
        {
            fields.problem(
                "min_tx_rate",
                format!("{min} is above max_tx_rate, {max}"),
                "write a min_tx_rate that is at most max_tx_rate",
            );
        }
        let mac = mac(&mut fields, arguments);
        let spoof_check = SwitchText(fields.text("spoofchk").unwrap_or_default().to_owned());
        let trust = SwitchText(fields.text("trust").unwrap_or_default().to_owned());
        let log_level = fields.text("logLevel").map(LogLevel::parse);
        let log_file = fields.text("logFile").map(PathBuf::from);
        problems(fields.problems)?;
        let Some(device) = device else {
            // Only a problem leaves it out, and those were reported.
            return Err(ConfigError::Fields(Vec::new()));
        };
        Ok(Self {
            device,
            settings: VfSettings {
                spoof_check: spoof_check.meaning(),
                trust: trust.meaning(),
                ..settings
            },
            mac,
            spoof_check,
            trust,
            log_level: log_level.unwrap_or_default(),
            log_file,
        })
    }

    /// Returns the level and the file of the log, whatever else is wrong with the configuration.
    #[must_use]
    pub fn log_of(config: &NetworkConfig) -> (LogLevel, Option<PathBuf>) {
        let mut fields = Fields::of(&config.json);
        let level = fields.text("logLevel").map(LogLevel::parse);
        (
            level.unwrap_or_default(),
            fields.text("logFile").map(PathBuf::from),
        )
    }
}

pub(super) fn device(fields: &mut Fields<'_>) -> Option<PciAddress> {
    const REMEDY: &str = "write the PCI address of a VF such as 0000:3b:02.3; with Multus and a device plugin it is filled in when the NetworkAttachmentDefinition is annotated with k8s.v1.cni.cncf.io/resourceName";
    let found = fields.problems.len();
    match fields.text("deviceID") {
        Some(text) => match text.parse() {
            Ok(device) => Some(device),
            Err(error) => {
                fields.problem("deviceID", model_text(&error), REMEDY);
                None
            }
        },
        None => {
            if fields.problems.len() == found {
                fields.problem("deviceID", "VF pci addr is required".to_owned(), REMEDY);
            }
            None
        }
    }
}

/// Reads `vlan`, `vlanQoS` and `vlanProto`. `vlan` 0 is "explicitly none".
fn vlan(fields: &mut Fields<'_>) -> Option<Option<VlanTag>> {
    let before = fields.problems.len();
    let id = fields.integer("vlan");
    let qos = fields.integer("vlanQoS");
    let proto = fields.text("vlanProto");
    if id.is_some_and(|id| !(0..=4094).contains(&id)) {
        fields.problem(
            "vlan",
            format!(
                "vlan id {} invalid: value must be in the range 0-4094",
                id.unwrap_or_default()
            ),
            "write a VLAN id from 1 to 4094, or 0 for no VLAN",
        );
    }
    if qos.is_some_and(|qos| !(0..=7).contains(&qos)) {
        fields.problem(
            "vlanQoS",
            format!(
                "vlan QoS PCP {} invalid: value must be in the range 0-7",
                qos.unwrap_or_default()
            ),
            "write a priority from 0 to 7",
        );
    }
    let parsed = proto.map(|text| text.parse::<VlanProto>());
    if let (Some(text), Some(Err(_))) = (proto, &parsed) {
        fields.problem(
            "vlanProto",
            format!(
                "vlan Proto {} invalid: value must be '802.1Q' or '802.1ad'",
                shortened(text)
            ),
            "write 802.1q or 802.1ad",
        );
    }
    let proto = parsed.and_then(Result::ok);
    let needs = |fields: &mut Fields<'_>, key: &str, what: &str| {
        fields.problem(
            key,
            format!("{what} without a vlan"),
            "write a vlan from 1 to 4094 beside it",
        );
    };
    match id {
        None => {
            if qos.is_some() {
                needs(fields, "vlanQoS", "a priority");
            }
            if proto.is_some() {
                needs(fields, "vlanProto", "a protocol");
            }
        }
        Some(0) => {
            if qos.is_some_and(|qos| qos != 0) {
                needs(fields, "vlanQoS", "a priority");
            }
            if proto == Some(VlanProto::Dot1ad) {
                needs(fields, "vlanProto", "802.1ad");
            }
        }
        Some(_) => {}
    }
    if fields.problems.len() > before {
        return None;
    }
    let number = u16::try_from(id?).ok()?;
    let pcp = u8::try_from(qos.unwrap_or(0)).ok().and_then(Pcp::new)?;
    Some(VlanId::new(number).map(|id| VlanTag {
        id,
        pcp,
        proto: proto.unwrap_or_default(),
    }))
}

fn rate(fields: &mut Fields<'_>, key: &str) -> Option<Option<Mbps>> {
    let number = fields.integer(key)?;
    match u32::try_from(number) {
        Ok(number) => Some(Mbps::new(number)),
        Err(_) => {
            fields.problem(
                key,
                format!("{number} is no rate in Mbit/s"),
                "write a rate in Mbit/s, 0 for unlimited",
            );
            None
        }
    }
}

pub(super) fn link(fields: &mut Fields<'_>) -> Option<LinkPolicy> {
    let text = fields.text("link_state")?;
    let parsed = text.parse();
    if parsed.is_err() {
        fields.problem(
            "link_state",
            format!("invalid link_state value: {}", shortened(text)),
            "write auto, enable or disable",
        );
    }
    parsed.ok()
}

/// Decides which MAC counts, and reads only that one.
fn mac(fields: &mut Fields<'_>, arguments: &Arguments) -> Option<MacAddr> {
    let of_runtime = fields.inner_text("runtimeConfig", "mac");
    let of_config = fields.text("mac");
    let (key, text) = of_runtime
        .map(|text| ("runtimeConfig.mac", text))
        .or(arguments.mac.as_deref().map(|text| ("CNI_ARGS MAC", text)))
        .or(of_config.map(|text| ("mac", text)))?;
    let mac = any_mac(text);
    let problem = match mac {
        None => format!("{:?} is no MAC address", shortened(text)),
        Some(mac) if mac.is_zero() => {
            "the zero address is none that an interface can have".to_owned()
        }
        Some(mac) if mac.is_group() => {
            format!("{mac} is a group address, which no interface can have")
        }
        Some(mac) => return Some(mac),
    };
    fields.problem(
        key,
        problem,
        "write a MAC address such as 02:00:5e:10:00:01",
    );
    None
}

/// Reads the forms that Go reads: `02:00:5e:10:00:01`, `02-00-5e-10-00-01` and `0200.5e10.0001`.
fn any_mac(text: &str) -> Option<MacAddr> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let (separator, every) = match text.len() {
        17 if text.contains(':') => (':', 2),
        17 => ('-', 2),
        14 => ('.', 4),
        _ => return None,
    };
    let form: Vec<&str> = text.split(separator).collect();
    if digits.len() != 12 || form.iter().any(|part| part.len() != every) {
        return None;
    }
    let mut bytes = [0; 6];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(MacAddr::new(bytes))
}

fn model_text(error: &model::ParseError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
