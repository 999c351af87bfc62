//! A drawing of machines, their PFs and VFs, who holds the VFs, and the cables between the PFs.
//!
//! A pure function from views to text. It draws what the views say and claims nothing of traffic:
//! "shares vlan 100" is a fact of the configuration, a ping is not.
//!
//! ```text
//! ╭─ lab0 ─────────────────────────────────────────────────────╮
//! │                              ┌───────────────────────┐     │
//! │  netns blue  net1  vf 0  ─┬──┤ ens1f0  0000:3b:00.0  │     │
//! │  free              vf 1  ─┘  │ igb · up 1G           ├─────┼─╮
//! │                              │ 2 of 7 VFs            │     │ │
//! │                              └───────────────────────┘     │ │
//! ╰────────────────────────────────────────────────────────────╯ │
//! ```

mod canvas;
mod draw;
mod rows;

use std::fmt;

use model::{Code, Explain};

use crate::view::{HostView, PfView};

pub(crate) use draw::draw;

/// One machine of a drawing.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Name.
    pub(crate) name: String,
    /// What it has.
    pub(crate) view: HostView,
}

impl Machine {
    /// Returns its PFs.
    fn pfs(&self) -> &[PfView] {
        self.view.pfs.as_deref().unwrap_or_default()
    }
}

/// One end of a cable: a PF by machine and name, or by machine and PCI address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Name of the machine.
    pub(crate) machine: String,
    /// Name of the PF's netdev, or its PCI address.
    pub(crate) pf: String,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.machine, self.pf)
    }
}

/// A cable between two ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cable {
    /// One end.
    pub(crate) a: Port,
    /// The other end.
    pub(crate) b: Port,
}

/// A drawing names something that is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopologyError {
    /// The text of `--join` has not the form of a cable.
    #[error("--join {text:?} is not a cable such as lab0/ens1f0=lab1/ens1f0")]
    Cable {
        /// The text.
        text: String,
    },
    /// No machine has the name.
    #[error("cable to {port}: no machine is called {:?}", .port.machine)]
    Machine {
        /// The end of the cable.
        port: Port,
        /// The machines that there are.
        known: Vec<String>,
    },
    /// The machine has no such PF.
    #[error("cable to {port}: {} has no PF {:?}", .port.machine, .port.pf)]
    Pf {
        /// The end of the cable.
        port: Port,
        /// The PFs that it has.
        known: Vec<String>,
    },
}

impl Explain for TopologyError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::Cable { .. } => "bad-option",
            Self::Machine { .. } => "no-such-machine",
            Self::Pf { .. } => "no-such-pf",
        })
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Cable { .. } => None,
            Self::Machine { known, .. } => Some(format!(
                "machines are named by --from; there are {}",
                known.join(", ")
            )),
            Self::Pf { known, .. } => Some(format!("its PFs are {}", known.join(", "))),
        }
    }
}

impl std::str::FromStr for Cable {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        let port = |end: &str| {
            let (machine, pf) = end.split_once('/')?;
            let both = !machine.is_empty() && !pf.is_empty();
            both.then(|| Port {
                machine: machine.to_owned(),
                pf: pf.to_owned(),
            })
        };
        let parse = || {
            let (a, b) = text.split_once('=')?;
            Some(Self {
                a: port(a)?,
                b: port(b)?,
            })
        };
        parse().ok_or_else(|| TopologyError::Cable {
            text: text.to_owned(),
        })
    }
}

/// Index of a machine and of a PF in it.
type Spot = (usize, usize);

/// Finds the PF that an end of a cable is plugged into.
fn find(machines: &[Machine], port: &Port) -> Result<Spot, TopologyError> {
    let at = machines
        .iter()
        .position(|machine| machine.name == port.machine)
        .ok_or_else(|| TopologyError::Machine {
            port: port.clone(),
            known: machines.iter().map(|m| m.name.clone()).collect(),
        })?;
    let pfs = machines.get(at).map(Machine::pfs).unwrap_or_default();
    let pf = pfs
        .iter()
        .position(|pf| pf.title() == port.pf || pf.address.to_string() == port.pf)
        .ok_or_else(|| TopologyError::Pf {
            port: port.clone(),
            known: pfs.iter().map(PfView::title).collect(),
        })?;
    Ok((at, pf))
}

#[cfg(test)]
mod tests;
