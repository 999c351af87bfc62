//! What the parts of the agent tell about themselves: counters, faults, readiness.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::ResourceName;
use policy::pool::Health;

use crate::scanner::Extent;
use crate::snapshot::Snapshot;

/// What the parts tell.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pools: Mutex<BTreeMap<ResourceName, Arc<PoolBoard>>>,
    config: Mutex<Vec<String>>,
    host: Mutex<Option<String>>,
    files: Mutex<Vec<String>>,
    host_scans: Counter,
    function_scans: Counter,
    scan_micros: AtomicU64,
    last_scan_micros: AtomicU64,
}

/// What the server of one pool tells.
#[derive(Debug, Default)]
pub(crate) struct PoolBoard {
    /// Does the kubelet know the pool?
    pub(crate) registered: AtomicBool,
    /// Registrations that the kubelet took.
    pub(crate) registrations: Counter,
    /// Registrations that it refused, or that did not reach it.
    pub(crate) refusals: Counter,
    /// Allocations that were answered.
    pub(crate) allocations: Counter,
    /// Allocations that were refused.
    pub(crate) failures: Counter,
    /// Updates that the kubelet was sent.
    pub(crate) updates: Counter,
    fault: Mutex<Option<String>>,
}

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl PoolBoard {
    /// Says what is wrong, or that nothing is. Returns whether that is news.
    pub(crate) fn set_fault(&self, fault: Option<String>) -> bool {
        let mut known = lock(&self.fault);
        let news = *known != fault;
        *known = fault;
        news
    }

    fn trouble(&self) -> Option<String> {
        let fault = lock(&self.fault).clone();
        let waiting = !self.registered.load(Ordering::Relaxed);
        fault.or_else(|| waiting.then(|| "the kubelet has not registered it yet".to_owned()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while holding one, and what is in it would still be true.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// Opens the part of a pool, with its counters from before if it was served before.
    pub(crate) fn pool(&self, resource: &ResourceName) -> Arc<PoolBoard> {
        Arc::clone(lock(&self.pools).entry(resource.clone()).or_default())
    }

    /// Forgets a pool that is not served any more.
    pub(crate) fn forget(&self, resource: &ResourceName) {
        lock(&self.pools).remove(resource);
    }

    /// Says what is wrong with the configuration.
    pub(crate) fn set_config(&self, problems: Vec<String>) {
        *lock(&self.config) = problems;
    }

    /// Says which files could not be written. Returns whether that is news.
    pub(crate) fn set_files(&self, faults: Vec<String>) -> bool {
        let mut known = lock(&self.files);
        let news = *known != faults;
        *known = faults;
        news
    }

    /// Says how a scan of the host ended.
    pub(crate) fn scanned(&self, extent: Extent, took: Duration, fault: Option<String>) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match extent {
            Extent::Host => self.host_scans.add(),
            Extent::Functions => self.function_scans.add(),
        }
        self.scan_micros.fetch_add(micros, Ordering::Relaxed);
        self.last_scan_micros.store(micros, Ordering::Relaxed);
        *lock(&self.host) = fault;
    }

    /// Returns everything that keeps the agent from being ready, a line each.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles = lock(&self.config).clone();
        if self.host_scans.value() == 0 {
            troubles.push("the host was not seen yet".to_owned());
        }
        troubles.extend(lock(&self.host).clone());
        troubles.extend(lock(&self.files).iter().cloned());
        for (resource, pool) in lock(&self.pools).iter() {
            troubles.extend(
                pool.trouble()
                    .map(|trouble| format!("{resource}: {trouble}")),
            );
        }
        troubles
    }

    /// Writes the metrics in Prometheus' text format.
    pub(crate) fn metrics(&self, snapshot: &Snapshot) -> String {
        let mut text = Text::default();
        text.family(
            "virtfn_agent_devices",
            "gauge",
            "Devices of a pool, by health.",
        );
        for pool in &snapshot.offer.pools {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::from([("healthy", 0)]);
            for device in pool.devices.values() {
                let health = match device.health {
                    Health::Healthy => "healthy",
                    Health::Unhealthy(ailment) => ailment.label(),
                };
                *counts.entry(health).or_default() += 1;
            }
            for (health, count) in counts {
                let labels = format!("resource=\"{}\",health=\"{health}\"", pool.resource);
                text.sample("virtfn_agent_devices", &labels, count);
            }
        }
        let pools = lock(&self.pools);
        let pairs: [(&str, &str, &str, Read, Read); 2] = [
            (
                "virtfn_agent_allocations_total",
                "Allocations of containers.",
                "failed",
                |pool| pool.allocations.value(),
                |pool| pool.failures.value(),
            ),
            (
                "virtfn_agent_registrations_total",
                "Attempts to register with the kubelet.",
                "refused",
                |pool| pool.registrations.value(),
                |pool| pool.refusals.value(),
            ),
        ];
        for (name, help, bad, good_of, bad_of) in pairs {
            text.family(name, "counter", help);
            for (resource, pool) in pools.iter() {
                let labels = |result| format!("resource=\"{resource}\",result=\"{result}\"");
                text.sample(name, &labels("ok"), good_of(pool));
                text.sample(name, &labels(bad), bad_of(pool));
            }
        }
        let name = "virtfn_agent_updates_total";
        text.family(
            name,
            "counter",
            "Lists of devices that the kubelet was sent.",
        );
        for (resource, pool) in pools.iter() {
            text.sample(
                name,
                &format!("resource=\"{resource}\""),
                pool.updates.value(),
            );
        }
        let name = "virtfn_agent_config_problems";
        text.family(
            name,
            "gauge",
            "Things that are wrong with the configuration.",
        );
        text.sample(name, "", lock(&self.config).len() as u64);
        let name = "virtfn_agent_rescans_total";
        text.family(name, "counter", "Scans of the host, by how far they went.");
        text.sample(name, "extent=\"host\"", self.host_scans.value());
        text.sample(name, "extent=\"functions\"", self.function_scans.value());
        let name = "virtfn_agent_rescan_seconds_total";
        text.family(name, "counter", "Time that scans of the host took.");
        text.seconds(name, self.scan_micros.load(Ordering::Relaxed));
        let name = "virtfn_agent_last_rescan_seconds";
        text.family(name, "gauge", "Time that the last scan of the host took.");
        text.seconds(name, self.last_scan_micros.load(Ordering::Relaxed));
        text.0
    }
}

type Read = fn(&PoolBoard) -> u64;

/// Prometheus' text format. Resource names need no escaping.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail, here and below.
        let _always = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let _always = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn seconds(&mut self, name: &str, micros: u64) {
        let _always = writeln!(
            self.0,
            "{name} {}.{:06}",
            micros / 1_000_000,
            micros % 1_000_000
        );
    }
}
