//! Which broker: the built-in one or one elsewhere, and why.
//!
//! Invariant: no name is looked up: a name of this machine other than its own (a DNS alias) is not recognised as such; the reason says what
//! to write then.

use std::{fs, path::PathBuf};

use super::Context;
use crate::{
    config::{
        address::{check_host, is_this_machine},
        settings::{BrokerChoice, BrokerTls, ExternalBroker, MqttProtocol},
        walk::{Section, is_placeholder},
    },
    names::Secret,
};

/// What `brokerHost` says.
enum Host {
    Absent,
    Placeholder,
    This(String),
    Other(String),
}

/// What only an external broker needs.
struct Login {
    user: Option<String>,
    password: Option<Secret>,
    client_id: Option<String>,
    protocol: MqttProtocol,
    tls: Option<BrokerTls>,
    /// The keys of these that the file has.
    written: Vec<&'static str>,
    azure: bool,
}

pub(super) fn decode(section: &Section<'_>, cx: &Context<'_>) -> Option<(BrokerChoice, String)> {
    let wanted = section.choice("broker", &["embedded", "external"]);
    let host = host(section, cx);
    let port = section.port("brokerPort", 1883);
    let login = login(section, cx);
    let (external, reason) = decide(wanted, &host, login.azure);
    if !external {
        return Some((embedded(section, &login, port), reason));
    }
    if wanted.is_none() && login.azure && !matches!(host, Host::Other(_)) {
        section.report().error(
            &section.path_of("brokerHost"),
            "azureEventGrid.enable is true, so `brokerHost` must name its broker",
        );
        return None;
    }
    let (host, port, reason) = match (&cx.overrides.mqtt, host) {
        (Some(address), _) => (address.host.clone(), address.port, format!("{reason}; --mqtt gives its address")),
        (None, Host::This(host) | Host::Other(host)) => (host, port, reason),
        (None, Host::Absent | Host::Placeholder) => {
            section.report().error(&section.path_of("broker"), "an external broker needs its host; add `brokerHost`");
            return None;
        }
    };
    let Login { user, password, client_id, protocol, tls, .. } = login;
    let broker = ExternalBroker { host, port, user, password, client_id, protocol, tls };
    Some((BrokerChoice::External(Box::new(broker)), reason))
}

fn host(section: &Section<'_>, cx: &Context<'_>) -> Host {
    let Some((_, text)) = section.raw_text("brokerHost") else { return Host::Absent };
    if text.is_empty() {
        return Host::Absent;
    }
    if is_placeholder(text) {
        return Host::Placeholder;
    }
    if let Err(error) = check_host(text) {
        section.report().error(&section.path_of("brokerHost"), error.to_string());
    }
    if is_this_machine(text, &cx.options.host_name, &cx.options.own_addresses) {
        Host::This(text.to_owned())
    } else {
        Host::Other(text.to_owned())
    }
}

/// Whether the broker is external, and the reason in one line.
fn decide(wanted: Option<usize>, host: &Host, azure: bool) -> (bool, String) {
    match (wanted, host) {
        (Some(0), _) => (false, "`mqttConfig.broker: embedded` is written".to_owned()),
        (Some(_), _) => (true, "`mqttConfig.broker: external` is written".to_owned()),
        (None, _) if azure => (true, "`azureEventGrid.enable` is true".to_owned()),
        (None, Host::Absent) => (false, "`mqttConfig.brokerHost` is absent".to_owned()),
        (None, Host::Placeholder) => {
            (false, "`mqttConfig.brokerHost` still holds the template's placeholder".to_owned())
        }
        (None, Host::This(host)) => (false, format!("`mqttConfig.brokerHost` {host} is this machine")),
        (None, Host::Other(host)) => {
            let hint = "if it is this machine, write `broker: embedded`";
            (true, format!("`mqttConfig.brokerHost` {host} is another machine; {hint}"))
        }
    }
}

