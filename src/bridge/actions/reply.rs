//! Where the answer to a message goes: to its Response Topic with its Correlation Data (MQTT 5.0 section 4.10), else to the handler's own
//! response topic.
//!
//! Invariant: a Response Topic that the program listens to, that belongs to it or that begins with `$` is not used: answering there would
//! start tasks, loop, or forge the program's own events. The answer then goes to the handler's response topic.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};

use super::metrics::ActionMetrics;
use crate::{
    bus::{Bus, Delivery, Properties, Publication, PublishError},
    names::{QoS, TopicFilter, TopicName},
};

/// Pauses before an answer is offered again to a broker that cannot be reached.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];

/// Topics no answer may go to.
#[derive(Debug)]
pub(super) struct Doors {
    /// What the program listens to and what it alone publishes on.
    pub taken: Vec<TopicFilter>,
    /// Prefix of its own topics.
    pub own: TopicName,
}

impl Doors {
    fn may_answer(&self, topic: &TopicName) -> bool {
        let text = topic.as_str();
        let own = text.strip_prefix(self.own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !own && !text.starts_with('$') && !self.taken.iter().any(|filter| filter.matches(text))
    }
}

/// The way back to who asked.
pub struct Reply {
    bus: Bus,
    topic: TopicName,
    correlation_data: Option<Bytes>,
    metrics: ActionMetrics,
}

impl Reply {
    pub(super) fn new(
        doors: &Arc<Doors>,
        delivery: &Delivery,
        default: &TopicName,
        bus: &Bus,
        metrics: &ActionMetrics,
    ) -> Self {
        let wanted = delivery.properties.response_topic.as_ref().filter(|topic| doors.may_answer(topic));
        Self {
            bus: bus.clone(),
            topic: wanted.unwrap_or(default).clone(),
            correlation_data: delivery.properties.correlation_data.clone(),
            metrics: metrics.clone(),
        }
    }

    /// The way back, as it is kept over a restart.
    pub fn address(&self) -> Value {
        let correlation = self.correlation_data.as_ref().map(|data| data.to_vec());
        json!({"topic": self.topic.as_str(), "correlation": correlation})
    }

    /// The way back of an earlier life of the program; to `default` where it cannot be read, or must not be gone any more.
    pub(super) fn back(
        doors: &Doors,
        address: &Value,
        default: &TopicName,
        bus: &Bus,
        metrics: &ActionMetrics,
    ) -> Self {
        let topic = address.get("topic").and_then(Value::as_str).and_then(|topic| TopicName::new(topic).ok());
        let bytes = address.get("correlation").and_then(Value::as_array);
        let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
        Self {
            bus: bus.clone(),
            topic: topic.filter(|topic| doors.may_answer(topic)).unwrap_or_else(|| default.clone()),
            correlation_data: bytes
                .and_then(|bytes| bytes.iter().map(byte).collect::<Option<Vec<u8>>>())
                .map(Bytes::from),
            metrics: metrics.clone(),
        }
    }

    /// Publishes one JSON answer and waits for the broker's word. An answer that cannot be published is counted; what was asked for was done.
    pub async fn send(&self, json: String) {
        let json = Bytes::from(json);
        let mut pauses = AGAIN.iter();
        loop {
            let error = match self.bus.publish(self.publication(json.clone())).await {
                Ok(_) => return self.metrics.published(),
                Err(error) => error,
            };
            // Only where the broker certainly has not taken it: no answer comes twice.
            match pauses.next().filter(|_| matches!(error, PublishError::Unavailable(_))) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return self.metrics.dropped(&error),
            }
        }
    }

    fn publication(&self, payload: Bytes) -> Publication {
        Publication {
            topic: self.topic.clone(),
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties {
                payload_is_utf8: true,
                content_type: Some("application/json".into()),
                correlation_data: self.correlation_data.clone(),
                ..Properties::default()
            },
            origin: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_never_go_where_the_program_listens_or_speaks_for_itself() {
        let name = |text: &str| TopicName::new(text).unwrap();
        let doors = Doors {
            taken: vec![name("qliksense/start_task").into(), TopicFilter::new("qliksense/task_failure/#").unwrap()],
            own: name("qliksense/butler"),
        };
        let cases = [
            ("plant/7/answers", true),
            ("qliksense/start_task/response", true),
            ("qliksense/butlers", true),
            ("qliksense/start_task", false),
            ("qliksense/butler", false),
            ("qliksense/butler/ping", false),
            ("qliksense/butler/state", false),
            ("qliksense/task_failure", false),
            ("$SYS/x", false),
        ];
        for (topic, allowed) in cases {
            assert_eq!(doors.may_answer(&name(topic)), allowed, "{topic}");
        }
    }
}
