//! `broker.toml`: the built-in broker's listeners, users, access rules and limits.
//!
//! Invariants: a listener other machines can reach is refused unless somebody decided who may come in; what is not built is refused where
//! it is written, never ignored.

mod access;
mod limits;
mod listener_tls;
mod listeners;
mod storage;
mod users;
mod websocket;

pub(super) use self::users::no_such;

use std::path::{Path, PathBuf};

use super::{
    Overrides, butler,
    diagnostic::Report,
    settings::{BrokerChoice, Settings as ButlerSettings},
    tree::Node,
    walk::Section,
};
use crate::{
    broker::settings::{Listener, Settings},
    names::TopicFilter,
};

/// What the readers need to know besides the file.
pub(super) struct Context<'a> {
    pub(super) report: &'a Report,
    pub(super) base: PathBuf,
    /// The data directory.
    pub(super) data: PathBuf,
    pub(super) overrides: &'a Overrides,
    /// The settings of `butler.yaml`.
    pub(super) butler: &'a ButlerSettings,
}

/// Reads the tree of a file (or none); `None` after errors were reported.
pub(super) fn decode(root: Option<&Node>, cx: &Context<'_>) -> Option<Settings> {
    let top = Section::root(cx.report, root);
    let protect = top.flag("protect_own_topics", true);
    let anonymous_sys = top.flag("anonymous_sys", false);
    let (users, certificate_only) = users::decode(&top);
    let listeners = listeners::decode(&top, users.is_empty(), cx);
    let by_certificate = |listeners: &Vec<Listener>| listeners.iter().any(listener_tls::names_users);
    if broker_port(cx.butler).is_some() && listeners.as_ref().is_some_and(|listeners| !by_certificate(listeners)) {
        certificate_only.iter().for_each(|key| cx.report.error(key, users::NO_LOGIN));
    }
    let access = access::decode(&top, &users, &listeners::names(&top, listeners.as_deref()));
    let limits = limits::decode(top.section("limits"));
    let storage = storage::decode(top.section("storage"), cx);
    refuse_router(top.section("router"));
    top.finish();
    let mqtt = &cx.butler.mqtt;
    Some(Settings {
        listeners: listeners?,
        users,
        access,
        limits,
        start_topics: cx.butler.start_topics().into_iter().map(Into::into).collect(),
        protected_topics: if protect { protected_topics(cx.butler) } else { Vec::new() },
        // A prefix so long that no level fits behind it has no self-test.
        open_topics: mqtt.own_topics.join("ping").map(Into::into).into_iter().collect(),
        anonymous_sys,
        own_prefix: mqtt.own_topics.clone(),
        storage,
        replaced_at_start: Vec::new(),
        engine_test_hook: false,
    })
}

/// Where only this program publishes: its own topics, the events, and what is derived from them.
fn protected_topics(settings: &ButlerSettings) -> Vec<TopicFilter> {
    let below = |root: &str| TopicFilter::new(format!("{root}/#")).ok();
    let mut topics: Vec<TopicFilter> = below(settings.mqtt.own_topics.as_str()).into_iter().collect();
    topics.extend(butler::rules::published_topics(&settings.mqtt).into_iter().map(|(_, topic)| topic.into()));
    if settings.mqtt.session.is_some() {
        topics.extend(below("qliksense/users/activeperserver"));
    }
    topics
}

/// The port `brokerPort` asks for, where the built-in broker is the one.
pub(super) fn broker_port(settings: &ButlerSettings) -> Option<u16> {
    match settings.mqtt.broker {
        BrokerChoice::Embedded { port } => Some(port),
        BrokerChoice::External(_) => None,
    }
}

/// rumqttd's `RouterConfig`: nothing of it can be set without breaking what the broker promises.
fn refuse_router(section: Section<'_>) {
    const KEYS: [(&str, &str); 7] = [
        ("max_connections", "the engine carries two links of our own; set [limits] clients for clients"),
        (
            "max_outgoing_packet_count",
            "it bounds the engine's links, which are ours; set [limits] inflight for clients",
        ),
        ("max_segment_size", "the log is sized to the admission window; another size would lose messages"),
        ("max_segment_count", "the log is sized to the admission window; another size would lose messages"),
        ("custom_segment", "no client topic reaches the engine's logs, so this could have no effect"),
        ("initialized_filters", "no client topic reaches the engine, so this could have no effect"),
        ("shared_subscriptions_strategy", "shared subscriptions are not the engine's here; members take turns"),
    ];
    for (key, why) in KEYS {
        section.refuse(key, &format!("it cannot be set: {why}; remove the key"));
    }
    section.finish();
}

/// The file's directory: relative paths start there.
pub(super) fn base(file: Option<&Path>, cwd: &Path) -> PathBuf {
    file.and_then(Path::parent).map_or_else(|| cwd.to_path_buf(), |dir| cwd.join(dir))
}
