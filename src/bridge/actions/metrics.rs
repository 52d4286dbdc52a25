//! What is counted about messages that ask for something.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::bus::PublishError;

/// Label of `sense_butler_action_messages_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    handler: &'static str,
}

/// Label of `sense_butler_action_answers_dropped_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// Counters of the action table. Cheap to clone; all clones count into the same numbers.
#[derive(Debug, Clone, Default)]
pub struct ActionMetrics {
    messages: Family<By, Counter>,
    dropped: Family<Why, Counter>,
    /// Whether the last answer could not be published: one line in the log when that begins, one when it ends.
    failing: Arc<AtomicBool>,
}

impl ActionMetrics {
    /// Hangs the metrics into a registry, under their full names.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Messages taken from the topics of the action table, by handler";
        registry.register("sense_butler_action_messages", help, self.messages.clone());
        let help = "Answers to messages that could not be published, by reason";
        registry.register("sense_butler_action_answers_dropped", help, self.dropped.clone());
    }

    pub(super) fn message(&self, handler: &'static str) {
        self.messages.get_or_create(&By { handler }).inc();
    }

    pub(super) fn published(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("answers to messages can be published again");
        }
    }

    pub(super) fn dropped(&self, error: &PublishError) {
        let reason = match error {
            PublishError::Unavailable(_) => "broker_unavailable",
            PublishError::Timeout(_) => "timeout",
            PublishError::TooLarge { .. } => "too_large",
            PublishError::Full(_) => "store_full",
            PublishError::Refused(_) => "refused",
        };
        self.dropped.get_or_create(&Why { reason }).inc();
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                code = "answer_dropped",
                %error,
                "the answer to a message could not be published, further ones are only counted; the lines before say what is wrong with the broker"
            );
        }
    }

    /// Answers dropped so far for a reason.
    pub fn answers_dropped(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&Why { reason }).get()
    }
}
