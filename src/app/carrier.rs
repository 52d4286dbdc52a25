//! Who carries the messages: the built-in broker or one elsewhere. The rest of the assembly sees two buses and a task to run.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    BuildError, probe,
    supervise::{Stage, Supervisor},
};
use crate::{
    broker::{Broker, BrokerError, BrokerHandle, Logins, StoreHealth},
    bus::{Bus, Door, Publication, Transport, desk::Desk, embedded::Embedded, external},
    config::{
        Loaded,
        settings::{BrokerChoice, MqttSettings},
    },
    net::certificates::Certificates,
    telemetry::{
        metrics::Registry,
        readiness::{Latch, Readiness},
    },
};

/// The bound broker, or the way to an external one.
pub(super) enum Carrier {
    Embedded(Box<Broker>),
    External(Box<(external::External, external::Driver)>),
}

/// The two doors the program itself publishes through.
pub(super) struct Buses {
    /// Events, answers, status.
    pub bridge: Bus,
    /// REST.
    pub rest: Bus,
}

impl Carrier {
    /// Binds the built-in broker or prepares the connection to the external one. `will`: what an external broker says when we vanish.
    pub(super) fn build(
        loaded: &Loaded,
        will: Publication,
        registry: &mut Registry,
        certificates: &Certificates,
    ) -> Result<Self, BuildError> {
        match &loaded.settings.mqtt.broker {
            BrokerChoice::Embedded { .. } => {
                let mut settings = loaded.broker.clone();
                // What an earlier run that was killed left as `online` is not true any more.
                settings.replaced_at_start = vec![(will.topic, will.payload)];
                Ok(Self::Embedded(Box::new(Broker::bind_with(&settings, registry, certificates)?)))
            }
            BrokerChoice::External(broker) => {
                let (external, driver) =
                    external::External::build(external::Config::new(broker.as_ref().clone(), Some(will)));
                external.register(registry);
                Ok(Self::External(Box::new((external, driver))))
            }
        }
    }

    pub(super) fn buses(&self) -> Buses {
        match self {
            Self::Embedded(broker) => {
                let bus = |door| Bus::new(Embedded::new(broker.handle(), door));
                Buses { bridge: bus(Door::Internal), rest: bus(Door::Rest) }
            }
            Self::External(parts) => {
                let bus = Bus::new(parts.0.clone());
                Buses { bridge: bus.clone(), rest: bus }
            }
        }
    }

    /// Where clients find it, with the listener's name.
    pub(super) fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        match self {
            Self::Embedded(broker) => broker.addresses(),
            Self::External(_) => Vec::new(),
        }
    }

    /// The built-in broker's handle.
    pub(super) fn broker(&self) -> Option<BrokerHandle> {
        match self {
            Self::Embedded(broker) => Some(broker.handle()),
            Self::External(_) => None,
        }
    }

    /// Where the built-in broker is looked at and steered.
    pub(super) fn desk(&self) -> Option<Desk> {
        self.broker().map(|broker| broker.desk())
    }

    /// Where the users of `broker.toml` log in.
    pub(super) fn logins(&self, loaded: &Loaded) -> Result<Logins, BuildError> {
        match self {
            Self::Embedded(broker) => Ok(broker.handle().logins()),
            Self::External(_) => Ok(Logins::of(&loaded.broker).map_err(BrokerError::from)?),
        }
    }

    /// Counts connections to an external broker; each is a reason to say our status.
    pub(super) fn connections(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Embedded(_) => None,
            Self::External(parts) => Some(parts.0.connections()),
        }
    }

    /// Starts it, and what tells readiness how it is.
    pub(super) fn start(self, supervisor: &Supervisor, readiness: &Readiness) {
        match self {
            Self::Embedded(broker) => {
                let (handle, latch) = (broker.handle(), readiness.latch("broker"));
                let (watched, store) = (broker.handle(), readiness.note("store"));
                supervisor.essential(Stage::Work, "store health", move |stop| watch_store(watched, store, stop));
                supervisor.essential(Stage::Broker, "broker", move |stop| broker.run(stop));
                supervisor.essential(Stage::Work, "self-probe", move |stop| probe::run(handle, latch, stop));
            }
            Self::External(parts) => {
                let (external, driver) = *parts;
                let latch = readiness.note("external broker");
                supervisor.essential(Stage::Broker, "external broker", move |stop| driver.run(stop));
                supervisor.essential(Stage::Work, "external broker health", move |stop| async move {
                    let mut every = tokio::time::interval(super::LOOK);
                    while stop.run_until_cancelled(every.tick()).await.is_some() {
                        let health = external.health();
                        match health.error {
                            None if health.connected => latch.up(),
                            error => latch.down(error.unwrap_or_else(|| "not connected yet".into())),
                        }
                    }
                });
            }
        }
    }
}

/// Tells how the store is.
async fn watch_store(broker: BrokerHandle, latch: Latch, stop: CancellationToken) {
    let mut every = tokio::time::interval(super::LOOK);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        match broker.store_health() {
            StoreHealth::Ok => latch.up(),
            StoreHealth::SetAside(file) => latch.down(format!(
                "the store could not be read at the start and was set aside as {}: sessions and retained messages of before are not there",
                file.display()
            )),
            StoreHealth::Failing { why, .. } => latch.down(format!("the store cannot be written: {why}")),
            StoreHealth::Unreadable { client, others, why, .. } => {
                let more = if others > 0 { format!(" and {others} others") } else { String::new() };
                latch.down(format!(
                    "the stored queue of `{client}`{more} cannot be read: {why}; its messages wait and it is tried again; check the disk that \
                     holds the store (see troubleshooting, `A stored queue cannot be read`)"
                ));
            }
            StoreHealth::Full => latch.down("the store or its disk is full: messages for persistent sessions are refused"),
        }
    }
}

/// `host:port` of the broker and our name there, for Butler's status message. `listening`: the built-in broker's listeners; where none of
/// them serves the port of the file, the first one's port is said.
pub(super) fn identity(mqtt: &MqttSettings, listening: &[(Arc<str>, SocketAddr)]) -> (String, String) {
    match &mqtt.broker {
        BrokerChoice::Embedded { port } => {
            let served = listening.iter().any(|(_, address)| address.port() == *port);
            let first = listening.first().filter(|_| !served).map_or(*port, |(_, address)| address.port());
            (format!("localhost:{first}"), "sense-butler".to_owned())
        }
        BrokerChoice::External(broker) => (
            format!("{}:{}", broker.host, broker.port),
            broker.client_id.clone().unwrap_or_else(|| "sense-butler".to_owned()),
        ),
    }
}

/// Says our status at every connection.
pub(super) async fn watch_connections(
    mut connections: watch::Receiver<u64>,
    again: impl Fn(),
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(connections.changed()).await {
        again();
    }
}
