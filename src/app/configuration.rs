//! The configuration while the program runs: read again on request, whole, and taken all or nothing.
//!
//! Who asks: SIGHUP, `sense-butler reload`, `POST /api/v1/reload`. Invariants: one reload at a time; a file that cannot be used changes nothing, is told
//! to who asked, in the log and (without what stands in it) in health and metrics; every part is given exactly the settings that are in force then;
//! what was good last is kept beside the data.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::{
    keep::Stores,
    last_good::LastGood,
    reload::Watched,
    signal::Hangups,
    supervise::{Stage, Supervisor},
};
use crate::{
    bridge::{actions::TopicRules, forward::Switches},
    config::{
        ConfigErrors, Loaded,
        reload::{Newer, Reloaded, Running},
        settings::Settings,
    },
    keep::values::Values,
    sense::{
        receiver::Relay,
        tasks::{Starter, parameters::Parameters, rules::Rules},
    },
    telemetry::{
        logging,
        metrics::Registry,
        readiness::{Latch, Readiness},
    },
};

const LOG_LEVEL: &str = "Butler.logLevel";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    reloads: Family<Outcome, Counter>,
    waiting: Gauge,
    broken: Gauge,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Requests to read the configuration again, by what became of them";
        registry.register("sense_butler_config_reloads", help, metrics.reloads.clone());
        let help = "Keys of butler.yaml that wait for a restart, as of the last reload";
        registry.register("sense_butler_config_keys_waiting", help, metrics.waiting.clone());
        let help = "1 while the configuration that was read last could not be used";
        registry.register("sense_butler_config_reload_failed", help, metrics.broken.clone());
        metrics
    }

    fn count(&self, result: &'static str) {
        self.reloads.get_or_create(&Outcome { result }).inc();
        self.broken.set(i64::from(result == "refused"));
    }
}

/// The parts that take newer settings while they run.
pub(super) struct Live {
    pub(super) starter: Starter,
    pub(super) topics: TopicRules,
    pub(super) stores: Stores,
    pub(super) events: Switches,
    pub(super) relay: Option<Relay>,
}

impl Live {
    /// What only the running program can find wrong.
    fn check(&self, running: &Running, newer: &Newer) -> Result<(), ConfigErrors> {
        let Some(relay) = &self.relay else { return Ok(()) };
        let key = "Butler.udpServerConfig.forwardTo";
        relay.check(&newer.settings.udp.forward).map_err(|error| running.refuse(key, error.to_string()))
    }

    /// Cannot fail, so what begins ends.
    fn take(&self, settings: &Settings) {
        self.starter.obey(rules(settings, &self.stores.values));
        self.topics.obey(&settings.start.topics);
        self.stores.values.limit(settings.values);
        if let Some(journal) = &self.stores.journal {
            journal.limit(settings.journal);
        }
        self.events.set(&settings.mqtt);
        if let Some(relay) = &self.relay {
            relay.change(&settings.udp.forward);
        }
    }
}

/// What the starter obeys; parameters go into this store.
pub(super) fn rules(settings: &Settings, values: &Values) -> Rules {
    Rules {
        filter: settings.start_filter.clone(),
        users: settings.start.users.clone(),
        limits: settings.start.limits,
        deadline: settings.start.deadline,
        parameters: Parameters::new(values.clone(), settings.start.parameters_ttl),
    }
}

/// The configuration before the program runs.
pub(super) struct Configuration {
    loaded: Loaded,
    metrics: Metrics,
}

impl Configuration {
    pub(super) fn new(loaded: &Loaded, registry: &mut Registry) -> Self {
        Self { loaded: loaded.clone(), metrics: Metrics::register(registry) }
    }

    /// The configuration of a program that runs with these parts.
    pub(super) fn running(self, live: Live, broker_file: Option<Arc<Watched>>, readiness: &Readiness) -> Reloader {
        let Self { loaded, metrics } = self;
        let latch = loaded.sources.butler.is_some().then(|| readiness.note("butler.yaml"));
        latch.iter().for_each(Latch::up);
        let (running, last_good) = (Mutex::new(Running::new(&loaded)), LastGood::of(&loaded));
        Reloader(Arc::new(Inner { running, live, broker_file, last_good, metrics, latch, started: loaded }))
    }
}

/// Reads the configuration again. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reloader(Arc<Inner>);

struct Inner {
    /// The lock is held through a reload: there is one at a time.
    running: Mutex<Running>,
    live: Live,
    broker_file: Option<Arc<Watched>>,
    last_good: Option<LastGood>,
    metrics: Metrics,
    latch: Option<Latch>,
    started: Loaded,
}

