//! `startTask`: how tasks are started, and start topics beside `mqttConfig.taskStartTopic`.

use std::time::Duration;

use super::qrs::allow_list;
use crate::{
    config::{
        settings::{FixedStart, StartLimits, StartSettings, StartTopic, UserFilter},
        walk::{Item, Section},
    },
    names::TopicName,
};

pub(super) fn decode(section: Section<'_>) -> StartSettings {
    let start = StartSettings {
        topics: section.list("topics").iter().filter_map(topic).collect(),
        users: users(&section),
        limits: limits(section.section("limits")),
        deadline: Duration::from_secs(section.number("deadlineSeconds", 0..=86_400, 300)),
        parameters_ttl: Duration::from_secs(section.number("parametersTtlSeconds", 1..=2_592_000, 86_400)),
        execution_topics: section.flag("executionTopics", true),
        audit_log: Some(section.flag("auditLog", true)).filter(|_| section.has("auditLog")),
    };
    section.finish();
    start
}

fn limits(section: Section<'_>) -> StartLimits {
    let default = StartLimits::default();
    let limits = StartLimits {
        per_minute: section.number("perMinute", 0..=1_000_000, default.per_minute),
        per_requester_per_minute: section.number(
            "perRequesterPerMinute",
            0..=1_000_000,
            default.per_requester_per_minute,
        ),
        at_once_per_requester: section.number("atOncePerRequester", 1..=10_000, default.at_once_per_requester),
    };
    section.finish();
    limits
}

/// What single users may start; a user has one list.
fn users(section: &Section<'_>) -> Vec<UserFilter> {
    let mut users: Vec<UserFilter> = Vec::new();
    for item in section.list("users") {
        let Some(user) = user(&item) else { continue };
        if users.iter().any(|other| other.user == user.user) {
            item.error(format!("the user \"{}\" has a list already", user.user));
        }
        users.push(user);
    }
    users
}

fn user(item: &Item<'_>) -> Option<UserFilter> {
    let section = item.section();
    let name = section.text("user");
    let has_list = section.has("allowTask");
    let filter = allow_list(section.section("allowTask"), true);
    section.finish();
    if !has_list {
        item.error(
            "`allowTask` is missing: what this user may start; an empty list (`allowTask: {taskId: []}`) is nothing",
        );
    }
    let Some(name) = name else {
        item.error("`user` is missing");
        return None;
    };
    Some(UserFilter { user: name.to_owned(), filter })
}

fn topic(item: &Item<'_>) -> Option<StartTopic> {
    let section = item.section();
    let name = section.text("topic").map(TopicName::new);
    let ids = section.text("taskId").map(str::parse);
    let tag = section.text("tag");
    let property = section.section("customProperty");
    let pair = property.text("name").zip(property.text("value"));
    let has_property = section.has("customProperty");
    let has_list = section.has("allowTask");
    let filter = allow_list(section.section("allowTask"), has_list);
    property.finish();
    section.finish();
    let topic = match name {
        Some(Ok(topic)) => topic,
        Some(Err(error)) => return wrong(item, &error.to_string()),
        None => return wrong(item, "`topic` is missing"),
    };
    let fixed = match (ids, tag, has_property) {
        (None, None, false) => None,
        (Some(Ok(id)), None, false) => Some(FixedStart::Task(id)),
        (Some(Err(error)), None, false) => return wrong(item, &error.to_string()),
        (None, Some(tag), false) => Some(FixedStart::Tag(tag.to_owned())),
        (None, None, true) => match pair {
            Some((name, value)) => Some(FixedStart::CustomProperty(name.to_owned(), value.to_owned())),
            None => return wrong(item, "`customProperty` needs `name` and `value`"),
        },
        _ => return wrong(item, "a start topic has one of `taskId`, `tag` and `customProperty`, not several"),
    };
    if fixed.is_some() && has_list {
        return wrong(
            item,
            "`allowTask` is for topics whose messages say what to start; this one starts always the same",
        );
    }
    Some(StartTopic { topic, fixed, filter })
}

