//! `broker.toml` while the program runs: users and access rules are read again when the file changes, all or nothing.
//!
//! The file is looked at every two seconds, and taken when two looks in a row find the same: an editor that empties and writes it is not
//! caught in between. A file that cannot be used leaves in force what is, and says so in the log (with line, column and key), in health (with line and
//! column: it is open to everybody) and in metrics. What cannot change without a restart is named in the log. Who asks for a reload
//! ([`super::configuration`]) does not wait for the second look.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tokio_util::sync::CancellationToken;

use super::supervise::{Stage, Supervisor};
use crate::{
    broker::BrokerHandle,
    config::{ConfigErrors, Loaded},
    telemetry::{
        metrics::Registry,
        readiness::{Latch, Readiness},
    },
};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    line: u64,
    column: u64,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    reloads: Family<Outcome, Counter>,
    errors: Family<At, Gauge>,
}

/// What the file held at a look: its text, or why there is none.
type Found = Result<String, ConfigErrors>;

/// Looks at the file and tells the broker.
#[derive(Clone)]
pub(super) struct Reloads {
    loaded: Arc<Loaded>,
    metrics: Metrics,
}

impl Reloads {
    /// `None` where no file was read at the start: then there is none to look at.
    pub(super) fn new(loaded: &Loaded, registry: &mut Registry) -> Option<Self> {
        loaded.sources.broker.as_ref()?;
        let metrics = Metrics::default();
        let help = "Times a changed broker.toml was taken or refused";
        registry.register("sense_butler_broker_reloads", help, metrics.reloads.clone());
        let help =
            "Errors in broker.toml as it is now, by place (0: the file as a whole); what was in force before still is";
        registry.register("sense_butler_broker_file_errors", help, metrics.errors.clone());
        Some(Self { loaded: Arc::new(loaded.clone()), metrics })
    }
}

/// Looks at the file while the program runs, where there is one and a built-in broker to take it.
pub(super) fn watch(
    supervisor: &Supervisor,
    broker: Option<BrokerHandle>,
    reloads: Option<Reloads>,
    readiness: &Readiness,
) -> Option<Arc<Watched>> {
    let (broker, reloads) = broker.zip(reloads)?;
    let watched = Arc::new(Watched::new(reloads, broker, readiness.note("broker.toml")));
    let shared = Arc::clone(&watched);
    supervisor.restarting(Stage::Work, "broker.toml", move |stop| Arc::clone(&shared).run(stop));
    Some(watched)
}

/// The file as it was seen so far.
pub(super) struct Watched {
    reloads: Reloads,
    broker: BrokerHandle,
    latch: Latch,
    seen: Mutex<Seen>,
}

struct Seen {
    /// What was seen last, as text or error text, and whether it was dealt with.
    last: Option<Result<String, String>>,
    settled: bool,
}

impl Watched {
    fn new(reloads: Reloads, broker: BrokerHandle, latch: Latch) -> Self {
        latch.up();
        let last = reloads.loaded.broker_read.as_ref().map(|text| Ok(text.expose().to_owned()));
        let seen = Mutex::new(Seen { settled: last.is_some(), last });
        Self { reloads, broker, latch, seen }
    }

