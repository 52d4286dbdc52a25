//! Who may do what: rights, topic lists, start topics, protected topics. Asked at PUBLISH, at SUBSCRIBE and for wills.
//!
//! A message to a start topic is a start, whoever sends it: it needs the right `start` and nothing else. Only the program itself publishes
//! on protected topics. A user without topic lists publishes everywhere outside the program's own topics.

use std::sync::Arc;

use super::settings::{Rights, Settings, User};
use crate::names::{TopicFilter, TopicName};

/// The topics that are special to everybody.
#[derive(Debug)]
pub(super) struct Special {
    start: Vec<TopicFilter>,
    protected: Vec<TopicFilter>,
    open: Vec<TopicFilter>,
    own_prefix: TopicName,
}

impl Special {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            start: settings.start_topics.clone(),
            protected: settings.protected_topics.clone(),
            open: settings.open_topics.clone(),
            own_prefix: settings.own_prefix.clone(),
        }
    }

    pub(super) fn is_start(&self, topic: &str) -> bool {
        self.start.iter().any(|filter| filter.matches(topic))
    }

    fn is_open(&self, topic: &str) -> bool {
        self.open.iter().any(|filter| filter.matches(topic))
    }

    fn is_protected(&self, topic: &str) -> bool {
        self.protected.iter().any(|filter| filter.matches(topic))
    }

    fn is_own(&self, topic: &str) -> bool {
        let rest = topic.strip_prefix(self.own_prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What one connection may do.
#[derive(Debug, Clone)]
pub(super) struct Access {
    special: Arc<Special>,
    rights: Rights,
    user: Option<Arc<User>>,
    /// A part of this program: nothing is special to it.
    internal: bool,
}

impl Access {
    pub(super) fn anonymous(special: &Arc<Special>, rights: Rights) -> Self {
        Self { special: Arc::clone(special), rights, user: None, internal: false }
    }

    pub(super) fn user(special: &Arc<Special>, user: Arc<User>) -> Self {
        Self { special: Arc::clone(special), rights: user.rights, user: Some(user), internal: false }
    }

    pub(super) fn internal(special: &Arc<Special>) -> Self {
        let rights = Rights { publish: true, subscribe: true, start: true };
        Self { special: Arc::clone(special), rights, user: None, internal: true }
    }

    pub(super) fn may_start(&self) -> bool {
        self.rights.start
    }

    pub(super) fn user_name(&self) -> Option<Arc<str>> {
        self.user.as_ref().map(|user| Arc::clone(&user.name))
    }

    /// Whether a message may be published on a topic.
    pub(super) fn may_publish(&self, topic: &str) -> bool {
        if self.internal {
            return true;
        }
        if self.special.is_start(topic) {
            return self.rights.start;
        }
        if topic.starts_with('$') || !self.rights.publish {
            return false;
        }
        if self.special.is_open(topic) {
            return true;
        }
        if self.special.is_protected(topic) {
            return false;
        }
        match self.user.as_ref().and_then(|user| user.publish.as_ref()) {
            Some(allowed) => allowed.iter().any(|filter| filter.matches(topic)),
            None => !self.special.is_own(topic),
        }
    }

    /// Whether a subscription may be made: every topic it can match must be allowed.
    pub(super) fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        if !self.rights.subscribe {
            return false;
        }
        match self.user.as_ref().and_then(|user| user.subscribe.as_ref()) {
            Some(allowed) => allowed.iter().any(|allowed| covers(allowed.pattern(), filter.pattern())),
            None => true,
        }
    }
}

/// Whether every topic `asked` matches is matched by `allowed` too.
fn covers(allowed: &str, asked: &str) -> bool {
    // `#` and `+` at the first level do not reach `$` topics.
    if asked.starts_with('$') && (allowed.starts_with('#') || allowed.starts_with('+')) {
        return false;
    }
    let mut wanted = asked.split('/');
    for level in allowed.split('/') {
        match (level, wanted.next()) {
            ("#", _) => return true,
            ("+", Some(asked)) if asked != "#" => {}
            (level, Some(asked)) if level == asked && asked != "#" => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::matches;

    #[test]
    fn covering() {
        let cases = [
            ("#", "a/b", true),
            ("#", "#", true),
            ("a/#", "a/+/c", true),
            ("a/#", "a", true),
            ("a/#", "#", false),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("+/b", "a/b", true),
            ("#", "$SYS/#", false),
            ("$SYS/#", "$SYS/a", true),
        ];
        for (allowed, asked, expected) in cases {
            assert_eq!(covers(allowed, asked), expected, "{allowed} {asked}");
        }
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("+")];
        (prop::collection::vec(level, 1..4), any::<bool>())
            .prop_map(|(levels, hash)| if hash { format!("{}/#", levels.join("/")) } else { levels.join("/") })
    }

    proptest! {
        #[test]
        fn what_is_covered_never_matches_more(allowed in filter(), asked in filter(), topic in "[ab](/[ab]){0,3}") {
            // Most pairs cover nothing; those that do must keep the promise.
            let promised = covers(&allowed, &asked) && matches(&asked, &topic);
            prop_assert!(!promised || matches(&allowed, &topic));
        }
    }

    fn access(rights: Rights, publish: Option<Vec<&str>>) -> Access {
        let filters = |list: &[&str]| list.iter().map(|text| TopicFilter::new(text).unwrap()).collect::<Vec<_>>();
        let special = Arc::new(Special {
            start: filters(&["q/start"]),
            protected: filters(&["q/own/#", "q/failed"]),
            open: filters(&["q/own/ping"]),
            own_prefix: TopicName::new("q/own").unwrap(),
        });
        let publish = publish.map(|list| filters(&list));
        let user = User { name: "u".into(), password_hash: None, rights, publish, subscribe: None };
        Access::user(&special, Arc::new(user))
    }

    #[test]
    fn a_start_topic_needs_the_right_start_and_nothing_else() {
        let starter = access(Rights { start: true, ..Rights::default() }, None);
        assert!(starter.may_publish("q/start") && !starter.may_publish("x"));
        let publisher = access(Rights { publish: true, subscribe: true, start: false }, Some(vec!["#"]));
        assert!(!publisher.may_publish("q/start") && publisher.may_publish("x"));
        assert!(publisher.may_publish("q/own/ping") && !starter.may_publish("q/own/ping"));
        assert!(
            !publisher.may_publish("q/failed")
                && !publisher.may_publish("q/own/state")
                && !publisher.may_publish("$SYS/x")
        );
    }
}
