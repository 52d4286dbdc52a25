//! The users and rules in force, as one value with a generation: replaced as a whole, never changed.
//!
//! Invariants: a generation number only grows, and is published after its policy; an anonymous door that is closed stays closed until the
//! program is started again, whatever a later file says or lacks.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{Access, Special, Who, rule::Rule};
use crate::{
    broker::{
        message::Origin,
        peer::Kick,
        settings::{Listener, Rights, Settings, User},
    },
    names::ClientId,
};

/// Users, rules and anonymous doors of one generation.
#[derive(Debug)]
pub(in crate::broker) struct Policy {
    pub generation: u64,
    pub special: Arc<Special>,
    users: HashMap<Arc<str>, Arc<User>>,
    rules: Vec<Rule>,
    /// Listeners that let clients in without a user name, and what these may do.
    anonymous: HashMap<Arc<str>, Rights>,
}

/// Why a connection may not go on under a new policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Ended {
    /// Its user is gone, or the anonymous door is closed.
    Nobody,
    /// The user's password is another one.
    Password,
    /// It may do nothing any more.
    NoRights,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "by the new broker.toml it is nobody who may come in",
            Self::Password => "by the new broker.toml its password is another one",
            Self::NoRights => "by the new broker.toml it may do nothing any more",
        })
    }
}

impl Ended {
    pub(in crate::broker) const fn kick(self) -> Kick {
        match self {
            Self::Nobody | Self::Password => Kick::LoggedOut,
            Self::NoRights => Kick::NotAuthorized,
        }
    }
}

fn users_of(settings: &Settings) -> HashMap<Arc<str>, Arc<User>> {
    settings.users.iter().map(|user| (Arc::clone(&user.name), Arc::new(user.clone()))).collect()
}

impl Policy {
    fn first(settings: &Settings) -> Self {
        let open = settings.listeners.iter().filter(|listener| listener.allow_anonymous);
        Self {
            generation: 1,
            special: Arc::new(Special::new(settings)),
            users: users_of(settings),
            rules: settings.access.clone(),
            anonymous: open.map(|listener| (Arc::clone(&listener.name), listener.anonymous_rights)).collect(),
        }
    }

    fn next(&self, settings: &Settings) -> Self {
        let still = |(name, rights): (&Arc<str>, &Rights)| {
            let allows = |listener: &&Listener| listener.name == *name && listener.allow_anonymous;
            let listener = settings.listeners.iter().find(allows)?;
            Some((Arc::clone(name), rights.and(listener.anonymous_rights)))
        };
        Self {
            generation: self.generation + 1,
            special: Arc::clone(&self.special),
            users: users_of(settings),
            rules: settings.access.clone(),
            anonymous: self.anonymous.iter().filter_map(still).collect(),
        }
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether there are users at all; without any, names and passwords mean nothing.
    pub(in crate::broker) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether any user may log in to the web console.
    pub(in crate::broker) fn has_console_users(&self) -> bool {
        self.users.values().any(|user| user.console && user.password_hash.is_some())
    }

    pub(in crate::broker) fn user_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.users.keys().map(Arc::clone).collect();
        names.sort();
        names
    }

    pub(in crate::broker) fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// Whether a listener lets clients in without a user name, and with which rights.
    pub(in crate::broker) fn anonymous(&self, listener: &str) -> Option<Rights> {
        self.anonymous.get(listener).copied()
    }

    /// What somebody who was let in may do under this policy.
    pub(in crate::broker) fn access(&self, who: Who, client: &ClientId, listener: Option<&Arc<str>>) -> Arc<Access> {
        Arc::new(Access::new(self, who, client.clone(), listener.cloned()))
    }

    /// The same client under this policy, and whether its connection has to end.
    pub(in crate::broker) fn renew(&self, old: &Access) -> (Arc<Access>, Option<Ended>) {
        let listener = old.listener.as_ref();
        let (who, ended) = match &old.who {
            Who::Internal => (Who::Internal, None),
            Who::Nobody => (Who::Nobody, Some(Ended::Nobody)),
            Who::Anonymous { here, .. } => match listener.and_then(|name| self.anonymous(name)) {
                Some(rights) => (Who::Anonymous { rights, here: *here }, None),
                None => (Who::Nobody, Some(Ended::Nobody)),
            },
            Who::User { user, by_password } => match self.user(&user.name) {
                Some(now) => {
                    let changed = *by_password && now.password_hash != user.password_hash;
                    let who = Who::User { user: Arc::clone(now), by_password: *by_password };
                    (who, changed.then_some(Ended::Password))
                }
                None => (Who::Nobody, Some(Ended::Nobody)),
            },
        };
        let access = self.access(who, &old.client, listener);
        let emptied = old.may_anything() && !access.may_anything();
        (access, ended.or(emptied.then_some(Ended::NoRights)))
    }

    /// What a client may do of which only the origin of its messages is known: which listener it came by is not, so an anonymous one is
    /// judged by the rules alone.
    pub(in crate::broker) fn access_of(&self, origin: &Origin) -> Option<Arc<Access>> {
        let who = match &origin.user {
            None => {
                let rights = Rights { publish: true, subscribe: true, start: origin.may_start };
                Who::Anonymous { rights, here: false }
            }
            Some(name) => match self.user(name) {
                Some(user) => Who::User { user: Arc::clone(user), by_password: false },
                None => Who::Nobody,
            },
        };
        Some(self.access(who, origin.client.as_ref()?, None))
    }
}

/// The policy in force. Looking whether it changed costs one load.
#[derive(Debug)]
pub(in crate::broker) struct Policies {
    generation: AtomicU64,
    present: ArcSwap<Policy>,
    change: Mutex<()>,
}

impl Policies {
    pub(in crate::broker) fn new(settings: &Settings) -> Self {
        let first = Policy::first(settings);
        Self {
            generation: AtomicU64::new(first.generation),
            present: ArcSwap::from_pointee(first),
            change: Mutex::new(()),
        }
    }

    pub(in crate::broker) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(in crate::broker) fn present(&self) -> Arc<Policy> {
        self.present.load_full()
    }

    /// Puts the users and rules of `settings` in force. Of its listeners only the closing of anonymous doors is taken.
    pub(in crate::broker) fn replace(&self, settings: &Settings) {
        let _one_at_a_time = self.change.lock();
        let next = self.present().next(settings);
        let generation = next.generation;
        self.present.store(Arc::new(next));
        self.generation.store(generation, Ordering::Release);
    }
}