fn wrong(item: &Item<'_>, why: &str) -> Option<StartTopic> {
    item.error(why);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        LoadOptions, Loaded, load,
        samples::{Dir, root},
        settings::StartTaskFilter,
    };

    fn topics(text: &str) -> Result<Vec<StartTopic>, String> {
        let dir = Dir::new();
        let text = format!("Butler:\n  startTask:\n    topics:\n{text}");
        let options = LoadOptions { config: Some(dir.write("butler.yaml", &text)), ..dir.options() };
        load(&options).map(|loaded| loaded.settings.start.topics).map_err(|errors| errors.to_string())
    }

    #[test]
    fn topics_with_what_they_start() {
        assert!(root().exists());
        let text = "    - {topic: plant/7/go, taskId: 5A1E5000-0000-4000-8000-000000000001}\n    \
                    - {topic: plant/go, customProperty: {name: StartBy, value: plc}}\n    \
                    - {topic: plant/nightly, tag: nightly}\n    \
                    - {topic: plant/jobs, allowTask: {tag: [plant]}}\n";
        let topics = topics(text).unwrap();
        let fixed: Vec<_> = topics.iter().map(|topic| topic.fixed.clone()).collect();
        let expected = [
            Some(FixedStart::Task("5a1e5000-0000-4000-8000-000000000001".parse().unwrap())),
            Some(FixedStart::CustomProperty("StartBy".into(), "plc".into())),
            Some(FixedStart::Tag("nightly".into())),
            None,
        ];
        assert_eq!(fixed, expected);
        let lists: Vec<_> = topics.iter().map(|topic| (topic.filter.enable, topic.filter.tags.len())).collect();
        assert_eq!(lists, [(false, 0), (false, 0), (false, 0), (true, 1)]);
    }

    #[test]
    fn limits_and_the_time_parameters_live() {
        let read = |text: &str| {
            let dir = Dir::new();
            let options = LoadOptions { config: Some(dir.write("butler.yaml", text)), ..dir.options() };
            load(&options).map(|loaded| loaded.settings.start).map_err(|errors| errors.to_string())
        };
        let usual = read("Butler:\n  logLevel: info\n").unwrap();
        assert_eq!((usual.limits, usual.parameters_ttl), (StartLimits::default(), Duration::from_secs(86_400)));
        let written = "Butler:\n  startTask:\n    parametersTtlSeconds: 60\n    \
                       limits: {perMinute: 600, perRequesterPerMinute: 120, atOncePerRequester: 7}\n";
        let written = read(written).unwrap();
        let limits = StartLimits { per_minute: 600, per_requester_per_minute: 120, at_once_per_requester: 7 };
        assert_eq!((written.limits, written.parameters_ttl), (limits, Duration::from_secs(60)));
        for (text, part) in [
            ("limits: {atOncePerRequester: 0}", "from 1 to 10000"),
            ("limits: {perMinute: -1}", "from 0 to 1000000"),
            ("limits: {perMinut: 1}", "perMinute"),
            ("parametersTtlSeconds: 0", "from 1 to 2592000"),
        ] {
            let error = read(&format!("Butler:\n  startTask:\n    {text}\n")).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    fn users_of(text: &str, broker: &str) -> Result<Loaded, String> {
        let dir = Dir::new();
        let text = format!("Butler:\n  startTask:\n    users:\n{text}");
        let options = LoadOptions {
            config: Some(dir.write("butler.yaml", &text)),
            broker_config: Some(dir.write("broker.toml", broker)),
            ..dir.options()
        };
        load(&options).map_err(|errors| errors.to_string())
    }

    #[test]
    fn users_with_what_they_may_start() {
        const BROKER: &str = "[[users]]\nname = \"plc\"\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$WHgXdLzGYQzM5OY8nXrwVaYqE9NQbyyHQDf6gG1+mDE\"\n";
        let text = "    - {user: plc, allowTask: {tag: [plant], taskId: [5A1E5000-0000-4000-8000-000000000001]}}\n    \
                    - {user: Plc, allowTask: {taskId: []}}\n";
        let loaded = users_of(text, BROKER).unwrap();
        let users: Vec<_> = loaded.settings.start.users.iter().collect();
        assert_eq!(users.iter().map(|user| user.user.as_str()).collect::<Vec<_>>(), ["plc", "Plc"]);
        assert!(users.iter().all(|user| user.filter.enable));
        assert_eq!((users[0].filter.tags.len(), users[0].filter.task_ids.len()), (1, 1));
        assert_eq!(users[1].filter, StartTaskFilter { enable: true, ..StartTaskFilter::default() });
        let said: Vec<_> =
            loaded.warnings.iter().map(ToString::to_string).filter(|text| text.contains("Plc")).collect();
        assert!(said.len() == 1 && said[0].contains("did you mean \"plc\""), "{said:?}");
        let cases = [
            ("    - {allowTask: {tag: [a]}}\n", "`user` is missing"),
            ("    - {user: plc}\n", "`allowTask` is missing"),
            ("    - {user: plc, allowTask: {tga: []}}\n", "tga"),
            ("    - {user: plc, allowTask: {taskId: [x]}}\n", "not an id"),
            ("    - {user: plc, allowTask: {tag: []}}\n    - {user: plc, allowTask: {tag: []}}\n", "a list already"),
        ];
        let mut ran = 0;
        for (text, part) in cases {
            let error = users_of(text, BROKER).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            ran += 1;
        }
        assert_eq!(ran, 5);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases = [
            ("    - {taskId: 5a1e5000-0000-4000-8000-000000000001}\n", "`topic` is missing"),
            ("    - {topic: a/#, tag: x}\n", "wildcard"),
            ("    - {topic: a, taskId: x}\n", "not an id"),
            ("    - {topic: a, tag: x, taskId: 5a1e5000-0000-4000-8000-000000000001}\n", "not several"),
            ("    - {topic: a, customProperty: {name: x}}\n", "`name` and `value`"),
            ("    - {topic: a, tag: x, allowTask: {tag: [x]}}\n", "always the same"),
            ("    - {topic: a, tga: x}\n", "tga"),
            ("    - {topic: qliksense/start_task, tag: x}\n", "taskStartTopic"),
            ("    - {topic: qliksense/butler/go, tag: x}\n", "only this program publishes"),
            ("    - {topic: a, tag: x}\n    - {topic: a, tag: y}\n", "twice"),
        ];
        for (text, part) in cases {
            let error = topics(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
