//! The topics of `mqttConfig`, with Butler's defaults.

use super::Context;
use crate::{
    config::{
        settings::{EventTopics, SessionTopics, SessionUser},
        walk::Section,
    },
    names::{TopicFilter, TopicName},
};

pub(super) struct Topics {
    pub(super) subscription_root: TopicFilter,
    pub(super) task_start: TopicName,
    pub(super) failed: EventTopics,
    pub(super) aborted: EventTopics,
    pub(super) succeeded: EventTopics,
    pub(super) distributed: EventTopics,
    pub(super) failure_server_status: TopicName,
    pub(super) session: Option<SessionTopics>,
    pub(super) own_topics: TopicName,
}

/// Every key is asked for before any is missed: hence the two halves.
pub(super) fn decode(section: &Section<'_>, cx: &Context<'_>, session_port: bool) -> Option<Topics> {
    let root = section.filter("subscriptionRootTopic", "qliksense/#");
    let start = section.topic("taskStartTopic", "qliksense/start_task");
    let failed =
        event(section, true, ["taskFailureSendFull", "taskFailureTopic", "taskFailureFullTopic"], "task_failure");
    let aborted =
        event(section, true, ["taskAbortedSendFull", "taskAbortedTopic", "taskAbortedFullTopic"], "task_aborted");
    let send = section.flag("taskSuccessSend", cx.built_in);
    let succeeded =
        event(section, send, ["taskSuccessSendFull", "taskSuccessTopic", "taskSuccessFullTopic"], "task_success");
    let send = section.flag("taskDistributeSend", cx.built_in);
    let distributed = event(
        section,
        send,
        ["taskDistributeSendFull", "taskDistributeTopic", "taskDistributeFullTopic"],
        "task_distribute",
    );
    let status = section.topic("taskFailureServerStatusTopic", "qliksense/butler/task_failure_server");
    let own = section.topic("ownTopicsRoot", "qliksense/butler");
    let (written, session) = session(section);
    Some(Topics {
        subscription_root: root?,
        task_start: start?,
        failed: failed?,
        aborted: aborted?,
        succeeded: succeeded?,
        distributed: distributed?,
        failure_server_status: status?,
        own_topics: own?,
        session: if written || session_port { Some(session?) } else { None },
    })
}

fn event(section: &Section<'_>, send: bool, keys: [&'static str; 3], name: &str) -> Option<EventTopics> {
    let [send_full, basic, full] = keys;
    let send_full = section.flag(send_full, true);
    let basic = section.topic(basic, &format!("qliksense/{name}"));
    let full = section.topic(full, &format!("qliksense/{name}_full"));
    Some(EventTopics { send, send_full, basic: basic?, full: full? })
}

/// The session topics, and whether the file names any of them.
fn session(section: &Section<'_>) -> (bool, Option<SessionTopics>) {
    const KEYS: [(&str, &str); 7] = [
        ("sessionStartTopic", "qliksense/session/start"),
        ("sessionStopTopic", "qliksense/session/stop"),
        ("connectionOpenTopic", "qliksense/connection/open"),
        ("connectionCloseTopic", "qliksense/connection/close"),
        ("sessionServerStatusTopic", "qliksense/butler/session_server"),
        ("activeUserCountTopic", "qliksense/users/active/count"),
        ("activeUsersTopic", "qliksense/users/active/usernames"),
    ];
    let written = KEYS.iter().any(|(key, _)| section.has(key));
    let [start, stop, open, close, status, count, users] = KEYS.map(|(key, default)| section.topic(key, default));
    let user = match section.choice("sessionUser", &["full", "hash", "none"]) {
        Some(1) => SessionUser::Hash,
        Some(2) => SessionUser::None,
        _ => SessionUser::Full,
    };
    let topics = || {
        Some(SessionTopics {
            session_start: start?,
            session_stop: stop?,
            connection_open: open?,
            connection_close: close?,
            server_status: status?,
            active_user_count: count?,
            active_users: users?,
            user,
        })
    };
    (written, topics())
}
