//! Executions on their topics: every change of a followed one to `<own topics>/task/<task id>/execution`, as JSON, QoS 1, not retained.
//!
//! Invariant: nobody waits for this part. Changes wait in the follower's channel, which is bounded; what does not fit there, and what the broker does
//! not take, is counted with its reason.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, PUBLISH_TIMEOUT, Properties, Publication, PublishError},
    names::{NameError, QoS, TopicName},
    sense::tasks::{Execution, Follower},
    telemetry::throttle::Throttle,
};

/// Time after the stop signal for changes already told.
const DRAIN: Duration = Duration::from_millis(300);

/// Label of `sense_butler_execution_messages_dropped_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    published: Counter,
    dropped: Family<Why, Counter>,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Changes of executions published on their topics";
        registry.register("sense_butler_execution_messages", help, metrics.published.clone());
        let help = "Changes of executions that were not published, by reason";
        registry.register("sense_butler_execution_messages_dropped", help, metrics.dropped.clone());
        metrics
    }

    fn drop(&self, reason: &'static str, number: u64) {
        static TOLD: Throttle = Throttle::every(Duration::from_secs(60));
        self.dropped.get_or_create(&Why { reason }).inc_by(number);
        if let Some(suppressed) = TOLD.pass() {
            tracing::warn!(
                code = "executions_dropped",
                reason,
                number,
                suppressed,
                "changes of executions were not published on their topics; REST (/api/v1/executions) has their state, and the lines before say what is wrong with the broker"
            );
        }
    }
}

/// The part that publishes them.
pub struct Executions {
    own_topics: TopicName,
    bus: Bus,
    follower: Follower,
    metrics: Metrics,
}

impl Executions {
    /// Builds it. Nothing is heard yet.
    ///
    /// # Errors
    /// If a topic below `own_topics` would be longer than MQTT allows.
    pub fn new(
        own_topics: &TopicName,
        bus: Bus,
        follower: Follower,
        registry: &mut Registry,
    ) -> Result<Self, NameError> {
        topic(own_topics, &crate::names::TaskId::ZERO)?;
        Ok(Self { own_topics: own_topics.clone(), bus, follower, metrics: Metrics::register(registry) })
    }

    /// Publishes changes until told to stop, then, for a moment, those that were told before.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.follower.changes();
        while let Some(change) = stop.run_until_cancelled(changes.recv()).await {
            match change {
                Ok(execution) => self.publish(&execution).await,
                Err(RecvError::Lagged(missed)) => self.metrics.drop("lagged", missed),
                Err(RecvError::Closed) => return,
            }
        }
        if tokio::time::timeout(DRAIN, self.drain(&mut changes)).await.is_err() {
            tracing::warn!(
                code = "executions_left_at_stop",
                left = changes.len(),
                "stopped before every change of an execution was published; look in the QMC how those tasks ended"
            );
        }
    }

    async fn drain(&self, changes: &mut broadcast::Receiver<Execution>) {
        loop {
            match changes.try_recv() {
                Ok(execution) => self.publish(&execution).await,
                Err(TryRecvError::Lagged(missed)) => self.metrics.drop("lagged", missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    async fn publish(&self, execution: &Execution) {
        let Ok(topic) = topic(&self.own_topics, &execution.task) else { return };
        // Texts, ids and numbers: writing them as JSON cannot fail.
        let json = serde_json::to_string(&execution.report()).unwrap_or_default();
        let properties = Properties {
            payload_is_utf8: true,
            content_type: Some("application/json".into()),
            ..Properties::default()
        };
        let publication = Publication { properties, ..Publication::new(topic, json).qos(QoS::AtLeastOnce) };
        match self.submit(publication).await {
            Ok(()) => drop(self.metrics.published.inc()),
            Err(error) => self.metrics.drop(word(&error), 1),
        }
    }

    /// Unlike [`Bus::publish`] it may wait for a connection: the channel holds what comes meanwhile.
    async fn submit(&self, publication: Publication) -> Result<(), PublishError> {
        self.bus.submit(publication).await?.wait(PUBLISH_TIMEOUT).await.map(drop)
    }
}

fn topic(own_topics: &TopicName, task: &crate::names::TaskId) -> Result<TopicName, NameError> {
    own_topics.join(&format!("task/{task}/execution"))
}

const fn word(error: &PublishError) -> &'static str {
    match error {
        PublishError::Unavailable(_) => "broker_unavailable",
        PublishError::Timeout(_) => "timeout",
        PublishError::TooLarge { .. } => "too_large",
        PublishError::Full(_) => "store_full",
        PublishError::Refused(_) => "refused",
    }
}
