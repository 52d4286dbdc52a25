//! Who may do what: rights, topic lists, access rules, start topics, protected topics. Asked at PUBLISH, at SUBSCRIBE, for wills, on
//! delivery, and again for all of these when the users or rules were replaced.
//!
//! The order in which a PUBLISH is judged: topics that begin with `$` are the broker's; a message to a start topic is a start, whoever sends
//! it, and needs `start` and nothing else; on protected topics only the program itself publishes; then the first access rule that decides;
//! then the user's own rights and lists. A subscription is judged by the rules for `subscribe`, then by the user's rights and list. What may
//! be subscribed to is received, as far as no rule for `receive` says otherwise: these are looked at message by message, so that a wide
//! subscription brings what its owner may have. A shared subscription brings each message to one member only, so there `receive` must not
//! deny any of it.

mod cover;
mod outside;
pub mod pattern;
mod policy;
pub mod rule;
mod special;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use self::{
    cover::covers,
    rule::{Action, Ruleset, Subject},
};
pub(super) use self::{
    outside::Outside,
    policy::{Ended, Policies, Policy},
    special::Special,
};
use super::settings::{Rate, Rights, User};
use crate::names::{ClientId, TopicFilter};

/// Who somebody is, as far as a log-in can tell.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// A part of this program: nothing is special to it.
    Internal,
    /// Let in without a user name; `here`: from this machine.
    Anonymous { rights: Rights, here: bool },
    /// A user; `by_password`: logged in with it, so that another password ends the connection.
    User { user: Arc<User>, by_password: bool },
    /// Was somebody under an earlier policy.
    Nobody,
}

/// What one client may do under one policy.
#[derive(Debug)]
pub(super) struct Access {
    /// Of the policy it was made by.
    pub generation: u64,
    special: Arc<Special>,
    who: Who,
    client: ClientId,
    listener: Option<Arc<str>>,
    rights: Rights,
    rules: Ruleset,
}

impl Access {
    fn new(policy: &Policy, who: Who, client: ClientId, listener: Option<Arc<str>>) -> Self {
        let rights = match &who {
            Who::Internal => Rights { publish: true, subscribe: true, start: true },
            Who::Anonymous { rights, .. } => *rights,
            Who::User { user, .. } => user.rights,
            Who::Nobody => Rights::default(),
        };
        let user = match &who {
            Who::User { user, .. } => Some(&**user),
            _ => None,
        };
        let rules = match &who {
            Who::Internal | Who::Nobody => Ruleset::default(),
            _ => {
                let groups = user.map_or(&[][..], |user| &user.groups);
                let name = user.map(|user| &*user.name);
                let subject = Subject { user: name, groups, client: client.as_str(), listener: listener.as_deref() };
                Ruleset::resolve(policy.rules(), &subject)
            }
        };
        let (generation, special) = (policy.generation, Arc::clone(&policy.special));
        Self { generation, special, who, client, listener, rights, rules }
    }

    pub(super) fn is_internal(&self) -> bool {
        matches!(self.who, Who::Internal)
    }

    /// Whether its user is gone.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self.who, Who::Nobody)
    }

    fn user(&self) -> Option<&User> {
        match &self.who {
            Who::User { user, .. } => Some(user),
            _ => None,
        }
    }

    pub(super) fn user_name(&self) -> Option<Arc<str>> {
        self.user().map(|user| Arc::clone(&user.name))
    }

    /// Whether its user may use the web console.
    pub(super) fn has_console(&self) -> bool {
        self.user().is_some_and(|user| user.console)
    }

    /// Whether it holds the right `publish`.
    pub(super) const fn publishes(&self) -> bool {
        self.rights.publish
    }

    /// The rate the user's own keys give; `None`: the limits for everybody hold.
    pub(super) fn rate(&self) -> Option<Rate> {
        self.user().and_then(|user| user.rate)
    }

    /// Whether there is anything at all it may do.
    fn may_anything(&self) -> bool {
        self.rights != Rights::default() || self.rules.allows_anything()
    }

    /// Whether a message may be published on a topic.
    pub(super) fn may_publish(&self, topic: &str) -> bool {
        if self.is_internal() {
            return true;
        }
        if self.special.is_start(topic) {
            return self.may_start(topic);
        }
        if topic.starts_with('$') {
            return false;
        }
        let open = self.special.is_open(topic);
        if !open && self.special.is_protected(topic) {
            return false;
        }
        self.rules.topic(Action::Publish, topic).unwrap_or_else(|| self.rights.publish && (open || self.listed(topic)))
    }

    /// Whether a message on a topic is a start.
    pub(super) fn is_start(&self, topic: &str) -> bool {
        self.special.is_start(topic)
    }

    fn may_start(&self, topic: &str) -> bool {
        self.rules.topic(Action::Start, topic).unwrap_or(self.rights.start)
    }

    fn listed(&self, topic: &str) -> bool {
        match self.user().and_then(|user| user.publish.as_ref()) {
            Some(allowed) => allowed.iter().any(|filter| filter.matches(topic)),
            None => !self.special.is_own(topic),
        }
    }

    /// Whether a subscription may be made: every topic it can match must be allowed.
    pub(super) fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        let pattern = filter.pattern();
        let cut = || filter.shared().is_some() && self.rules.filter(Action::Receive, pattern) == Some(false);
        self.is_internal() || (self.subscribes(pattern) && self.sees(pattern) && !cut())
    }

    /// What the broker says of itself is for users and for this machine.
    fn sees(&self, pattern: &str) -> bool {
        match self.who {
            Who::Anonymous { here, .. } => {
                here || self.special.anonymous_sys || pattern.split('/').next() != Some("$SYS")
            }
            _ => true,
        }
    }

    fn subscribes(&self, pattern: &str) -> bool {
        self.rules.filter(Action::Subscribe, pattern).unwrap_or_else(|| self.rights.subscribe && self.wanted(pattern))
    }

    fn wanted(&self, pattern: &str) -> bool {
        match self.user().and_then(|user| user.subscribe.as_ref()) {
            Some(allowed) => allowed.iter().any(|allowed| covers(allowed.pattern(), pattern)),
            None => true,
        }
    }

    /// Whether a message on a topic may be delivered. Where no rule is about receiving, whoever may subscribe to the topic may.
    pub(super) fn may_receive(&self, topic: &str) -> bool {
        self.is_internal() || self.rules.topic(Action::Receive, topic).unwrap_or_else(|| self.subscribes(topic))
    }

    /// Whether subscriptions that were made under this very policy may still bring messages that must not be delivered.
    pub(super) fn sieves(&self) -> bool {
        self.rules.mentions(Action::Receive)
    }
}
