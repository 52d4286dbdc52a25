//! Rights in the stream: who left a will, who owns a session, and what is left of its subscriptions when users and rules were replaced.
//!
//! Invariants: under a new policy every session is looked at once, a portion per round, so that a reload holds nobody; a subscription
//! that is not allowed any more is ended like by UNSUBSCRIBE, a session whose user is gone is ended as a whole, so that a user who comes back
//! is not told of a session without subscriptions; connections decide for themselves whether they may go on, and are woken to do so. Until
//! a session was looked at, its connection turns away what may not be delivered.

use std::sync::Arc;

use super::{Effects, Now, SessionKey, State};
use crate::{
    broker::{
        access::{Access, Ended, Policies},
        codec::Will,
        message::Origin,
        metrics::Lost,
        peer::Peer,
    },
    names::TopicFilter,
};

/// Sessions looked at per round.
const PORTION: usize = 128;

/// The policies as the stream follows them.
#[derive(Debug)]
pub(super) struct Guard {
    policies: Arc<Policies>,
    /// The generation whose sweep was begun last.
    generation: u64,
    /// Sessions from here on are still to be looked at.
    next: Option<SessionKey>,
}

impl State {
    /// From now on rights are looked after. Without this (in tests of the stream alone) everything is allowed.
    pub(in crate::broker) fn guarded(mut self, policies: Arc<Policies>) -> Self {
        let generation = policies.generation();
        self.guard = Some(Guard { policies, generation, next: None });
        self
    }

    /// What somebody may do now, given what they might do when it was found out.
    fn present(&self, access: &Arc<Access>) -> Arc<Access> {
        match &self.guard {
            Some(guard) if guard.policies.generation() != access.generation => guard.policies.present().renew(access).0,
            _ => Arc::clone(access),
        }
    }

    /// Whether a session may be resumed by a connection: not by another user than the one it belongs to.
    pub(super) fn is_owner(&self, key: SessionKey, peer: &Peer) -> bool {
        let owner = self.seats.get(key).and_then(|seat| seat.origin.as_ref()?.user.as_ref());
        owner.is_none_or(|owner| peer.origin.user.as_ref() == Some(owner))
    }

    /// A connection begins to serve a session: what it may not subscribe to, by the rules of today, is ended.
    pub(super) fn seated(&mut self, key: SessionKey, peer: &Peer, effects: &mut Effects) {
        let access = peer.access().map(|access| self.present(access));
        let Some(seat) = self.seats.get_mut(key) else { return };
        seat.access.clone_from(&access);
        if let Some(access) = access {
            self.end_denied(key, &access, effects);
        }
    }

    /// Whether a SUBSCRIBE that was judged under an earlier policy is allowed under this one.
    pub(super) fn may_still_subscribe(&self, key: SessionKey, filter: &TopicFilter) -> bool {
        let Some(guard) = &self.guard else { return true };
        // Under the first policy nothing can have changed since.
        let access = self.seats.get(key).and_then(|seat| seat.access.as_ref()).filter(|_| guard.generation > 1);
        access.is_none_or(|access| self.present(access).may_subscribe(filter))
    }

    /// Whether a will may be published now; a connection's rights, or, where they are not known any more, those of its user.
    pub(super) fn may_leave(&self, will: &Will, origin: Option<&Origin>, access: Option<&Arc<Access>>) -> bool {
        let Some(guard) = &self.guard else { return true };
        let access = match access {
            Some(access) => Some(self.present(access)),
            None => origin.and_then(|origin| guard.policies.present().access_of(origin)),
        };
        let may = access.is_none_or(|access| access.may_publish(&will.topic));
        if !may {
            self.metrics.dropped(Lost::NotAuthorized, 1);
            if let Some(suppressed) = self.metrics.may_say("will") {
                let why = "the client that left it may not publish there any more";
                tracing::info!(topic = will.topic, suppressed, "MQTT will not published: {why}");
            }
        }
        may
    }

    /// Looks at the next sessions, if the policy was replaced; whether there are more.
    pub(in crate::broker) fn sweep(&mut self, now: Now, effects: &mut Effects) -> bool {
        let Some(guard) = &mut self.guard else { return false };
        let generation = guard.policies.generation();
        if generation != guard.generation {
            (guard.generation, guard.next) = (generation, Some(0));
        }
        let Some(from) = guard.next else { return false };
        let keys: Vec<_> = self.seats.keys_from(from).take(PORTION).collect();
        guard.next = keys.last().filter(|_| keys.len() == PORTION).map(|last| last + 1);
        let more = guard.next.is_some();
        for key in keys {
            self.reconsider(key, now, effects);
        }
        self.metrics.subscriptions(self.index.len());
        more
    }

    fn reconsider(&mut self, key: SessionKey, now: Now, effects: &mut Effects) {
        let Some(guard) = &self.guard else { return };
        let policy = guard.policies.present();
        let Some(seat) = self.seats.get_mut(key) else { return };
        let (access, ended) = match (&seat.access, seat.origin.as_deref()) {
            (Some(access), _) => policy.renew(access),
            // A session of an earlier run whose client has not come back.
            (None, Some(origin)) if origin.user.is_some() => match policy.access_of(origin) {
                Some(access) => {
                    let ended = access.is_nobody().then_some(Ended::Nobody);
                    (access, ended)
                }
                None => return,
            },
            _ => return,
        };
        seat.access = Some(Arc::clone(&access));
        let peer = seat.peer.clone();
        if ended == Some(Ended::Nobody) {
            if let Some(suppressed) = self.metrics.revoked("session") {
                let client = &seat.session.client;
                tracing::info!(%client, suppressed, "MQTT session ended: its user is not in broker.toml any more");
            }
            self.end(key, now, effects);
        } else {
            self.end_denied(key, &access, effects);
        }
        // It sees by itself whether it may go on.
        if let Some(peer) = peer {
            peer.wake();
        }
    }

