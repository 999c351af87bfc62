//! What `mstconfig -e -d <address> query` prints.
//!
//! ```text
//! Configurations:                              Default         Current         Next Boot
//! *        NUM_OF_VFS                          0               8               16
//!          SRIOV_EN                            False(0)        True(1)         True(1)
//! ```
//!
//! `Current` is what the firmware runs with, `Next Boot` what it will read at its next start. A `*`
//! marks a line whose next value differs, `RO` one that cannot be changed. A setting that the
//! firmware does not have is no line; the ports of a NIC that can only be Ethernet have no
//! `LINK_TYPE`. Column widths differ between versions, so columns are words.

/// Longest output that is read: a ConnectX-7 prints about 40 KiB.
const LONGEST: usize = 1 << 20;

/// Longest quotation in an error, in characters.
const QUOTED: usize = 120;

/// Firmware settings of a NIC, in both of their states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareReport {
    /// What the firmware runs with.
    pub current: FirmwareSettings,
    /// What it will run with after its next start.
    pub next: FirmwareSettings,
}

/// The settings that decide about VFs; `None` for one that this firmware does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareSettings {
    /// `NUM_OF_VFS`: VFs of each PF.
    pub num_vfs: Option<u32>,
    /// `SRIOV_EN`.
    pub sriov: Option<bool>,
    /// `LINK_TYPE_P1` and `LINK_TYPE_P2`.
    pub links: [Option<PortLink>; 2],
    /// Who owns the NIC, on a BlueField.
    pub internal_cpu: InternalCpu,
}

/// Link layer of a port as the firmware has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortLink {
    /// Ethernet.
    Ethernet,
    /// InfiniBand.
    InfiniBand,
    /// Something else, such as `VPI`, that says nothing of the link.
    Other,
}

/// The settings of a BlueField that say whether its own CPU or the host is in charge, without the
/// number in parentheses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InternalCpu {
    /// `INTERNAL_CPU_MODEL`.
    pub model: Option<String>,
    /// `INTERNAL_CPU_PAGE_SUPPLIER`.
    pub page_supplier: Option<String>,
    /// `INTERNAL_CPU_ESWITCH_MANAGER`.
    pub eswitch_manager: Option<String>,
    /// `INTERNAL_CPU_IB_VPORT0`.
    pub ib_vport0: Option<String>,
    /// `INTERNAL_CPU_OFFLOAD_ENGINE`.
    pub offload_engine: Option<String>,
}

impl InternalCpu {
    /// Is the NIC's own CPU in charge (DPU mode), so that the host cannot have its VFs changed?
    #[must_use]
    pub fn is_in_charge(&self) -> bool {
        let is = |setting: &Option<String>, word: &str| setting.as_deref() == Some(word);
        is(&self.model, "EMBEDDED_CPU")
            && is(&self.page_supplier, "ECPF")
            && is(&self.eswitch_manager, "ECPF")
            && is(&self.ib_vport0, "ECPF")
            && is(&self.offload_engine, "ENABLED")
    }
}

/// Output that does not tell the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReportError {
    /// There is no table; what the tool said instead.
    #[error("mstconfig printed no settings but {said:?}")]
    NoTable {
        /// First line that says something, `-E-` lines before others.
        said: String,
    },
    /// The table has not the columns Default, Current and Next Boot.
    #[error("mstconfig printed the columns {columns:?}, not Default, Current and Next Boot")]
    Columns {
        /// The columns that it has.
        columns: String,
    },
    /// A setting has not three values.
    #[error("mstconfig printed {line:?}, which has not three values")]
    Values {
        /// The line.
        line: String,
    },
    /// A setting has a value that it cannot have.
    #[error("mstconfig printed {value:?} for {setting}")]
    Value {
        /// The setting.
        setting: &'static str,
        /// The value.
        value: String,
    },
    /// A setting is there twice, as for two devices.
    #[error("mstconfig printed {setting} twice")]
    Twice {
        /// The setting.
        setting: &'static str,
    },
    /// The output is longer than any.
    #[error("mstconfig printed {0} bytes")]
    TooLong(usize),
}

/// A setting that is read.
#[derive(Clone, Copy)]
enum Known {
    NumVfs,
    Sriov,
    Link(usize),
    Model,
    PageSupplier,
    EswitchManager,
    IbVport0,
    OffloadEngine,
}

