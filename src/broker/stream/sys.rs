//! `$SYS/broker/...`: what the broker says of itself, every ten seconds while somebody listens.
//!
//! Nothing of it is kept among the retained messages: a new subscriber gets values made for it (at most a second old) with the RETAIN flag, and
//! live ones follow. They go out with QoS 0, so that nothing piles up for somebody who is away. Averages move also while nobody listens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Asked, Effects, Now, SessionKey, State};
use crate::{
    broker::{
        envelope::{Draft, Message, PublishDraft},
        seen::{Load, Stats, sys_topics},
    },
    names::{QoS, TopicFilter},
};

/// Its first level.
const SYS: &str = "$SYS";
/// From one publication to the next.
const EVERY: Duration = Duration::from_secs(10);
/// How old values may be.
const FRESH: Duration = Duration::from_secs(1);

/// What is remembered from one value to the next.
#[derive(Debug)]
pub(super) struct Sys {
    began: Instant,
    began_ms: u64,
    stepped: Option<Instant>,
    load: Load,
    stats: Option<(Instant, Stats)>,
    messages: Option<(Instant, Vec<Arc<Message>>)>,
}

impl Sys {
    pub(super) fn new(now: Now) -> Self {
        Self { began: now.instant, began_ms: now.ms, stepped: None, load: Load::default(), stats: None, messages: None }
    }
}

/// What was made at a time, if that is not too long ago.
fn fresh<T>(made: Option<&(Instant, T)>, now: Instant) -> Option<&T> {
    made.filter(|(at, _)| now.saturating_duration_since(*at) < FRESH).map(|(_, value)| value)
}

impl State {
    /// The numbers of the whole broker, counted at most once a second: every session is looked at.
    pub(super) fn stats(&mut self, now: Now) -> Stats {
        if let Some(stats) = fresh(self.sys.stats.as_ref(), now.instant) {
            return stats.clone();
        }
        let stats = self.count(now);
        self.sys.stats = Some((now.instant, stats.clone()));
        stats
    }

    fn count(&self, now: Now) -> Stats {
        let mut stats = Stats {
            uptime: now.instant.saturating_duration_since(self.sys.began),
            since: self.sys.began_ms,
            subscriptions: self.index.len(),
            shared_subscriptions: self.index.shared(),
            retained: self.retained.topics(),
            retained_bytes: self.retained.bytes(),
            loads: self.sys.load.averages(),
            ..self.metrics.stats()
        };
        for (_, seat) in self.seats.iter() {
            if seat.is_client() {
                stats.connected += usize::from(seat.peer.is_some());
                stats.disconnected += usize::from(seat.peer.is_none());
            }
            let (messages, bytes) = seat.session.depth();
            stats.queued += messages;
            stats.queued_bytes += bytes;
            stats.in_flight += seat.session.handshakes.lock().in_flight();
        }
        stats.maximum = stats.maximum.max(stats.connected);
        stats
    }

    /// Time passed: the averages move, gauges that are counted are set, and who listens is told.
    pub(super) fn tick_sys(&mut self, now: Now, effects: &mut Effects) {
        let since = now.instant.saturating_duration_since(self.sys.stepped.unwrap_or(self.sys.began));
        if since < EVERY {
            return;
        }
        self.sys.stepped = Some(now.instant);
        self.sys.load.step(self.metrics.loads(), since.as_secs_f64());
        (self.sys.stats, self.sys.messages) = (None, None);
        let stats = self.stats(now);
        self.metrics.counted(&stats);
        if self.index.reaches(SYS) {
            for message in self.sys_messages(now) {
                self.route(Message::clone(&message), None, effects);
            }
        }
    }

    /// The present values for a new subscription.
    pub(super) fn send_sys(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        asked: Asked,
        now: Now,
        effects: &mut Effects,
    ) {
        if !is_sys(filter.as_str()) {
            return;
        }
        for message in self.sys_messages(now) {
            if filter.matches(message.topic_str()) {
                self.stage_retained(key, message, asked, effects);
            }
        }
    }

    fn sys_messages(&mut self, now: Now) -> Vec<Arc<Message>> {
        if let Some(messages) = fresh(self.sys.messages.as_ref(), now.instant) {
            return messages.clone();
        }
        let topics = sys_topics(&self.stats(now));
        let messages: Vec<_> = topics.iter().filter_map(|(name, value)| message(name, value, now)).collect();
        self.sys.messages = Some((now.instant, messages.clone()));
        messages
    }
}

/// Whether a topic or filter lies there.
pub(super) fn is_sys(text: &str) -> bool {
    text.split('/').next() == Some(SYS)
}

fn message(name: &str, value: &str, now: Now) -> Option<Arc<Message>> {
    let topic = format!("{SYS}/broker/{name}");
    let draft = Draft::publish(&PublishDraft {
        topic: topic.as_bytes(),
        properties: &[],
        payload: value.as_bytes(),
        qos: QoS::AtMostOnce,
        retain: true,
        dup: false,
        packet_id: 0,
        received: now.ms,
        expires: 0,
    });
    Message::read(draft.stamp(0, 0)).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::sync::Notify;

    use super::*;
    use crate::broker::{admission::Window, codec::SubscribeOptions, metrics::Metrics, settings::Limits};

    #[test]
    fn values_are_made_only_while_a_filter_reaches_them() {
        let metrics = Metrics::new(&mut Registry::default());
        let mut state = State::new(Limits::default(), Vec::new(), Window::new(1), Arc::new(Notify::new()), metrics);
        let mut now = Now { ms: 1, instant: state.sys.began };
        let options =
            SubscribeOptions { qos: QoS::AtMostOnce, no_local: false, retain_as_published: false, retain_handling: 0 };
        let asked = Asked { options, id: None, internal: false };
        let filters = [("#", false), ("+/broker/#", false), ("$SYSTEM/#", false), ("$SYS/#", true), ("$SYS/+/x", true)];
        let mut ran = 0;
        for (filter, listens) in filters.into_iter().chain([("$share/g/$SYS/broker/uptime", true)]) {
            let filter = TopicFilter::new(filter).unwrap();
            for subscribed in [true, false] {
                if subscribed {
                    state.index.subscribe(1, &filter, asked);
                } else {
                    state.index.unsubscribe(1, &filter);
                }
                now.instant += EVERY;
                state.tick_sys(now, &mut Effects::default());
                assert_eq!(state.sys.messages.is_some(), listens && subscribed, "{filter} {subscribed}");
                ran += 1;
            }
        }
        assert_eq!(ran, 12);
        // Before its time nothing is made, and nothing is ever kept.
        state.index.subscribe(1, &TopicFilter::new("$SYS/#").unwrap(), asked);
        now.instant += EVERY - Duration::from_millis(1);
        state.tick_sys(now, &mut Effects::default());
        assert!(state.sys.messages.is_none());
        now.instant += Duration::from_millis(1);
        state.tick_sys(now, &mut Effects::default());
        assert_eq!((state.sys.messages.as_ref().unwrap().1.len(), state.retained.topics()), (53, 0));
    }
}
