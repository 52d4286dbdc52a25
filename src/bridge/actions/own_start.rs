//! A start topic of its own (`startTask.topics`): every message starts the same, or what its own list allows.
//!
//! For machines that can publish `1` on a topic and nothing else. Invariants: an empty message, `0` and `false` start nothing (a signal that
//! falls is no signal); what the topic's list does not allow is refused before anybody is asked, whatever `startTaskFilter` says.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Handler,
    reply::Reply,
    start::{Asking, StartTask},
};
use crate::{
    bus::{BoxFuture, Delivery},
    config::settings::{FixedStart, StartTaskFilter, StartTopic},
    names::TopicName,
    sense::tasks::{
        refusal,
        request::{Redelivery, StartStatus, StartTarget},
        wish::{self, Problem, Wish},
    },
};

/// Words that are no start.
const OFF: [&str; 4] = ["", "0", "false", "off"];

/// See the module.
pub(super) struct OwnStart {
    start: Arc<StartTask>,
    topic: TopicName,
    rule: ArcSwap<Rule>,
}

/// What a message on the topic starts, or may start.
struct Rule {
    fixed: Option<StartTarget>,
    filter: StartTaskFilter,
}

impl From<&StartTopic> for Rule {
    fn from(topic: &StartTopic) -> Self {
        let fixed = topic.fixed.clone().map(|fixed| match fixed {
            FixedStart::Task(id) => StartTarget::Id(id),
            FixedStart::Tag(tag) => StartTarget::Tag(tag),
            FixedStart::CustomProperty(name, value) => StartTarget::CustomProperty { name, value },
        });
        Self { fixed, filter: topic.filter.clone() }
    }
}

impl OwnStart {
    pub(super) fn new(start: Arc<StartTask>, topic: &StartTopic) -> Self {
        Self { start, topic: topic.topic.clone(), rule: ArcSwap::from_pointee(topic.into()) }
    }

    /// From now on messages start what the topic of this name says, if it is this one's.
    pub(super) fn obey(&self, topics: &[StartTopic]) {
        if let Some(topic) = topics.iter().find(|topic| topic.topic == self.topic) {
            self.rule.store(Arc::new(topic.into()));
        }
    }

    fn wish(&self, payload: &[u8]) -> Asking {
        let rule = self.rule.load();
        let Some(target) = &rule.fixed else {
            let wish = wish::parse(payload).map_err(|problem| (StartStatus::Invalid, problem))?;
            return rule.allowed(wish);
        };
        let text = String::from_utf8_lossy(payload);
        if OFF.iter().any(|word| text.trim().eq_ignore_ascii_case(word)) {
            let message = format!("`{}` on this topic starts nothing; any other message does", text.trim());
            return Err((StartStatus::Invalid, Problem { code: "off", message, transaction: None }));
        }
        Ok(Wish::of(vec![target.clone()]))
    }
}

impl Rule {
    fn allowed(&self, wish: Wish) -> Asking {
        let Some(refused) = wish.targets.iter().find_map(|target| refusal(&self.filter, target)) else {
            return Ok(wish);
        };
        let why = refused.error.map(|error| error.message).unwrap_or_default();
        let message = why.replace("`startTaskFilter.allowTask.", "this topic's `allowTask.");
        let problem = Problem { code: "topic_filter", message, transaction: wish.transaction };
        Err((StartStatus::Denied, problem))
    }
}

impl Handler for OwnStart {
    fn name(&self) -> &'static str {
        "start_topic"
    }

    fn handle(&self, delivery: Delivery, kept: Option<Redelivery>, reply: Reply) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let wish = self.wish(&delivery.payload);
            self.start.answer(&delivery, kept, reply, wish).await;
        })
    }
}
