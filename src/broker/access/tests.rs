//! The order of judgement: start topics, protected topics, rules, the user's own keys; and what becomes of a client under a new policy.

use proptest::prelude::*;

use super::{pattern::ClientPattern, rule::Rule, *};
use crate::{
    broker::settings::{Actions, Limits, Listener, Settings, Storage, TopicPattern},
    names::{Secret, TopicName, matches},
};

// The fuzz target and this test ask for the same.
#[path = "../../../fuzz/fuzz_targets/rules_hold.rs"]
mod rules_hold;

#[test]
fn the_seeds_of_the_fuzz_target_hold() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/access_rules");
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let rules = seeds.iter().map(|seed| rules_hold::judge(&std::fs::read(seed).unwrap())).sum::<usize>();
    assert_eq!((seeds.len(), rules), (6, 14));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rules_and_names_hold(
        names in "[ab+#/$%ucå]{0,5}\n[ab+#/$%ucå-]{0,5}\n",
        asked in "[ab$/]{0,6}\n[ab$+#/]{0,6}",
        rules in prop::collection::vec("\n[+-][0-9a-f]( @?([ab$+#å]|%[ucx%]|/){0,5}){0,3}", 0..6),
    ) {
        rules_hold::judge(format!("{names}{asked}{}", rules.concat()).as_bytes());
    }
}

fn filters(list: &[&str]) -> Vec<TopicFilter> {
    list.iter().map(|text| TopicFilter::new(text).unwrap()).collect()
}

pub(in crate::broker) fn settings(users: Vec<User>, access: Vec<Rule>, anonymous: bool) -> Settings {
    Settings {
        listeners: vec![Listener {
            name: "local".into(),
            addresses: Vec::new(),
            written: String::new(),
            tls: None,
            websocket: None,
            allow_anonymous: anonymous,
            anonymous_rights: Rights { publish: true, subscribe: true, start: false },
        }],
        users,
        access,
        limits: Limits::default(),
        start_topics: filters(&["q/start"]),
        protected_topics: filters(&["q/own/#", "q/failed"]),
        open_topics: filters(&["q/own/ping"]),
        anonymous_sys: false,
        own_prefix: TopicName::new("q/own").unwrap(),
        storage: Storage::default(),
        replaced_at_start: Vec::new(),
        engine_test_hook: false,
    }
}

fn user(rights: Rights, publish: Option<&[&str]>, subscribe: Option<&[&str]>) -> User {
    User {
        rights,
        publish: publish.map(filters),
        subscribe: subscribe.map(filters),
        ..User::new("u", Secret::new("h"))
    }
}

const ALL: Rights = Rights { publish: true, subscribe: true, start: true };

fn rule(allow: bool, actions: &[Action], topics: &[&str]) -> Rule {
    Rule {
        allow,
        actions: actions.iter().copied().collect::<Actions>(),
        users: None,
        groups: None,
        clients: None,
        listeners: None,
        topics: topics.iter().map(|text| TopicPattern::new(text).unwrap()).collect(),
    }
}

