//! What `virtfn attach` is asked for: options as domain values.

use std::str::FromStr;

use model::{
    Code, Explain, IfName, InterfaceAddress, LinkPolicy, MacAddr, Mbps, Mtu, ParseError, Pcp,
    VfSettings, VlanId, VlanProto, VlanTag,
};

use crate::args::AttachArgs;
use crate::command::target::VfName;

/// What `virtfn attach` is asked for, before the host was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachCommand {
    /// The VF.
    pub(crate) vf: VfName,
    /// The namespace, as it was typed: a name, a path or a process id.
    pub(crate) netns: String,
    /// What the PF is to set.
    pub(crate) settings: VfSettings,
    /// Hardware address.
    pub(crate) mac: Option<MacAddr>,
    /// Name in the namespace.
    pub(crate) name: Option<IfName>,
    /// MTU.
    pub(crate) mtu: Option<Mtu>,
    /// Addresses.
    pub(crate) addresses: Vec<InterfaceAddress>,
    /// Show the steps only.
    pub(crate) dry_run: bool,
}

/// An option's value is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {problem}")]
pub(crate) struct OptionError {
    option: &'static str,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Parse(ParseError),
    Text(&'static str),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parse(error) => error.fmt(f),
            Self::Text(text) => f.pad(text),
        }
    }
}

impl Explain for OptionError {
    fn code(&self) -> Code {
        Code::new("bad-option")
    }
}

impl TryFrom<&AttachArgs> for AttachCommand {
    type Error = OptionError;

    fn try_from(args: &AttachArgs) -> Result<Self, OptionError> {
        let mac: Option<MacAddr> = option("--mac", args.mac.as_deref())?;
        let settings = VfSettings {
            vlan: vlan(args)?,
            min_rate: rate("--min-tx-rate", args.min_tx_rate.as_deref())?,
            max_rate: rate("--max-tx-rate", args.max_tx_rate.as_deref())?,
            spoof_check: on_off("--spoofchk", args.spoofchk.as_deref())?,
            link: option::<LinkPolicy>("--link-state", args.link_state.as_deref())?,
            trust: on_off("--trust", args.trust.as_deref())?,
            ..VfSettings::default()
        };
        Ok(Self {
            vf: VfName::read(&args.vf),
            netns: args.netns.clone(),
            settings,
            mac,
            name: option("--name", args.name.as_deref())?,
            mtu: mtu(args.mtu.as_deref())?,
            addresses: args
                .addresses
                .iter()
                .map(|text| read("--address", text))
                .collect::<Result<_, _>>()?,
            dry_run: args.dry_run,
        })
    }
}

fn read<T: FromStr<Err = ParseError>>(name: &'static str, text: &str) -> Result<T, OptionError> {
    text.parse().map_err(|error| OptionError {
        option: name,
        problem: Problem::Parse(error),
    })
}

fn option<T: FromStr<Err = ParseError>>(
    name: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, OptionError> {
    text.map(|text| read(name, text)).transpose()
}

/// Reads a whole number as the C library would not: digits only.
fn number(name: &'static str, text: &str, expected: &'static str) -> Result<u32, OptionError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| OptionError {
            option: name,
            problem: Problem::Parse(ParseError::new(text, expected)),
        })
}

fn vlan(args: &AttachArgs) -> Result<Option<Option<VlanTag>>, OptionError> {
    const EXPECTED: &str = "a VLAN id from 1 to 4094, or 0 for no VLAN";
    let Some(text) = args.vlan.as_deref() else {
        return Ok(None);
    };
    let pcp: Option<Pcp> = option("--qos", args.qos.as_deref())?;
    let proto: Option<VlanProto> = option("--vlan-proto", args.vlan_proto.as_deref())?;
    let id = number("--vlan", text, EXPECTED)?;
    if id == 0 {
        // The kernel would ignore both, and the user would believe in them.
        let ignored = (pcp.is_some_and(|pcp| pcp.get() != 0), proto);
        if ignored.0 || ignored.1 == Some(VlanProto::Dot1ad) {
            return Err(OptionError {
                option: "--vlan",
                problem: Problem::Text("0 is no VLAN, which has neither --qos nor --vlan-proto"),
            });
        }
        return Ok(Some(None));
    }
    let id = u16::try_from(id)
        .ok()
        .and_then(VlanId::new)
        .ok_or_else(|| OptionError {
            option: "--vlan",
            problem: Problem::Parse(ParseError::new(text, EXPECTED)),
        })?;
    Ok(Some(Some(VlanTag {
        id,
        pcp: pcp.unwrap_or_default(),
        proto: proto.unwrap_or_default(),
    })))
}