impl Reloader {
    /// Keeps what the program was started with, and listens to SIGHUP where there is such a thing.
    pub(super) async fn start(&self, supervisor: &Supervisor, hangups: Hangups) {
        let inner = Arc::clone(&self.0);
        // A panic in it was logged by the hook, and a file that is not kept is no reason not to run.
        let _ = tokio::task::spawn_blocking(move || inner.keep(&inner.started)).await;
        let (reloader, hangups) = (self.clone(), Arc::new(tokio::sync::Mutex::new(hangups)));
        supervisor.restarting(Stage::Work, "SIGHUP", move |stop| {
            let (reloader, hangups) = (reloader.clone(), Arc::clone(&hangups));
            async move {
                let mut hangups = hangups.lock().await;
                while stop.run_until_cancelled(hangups.next()).await.is_some() {
                    // It is in the log.
                    drop(reloader.reload("SIGHUP").await);
                }
            }
        });
    }

    /// Reads both files again and takes what can be taken. Once begun, it goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// What is wrong with the files; then nothing has changed.
    pub(super) async fn reload(&self, whence: &str) -> Result<Reloaded, ConfigErrors> {
        let (inner, whence) = (Arc::clone(&self.0), whence.to_owned());
        let result = tokio::task::spawn_blocking(move || inner.reload(&whence)).await;
        result.unwrap_or_else(|_| {
            let running = self.0.running.lock();
            Err(running.refuse("", "reading the configuration met a defect of sense-butler; its log says more".into()))
        })
    }
}

impl Inner {
    fn reload(&self, whence: &str) -> Result<Reloaded, ConfigErrors> {
        let mut running = self.running.lock();
        let read = running.read().and_then(|newer| self.live.check(&running, &newer).map(|()| newer));
        let broker = |newer: Newer| self.take_broker_file(&newer.loaded).map(|broker| (newer, broker));
        match read.and_then(broker) {
            Err(errors) => {
                self.refused(whence, &errors);
                Err(errors)
            }
            Ok((newer, broker)) => Ok(self.taken(&mut running, newer, broker, whence)),
        }
    }

    /// The text was read well with the newer `butler.yaml`; in force, it goes with the one of the start, which is the last thing that can fail.
    fn take_broker_file(&self, newer: &Loaded) -> Result<(bool, Vec<&'static str>), ConfigErrors> {
        let text = newer.broker_read.as_ref().map(|text| text.expose());
        self.broker_file.as_ref().zip(text).map_or(Ok((false, Vec::new())), |(file, text)| file.now(text))
    }

    fn taken(&self, running: &mut Running, newer: Newer, broker: (bool, Vec<&'static str>), whence: &str) -> Reloaded {
        self.live.take(&newer.settings);
        let mut told = newer.told.clone();
        // The level was checked when it was read.
        let overruled = matches!(logging::set_level(&newer.settings.log.level), Ok(false));
        if let Some(at) = told.applied.iter().position(|key| overruled && key == LOG_LEVEL) {
            told.without_effect.push(told.applied.remove(at));
            told.warnings.push("the environment variable RUST_LOG is set and overrules logLevel".to_owned());
        }
        self.keep(&newer.loaded);
        running.take(newer);
        let waiting = i64::try_from(told.needs_restart.len()).unwrap_or(i64::MAX);
        self.metrics.waiting.set(waiting);
        let (broker_taken, broker_waits) = broker;
        told.applied.extend(broker_taken.then(|| "broker.toml: users, access".to_owned()));
        told.needs_restart.extend(broker_waits.into_iter().map(|key| format!("broker.toml: {key}")));
        self.metrics.count(if told.applied.is_empty() { "unchanged" } else { "applied" });
        self.latch.iter().for_each(Latch::up);
        tracing::info!(
            asked_by = whence,
            in_force = told.applied.join(", "),
            without_effect = told.without_effect.join(", "),
            "the configuration was read again"
        );
        if !told.needs_restart.is_empty() {
            tracing::warn!(
                code = "config_needs_restart",
                keys = told.needs_restart.join(", "),
                "these need a restart to take effect; restart when it suits"
            );
        }
        told.warnings.iter().for_each(|warning| tracing::warn!(code = "config_to_know", "{warning}"));
        told
    }

    fn refused(&self, whence: &str, errors: &ConfigErrors) {
        self.metrics.count("refused");
        let first = errors.errors.first().and_then(|error| error.place);
        let place = first.map(|place| format!(" (line {}, column {})", place.line, place.column)).unwrap_or_default();
        if let Some(latch) = &self.latch {
            latch.down(format!(
                "the configuration was to be read again and cannot be used{place}; what was in force before still is (the log says more)"
            ));
        }
        let kept =
            self.last_good.as_ref().map(|kept| format!("; the files that were good last are in {}", kept.directory()));
        let kept = kept.unwrap_or_default();
        tracing::error!(
            code = "config_refused",
            asked_by = whence,
            "the configuration cannot be used; what was in force before still is{kept}; correct it and have it read again: {errors}"
        );
    }

    fn keep(&self, loaded: &Loaded) {
        if let Some(last_good) = &self.last_good
            && let Err(error) = last_good.save(loaded)
        {
            let directory = last_good.directory();
            tracing::warn!(
                code = "config_not_kept",
                %error,
                "the configuration, which is good, could not be kept in {directory}; check the disk and the rights there"
            );
        }
    }
}