    fn end_denied(&mut self, key: SessionKey, access: &Access, effects: &mut Effects) {
        let Some(seat) = self.seats.get(key) else { return };
        let denied: Vec<_> = seat.filters.keys().filter(|filter| !access.may_subscribe(filter)).cloned().collect();
        for filter in denied {
            if let Some((seat, suppressed)) = self.seats.get(key).zip(self.metrics.revoked("subscription")) {
                let client = &seat.session.client;
                tracing::info!(%client, %filter, suppressed, "MQTT subscription ended: it is not allowed any more");
            }
            self.unsubscribe_one(key, &filter, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        broker::{
            access::{Who, tests::settings},
            admission::Window,
            codec::SubscribeOptions,
            message::Door,
            metrics::Metrics,
            session::{Marks, Session},
            settings::{Limits, User},
            stream::{Asked, seats::Seat},
        },
        names::{ClientId, QoS, Secret},
    };

    const NOW: fn() -> Now = || Now { ms: 0, instant: Instant::now() };

    fn users(names: &[&str]) -> Vec<User> {
        names.iter().map(|name| User::new(name, Secret::new("h"))).collect()
    }

    /// Sessions of away clients of two users in turn, each with one subscription.
    fn state(policies: &Arc<Policies>, sessions: usize) -> State {
        let metrics = Metrics::new(&mut Registry::default());
        let mut state = State::new(Limits::default(), Vec::new(), Window::new(1 << 20), Arc::default(), metrics)
            .guarded(Arc::clone(policies));
        let options =
            SubscribeOptions { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false, retain_handling: 0 };
        let asked = Asked { options, id: None, internal: false };
        for number in 0..sessions {
            let policy = policies.present();
            let user = Arc::clone(policy.user(["anna", "bo"][number % 2]).unwrap());
            let client = ClientId::new(number.to_string()).unwrap();
            let origin = Origin {
                door: Door::Mqtt,
                client: Some(client.clone()),
                user: Some(Arc::clone(&user.name)),
                may_start: true,
            };
            let mut seat = Seat::new(Arc::new(Session::new(client.clone(), Marks::of(1 << 20, 100), None)));
            seat.origin = Some(Arc::new(origin));
            // Every third is of an earlier run: only whose it was is known.
            let who = Who::User { user, by_password: true };
            seat.access = (number % 3 > 0).then(|| policy.access(who, &client, None));
            let filter = TopicFilter::new("a/#").unwrap();
            seat.filters.insert(filter.clone(), asked);
            let key = state.seats.insert(seat);
            state.index.subscribe(key, &filter, asked);
        }
        state
    }

    /// Sweeps to the end; how many rounds it takes.
    fn sweep(state: &mut State) -> usize {
        let mut effects = Effects::default();
        let rounds = (1..100).find(|_| !state.sweep(NOW(), &mut effects)).unwrap();
        assert!(!state.sweep(NOW(), &mut effects), "once is enough");
        rounds
    }

    #[test]
    fn every_session_is_looked_at_once_in_portions() {
        let policies = Arc::new(Policies::new(&settings(users(&["anna", "bo"]), vec![], false)));
        let mut state = state(&policies, 300);
        assert_eq!((sweep(&mut state), state.index.len()), (1, 300), "nothing changed: nothing to do");
        policies.replace(&settings(users(&["anna", "bo"]), vec![], false));
        assert_eq!((sweep(&mut state), state.index.len()), (3, 300), "nothing that matters changed");
        let mut narrow = users(&["anna", "bo"]);
        narrow[0].subscribe = Some(vec![TopicFilter::new("b/#").unwrap()]);
        policies.replace(&settings(narrow, vec![], false));
        assert_eq!((sweep(&mut state), state.index.len(), state.seats.len()), (3, 150, 300), "anna's are ended");
        policies.replace(&settings(users(&["anna"]), vec![], false));
        sweep(&mut state);
        assert_eq!((state.index.len(), state.seats.len()), (0, 150), "bo's sessions are gone");
    }

    #[test]
    fn a_policy_replaced_under_way_is_swept_from_the_beginning() {
        let policies = Arc::new(Policies::new(&settings(users(&["anna", "bo"]), vec![], false)));
        let mut state = state(&policies, 300);
        policies.replace(&settings(users(&["anna", "bo"]), vec![], false));
        assert!(state.sweep(NOW(), &mut Effects::default()));
        policies.replace(&settings(users(&["bo"]), vec![], false));
        sweep(&mut state);
        assert_eq!(state.seats.len(), 150);
    }

    #[test]
    fn a_will_of_an_earlier_run_is_judged_by_whose_it_was() {
        let policies = Arc::new(Policies::new(&settings(users(&["anna"]), vec![], false)));
        let state = state(&policies, 0);
        let will = |topic: &str| Will {
            topic: topic.to_owned(),
            payload: Default::default(),
            qos: QoS::AtMostOnce,
            retain: false,
            delay: 0,
            expiry: None,
            properties: Default::default(),
        };
        let by = |user: Option<&str>| Origin {
            door: Door::Mqtt,
            client: Some(ClientId::new("c").unwrap()),
            user: user.map(Arc::from),
            may_start: false,
        };
        for (user, topic, expected) in [
            (Some("anna"), "x", true),
            (Some("anna"), "q/own/x", false),
            (Some("anna"), "q/start", false),
            (Some("gone"), "x", false),
            (None, "x", true),
            (None, "q/start", false),
        ] {
            assert_eq!(state.may_leave(&will(topic), Some(&by(user)), None), expected, "{user:?} {topic}");
        }
    }
}