fn rate(name: &'static str, text: Option<&str>) -> Result<Option<Option<Mbps>>, OptionError> {
    text.map(|text| number(name, text, "a rate in Mbit/s, or 0 for none").map(Mbps::new))
        .transpose()
}

fn mtu(text: Option<&str>) -> Result<Option<Mtu>, OptionError> {
    const EXPECTED: &str = "an MTU from 68 to 65535 bytes";
    let Some(text) = text else {
        return Ok(None);
    };
    Mtu::new(number("--mtu", text, EXPECTED)?)
        .map(Some)
        .ok_or_else(|| OptionError {
            option: "--mtu",
            problem: Problem::Parse(ParseError::new(text, EXPECTED)),
        })
}

fn on_off(name: &'static str, text: Option<&str>) -> Result<Option<bool>, OptionError> {
    match text {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(other) => Err(OptionError {
            option: name,
            problem: Problem::Parse(ParseError::new(other, "on or off")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn read(options: &[&str]) -> Result<AttachCommand, OptionError> {
        let line = [
            &["virtfn", "attach", "ens1f0#0", "--netns", "blue"],
            options,
        ]
        .concat();
        match Cli::try_parse_from(line).unwrap().command {
            Command::Attach(args) => AttachCommand::try_from(&*args),
            other => panic!("{other:?} is not an attach"),
        }
    }

    #[test]
    fn what_is_not_given_is_left_alone() {
        let command = read(&[]).unwrap();
        assert_eq!(command.settings, VfSettings::default());
        assert_eq!((command.mac, command.mtu), (None, None));
    }

    #[test]
    fn zero_is_explicitly_none() {
        let zero = ["--vlan", "0", "--min-tx-rate", "0", "--max-tx-rate", "0"];
        let settings = read(&zero).unwrap().settings;
        assert_eq!(settings.vlan, Some(None));
        assert_eq!(
            (settings.min_rate, settings.max_rate),
            (Some(None), Some(None))
        );
        assert!(read(&["--vlan", "0", "--qos", "0"]).is_ok());
    }

    #[test]
    fn every_option_reaches_its_setting() {
        let command = read(&[
            "--vlan",
            "100",
            "--qos",
            "3",
            "--vlan-proto",
            "802.1ad",
            "--spoofchk",
            "off",
            "--trust",
            "on",
            "--min-tx-rate",
            "10",
            "--max-tx-rate",
            "20",
            "--link-state",
            "enable",
            "--mtu",
            "1400",
            "--mac",
            "02:00:00:00:00:07",
            "--name",
            "net1",
            "--address",
            "192.0.2.1/24",
            "--address",
            "2001:db8::1/64",
        ])
        .unwrap();
        let tag = VlanTag {
            id: VlanId::new(100).unwrap(),
            pcp: Pcp::new(3).unwrap(),
            proto: VlanProto::Dot1ad,
        };
        let wanted = VfSettings {
            vlan: Some(Some(tag)),
            min_rate: Some(Mbps::new(10)),
            max_rate: Some(Mbps::new(20)),
            spoof_check: Some(false),
            link: Some(LinkPolicy::Enable),
            trust: Some(true),
            ..VfSettings::default()
        };
        assert_eq!(command.settings, wanted);
        assert_eq!(command.mtu, Mtu::new(1400));
        assert_eq!(command.addresses.len(), 2);
    }

    #[test]
    fn bad_values_name_their_option() {
        let all: String = [
            ["--mac", "nonsense"],
            ["--vlan", "4095"],
            ["--vlan", "+1"],
            ["--vlan", "x"],
            ["--address", "192.0.2.1"],
            ["--name", "a/b"],
            ["--name", "a-name-that-is-too-long"],
            ["--mtu", "1"],
            ["--mtu", "99999999999"],
            ["--spoofchk", "yes"],
            ["--link-state", "up"],
            ["--max-tx-rate", "-5"],
        ]
        .iter()
        .map(|[name, value]| read(&[&format!("{name}={value}")]).unwrap_err().to_string() + "\n")
        .chain([read(&["--vlan", "0", "--qos", "3"])
            .unwrap_err()
            .to_string()
            + "\n"])
        .chain([read(&["--vlan", "1", "--qos", "8"])
            .unwrap_err()
            .to_string()
            + "\n"])
        .chain([read(&["--vlan", "1", "--vlan-proto", "q"])
            .unwrap_err()
            .to_string()
            + "\n"])
        .collect();
        insta::assert_snapshot!(all);
    }
}
