//! What follows from what happens on the connection: acknowledgements to the outbox, messages to the inbox, and a word about what went wrong.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Shared, claims::Arrival, outbox::Drop};
use crate::{
    bus::{Delivery, PublishError, wire::Event},
    telemetry::throttle::Throttle,
};

impl Shared {
    /// How often the broker answered a message, well or not.
    pub(super) fn answers(&self) -> u64 {
        self.metrics.answered.load(Ordering::Relaxed)
    }

    /// What follows from an event of the connection.
    pub(super) fn take(&self, event: Event) {
        match event {
            Event::Sent(identifier) => self.outbox().sent(identifier),
            Event::Acknowledged(identifier, refusal) => self.acknowledged(identifier, refusal),
            Event::Subscribed(answers) => self.subscribed(answers),
            Event::Delivery(delivery) => {
                self.metrics.received.inc();
                self.delivered(*delivery);
            }
            Event::Connected(_) | Event::Disconnected | Event::Other => {}
        }
    }

    fn delivered(&self, delivery: Delivery) {
        let claim = match delivery.packet_id.map(|id| self.claims.arrived(id, &delivery)) {
            None => None,
            Some(Arrival::New(claim)) => Some(claim),
            Some(Arrival::Known) => return,
        };
        self.slow(&self.inbox.deliver(&delivery, claim));
    }

    fn acknowledged(&self, identifier: u16, refusal: Option<String>) {
        static REFUSED: Throttle = Throttle::every(Duration::from_secs(10));
        self.metrics.answered.fetch_add(1, Ordering::Relaxed);
        let reason = refusal.clone().unwrap_or_default();
        let (refused, empty) = {
            let mut outbox = self.outbox();
            (outbox.acknowledged(identifier, refusal), outbox.fill().messages == 0)
        };
        self.work.notify_one();
        if empty {
            self.emptied.notify_one();
        }
        let Some(message) = refused else {
            self.metrics.acknowledged.inc();
            return;
        };
        self.metrics.dropped(Drop::Refused.as_str(), 1);
        if let Some(suppressed) = REFUSED.pass() {
            tracing::error!(
                code = "external_refused",
                topic = %message.topic,
                suppressed,
                "the MQTT broker at {} refused a message: {reason}; allow the user of mqttConfig.brokerUser to publish there",
                self.broker
            );
        }
    }

    fn subscribed(&self, answers: Vec<Option<String>>) {
        for reason in answers.into_iter().flatten() {
            let text = format!("it refused a subscription: {reason}");
            tracing::error!(
                code = "external_subscription_refused",
                "MQTT broker at {}: {text}; starting tasks by MQTT will not work until the user of mqttConfig.brokerUser may subscribe there",
                self.broker
            );
            *self.error.lock() = Some(text);
        }
    }

    fn slow(&self, names: &[String]) {
        static SLOW: Throttle = Throttle::every(Duration::from_secs(10));
        if names.is_empty() {
            return;
        }
        self.metrics.dropped("subscriber_slow", names.len());
        if let Some(suppressed) = SLOW.pass() {
            tracing::error!(
                code = "external_reader_slow",
                ?names,
                suppressed,
                "message from the MQTT broker dropped: a part of the program is too slow for it; look whether this machine is busy"
            );
        }
    }

    /// Messages that came before the broker told its limit.
    pub(super) fn drop_oversized(&self) {
        loop {
            let mut outbox = self.outbox();
            let Some((number, size, limit)) = outbox.oversized() else { return };
            let error = PublishError::TooLarge { size, limit };
            let text = error.to_string();
            let dropped = outbox.take(number, Err(error));
            drop(outbox);
            let topic = dropped.map(|message| message.topic.to_string());
            self.metrics.dropped(Drop::TooLarge.as_str(), 1);
            tracing::error!(
                code = "external_too_large",
                topic,
                "message for the MQTT broker at {} given up: {text}; raise its limit or send less",
                self.broker
            );
        }
    }
}
