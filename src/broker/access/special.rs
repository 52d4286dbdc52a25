//! The topics that are special to everybody: start topics, the program's own, and the exceptions.

use crate::{
    broker::settings::Settings,
    names::{TopicFilter, TopicName},
};

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Special {
    pub(super) start: Vec<TopicFilter>,
    pub(super) protected: Vec<TopicFilter>,
    pub(super) open: Vec<TopicFilter>,
    /// Whether clients without a user may read `$SYS` from elsewhere, too.
    pub(super) anonymous_sys: bool,
    pub(super) own_prefix: TopicName,
}

impl Special {
    pub(in crate::broker) fn new(settings: &Settings) -> Self {
        Self {
            start: settings.start_topics.clone(),
            protected: settings.protected_topics.clone(),
            open: settings.open_topics.clone(),
            anonymous_sys: settings.anonymous_sys,
            own_prefix: settings.own_prefix.clone(),
        }
    }

    pub(in crate::broker) fn is_start(&self, topic: &str) -> bool {
        self.start.iter().any(|filter| filter.matches(topic))
    }

    pub(super) fn is_open(&self, topic: &str) -> bool {
        self.open.iter().any(|filter| filter.matches(topic))
    }

    pub(super) fn is_protected(&self, topic: &str) -> bool {
        self.protected.iter().any(|filter| filter.matches(topic))
    }

    pub(super) fn is_own(&self, topic: &str) -> bool {
        let rest = topic.strip_prefix(self.own_prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}
