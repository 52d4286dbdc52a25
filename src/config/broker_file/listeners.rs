//! `[[listeners]]`

use std::{net::SocketAddr, sync::Arc};

use super::{Context, broker_port, listener_tls, users::rights, websocket};
use crate::{
    broker::settings::{Listener, Rights},
    config::{
        address::HostPort,
        walk::{Item, Section},
    },
};

/// The listeners of the file; without any, one at `brokerPort` on localhost. None at all for an external broker.
pub(super) fn decode(top: &Section<'_>, no_users: bool, cx: &Context<'_>) -> Option<Vec<Listener>> {
    let items = top.list("listeners");
    let written: Vec<_> =
        items.iter().map(|item| (item.path.clone(), listener(&item.section(), no_users, cx))).collect();
    let Some(port) = broker_port(cx.butler) else {
        if !written.is_empty() {
            let reason = &cx.butler.mqtt.broker_reason;
            cx.report.warn("listeners", format!("none of them is opened: the broker is external ({reason})"));
        }
        return Some(Vec::new());
    };
    if let Some(address) = &cx.overrides.mqtt {
        let listener = standard("mqtt", address, no_users, cx)?;
        closed_door(&listener, no_users, "", cx);
        return Some(vec![listener]);
    }
    if written.is_empty() {
        return Some(vec![standard("local", &HostPort { host: "localhost".to_owned(), port }, no_users, cx)?]);
    }
    let mut listeners = Vec::with_capacity(written.len());
    for (path, listener) in written {
        let listener = listener?;
        closed_door(&listener, no_users, &path, cx);
        collision(&listener, &listeners, &path, cx);
        listeners.push(listener);
    }
    brokers_port_is_served(port, &listeners, cx);
    Some(listeners)
}

/// Names a rule may use: of the listeners that are opened, and of those the file describes (the command line may open another instead).
pub(super) fn names(top: &Section<'_>, opened: Option<&[Listener]>) -> Vec<Arc<str>> {
    let opened = opened.unwrap_or_default().iter().map(|listener| Arc::clone(&listener.name));
    let written = top.texts_of("listeners", &["name", "address"]).into_iter().map(Arc::from);
    opened.chain(written).collect()
}

/// A listener nobody described: plain TCP, anonymous while no users are defined and it is on loopback.
fn standard(name: &str, address: &HostPort, no_users: bool, cx: &Context<'_>) -> Option<Listener> {
    let addresses = address.bind_addresses().inspect_err(|error| cx.report.error("", error.to_string())).ok()?;
    let allow_anonymous = no_users && on_loopback(&addresses);
    let anonymous_rights = Rights { publish: true, subscribe: true, start: allow_anonymous };
    let written = address.to_string();
    let name = Arc::from(name);
    Some(Listener { name, addresses, written, tls: None, websocket: None, allow_anonymous, anonymous_rights })
}

fn on_loopback(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
}

fn listener(section: &Section<'_>, no_users: bool, cx: &Context<'_>) -> Option<Listener> {
    let name = section.text("name");
    let address = section.text("address");
    let parsed = address.and_then(|text| {
        let parsed = text.parse::<HostPort>().and_then(|address| Ok((address.bind_addresses()?, address.to_string())));
        parsed.inspect_err(|error| section.report().error(&section.path_of("address"), error.to_string())).ok()
    });
    if address.is_none() {
        section.report().error(&section.path_of("address"), "`address` is needed, e.g. \"localhost:1883\"");
    }
    let loopback = parsed.as_ref().is_some_and(|(addresses, _)| on_loopback(addresses));
    let tls = listener_tls::decode(section, no_users, cx);
    let opened = listener_tls::opens_to_certificates(tls.as_ref().and_then(Option::as_ref));
    let allow_anonymous = section.flag("allow_anonymous", no_users && (loopback || opened));
    let anonymous_rights = section
        .list_if_written("anonymous_rights")
        .map_or(Rights { publish: true, subscribe: true, start: loopback }, |items| rights(&items));
    let websocket = websocket::decode(section);
    section.refuse_unknown();
    let (addresses, written) = parsed?;
    let name = Arc::from(name.unwrap_or(&written));
    Some(Listener { name, addresses, written, tls: tls?, websocket, allow_anonymous, anonymous_rights })
}

/// Design, closed doors: other machines come in with a password, with a certificate, or because somebody wrote that anybody may.
fn closed_door(listener: &Listener, no_users: bool, path: &str, cx: &Context<'_>) {
    let certificates = listener_tls::requires_certificates(listener.tls.as_ref());
    if on_loopback(&listener.addresses) || listener.allow_anonymous || !no_users || certificates {
        return;
    }
    let message = format!(
        "other machines can reach {}, but nobody is named who may come in. Add to broker.toml a user (the hash is made by \
         `sense-butler hash-password`):",
        listener.written
    );
    let lines = [
        "[[users]]",
        "name = \"plant\"",
        "password_hash = \"$argon2id$...\"",
        "# or, in this [[listeners]], for anybody to publish and subscribe:",
        "allow_anonymous = true",
    ];
    let key = if path.is_empty() { "--mqtt".to_owned() } else { format!("{path}.address") };
    cx.report.error_with(&key, message, lines.map(str::to_owned).to_vec());
}

fn collision(listener: &Listener, earlier: &[Listener], path: &str, cx: &Context<'_>) {
    if let Some(other) = earlier.iter().find(|other| other.name == listener.name) {
        cx.report.error(&format!("{path}.name"), format!("another listener is called \"{}\", too", other.name));
    }
    let clash =
        |address: &&SocketAddr| address.port() != 0 && earlier.iter().any(|other| other.addresses.contains(address));
    if let Some(address) = listener.addresses.iter().find(clash) {
        cx.report.error(&format!("{path}.address"), format!("another listener opens {address} already"));
    }
}

fn brokers_port_is_served(port: u16, listeners: &[Listener], cx: &Context<'_>) {
    let served = listeners.iter().flat_map(|listener| &listener.addresses).any(|address| address.port() == port);
    if !served && cx.butler.file.is_some() {
        cx.report.warn(
            "listeners",
            format!("no listener serves port {port}, which `mqttConfig.brokerPort` names (1883 when absent); clients that use it find nobody"),
        );
    }
}

impl Item<'_> {
    /// A right by its word.
    pub(super) fn right(&self, rights: &mut Rights, known: &str) {
        match self.text() {
            Some("publish") => rights.publish = true,
            Some("subscribe") => rights.subscribe = true,
            Some("start") => rights.start = true,
            Some(other) => self.error(format!("\"{other}\" is no right; there are {known}")),
            None => {}
        }
    }
}
