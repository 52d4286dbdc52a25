//! What the access rules say of somebody who is no client of the broker and asks a part of this program to publish: a caller by REST.
//!
//! Such a caller has no user name, no client id and came by no listener, so the rules that concern him are those for everybody. What they
//! do not decide is not decided here: who may publish by that door at all is the door's affair. Invariant: the answer is that of the policy
//! in force when it is asked for.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Policies, Policy,
    rule::{Action, Ruleset, Subject},
};

/// See the module. Cheap to clone; asking takes no lock.
#[derive(Clone)]
pub(in crate::broker) struct Outside {
    policies: Arc<Policies>,
    present: Arc<ArcSwap<Resolved>>,
}

/// The rules for such a caller under one policy.
struct Resolved {
    policy: Arc<Policy>,
    rules: Ruleset,
}

impl Resolved {
    fn of(policy: Arc<Policy>) -> Self {
        let subject = Subject { user: None, groups: &[], client: "", listener: None };
        let rules = Ruleset::resolve(policy.rules(), &subject);
        Self { policy, rules }
    }
}

impl Outside {
    pub(in crate::broker) fn new(policies: Arc<Policies>) -> Self {
        let present = Arc::new(ArcSwap::from_pointee(Resolved::of(policies.present())));
        Self { policies, present }
    }

    /// Whether no rule denies publishing on a topic, or starting where it is a start topic.
    pub(in crate::broker) fn may_publish(&self, topic: &str) -> bool {
        if self.present.load().policy.generation != self.policies.generation() {
            self.present.store(Arc::new(Resolved::of(self.policies.present())));
        }
        let present = self.present.load();
        let action = if present.policy.special.is_start(topic) { Action::Start } else { Action::Publish };
        present.rules.topic(action, topic) != Some(false)
    }
}
