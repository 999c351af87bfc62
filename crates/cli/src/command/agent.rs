//! `virtfn agent`: serves the devices of this host to its kubelet.

use agent::{Dirs, OpenHost, Options, Registration};
use host::{HostRoot, Linux};

use crate::args::{AgentArgs, RegistrationArg};
use crate::failure::Failure;
use crate::sight::{Place, SightError, Unpacked};
use crate::workplace::{Site, Workplace};

/// Serves until a signal ends it.
pub(crate) fn run(args: &AgentArgs, site: &Site) -> Result<(), Failure> {
    let site = super::site(&args.state, site);
    let defaults = Dirs::default();
    let beneath = |given: &Option<std::path::PathBuf>, usual| given.clone().unwrap_or(usual);
    let dirs = Dirs {
        kubelet: args.kubelet_dir.clone(),
        device_plugins: beneath(&args.device_plugin_dir, defaults.device_plugins),
        device_info: beneath(&args.device_info_dir, defaults.device_info),
        cdi: beneath(&args.cdi_dir, defaults.cdi),
    };
    // A recording that is a file is unpacked for as long as this runs.
    let mut recording = None;
    let (open_host, live): (OpenHost, bool) = match &site.place {
        Place::Here | Place::Beneath(_) => {
            let work = Workplace::open(&site)?;
            let (ledger, root) = (work.ledger, work.root.path().to_owned());
            let open = move || Ok(Linux::at(HostRoot::open(&root)?).with_ledger(ledger));
            (Box::new(open), true)
        }
        Place::Recording(path) => {
            let dir = recording.insert(Unpacked::open(path)?).dir().to_owned();
            (Box::new(move || Linux::recorded(&dir)), false)
        }
    };
    let root = match &recording {
        Some(recording) => HostRoot::open(recording.dir()),
        None => site.root(),
    };
    agent::run(Options {
        config: args.config.clone(),
        prefix: args.resource_prefix.clone(),
        cdi: args.use_cdi,
        registration: match args.registration {
            RegistrationArg::Auto => Registration::Auto,
            RegistrationArg::Watcher => Registration::Watcher,
            RegistrationArg::Legacy => Registration::Legacy,
        },
        dirs,
        listen: args.listen,
        live,
        ledger: site.state().ledger(),
        root: root.map_err(SightError::from)?,
        open_host,
        checkpoints: site.checkpoints(),
    })
    .map_err(Failure::failed)
}
