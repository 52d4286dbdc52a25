//! Access rules: who, what, where. The first rule that decides, decides; where none does, the user's own keys do.
//!
//! For a topic, a rule decides if one of its filters matches it. For a filter that is asked for, an allowing rule decides if it covers all of
//! it, a denying rule if they have any topic in common. It follows (and is tested) that whoever may subscribe to a filter may subscribe to
//! every topic it matches.

use std::sync::Arc;

use super::{
    cover::{covers, overlaps},
    pattern::{ClientPattern, TopicPattern},
};
use crate::names::TopicFilter;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// Sending messages, wills included.
    Publish = 1,
    /// Making subscriptions.
    Subscribe = 2,
    /// Being delivered messages.
    Receive = 4,
    /// Sending messages to a start topic.
    Start = 8,
}

impl Action {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Subscribe, Self::Receive, Self::Start];

    /// The word in `broker.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Receive => "receive",
            Self::Start => "start",
        }
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions(u8);

impl Actions {
    /// Whether an action is in it.
    pub const fn contains(self, action: Action) -> bool {
        self.0 & action as u8 != 0
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<T: IntoIterator<Item = Action>>(actions: T) -> Self {
        Self(actions.into_iter().fold(0, |set, action| set | action as u8))
    }
}

/// One `[[access]]` of `broker.toml`. Of `users`, `groups`, `clients` and `listeners`, `None` means everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// What.
    pub actions: Actions,
    /// Users it applies to, together with those of `groups`.
    pub users: Option<Vec<Arc<str>>>,
    /// Groups of users it applies to, together with `users`.
    pub groups: Option<Vec<Arc<str>>>,
    /// Client ids it applies to.
    pub clients: Option<Vec<ClientPattern>>,
    /// Names of the listeners it applies to.
    pub listeners: Option<Vec<Arc<str>>>,
    /// Where.
    pub topics: Vec<TopicPattern>,
}

/// Whom rules are applied to.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// User name; `None`: anonymous.
    pub user: Option<&'a str>,
    /// The user's groups.
    pub groups: &'a [Arc<str>],
    /// Client id.
    pub client: &'a str,
    /// Where it came in; `None`: not known any more (the will of a session of an earlier run).
    pub listener: Option<&'a str>,
}

impl Rule {
    fn applies(&self, to: &Subject<'_>) -> bool {
        let named = |names: &[Arc<str>], name: &str| names.iter().any(|known| **known == *name);
        let by_user = self.users.as_deref().map(|users| to.user.is_some_and(|user| named(users, user)));
        let by_group = self.groups.as_deref().map(|groups| to.groups.iter().any(|group| named(groups, group)));
        let who = match (by_user, by_group) {
            (None, None) => true,
            (user, group) => user.unwrap_or(false) || group.unwrap_or(false),
        };
        who && self.clients.as_ref().is_none_or(|clients| clients.iter().any(|client| client.matches(to.client)))
            && self.listeners.as_ref().is_none_or(|names| to.listener.is_some_and(|name| named(names, name)))
    }

    /// The rule for one client; `None`: it does not concern it.
    fn resolve(&self, to: &Subject<'_>) -> Option<Resolved> {
        if !self.applies(to) {
            return None;
        }
        let topics: Box<[_]> = self.topics.iter().filter_map(|pattern| pattern.resolve(to.user, to.client)).collect();
        (!topics.is_empty()).then_some(Resolved { allow: self.allow, actions: self.actions, topics })
    }
}

#[derive(Debug, Clone)]
struct Resolved {
    allow: bool,
    actions: Actions,
    topics: Box<[TopicFilter]>,
}

/// The rules that concern one client, in order, with the names filled in.
#[derive(Debug, Clone, Default)]
pub struct Ruleset(Box<[Resolved]>);

impl Ruleset {
    /// The rules for one client.
    pub fn resolve(rules: &[Rule], to: &Subject<'_>) -> Self {
        Self(rules.iter().filter_map(|rule| rule.resolve(to)).collect())
    }

    /// What the rules say of an action on a topic; `None`: nothing.
    pub fn topic(&self, action: Action, topic: &str) -> Option<bool> {
        self.about(action).find(|rule| rule.topics.iter().any(|filter| filter.matches(topic))).map(|rule| rule.allow)
    }

    /// What the rules say of an action on everything a filter matches; `None`: nothing.
    pub fn filter(&self, action: Action, asked: &str) -> Option<bool> {
        let decides = |rule: &&Resolved| {
            let mut filters = rule.topics.iter().map(TopicFilter::as_str);
            if rule.allow {
                filters.any(|filter| covers(filter, asked))
            } else {
                filters.any(|filter| overlaps(filter, asked))
            }
        };
        self.about(action).find(decides).map(|rule| rule.allow)
    }

    /// Whether any rule is about an action.
    pub fn mentions(&self, action: Action) -> bool {
        self.about(action).next().is_some()
    }

    /// Whether any rule allows anything.
    pub fn allows_anything(&self) -> bool {
        self.0.iter().any(|rule| rule.allow)
    }

    fn about(&self, action: Action) -> impl Iterator<Item = &Resolved> {
        self.0.iter().filter(move |rule| rule.actions.contains(action))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::TestRunner};

    use super::*;
    use crate::{broker::access::cover, names::matches};

    fn rule(allow: bool, actions: &[Action], topics: &[&str]) -> Rule {
        Rule {
            allow,
            actions: actions.iter().copied().collect(),
            users: None,
            groups: None,
            clients: None,
            listeners: None,
            topics: topics.iter().map(|text| TopicPattern::new(text).unwrap()).collect(),
        }
    }

