//! Which ports the configuration opens to other machines.
//!
//! Invariant: exactly those, each once; what only this machine can reach is not among them.

use std::net::SocketAddr;

use crate::config::{
    Loaded,
    address::is_loopback,
    settings::{BrokerChoice, Settings},
};

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// As firewalls call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A port other machines can reach, unless a firewall stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// For people, e.g. `MQTT (listener plant)`.
    pub what: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port; never 0.
    pub port: u16,
}

/// Every one of them.
pub fn open(loaded: &Loaded) -> Vec<Door> {
    let mut doors: Vec<Door> = Vec::new();
    for door in mqtt(loaded).chain(udp(&loaded.settings)).chain(http(&loaded.settings)) {
        let known = doors.iter().any(|known| (known.protocol, known.port) == (door.protocol, door.port));
        // A port the system chooses can have no rule.
        if door.port != 0 && !known {
            doors.push(door);
        }
    }
    doors
}

fn mqtt(loaded: &Loaded) -> impl Iterator<Item = Door> + '_ {
    let embedded = matches!(loaded.settings.mqtt.broker, BrokerChoice::Embedded { .. });
    let listeners = loaded.broker.listeners.iter().filter(move |_| embedded);
    listeners.flat_map(|listener| {
        let what = format!("MQTT (listener {})", listener.name);
        listener.addresses.iter().filter_map(move |address| tcp(what.clone(), *address))
    })
}

fn tcp(what: String, address: SocketAddr) -> Option<Door> {
    let local = address.ip().to_canonical().is_loopback();
    (!local).then(|| Door { what, protocol: Protocol::Tcp, port: address.port() })
}

fn udp(settings: &Settings) -> impl Iterator<Item = Door> {
    let udp = &settings.udp;
    let on = udp.enable && !is_loopback(&udp.host);
    let ports =
        [("task events of Qlik Sense", Some(udp.task_port)), ("session events of Qlik Sense", udp.session_port)];
    ports
        .into_iter()
        .filter(move |_| on)
        .filter_map(|(what, port)| Some(Door { what: what.to_owned(), protocol: Protocol::Udp, port: port? }))
}

fn http(settings: &Settings) -> impl Iterator<Item = Door> + '_ {
    let rest = &settings.rest;
    let open = rest.enable && !is_loopback(&rest.host);
    let rest = open.then(|| Door { what: "REST".to_owned(), protocol: Protocol::Tcp, port: rest.port });
    let listen = settings.sources.notifications.iter().flat_map(|notifications| &notifications.listen);
    rest.into_iter().chain(listen.filter_map(|address| tcp("notifications of Qlik Sense".to_owned(), *address)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{self, LoadOptions};

    /// What these two files say.
    pub(in crate::service) fn loaded(butler: &str, broker: &str) -> Loaded {
        let directory = std::env::temp_dir().join(format!("sense-butler-doors-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(directory.join("certs")).unwrap();
        for file in ["server.pem", "server_key.pem", "root.pem"] {
            std::fs::write(directory.join("certs").join(file), "").unwrap();
        }
        let (butler_file, broker_file) = (directory.join("butler.yaml"), directory.join("broker.toml"));
        std::fs::write(&butler_file, butler).unwrap();
        std::fs::write(&broker_file, broker).unwrap();
        let options = LoadOptions {
            config: Some(butler_file),
            broker_config: Some(broker_file),
            data_dir: directory.join("data"),
            cwd: directory.clone(),
            ..LoadOptions::default()
        };
        let loaded = config::load(&options).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        loaded
    }

    fn shown(doors: &[Door]) -> Vec<(&str, u16)> {
        doors.iter().map(|door| (door.protocol.as_str(), door.port)).collect()
    }

    #[test]
    fn what_only_this_machine_reaches_needs_no_rule() {
        let local = loaded("Butler:\n  mqttConfig:\n    broker: embedded\n", "");
        assert_eq!(open(&local), []);
    }

    #[test]
    fn what_other_machines_reach_is_found_once_each() {
        let butler = "Butler:
  mqttConfig:
    broker: embedded
  udpServerConfig:
    serverHost: 0.0.0.0
    portTaskFailure: 9998
    portSessionConnectionEvents: 9997
  restServerConfig:
    serverHost: 0.0.0.0
    serverPort: 8080
    allowPlaintext: true
    allowedSources: ['10.0.0.0/8']
";
        let broker = "[[listeners]]
name = \"local\"
address = \"localhost:1883\"
[[listeners]]
name = \"plant\"
address = \"0.0.0.0:8883\"
allow_anonymous = true
[[listeners]]
name = \"plant6\"
address = \"[::]:8883\"
allow_anonymous = true
";
        let doors = open(&loaded(butler, broker));
        assert_eq!(shown(&doors), [("TCP", 8883), ("UDP", 9998), ("UDP", 9997), ("TCP", 8080)]);
        assert_eq!(doors[0].what, "MQTT (listener plant)");
    }

    #[test]
    fn what_is_switched_off_has_no_door() {
        let butler = "Butler:
  mqttConfig:
    broker: external
    brokerHost: broker.example.com
  udpServerConfig:
    enable: false
    serverHost: 0.0.0.0
  restServerConfig:
    enable: false
    serverHost: 0.0.0.0
";
        assert_eq!(open(&loaded(butler, "")), []);
    }
}