    /// Looks until the stop.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let look = || {
            let loaded = Arc::clone(&self.reloads.loaded);
            tokio::task::spawn_blocking(move || loaded.broker_text())
        };
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if let Ok(Some(found)) = look().await {
                self.see(found);
            }
        }
    }

    /// Takes a text at once, unless it is what is in force. Answers whether it was taken, and words of what waits for a restart.
    ///
    /// # Errors
    /// If it cannot be used; then nothing has changed.
    pub(super) fn now(&self, text: &str) -> Result<(bool, Vec<&'static str>), ConfigErrors> {
        let settings = self.reloads.loaded.broker_from(text)?;
        let mut seen = self.seen.lock();
        let known = seen.settled && matches!(&seen.last, Some(Ok(last)) if last == text);
        if !known {
            *seen = Seen { last: Some(Ok(text.to_owned())), settled: true };
            self.take(&settings);
        }
        Ok((!known, self.reloads.loaded.broker.needs_restart(&settings)))
    }

    /// One look.
    fn see(&self, found: Found) {
        let text = found.clone().map_err(|errors| errors.to_string());
        let mut seen = self.seen.lock();
        if seen.last.as_ref() != Some(&text) {
            *seen = Seen { last: Some(text), settled: false };
        } else if !seen.settled {
            seen.settled = true;
            match found.and_then(|text| self.reloads.loaded.broker_from(&text)) {
                Ok(settings) => self.take(&settings),
                Err(errors) => self.refuse(&errors),
            }
        }
    }

    fn take(&self, settings: &crate::broker::settings::Settings) {
        self.broker.reload(settings);
        self.reloads.metrics.errors.clear();
        self.reloads.metrics.reloads.get_or_create(&Outcome { result: "taken" }).inc();
        self.latch.up();
        tracing::info!(
            users = settings.users.len(),
            rules = settings.access.len(),
            "broker.toml: users and access rules are in force"
        );
        let started = &self.reloads.loaded.broker;
        for key in started.needs_restart(settings) {
            tracing::warn!(
                code = "broker_file_needs_restart",
                key,
                "broker.toml: this differs from what was read at the start and needs a restart to take effect; restart when it suits"
            );
        }
        if settings.users.is_empty() && !started.users.is_empty() {
            tracing::warn!(
                code = "broker_file_without_users",
                "broker.toml names no users any more; nobody comes in without one until the program is restarted; write users there, or restart"
            );
        }
    }

    fn refuse(&self, errors: &ConfigErrors) {
        let metrics = &self.reloads.metrics;
        metrics.reloads.get_or_create(&Outcome { result: "refused" }).inc();
        metrics.errors.clear();
        for error in &errors.errors {
            let place = error.place.map_or((0, 0), |place| (place.line, place.column));
            let number = |number| u64::try_from(number).unwrap_or(u64::MAX);
            metrics.errors.get_or_create(&At { line: number(place.0), column: number(place.1) }).set(1);
        }
        let first = errors.errors.first().and_then(|error| error.place);
        let place = first.map(|place| format!(" at line {}, column {}", place.line, place.column)).unwrap_or_default();
        self.latch.down(format!(
            "broker.toml cannot be used{place}; the users and rules of before are in force (the log says more)"
        ));
        tracing::error!(
            code = "broker_file_refused",
            "broker.toml cannot be used; the users and access rules of before stay in force; correct it, it is read again by itself: {errors}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::Broker,
        config::{self, LoadOptions},
        telemetry::metrics,
    };

    const USER: &str = "[[users]]\nname = \"x\"\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$WHgXdLzGYQzM5OY8nXrwVaYqE9NQbyyHQDf6gG1+mDE\"\n";

    struct Scene {
        watched: Watched,
        readiness: Readiness,
        registry: Registry,
    }

    impl Scene {
        fn new() -> Self {
            let mut loaded = config::built_in(&LoadOptions::default()).unwrap();
            loaded.broker = loaded.broker_from(USER).unwrap();
            loaded.broker.listeners.clear();
            // Scenes go on side by side, and nothing is written beside the sources.
            loaded.broker.storage.directory = None;
            loaded.broker_read = Some(crate::names::Secret::new(USER));
            loaded.sources.broker = Some("no such directory/broker.toml".into());
            let (mut registry, readiness) = (Registry::default(), Readiness::new());
            let reloads = Reloads::new(&loaded, &mut registry).unwrap();
            let broker = Broker::bind(&loaded.broker, &mut registry).unwrap();
            let latch = readiness.note("broker.toml");
            Self { watched: Watched::new(reloads, broker.handle(), latch), readiness, registry }
        }

        /// Two looks at a text; what health says afterwards, empty if all is well.
        fn twice(&mut self, text: &str) -> String {
            for _ in 0..2 {
                self.watched.see(Ok(text.to_owned()));
            }
            let part = self.readiness.parts().remove(0);
            assert_eq!(part.ready, part.detail.is_empty());
            part.detail
        }

        fn has_user(&self, name: &str) -> bool {
            self.watched.broker.user_names().iter().any(|known| **known == *name)
        }

        fn says(&self, line: &str) -> bool {
            metrics::encode(&self.registry).contains(line)
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_when_it_rests() {
        let mut scene = Scene::new();
        assert_eq!(scene.twice(USER), "");
        let other = USER.replace("\"x\"", "\"y\"");
        scene.watched.see(Ok(String::new()));
        scene.watched.see(Ok(other.clone()));
        assert!(scene.has_user("x"), "neither the empty file nor the new one was seen twice");
        scene.watched.see(Ok(other));
        assert!(scene.has_user("y") && !scene.has_user("x"));
        assert!(scene.says("sense_butler_broker_reloads_total{result=\"taken\"} 1"));
    }

    #[tokio::test]
    async fn a_broken_file_changes_nothing_and_says_where() {
        let mut scene = Scene::new();
        scene.twice(USER);
        for broken in ["[[users]]\nname = \n", "[[users]]\nname = \"x\"\npassword_hash = \"\"\n", "[limit]\n"] {
            let said = scene.twice(broken);
            assert!(said.contains("at line ") && scene.has_user("x"), "{said}");
        }
        assert!(scene.says("sense_butler_broker_file_errors{line=\"1\",column=\"2\"} 1"));
        assert!(scene.says("sense_butler_broker_reloads_total{result=\"refused\"} 3"));
        let missing = scene.watched.reloads.loaded.broker_text().unwrap();
        assert!(missing.is_err());
        scene.watched.see(missing.clone());
        scene.watched.see(missing);
        assert!(scene.has_user("x") && scene.says("sense_butler_broker_file_errors{line=\"0\",column=\"0\"} 1"));
        assert_eq!(scene.twice(USER), "", "what is in force is written again");
        assert!(!scene.says("sense_butler_broker_file_errors{"));
    }

    #[tokio::test]
    async fn who_asks_does_not_wait_for_the_second_look() {
        let mut scene = Scene::new();
        let other = USER.replace("\"x\"", "\"y\"");
        assert!(!scene.watched.now(USER).unwrap().0, "it is in force");
        let (taken, waits) = scene.watched.now(&format!("{other}[limits]\nclients = 7\n")).unwrap();
        assert!(taken && waits.contains(&"limits"), "{waits:?}");
        assert!(scene.has_user("y"));
        assert!(scene.watched.now("[limit]\n").is_err() && scene.has_user("y"));
        assert_eq!(scene.twice(&format!("{other}[limits]\nclients = 7\n")), "");
        assert!(scene.says("sense_butler_broker_reloads_total{result=\"taken\"} 1"), "the look finds it settled");
    }

    #[tokio::test]
    async fn an_emptied_file_leaves_nobody() {
        let mut scene = Scene::new();
        scene.twice(USER);
        assert_eq!(scene.twice(""), "");
        assert!(scene.watched.broker.user_names().is_empty());
    }
}
