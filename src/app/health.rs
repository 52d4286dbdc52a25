//! What the program says of itself: `info` once, `health` every minute.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    api,
    bus::Publication,
    config::{
        Loaded,
        settings::{BrokerChoice, MqttSettings},
    },
    names::{NameError, QoS},
    net::certificates::Certificates,
    sense::{
        qrs::{Qrs, QrsHealth},
        receiver::Receiver,
    },
    telemetry::{
        metrics, panics,
        readiness::{Latch, Readiness},
    },
};

/// Makes the two snapshots.
pub(super) struct Report {
    readiness: Readiness,
    qrs: Qrs,
    started: Instant,
    started_at: SystemTime,
    generation: &'static str,
    broker: &'static str,
    broker_reason: String,
    persistence: &'static str,
    parts: Value,
    not_offered: Vec<String>,
    certificates: Certificates,
}

impl Report {
    pub(super) fn new(loaded: &Loaded, readiness: &Readiness, qrs: &Qrs, certificates: &Certificates) -> Self {
        let settings = &loaded.settings;
        Self {
            readiness: readiness.clone(),
            qrs: qrs.clone(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            generation: match settings.generation {
                crate::config::settings::Generation::V5_4 => "5.4",
                crate::config::settings::Generation::Head => "head",
            },
            broker: match settings.mqtt.broker {
                BrokerChoice::Embedded { .. } => "embedded",
                BrokerChoice::External(_) => "external",
            },
            broker_reason: settings.mqtt.broker_reason.clone(),
            persistence: match (&settings.mqtt.broker, &loaded.broker.storage.directory) {
                (BrokerChoice::External(_), _) => "the external broker's own",
                (BrokerChoice::Embedded { .. }, Some(_)) => {
                    "disk: persistent sessions and retained messages outlive the program"
                }
                (BrokerChoice::Embedded { .. }, None) => {
                    "memory: sessions and retained messages do not outlive the program"
                }
            },
            parts: json!({
                "mqtt": settings.mqtt.enable,
                "udp": settings.udp.enable,
                "rest": settings.rest.enable,
                "qrs": settings.qrs.host.is_some(),
                "startTaskFilter": settings.start_filter.enable,
            }),
            not_offered: settings.not_offered.clone(),
            certificates: certificates.clone(),
        }
    }

    pub(super) fn info(&self, listening: &Value) -> Value {
        let started = OffsetDateTime::from(self.started_at).format(&Rfc3339).unwrap_or_default();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": started,
            "listeners": listening,
            "enabled": self.parts,
            "broker": self.broker,
            "brokerReason": self.broker_reason,
            "compatibility": self.generation,
            "persistence": self.persistence,
        })
    }

    pub(super) fn health(&self) -> Value {
        let qrs = self.qrs.health();
        json!({
            "ready": self.readiness.is_ready(),
            "uptimeSeconds": self.started.elapsed().as_secs(),
            "parts": self.readiness.parts(),
            "qrs": {
                "state": qrs.sentence(),
                "remedy": qrs.remedy(),
                "warning": self.qrs.warning(),
                "hosts": self.qrs.hosts(),
                "certificates": self.qrs.certificate_ends(),
            },
            "certificates": self.certificates.state(),
            "memoryBytes": metrics::resident_bytes(),
            "panics": panics::count(),
            "notOffered": self.not_offered,
        })
    }
}

/// `state` offline: what an external broker says when we vanish.
pub(super) fn offline(mqtt: &MqttSettings) -> Result<Publication, NameError> {
    let topic = mqtt.own_topics.join("state")?;
    Ok(Publication::new(topic, r#"{"state":"offline"}"#).qos(QoS::AtLeastOnce).retained())
}

/// The addresses, for `info`.
pub(super) fn listening(mqtt: &[(Arc<str>, SocketAddr)], rest: Option<&api::Server>, udp: Option<&Receiver>) -> Value {
    json!({
        "mqtt": mqtt.iter().map(|(name, address)| json!({ "name": &**name, "address": address })).collect::<Vec<_>>(),
        "rest": rest.map(api::Server::addresses).unwrap_or_default(),
        "udp": udp.map(Receiver::listening).unwrap_or_default().iter().map(|door| door.address).collect::<Vec<_>>(),
    })
}

/// Shows in readiness how QRS is.
pub(super) fn note_qrs(latch: &Latch, qrs: &Qrs) {
    match qrs.health() {
        QrsHealth::Ok { .. } => latch.up(),
        other => latch.down(other.sentence()),
    }
}