    fn names(list: &[&str]) -> Option<Vec<Arc<str>>> {
        Some(list.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn the_first_rule_that_decides_decides() {
        let rules = [
            rule(true, &[Action::Publish], &["a/open"]),
            rule(false, &[Action::Publish, Action::Receive], &["a/#"]),
            rule(true, &[Action::Publish], &["#"]),
        ];
        let set = Ruleset::resolve(&rules, &Subject { user: None, groups: &[], client: "c", listener: None });
        for (action, topic, expected) in [
            (Action::Publish, "a/open", Some(true)),
            (Action::Publish, "a/x", Some(false)),
            (Action::Publish, "b", Some(true)),
            (Action::Publish, "$SYS/x", None),
            (Action::Receive, "a/open", Some(false)),
            (Action::Receive, "b", None),
            (Action::Start, "a/open", None),
        ] {
            assert_eq!(set.topic(action, topic), expected, "{action:?} {topic}");
        }
    }

    #[test]
    fn who_a_rule_applies_to() {
        let groups: [Arc<str>; 1] = ["plant".into()];
        let anna = Subject { user: Some("anna"), groups: &groups, client: "plc-7", listener: Some("local") };
        let nobody = Subject { user: None, groups: &[], ..anna };
        let clients = |text| Some(vec![ClientPattern::new(text).unwrap()]);
        let base = || rule(true, &[Action::Publish], &["#"]);
        let cases = [
            (base(), true, true),
            (Rule { users: names(&["anna"]), ..base() }, true, false),
            (Rule { users: names(&["bo"]), ..base() }, false, false),
            (Rule { users: names(&["bo"]), groups: names(&["plant"]), ..base() }, true, false),
            (Rule { users: names(&["anna"]), groups: names(&["office"]), ..base() }, true, false),
            (Rule { groups: names(&["office"]), ..base() }, false, false),
            (Rule { clients: clients("plc-*"), ..base() }, true, true),
            (Rule { clients: clients("hmi-*"), users: names(&["anna"]), ..base() }, false, false),
            (Rule { listeners: names(&["local"]), ..base() }, true, true),
            (Rule { listeners: names(&["far"]), ..base() }, false, false),
            (rule(true, &[Action::Publish], &["u/%u"]), true, false),
        ];
        for (at, (rule, for_anna, for_nobody)) in cases.iter().enumerate() {
            assert_eq!(
                (rule.resolve(&anna).is_some(), rule.resolve(&nobody).is_some()),
                (*for_anna, *for_nobody),
                "{at}"
            );
        }
        let late = Subject { listener: None, ..anna };
        assert!(Rule { listeners: names(&["local"]), ..base() }.resolve(&late).is_none());
    }

    /// A rule as plain data: allow, actions as bits, whether for anna only, patterns.
    type Plain = (bool, u8, bool, Vec<String>);

    fn plain() -> impl Strategy<Value = Plain> {
        let pattern = prop_oneof![
            4 => cover::tests::filter(),
            1 => Just("%u".to_owned()),
            1 => Just("a/%u/#".to_owned()),
            1 => Just("%c/+".to_owned()),
        ];
        (any::<bool>(), 1..16u8, any::<bool>(), prop::collection::vec(pattern, 1..3))
    }

    /// What the rules say by definition: texts, replaced and compared, nothing prepared.
    fn naive(rules: &[Plain], user: &str, client: &str, action: Action, topic: &str) -> Option<bool> {
        rules.iter().find_map(|(allow, actions, anna_only, patterns)| {
            let concerned = actions & action as u8 != 0 && (!anna_only || user == "anna");
            let bad = |name: &str| name.is_empty() || name.chars().any(|c| "+#/".contains(c));
            let hit = |pattern: &String| {
                let unusable = (pattern.contains("%u") && bad(user)) || (pattern.contains("%c") && bad(client));
                let widened = |name: &str| name.starts_with('$');
                let unusable = unusable
                    || (pattern.starts_with("%u") && widened(user))
                    || (pattern.starts_with("%c") && widened(client));
                !unusable && matches(&pattern.replace("%u", user).replace("%c", client), topic)
            };
            (concerned && patterns.iter().any(hit)).then_some(*allow)
        })
    }

    #[test]
    fn rules_say_what_the_naive_model_says_and_a_filter_is_all_its_topics() {
        let topics = cover::tests::topics();
        let name = || prop::sample::select(vec!["anna", "a", "b", "", "+", "#", "a/b", "$s"]);
        let wanted = (prop::collection::vec(plain(), 0..6), name(), name(), cover::tests::filter());
        let mut runner = TestRunner::default();
        runner
            .run(&wanted, |(plain, user, client, asked)| {
                let rules: Vec<Rule> = plain
                    .iter()
                    .map(|(allow, actions, anna_only, patterns)| Rule {
                        allow: *allow,
                        actions: Actions(*actions),
                        users: if *anna_only { names(&["anna"]) } else { None },
                        groups: None,
                        clients: None,
                        listeners: None,
                        topics: patterns.iter().map(|text| TopicPattern::new(text).unwrap()).collect(),
                    })
                    .collect();
                let subject = Subject { user: Some(user), groups: &[], client, listener: None };
                let set = Ruleset::resolve(&rules, &subject);
                for action in Action::ALL {
                    let whole = set.filter(action, &asked);
                    for topic in &topics {
                        let said = set.topic(action, topic);
                        prop_assert_eq!(said, naive(&plain, user, client, action, topic), "{:?} {}", action, topic);
                        if matches(&asked, topic) {
                            // Granted as a whole is granted topic by topic; undecided as a whole is denied nowhere.
                            prop_assert!(whole != Some(true) || said == Some(true), "{asked} {topic}");
                            prop_assert!(whole.is_some() || said != Some(false), "{asked} {topic}");
                        }
                    }
                }
                Ok(())
            })
            .unwrap();
    }
}
