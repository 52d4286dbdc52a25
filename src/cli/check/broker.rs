//! What `check` says of the built-in broker: its doors, users and rules, or which broker elsewhere.
//!
//! Invariant: as [`super`]; no password is shown.

use std::{
    io::{self, Write},
    sync::Arc,
};

use crate::{
    broker::settings::{Action, CertificateName, Listener, Rights, Rule, Settings as BrokerSettings, User},
    config::settings::{BrokerChoice, Settings},
};

pub(super) fn describe(settings: &Settings, broker: &BrokerSettings, out: &mut dyn Write) -> io::Result<()> {
    let reason = &settings.mqtt.broker_reason;
    match &settings.mqtt.broker {
        BrokerChoice::External(external) => {
            let tls = if external.tls.is_some() { "TLS" } else { "unencrypted" };
            writeln!(out, "broker      external at {}:{}, {tls}: {reason}", external.host, external.port)?;
        }
        BrokerChoice::Embedded { .. } => {
            writeln!(out, "broker      embedded: {reason}")?;
            broker.listeners.iter().try_for_each(|listener| describe_listener(listener, out))?;
            broker.users.iter().try_for_each(|user| describe_user(user, out))?;
            broker.access.iter().enumerate().try_for_each(|(at, rule)| describe_rule(at + 1, rule, out))?;
            match &broker.storage.directory {
                Some(directory) => {
                    writeln!(out, "            keeps sessions and retained messages in {}", directory.display())?;
                }
                None => writeln!(
                    out,
                    "            sessions and retained messages live in memory (storage.in_memory): a restart forgets them"
                )?,
            }
        }
    }
    if !settings.mqtt.enable {
        writeln!(
            out,
            "            mqttConfig.enable is false: no events are forwarded and no tasks are started by MQTT"
        )?;
    }
    Ok(())
}

fn describe_listener(listener: &Listener, out: &mut dyn Write) -> io::Result<()> {
    let addresses: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
    let tls = match listener.tls.as_ref().map(|tls| tls.clients.as_ref()) {
        None => "unencrypted".to_owned(),
        Some(None) => "TLS".to_owned(),
        Some(Some(clients)) => {
            let word = if clients.required { "required" } else { "optional" };
            let name = match clients.name {
                CertificateName::Nobody => "name nobody",
                CertificateName::CommonName => "name the user by CN",
                CertificateName::AlternativeName => "name the user by SAN",
            };
            format!("TLS, client certificates {word}, {name}")
        }
    };
    let protocol = match &listener.websocket {
        None => "MQTT".to_owned(),
        Some(web) => format!("MQTT over WebSocket ({})", web.path),
    };
    let anonymous = match (listener.allow_anonymous, words(listener.anonymous_rights)) {
        (false, _) => "users only".to_owned(),
        (true, words) => format!("without a user name: {words}"),
    };
    writeln!(
        out,
        "            opens {protocol} on {} (\"{}\", {tls}; {anonymous})",
        addresses.join(" and "),
        listener.name
    )
}

fn describe_user(user: &User, out: &mut dyn Write) -> io::Result<()> {
    let list = |topics: &Option<Vec<crate::names::TopicFilter>>, all: &str| match topics {
        None => all.to_owned(),
        Some(topics) if topics.is_empty() => "nothing".to_owned(),
        Some(topics) => topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>().join(", "),
    };
    write!(out, "            user \"{}\": {}", user.name, words(user.rights))?;
    if user.console {
        write!(out, "; logs in to the console")?;
    }
    if user.password_hash.is_none() {
        write!(out, "; by certificate alone")?;
    }
    if user.rights.publish {
        write!(out, "; publishes to {}", list(&user.publish, "all but this program's own and the start topics"))?;
    }
    if user.rights.subscribe {
        write!(out, "; subscribes to {}", list(&user.subscribe, "everything"))?;
    }
    writeln!(out)
}

/// Rules in the order they are gone through.
fn describe_rule(number: usize, rule: &Rule, out: &mut dyn Write) -> io::Result<()> {
    let quoted = |what: &str, names: &[Arc<str>]| {
        let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        format!("{what} {}", names.join(", "))
    };
    let mut who: Vec<String> = Vec::new();
    who.extend(rule.users.as_deref().map(|names| quoted("user", names)));
    who.extend(rule.groups.as_deref().map(|names| quoted("group", names)));
    let mut who = if who.is_empty() { "everybody".to_owned() } else { who.join(" and ") };
    if let Some(clients) = &rule.clients {
        let clients: Vec<_> = clients.iter().map(|client| client.as_str()).collect();
        who = format!("{who} as client {}", clients.join(", "));
    }
    if let Some(listeners) = &rule.listeners {
        who = format!("{who} at {}", quoted("listener", listeners));
    }
    let actions: Vec<_> =
        Action::ALL.into_iter().filter(|action| rule.actions.contains(*action)).map(Action::as_str).collect();
    let topics: Vec<_> = rule.topics.iter().map(|topic| topic.as_str()).collect();
    let verb = if rule.allow { "allows" } else { "denies" };
    writeln!(out, "            rule {number} {verb} {who}: {} on {}", actions.join(", "), topics.join(", "))
}

fn words(rights: Rights) -> String {
    let words = [(rights.publish, "publish"), (rights.subscribe, "subscribe"), (rights.start, "start tasks")];
    let held: Vec<_> = words.iter().filter(|(held, _)| *held).map(|(_, word)| *word).collect();
    if held.is_empty() { "nothing".to_owned() } else { held.join(", ") }
}
