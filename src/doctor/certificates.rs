//! Certificates and keys of the program's own doors and of the connection to a broker elsewhere: readable, belonging together, and when they end.
//! (Those of Qlik Sense are a step of the way to it.)

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use super::finding::{Finding, Section};
use crate::{
    bus::wire,
    config::{
        Loaded,
        settings::{BrokerChoice, BrokerTls},
    },
    net::{
        certificates::Certificates,
        pem,
        tls::{Clients, Files},
    },
};

const HERE: Section = Section::Certificates;
/// A certificate that ends within this time is a warning, seconds (30 days).
const SOON: i64 = 30 * 24 * 3600;
/// What to do about a file that cannot be used.
const REMEDY: &str = "Put a certificate and its key there, PEM, that belong together and that the program's account may read; new files are taken \
     within seconds, without a restart.";

/// Looks at the files of every door.
pub fn look(loaded: &Loaded) -> Vec<Finding> {
    let rest = loaded.settings.rest.tls.as_ref().filter(|_| loaded.settings.rest.enable).map(|tls| {
        let files = Files { cert: tls.cert.clone(), key: tls.key.clone(), clients: None, alpn: Vec::new() };
        ("REST".to_owned(), files)
    });
    let listeners = loaded.broker.listeners.iter().filter_map(|listener| {
        let tls = listener.tls.as_ref()?;
        let clients =
            tls.clients.as_ref().map(|clients| Clients { ca: clients.ca.clone(), required: clients.required });
        let files = Files { cert: tls.cert.clone(), key: tls.key.clone(), clients, alpn: Vec::new() };
        Some((format!("MQTT listener `{}`", listener.name), files))
    });
    let doors = rest.into_iter().chain(listeners).flat_map(|(name, files)| door(&name, files));
    let found: Vec<Finding> = doors.chain(external(loaded)).collect();
    if found.is_empty() { vec![HERE.ok("no door of this program uses TLS")] } else { found }
}

fn door(name: &str, files: Files) -> Vec<Finding> {
    // Of its own: nothing here reaches the metrics of anybody.
    match Certificates::default().door(name, files) {
        Err(error) => vec![HERE.problem(format!("{name}: {error}"), REMEDY)],
        Ok(door) => {
            let ends = door.certificates().into_iter();
            ends.map(|certificate| end(name, &certificate.file, certificate.expires)).collect()
        }
    }
}

/// What this program shows to, and expects of, a broker elsewhere.
fn external(loaded: &Loaded) -> Vec<Finding> {
    let BrokerChoice::External(broker) = &loaded.settings.mqtt.broker else { return Vec::new() };
    let Some(tls) = &broker.tls else { return Vec::new() };
    let name = format!("broker at {}:{}", broker.host, broker.port);
    match wire::client_config(tls) {
        Err(error) => {
            vec![HERE.problem(format!("{name}: {error}"), "Correct `mqttConfig.brokerTls`, or the files it names.")]
        }
        Ok(_) => files_of(tls).map(|file| end(&name, &file, earliest(&file))).collect(),
    }
}

fn files_of(tls: &BrokerTls) -> impl Iterator<Item = PathBuf> {
    [tls.ca.clone(), tls.cert.clone()].into_iter().flatten()
}

fn earliest(file: &std::path::Path) -> Option<i64> {
    pem::earliest_end(&pem::certificates(file).ok()?)
}

fn end(name: &str, file: &std::path::Path, expires: Option<i64>) -> Finding {
    let file = file.display();
    let Some(expires) = expires else {
        return HERE.warning(
            format!("{name}: the end of {file} cannot be read out"),
            "Is it a certificate of the usual kind (X.509)?",
        );
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    let left = expires - i64::try_from(now).unwrap_or(i64::MAX);
    let until = time::OffsetDateTime::from_unix_timestamp(expires)
        .map_or_else(|_| "?".to_owned(), |end| end.date().to_string());
    let renew = "Renew it and put the new one in its place; it is taken within seconds, without a restart.";
    match left {
        ..0 => HERE.problem(format!("{name}: {file} expired on {until}; the other side refuses it"), renew),
        0..SOON => HERE.warning(format!("{name}: {file} ends on {until}, in {} days", left / 86_400), renew),
        _ => HERE.ok(format!("{name}: {file} is valid until {until}")),
    }
}
