//! How a session gets a message that several of its filters match: one copy, by the most generous of them.
//!
//! Invariant: of overlapping filters those with No Local have no part in messages of the client itself, and all others do.

use std::sync::Arc;

use super::index::{Asked, SessionKey};
use crate::names::QoS;

/// One session a topic goes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Match {
    pub session: SessionKey,
    /// By all its filters together.
    pub grant: Grant,
    /// For messages of the client itself, where filters have No Local: those without it alone, if any (`[MQTT-3.8.3-3]`).
    own: Option<Option<Grant>>,
}

/// How a session gets a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grant {
    pub qos: QoS,
    pub retain_as_published: bool,
    pub ids: Option<Arc<[u32]>>,
}

impl Match {
    /// Whether it matters who published.
    pub(super) fn asks_who(&self) -> bool {
        self.own.is_some()
    }

    /// How the session gets the message, if at all; `own`: its client published it.
    pub(super) fn grant(&self, own: bool) -> Option<&Grant> {
        match &self.own {
            Some(granted) if own => granted.as_ref(),
            _ => Some(&self.grant),
        }
    }
}

/// The filters of one session that match.
#[derive(Default)]
pub(super) struct Merging {
    all: Merged,
    /// Those without No Local.
    others: Merged,
    no_local: bool,
}

impl Merging {
    pub(super) fn add(&mut self, asked: &Asked) {
        self.all.add(asked);
        if asked.options.no_local {
            self.no_local = true;
        } else {
            self.others.add(asked);
        }
    }

    /// `None`: there was no filter.
    pub(super) fn finish(self, session: SessionKey) -> Option<Match> {
        let own = self.no_local.then(|| self.others.finish());
        Some(Match { session, grant: self.all.finish()?, own })
    }
}

/// Of overlapping filters the more generous one counts.
#[derive(Default)]
struct Merged {
    qos: Option<QoS>,
    retain_as_published: bool,
    ids: Vec<u32>,
}

impl Merged {
    fn add(&mut self, asked: &Asked) {
        self.qos = self.qos.max(Some(asked.options.qos));
        self.retain_as_published |= asked.options.retain_as_published;
        self.ids.extend(asked.id);
    }

    fn finish(self) -> Option<Grant> {
        let ids = (!self.ids.is_empty()).then(|| Arc::from(self.ids));
        self.qos.map(|qos| Grant { qos, retain_as_published: self.retain_as_published, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::codec::SubscribeOptions;

    fn merged(filters: &[Asked]) -> Match {
        let mut merging = Merging::default();
        filters.iter().for_each(|asked| merging.add(asked));
        merging.finish(1).unwrap()
    }

    #[test]
    fn no_local_concerns_its_own_filter_alone() {
        let options =
            SubscribeOptions { qos: QoS::ExactlyOnce, no_local: true, retain_as_published: true, retain_handling: 0 };
        let deaf = |id| Asked { options, id: Some(id), internal: false };
        let other = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        let found = merged(&[deaf(4), deaf(5)]);
        assert!(found.asks_who() && found.grant(true).is_none() && found.grant(false).is_some());
        let found = merged(&[deaf(4), Asked { options: other, id: Some(6), internal: false }, deaf(5)]);
        let grant = |qos, retain_as_published, ids: &[u32]| Grant { qos, retain_as_published, ids: Some(ids.into()) };
        assert_eq!(found.grant(true), Some(&grant(QoS::AtLeastOnce, false, &[6])));
        assert_eq!(found.grant(false), Some(&grant(QoS::ExactlyOnce, true, &[4, 6, 5])));
        let found = merged(&[Asked { options: other, id: None, internal: false }]);
        assert_eq!((found.asks_who(), found.grant(true)), (false, found.grant(false)));
        assert!(Merging::default().finish(1).is_none());
    }
}
