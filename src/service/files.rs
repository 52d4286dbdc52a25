//! The files the configuration names, which the service's account has to read.

use std::path::PathBuf;

use crate::config::{Loaded, settings::BrokerChoice};

/// Each of them once, the configuration files first.
pub fn named(loaded: &Loaded) -> Vec<PathBuf> {
    let settings = &loaded.settings;
    let mut files: Vec<PathBuf> = Vec::new();
    files.extend(loaded.sources.butler.clone());
    files.extend(loaded.sources.broker.clone());
    if settings.qrs.use_tls && settings.qrs.host.is_some() {
        let qrs = &settings.qrs;
        files.extend([&qrs.client_cert, &qrs.client_key, &qrs.ca].into_iter().flatten().cloned());
    }
    files.extend(settings.rest.tls.iter().flat_map(|tls| [tls.cert.clone(), tls.key.clone()]));
    match &settings.mqtt.broker {
        BrokerChoice::Embedded { .. } => {
            for tls in loaded.broker.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
                files.extend([tls.cert.clone(), tls.key.clone()]);
                files.extend(tls.clients.iter().map(|clients| clients.ca.clone()));
            }
        }
        BrokerChoice::External(broker) => {
            let tls = broker.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]);
            files.extend(tls.flatten().cloned());
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::doors::tests::loaded;

    #[test]
    fn keys_and_certificates_are_found_once_each() {
        let butler = "Butler:
  mqttConfig:
    broker: embedded
  configQRS:
    host: sense1
  cert:
    clientCert: certs/client.pem
    clientCertKey: certs/client_key.pem
    clientCertCA: certs/root.pem
";
        let broker = "[[listeners]]
name = \"plant\"
address = \"0.0.0.0:8883\"
allow_anonymous = true
tls = { cert = \"certs/server.pem\", key = \"certs/server_key.pem\", client_ca = \"certs/root.pem\", client_name = \"none\" }
";
        let loaded = loaded(butler, broker);
        let files = named(&loaded);
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        let expected =
            ["butler.yaml", "broker.toml", "client.pem", "client_key.pem", "root.pem", "server.pem", "server_key.pem"];
        assert_eq!(names, expected);
        assert!(files.iter().all(|file| file.is_absolute()), "{files:?}");
    }
}
