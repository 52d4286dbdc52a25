//! What the client may do, asked for every message both ways: the last answer of each kind is remembered, until the policy changes.
//!
//! Invariant: no lock is taken here; that users and rules were replaced is seen by one load per turn of the connection's loop.

use super::{End, link::Link, meter::Meter};
use crate::broker::{access::Access, settings::Limits};

/// The last answers: publishers and subscribers mostly stay with a topic for a while.
#[derive(Debug)]
pub(super) struct Verdicts {
    publish: (String, bool),
    receive: (String, bool),
    /// Whether deliveries are looked at at all: not while every one comes by a subscription that was made under this policy and no rule is
    /// about receiving.
    sieve: bool,
}

impl Verdicts {
    /// `resumed`: the session was there before, and holds what was queued under the rules of then.
    pub(super) fn new(access: &Access, resumed: bool) -> Self {
        let none = || (String::new(), false);
        Self { publish: none(), receive: none(), sieve: resumed || access.sieves() }
    }

    /// The topic that was published on last.
    pub(super) fn published(&self) -> &str {
        &self.publish.0
    }
}

impl Meter {
    /// For a client: by the user's own keys, or the limits for everybody.
    pub(super) fn of(access: &Access, limits: &Limits) -> Option<Box<Self>> {
        if access.is_internal() { None } else { Self::new(access.rate().unwrap_or(limits.rate)) }
    }
}

impl Link {
    /// Takes over users and rules that were replaced; the end of the connection if its client has no place in them.
    pub(super) fn renew(&mut self) -> Result<(), End> {
        if self.hub.policies.generation() == self.access.generation {
            return Ok(());
        }
        let (access, ended) = self.hub.policies.present().renew(&self.access);
        if let Some(ended) = ended {
            let end = End::Kicked(ended.kick());
            if let Some(suppressed) = self.hub.metrics.may_say(end.reason()) {
                tracing::warn!(code = "mqtt_client_revoked", client = %self.session.client, suppressed, "MQTT client is disconnected: {ended}");
            }
            return Err(end);
        }
        // What was queued before passed under other rules.
        self.verdicts = Verdicts::new(&access, true);
        if access.rate() != self.access.rate() {
            self.meter = Meter::of(&access, &self.hub.limits);
        }
        self.access = access;
        Ok(())
    }

    pub(super) fn may_publish(&mut self, topic: &str) -> bool {
        let (last, verdict) = &mut self.verdicts.publish;
        if last != topic {
            let levels = topic.split('/').count() <= self.hub.limits.topic_levels;
            *verdict = levels && self.access.may_publish(topic);
            topic.clone_into(last);
        }
        *verdict
    }

    /// Whether deliveries have to be asked about.
    pub(super) fn sieves(&self) -> bool {
        self.verdicts.sieve
    }

    pub(super) fn may_receive(&mut self, topic: &str) -> bool {
        let (last, verdict) = &mut self.verdicts.receive;
        if last != topic {
            *verdict = self.access.may_receive(topic);
            topic.clone_into(last);
        }
        *verdict
    }
}