fn embedded(section: &Section<'_>, login: &Login, port: u16) -> BrokerChoice {
    if login.azure {
        let message = "azureEventGrid is a broker elsewhere; remove `broker: embedded` or switch this off";
        section.report().error(&section.path_of("azureEventGrid.enable"), message);
    }
    for key in &login.written {
        let message =
            "this is for an external broker and has no effect on the built-in one (its users are in broker.toml)";
        section.report().warn(&section.path_of(key), message);
    }
    BrokerChoice::Embedded { port }
}

fn login(section: &Section<'_>, cx: &Context<'_>) -> Login {
    const KEYS: [&str; 6] = ["brokerUser", "brokerPassword", "brokerPasswordFile", "brokerTls", "clientId", "protocol"];
    let written = KEYS.into_iter().filter(|key| section.has(key)).collect();
    let password = password(section, cx);
    let user = section.text("brokerUser").map(str::to_owned);
    if password.is_some() && user.is_none() {
        section.report().error(&section.path_of("brokerUser"), "a password is given, but no `brokerUser`");
    }
    let client_id = section.text("clientId").map(str::to_owned);
    let protocol = match section.number("protocol", 3..=5, 3u8) {
        3 => MqttProtocol::V3,
        5 => MqttProtocol::V5,
        _ => {
            section.report().error(&section.path_of("protocol"), "write 3 (MQTT 3.1.1) or 5 (MQTT 5.0)");
            MqttProtocol::V3
        }
    };
    let tls = tls(section.section("brokerTls"), cx);
    let (azure, azure_id, azure_tls) = azure(section.section("azureEventGrid"), cx);
    Login { user, password, client_id: azure_id.or(client_id), protocol, tls: azure_tls.or(tls), written, azure }
}

fn password(section: &Section<'_>, cx: &Context<'_>) -> Option<Secret> {
    let written = section.secret("brokerPassword").map(Secret::new);
    let Some(file) = section.path("brokerPasswordFile", &cx.base) else { return written };
    let path = section.path_of("brokerPasswordFile");
    if written.is_some() {
        section.report().error(&path, "both `brokerPassword` and `brokerPasswordFile` are written; remove one");
        return written;
    }
    match fs::read_to_string(&file) {
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Err(error) => {
            section.report().error(&path, format!("{} cannot be read: {error}", file.display()));
            None
        }
    }
}

/// On where the section is written, unless it says otherwise.
fn tls(section: Section<'_>, cx: &Context<'_>) -> Option<BrokerTls> {
    let enable = section.flag("enable", section.is_written());
    let section = section.used(enable);
    let tls = BrokerTls {
        ca: file(&section, "ca", cx),
        cert: file(&section, "cert", cx),
        key: file(&section, "key", cx),
        verify_name: section.text("verifyName").map(str::to_owned),
    };
    if tls.cert.is_some() != tls.key.is_some() {
        section.report().error(&section.path_of("cert"), "a client certificate needs both `cert` and `key`");
    }
    section.finish();
    enable.then_some(tls)
}

/// A file that may still be missing when the program starts (a warning); only its own connection waits for it.
fn file(section: &Section<'_>, key: &'static str, cx: &Context<'_>) -> Option<PathBuf> {
    let file = section.path(key, &cx.base)?;
    if !file.exists() {
        section.report().warn(&section.path_of(key), format!("{} does not exist (yet)", file.display()));
    }
    Some(file)
}

/// Azure Event Grid: MQTT over TLS with a client certificate; nothing else is special about it.
fn azure(section: Section<'_>, cx: &Context<'_>) -> (bool, Option<String>, Option<BrokerTls>) {
    let enable = section.flag("enable", false);
    let section = section.used(enable);
    let client_id = section.text("clientId").map(str::to_owned);
    let cert = section.path("clientCertFile", &cx.base);
    let key = section.path("clientKeyFile", &cx.base);
    if enable && (cert.is_none() || key.is_none()) {
        section.report().error(&section.path_of("enable"), "`clientCertFile` and `clientKeyFile` are needed with it");
    }
    section.finish();
    let tls = BrokerTls { ca: None, cert, key, verify_name: None };
    if enable { (true, client_id, Some(tls)) } else { (false, None, None) }
}
