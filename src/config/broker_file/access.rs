//! `[[access]]`
//!
//! Invariant: a rule that names somebody or something that does not exist is refused: a denying rule with a slip of the pen would deny
//! nothing.

use std::sync::Arc;

use super::users::no_such;
use crate::{
    broker::settings::{Action, Actions, ClientPattern, Rule, TopicPattern, User},
    config::walk::{Item, Section},
};

/// The rules, in the order of the file. `listeners`: names of those there are.
pub(super) fn decode(top: &Section<'_>, users: &[User], listeners: &[Arc<str>]) -> Vec<Rule> {
    top.list("access").iter().filter_map(|item| rule(item, users, listeners)).collect()
}

fn rule(item: &Item<'_>, users: &[User], listeners: &[Arc<str>]) -> Option<Rule> {
    let section = item.section();
    let (allow, deny) = (actions(&section, "allow"), actions(&section, "deny"));
    let known_users: Vec<_> = users.iter().map(|user| Arc::clone(&user.name)).collect();
    let known_groups: Vec<_> = users.iter().flat_map(|user| user.groups.iter().cloned()).collect();
    let named = names(&section, "users", &known_users, "user");
    let groups = names(&section, "groups", &known_groups, "member of a group");
    let listeners = names(&section, "listeners", listeners, "listener");
    let clients = patterns(&section, "clients", ClientPattern::new);
    let topics = patterns(&section, "topics", TopicPattern::new);
    section.refuse_unknown();
    let (allow, actions) = match (allow, deny) {
        (Some(actions), None) => (true, actions),
        (None, Some(actions)) => (false, actions),
        _ => {
            item.error("a rule has either `allow` or `deny`, with one or more of \"publish\", \"subscribe\", \"receive\", \"start\"");
            return None;
        }
    };
    if topics.is_none() {
        item.error("`topics` is needed; `[\"#\"]` is every topic that does not begin with `$`");
    }
    Some(Rule { allow, actions, users: named, groups, clients, listeners, topics: topics? })
}

/// The actions of a key; an empty list is reported and counts as written.
fn actions(section: &Section<'_>, key: &'static str) -> Option<Actions> {
    let items = section.list_if_written(key)?;
    let action = |item: &Item<'_>| {
        let text = item.text()?;
        let action = Action::ALL.into_iter().find(|action| action.as_str() == text);
        if action.is_none() {
            item.error(format!("\"{text}\" is none of publish, subscribe, receive and start"));
        }
        action
    };
    let actions: Vec<_> = items.iter().filter_map(action).collect();
    not_empty(section, key, &items);
    Some(actions.into_iter().collect())
}

fn not_empty(section: &Section<'_>, key: &str, items: &[Item<'_>]) {
    if items.is_empty() {
        section.report().error(&section.path_of(key), "the list is empty; name something or leave the key out");
    }
}

fn names(section: &Section<'_>, key: &'static str, known: &[Arc<str>], what: &str) -> Option<Vec<Arc<str>>> {
    let items = section.list_if_written(key)?;
    not_empty(section, key, &items);
    let name = |item: &Item<'_>| {
        let text = item.text()?;
        if !known.iter().any(|known| **known == *text) {
            item.error(no_such(what, text, known));
        }
        Some(Arc::from(text))
    };
    Some(items.iter().filter_map(name).collect())
}

fn patterns<T, E: std::fmt::Display>(
    section: &Section<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<Vec<T>> {
    let items = section.list_if_written(key)?;
    not_empty(section, key, &items);
    let pattern = |item: &Item<'_>| parse(item.text()?).inspect_err(|error| item.error(error.to_string())).ok();
    Some(items.iter().filter_map(pattern).collect())
}