const KNOWN: [(&str, Known); 9] = [
    ("NUM_OF_VFS", Known::NumVfs),
    ("SRIOV_EN", Known::Sriov),
    ("LINK_TYPE_P1", Known::Link(0)),
    ("LINK_TYPE_P2", Known::Link(1)),
    ("INTERNAL_CPU_MODEL", Known::Model),
    ("INTERNAL_CPU_PAGE_SUPPLIER", Known::PageSupplier),
    ("INTERNAL_CPU_ESWITCH_MANAGER", Known::EswitchManager),
    ("INTERNAL_CPU_IB_VPORT0", Known::IbVport0),
    ("INTERNAL_CPU_OFFLOAD_ENGINE", Known::OffloadEngine),
];

impl FirmwareReport {
    /// Reads what `mstconfig` printed.
    pub fn parse(output: &str) -> Result<Self, ParseReportError> {
        if output.len() > LONGEST {
            return Err(ParseReportError::TooLong(output.len()));
        }
        let mut lines = output.lines();
        let Some(columns) = lines.find_map(|line| line.trim().strip_prefix("Configurations:"))
        else {
            return Err(no_table(output));
        };
        let words: Vec<_> = columns.split_whitespace().collect();
        if words != ["Default", "Current", "Next", "Boot"] {
            return Err(ParseReportError::Columns {
                columns: quoted(&words.join(" ")),
            });
        }
        let mut report = Self::default();
        let mut seen = [false; KNOWN.len()];
        for line in lines {
            report.line(line, &mut seen)?;
        }
        Ok(report)
    }

    fn line(&mut self, line: &str, seen: &mut [bool; KNOWN.len()]) -> Result<(), ParseReportError> {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| matches!(*word, "*" | "RO" | "*RO"));
        let name = words.next().unwrap_or_default();
        let known = KNOWN
            .iter()
            .zip(seen)
            .find(|((known, _), _)| *known == name);
        let Some(((setting, which), seen)) = known else {
            return Ok(());
        };
        if std::mem::replace(seen, true) {
            return Err(ParseReportError::Twice { setting });
        }
        let [Some(_default), Some(current), Some(next), None] =
            [words.next(), words.next(), words.next(), words.next()]
        else {
            return Err(ParseReportError::Values { line: quoted(line) });
        };
        for (column, text) in [(&mut self.current, current), (&mut self.next, next)] {
            column
                .set(*which, text)
                .ok_or_else(|| ParseReportError::Value {
                    setting,
                    value: quoted(text),
                })?;
        }
        Ok(())
    }
}

impl FirmwareSettings {
    /// Sets one setting from its text, `True(1)`; `None` when the text means nothing.
    fn set(&mut self, which: Known, text: &str) -> Option<()> {
        let word = text.split('(').next().unwrap_or(text);
        let owned = || Some(word.to_owned());
        match which {
            Known::NumVfs => {
                let digits = word.bytes().all(|byte| byte.is_ascii_digit());
                self.num_vfs = Some(word.parse().ok().filter(|_| digits)?);
            }
            Known::Sriov => {
                self.sriov = Some(match word {
                    "True" | "1" => true,
                    "False" | "0" => false,
                    _ => return None,
                });
            }
            Known::Link(port) => {
                *self.links.get_mut(port)? = Some(match word {
                    "ETH" | "2" => PortLink::Ethernet,
                    "IB" | "1" => PortLink::InfiniBand,
                    _ => PortLink::Other,
                });
            }
            Known::Model => self.internal_cpu.model = owned(),
            Known::PageSupplier => self.internal_cpu.page_supplier = owned(),
            Known::EswitchManager => self.internal_cpu.eswitch_manager = owned(),
            Known::IbVport0 => self.internal_cpu.ib_vport0 = owned(),
            Known::OffloadEngine => self.internal_cpu.offload_engine = owned(),
        }
        Some(())
    }
}

fn no_table(output: &str) -> ParseReportError {
    let lines = || {
        output
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let said = lines().find(|line| line.starts_with("-E-"));
    ParseReportError::NoTable {
        said: quoted(said.or_else(|| lines().next()).unwrap_or("nothing")),
    }
}

fn quoted(text: &str) -> String {
    text.trim().chars().take(QUOTED).collect()
}