/// What the first user may do as client `c`.
fn access(user: User, rules: Vec<Rule>) -> Arc<Access> {
    let policies = Policies::new(&settings(vec![user.clone()], rules, false));
    let who = Who::User { user: Arc::new(user), by_password: true };
    policies.present().access(who, &ClientId::new("c").unwrap(), Some(&"local".into()))
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

#[test]
fn a_start_topic_needs_the_right_start_and_nothing_else() {
    let starter = access(user(Rights { start: true, ..Rights::default() }, None, None), vec![]);
    assert!(starter.may_publish("q/start") && !starter.may_publish("x"));
    let rights = Rights { start: false, ..ALL };
    let publisher = access(user(rights, Some(&["#"]), None), vec![rule(true, &[Action::Publish], &["#"])]);
    assert!(!publisher.may_publish("q/start") && publisher.may_publish("x"));
    assert!(publisher.may_publish("q/own/ping") && !starter.may_publish("q/own/ping"));
    assert!(!publisher.may_publish("q/failed") && !publisher.may_publish("q/own/state"));
    assert!(!publisher.may_publish("$SYS/x"));
}

#[test]
fn rules_for_start_give_and_take_it() {
    let given = access(User::new("u", Secret::default()), vec![rule(true, &[Action::Start], &["q/start"])]);
    assert!(given.may_publish("q/start"));
    let taken = access(user(ALL, None, None), vec![rule(false, &[Action::Start], &["#"])]);
    assert!(!taken.may_publish("q/start") && taken.may_publish("x"));
}

#[test]
fn rules_come_before_the_users_own_lists() {
    let rules = vec![
        rule(false, &[Action::Publish], &["plant/secret/#"]),
        rule(true, &[Action::Publish], &["clients/%u/%c"]),
        rule(false, &[Action::Subscribe], &["plant/secret/+"]),
        rule(true, &[Action::Subscribe], &["news/#"]),
    ];
    let access = access(user(ALL, Some(&["plant/#"]), Some(&["plant/#"])), rules);
    for (topic, expected) in [
        ("plant/a", true),
        ("plant/secret/a", false),
        ("clients/u/c", true),
        ("clients/u/d", false),
        ("elsewhere", false),
    ] {
        assert_eq!(access.may_publish(topic), expected, "{topic}");
    }
    for (asked, expected) in [
        ("plant/a/#", true),
        ("plant/#", false),
        ("plant/secret/a", false),
        ("news/+", true),
        ("$share/g/news/+", true),
        ("$share/g/plant/+/x/y", true),
        ("$share/g/plant/+/+", false),
        ("#", false),
    ] {
        assert_eq!(access.may_subscribe(&filter(asked)), expected, "{asked}");
    }
}

#[test]
fn a_wide_subscription_brings_what_may_be_received() {
    let access = access(user(ALL, None, None), vec![rule(false, &[Action::Receive], &["plant/secret/#"])]);
    assert!(access.sieves() && access.may_subscribe(&filter("#")) && access.may_subscribe(&filter("plant/secret/a")));
    assert!(access.may_receive("plant/a") && !access.may_receive("plant/secret/a"));
    // To a shared subscription the denied messages would be lost.
    assert!(!access.may_subscribe(&filter("$share/g/#")) && access.may_subscribe(&filter("$share/g/plant/x/#")));
}

#[test]
fn what_may_not_be_subscribed_to_is_not_received() {
    let access = access(user(ALL, None, Some(&["plant/#"])), vec![rule(false, &[Action::Subscribe], &["plant/x"])]);
    assert!(!access.sieves());
    assert!(access.may_receive("plant/a") && !access.may_receive("plant/x") && !access.may_receive("other"));
}

/// How the policy of one file looks at a client that came in under another.
fn renewed(before: Settings, after: Settings, who: Who) -> (Arc<Access>, Option<Ended>) {
    let policies = Policies::new(&before);
    let old = policies.present().access(who, &ClientId::new("c").unwrap(), Some(&"local".into()));
    policies.replace(&after);
    assert_eq!(policies.generation(), 2);
    let (access, ended) = policies.present().renew(&old);
    assert_eq!(access.generation, 2);
    (access, ended)
}

#[test]
fn a_new_policy_ends_what_does_not_hold_any_more() {
    let old = user(ALL, None, None);
    let who = |by_password| Who::User { user: Arc::new(old.clone()), by_password };
    let with = |user: User| settings(vec![user], vec![], false);
    let cases = [
        (who(true), with(old.clone()), None),
        (who(true), with(User { rights: Rights { start: true, ..Rights::default() }, ..old.clone() }), None),
        (who(true), with(User { rights: Rights::default(), ..old.clone() }), Some(Ended::NoRights)),
        (who(true), with(User { password_hash: Some(Secret::new("other")), ..old.clone() }), Some(Ended::Password)),
        (who(false), with(User { password_hash: Some(Secret::new("other")), ..old.clone() }), None),
        (who(true), with(User::new("somebody else", Secret::new("h"))), Some(Ended::Nobody)),
        (who(true), settings(vec![], vec![], false), Some(Ended::Nobody)),
        (Who::Internal, settings(vec![], vec![], false), None),
    ];
    for (at, (who, after, expected)) in cases.into_iter().enumerate() {
        let (access, ended) = renewed(with(old.clone()), after, who);
        assert_eq!(ended, expected, "case {at}");
        if ended == Some(Ended::Nobody) {
            assert!(!access.may_publish("x") && !access.may_subscribe(&filter("x")) && !access.may_receive("x"));
        }
    }
}

#[test]
fn an_anonymous_door_is_closed_by_a_new_file_and_never_opened() {
    let anybody = || Who::Anonymous { rights: Rights { start: false, ..ALL }, here: false };
    let (_, ended) = renewed(settings(vec![], vec![], true), settings(vec![], vec![], true), anybody());
    assert_eq!(ended, None);
    let users = || vec![user(ALL, None, None)];
    let (_, ended) = renewed(settings(vec![], vec![], true), settings(users(), vec![], false), anybody());
    assert_eq!(ended, Some(Ended::Nobody));
    // The file is emptied: its defaults would open the door to everybody.
    let policies = Policies::new(&settings(users(), vec![], false));
    policies.replace(&settings(vec![], vec![], true));
    assert_eq!((policies.present().has_users(), policies.present().anonymous("local")), (false, None));
    // Also where it was open once: closed by the first users, it stays closed.
    let policies = Policies::new(&settings(vec![], vec![], true));
    policies.replace(&settings(users(), vec![], false));
    policies.replace(&settings(vec![], vec![], true));
    assert_eq!(policies.present().anonymous("local"), None);
}

#[test]
fn anonymous_rights_only_shrink() {
    let policies = Policies::new(&settings(vec![], vec![], true));
    let mut less = settings(vec![], vec![], true);
    less.listeners[0].anonymous_rights = Rights { subscribe: true, start: true, ..Rights::default() };
    policies.replace(&less);
    let rights = policies.present().anonymous("local");
    assert_eq!(rights, Some(Rights { subscribe: true, ..Rights::default() }));
}

#[test]
fn what_the_broker_says_of_itself_is_for_users_and_this_machine() {
    let policy =
        |anonymous_sys| Policies::new(&Settings { anonymous_sys, ..settings(vec![], vec![], false) }).present();
    let client = ClientId::new("c").unwrap();
    let of = |open, here, rights| policy(open).access(Who::Anonymous { rights, here }, &client, None);
    let stranger = Rights { start: false, ..ALL };
    let cases = [
        ("$SYS/#", false),
        ("$SYS", false),
        ("$SYS/broker/uptime", false),
        ("$share/g/$SYS/#", false),
        ("#", true),
        ("+/broker/uptime", true),
        ("$SYSTEM/#", true),
        ("a/$SYS", true),
    ];
    for (filter, by_stranger) in cases {
        let filter = TopicFilter::new(filter).unwrap();
        assert_eq!(of(false, false, stranger).may_subscribe(&filter), by_stranger, "{filter}");
        assert!(of(false, true, stranger).may_subscribe(&filter), "{filter}");
        assert!(of(true, false, stranger).may_subscribe(&filter), "{filter}");
    }
    let deaf = of(true, true, Rights { subscribe: false, ..stranger });
    assert!(!deaf.may_subscribe(&TopicFilter::new("$SYS/#").unwrap()));
}
