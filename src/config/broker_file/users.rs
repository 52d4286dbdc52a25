//! `[[users]]`

use std::{collections::HashSet, sync::Arc};

use argon2::password_hash::phc::PasswordHash;

use crate::{
    broker::settings::{Rights, User},
    config::walk::{Item, Section},
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
    let password_hash = if section.has("password_hash") { Some(hash(&section)?) } else { None };
    let rights = section.list_if_written("rights").map_or(DEFAULT_RIGHTS, |items| rights(&items));
    let publish = section.filters("publish");
    let subscribe = section.filters("subscribe");
    for key in ["password", "publish_deny", "subscribe_deny"] {
        let why = if key == "password" {
            "passwords are not kept in files; make a `password_hash` with `sense-butler hash-password` and remove the key"
        } else {
            "there are only lists of what is allowed; remove the key"
        };
        section.refuse(key, why);
    }
    section.refuse_unknown();
    Some(User { name: Arc::from(name?), password_hash, rights, publish, subscribe })
}

/// The hash is a secret of sorts: it is never quoted.
fn hash(section: &Section<'_>) -> Option<String> {
    let text = section.secret("password_hash");
    let argon2id = |text: &&str| {
        PasswordHash::new(text).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id" && hash.hash.is_some())
    };
    let hash = text.filter(argon2id);
    if hash.is_none() {
        let message = "an Argon2id hash is needed; make it with `sense-butler hash-password` and paste the whole line";
        section.report().error(&section.path_of("password_hash"), message);
    }
    hash.map(str::to_owned)
}

pub(super) fn rights(items: &[Item<'_>]) -> Rights {
    let mut rights = Rights::default();
    items.iter().for_each(|item| item.right(&mut rights));
    rights
}
