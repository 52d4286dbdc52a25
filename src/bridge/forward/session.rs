//! Session events to Butler's session topics and to what is derived from them: active users, per proxy and in total.
//!
//! Derived messages follow every event, as Butler's did, while the events can be kept up with. Behind a backlog they are made once for
//! several events: every one of them repeats the whole list, and only the last matters.

use super::{
    payload::{session_data, shown_user},
    publisher::{Publisher, Tally},
};
use crate::{
    bridge::{
        active_users::{ActiveUsers, Change},
        cloud_event,
    },
    bus::Publication,
    config::settings::{SessionTopics, SessionUser},
    names::TopicName,
    sense::event::{SessionEvent, SessionEventKind},
};

/// Events waiting behind one from which on derived messages are put off ...
const BACKLOG: usize = 64;
/// ... but for no more events than this.
const MAX_PUT_OFF: u32 = 1_000;

pub(super) struct Sessions {
    topics: Option<SessionTopics>,
    cloud_events: TopicName,
    users: ActiveUsers,
    /// What has not been told yet, and of how many events.
    pending: Change,
    put_off: u32,
}

impl Sessions {
    pub(super) fn new(topics: Option<SessionTopics>, cloud_events: TopicName, users: ActiveUsers) -> Self {
        Self { topics, cloud_events, users, pending: Change::None, put_off: 0 }
    }

    /// How much of a user's identity leaves. Without session topics nobody said that any of it may.
    fn mode(&self) -> SessionUser {
        self.topics.as_ref().map_or(SessionUser::None, |topics| topics.user)
    }

    /// The user of an event as it may be told, and whether that is all of it.
    pub(super) fn shown(&self, event: &SessionEvent) -> (String, bool) {
        let mode = self.mode();
        (shown_user(event, mode).path, mode == SessionUser::Full)
    }

    /// Counts the user of an event that is not published.
    pub(super) fn count(&mut self, event: &SessionEvent) {
        self.users.apply(event.kind, &event.host, &shown_user(event, self.mode()).key);
    }

    /// Publishes an event and what follows from it. `behind`: events that wait behind it.
    pub(super) async fn forward(&mut self, event: SessionEvent, behind: usize, publisher: &mut Publisher) {
        let tally = Tally::default();
        let mode = self.mode();
        let user = shown_user(&event, mode);
        if let Some(topics) = &self.topics {
            let payload = format!("{}: {}", event.host, user.path);
            publisher.send(Publication::new(topic(topics, event.kind).clone(), payload), &tally).await;
        }
        let data = session_data(&event, &user, mode);
        let subject = user.listed.is_some().then_some(user.path.as_str());
        let cloud_event = cloud_event::of_session(&event, subject, &data);
        self.note(self.users.apply(event.kind, &event.host, &user.key));
        if behind < BACKLOG || self.put_off >= MAX_PUT_OFF {
            self.derived(&tally, publisher).await;
        }
        publisher.send(Publication::new(self.cloud_events.clone(), cloud_event), &tally).await;
        publisher.end(tally).await;
    }

    /// Makes the derived messages that were put off, now that nothing waits.
    pub(super) async fn catch_up(&mut self, publisher: &mut Publisher) {
        if self.pending != Change::None {
            self.derived(&Tally::default(), publisher).await;
        }
    }

    fn note(&mut self, change: Change) {
        self.pending = match (self.pending, change) {
            (Change::Everything, _) | (_, Change::Everything) => Change::Everything,
            (Change::Totals, _) | (_, Change::Totals) => Change::Totals,
            (Change::None, Change::None) => Change::None,
        };
        self.put_off += 1;
    }

    async fn derived(&mut self, tally: &Tally, publisher: &mut Publisher) {
        let pending = std::mem::replace(&mut self.pending, Change::None);
        self.put_off = 0;
        let Some(topics) = self.topics.as_ref().filter(|_| pending != Change::None) else { return };
        if pending == Change::Everything {
            for (topic, count) in self.users.per_server() {
                publisher.send(Publication::new(topic, count.to_string()), tally).await;
            }
        }
        let count = self.users.count().to_string();
        publisher.send(Publication::new(topics.active_user_count.clone(), count), tally).await;
        if topics.user != SessionUser::None {
            let names = serde_json::Value::from_iter(self.users.names().iter().map(|name| name.to_string()));
            publisher.send(Publication::new(topics.active_users.clone(), names.to_string()), tally).await;
        }
    }
}

fn topic(topics: &SessionTopics, kind: SessionEventKind) -> &TopicName {
    match kind {
        SessionEventKind::SessionStarted => &topics.session_start,
        SessionEventKind::SessionStopped => &topics.session_stop,
        SessionEventKind::ConnectionOpened => &topics.connection_open,
        SessionEventKind::ConnectionClosed => &topics.connection_close,
    }
}
