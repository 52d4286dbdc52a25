//! `[[users]]`

use std::{collections::HashSet, sync::Arc};

use argon2::password_hash::phc::PasswordHash;

use crate::{
    broker::settings::{Rate, Rights, User},
    config::{
        tree::{Value, short},
        walk::{Item, Section, nearest},
    },
    names::{Secret, TopicFilter},
};

/// What a user without `rights` may do.
const DEFAULT_RIGHTS: Rights = Rights { publish: true, subscribe: true, start: false };

/// The users, and the keys of those who have no password and need a listener that knows them by certificate.
pub(super) fn decode(top: &Section<'_>) -> (Vec<User>, Vec<String>) {
    let mut certificate_only = Vec::new();
    let mut names = HashSet::new();
    let items = top.list("users");
    let users = items.iter().filter_map(|item| {
        let user = user(item)?;
        if user.password_hash.is_none() {
            certificate_only.push(item.section().path_of("password_hash"));
        }
        if !names.insert(user.name.clone()) {
            item.error(format!("the user \"{}\" is already defined", user.name));
        }
        Some(user)
    });
    let users = users.collect();
    (users, certificate_only)
}

/// What to say of a user who can log in nowhere.
pub(super) const NO_LOGIN: &str = "an Argon2id hash is needed; make it with `sense-butler hash-password` and paste the whole line. \
     (A user without one comes in by certificate alone, and no listener has `client_ca` and names users by certificate)";

fn user(item: &Item<'_>) -> Option<User> {
    let section = item.section();
    let name = section.text("name");
    if name.is_none() {
        item.error("`name` is needed");
    }
    let password_hash = if section.has("password_hash") { hash(&section).map(Some) } else { Some(None) };
    let groups =
        section.parsed_list("groups").unwrap_or_default().into_iter().map(|name: String| name.into()).collect();
    let (rights, console) = section.list_if_written("rights").map_or((DEFAULT_RIGHTS, false), |items| of_user(&items));
    let publish = section.filters("publish");
    let subscribe = section.filters("subscribe");
    for (key, list) in [("publish", &publish), ("subscribe", &subscribe)] {
        no_placeholders(&section, key, list.as_deref().unwrap_or_default());
    }
    let rate = rate(&section);
    for key in ["password", "publish_deny", "subscribe_deny"] {
        let why = if key == "password" {
            "passwords are not kept in files; make a `password_hash` with `sense-butler hash-password` and remove the key"
        } else {
            "there are only lists of what is allowed; write what is denied as [[access]] and remove the key"
        };
        section.refuse(key, why);
    }
    section.refuse_unknown();
    let (name, password_hash) = (Arc::from(name?), password_hash?);
    Some(User { name, password_hash, groups, rights, console, publish, subscribe, rate })
}

fn no_placeholders(section: &Section<'_>, key: &str, filters: &[TopicFilter]) {
    if filters.iter().any(|filter| filter.as_str().contains("%u") || filter.as_str().contains("%c")) {
        let message = "`%u` and `%c` stand for themselves here; in [[access]] they are the user and the client id";
        section.report().warn(&section.path_of(key), message);
    }
}

/// A user's own rate; what is not written of it is unlimited.
fn rate(section: &Section<'_>) -> Option<Rate> {
    let per_second = |key| section.number_if_written(key, super::limits::PER_SECOND);
    let (messages, bytes) = (per_second("messages_per_second"), per_second("bytes_per_second"));
    (messages.is_some() || bytes.is_some()).then(|| Rate { messages: messages.unwrap_or(0), bytes: bytes.unwrap_or(0) })
}

/// The hash is a secret of sorts: it is never quoted.
fn hash(section: &Section<'_>) -> Option<Secret> {
    let text = section.secret("password_hash");
    let argon2id = |text: &&str| {
        PasswordHash::new(text).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id" && hash.hash.is_some())
    };
    let hash = text.filter(argon2id);
    if hash.is_none() {
        let message = "an Argon2id hash is needed; make it with `sense-butler hash-password` and paste the whole line";
        section.report().error(&section.path_of("password_hash"), message);
    }
    hash.map(Secret::new)
}

/// For a name that nobody has: who might be meant.
pub(in crate::config) fn no_such(what: &str, name: &str, known: &[Arc<str>]) -> String {
    let known: Vec<&str> = known.iter().map(|name| &**name).collect();
    let near = nearest(name, &known).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
    format!("there is no {what} \"{}\"{near}", short(name))
}

/// The rights of a user: those of any client, and `console`, which nobody without a name can have.
fn of_user(items: &[Item<'_>]) -> (Rights, bool) {
    let (mut rights, mut console) = (Rights::default(), false);
    for item in items {
        match item.value() {
            Value::Text(text) if text == "console" => console = true,
            _ => item.right(&mut rights, "publish, subscribe, start and console"),
        }
    }
    (rights, console)
}

/// The rights of clients without a user name.
pub(super) fn rights(items: &[Item<'_>]) -> Rights {
    let mut rights = Rights::default();
    items.iter().for_each(|item| item.right(&mut rights, "publish, subscribe and start"));
    rights
}
