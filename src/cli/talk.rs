//! What `pub` and `sub` share: options of the connection, making it, and saying clearly why it failed.

use std::{io::Read as _, path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};

use super::{Exit, complain};
use crate::{
    bus::wire::{self, LinkError},
    config::settings::{BrokerTls, MqttProtocol},
    names::{QoS, Secret},
};

/// Version of MQTT as written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// MQTT 3.1.1
    #[value(name = "3", alias = "3.1.1")]
    V3,
    /// MQTT 5
    #[value(name = "5")]
    V5,
}

/// Where the broker is and how to get in.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// Broker
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub host: String,
    /// Its port [default: 1883, with TLS 8883]
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<u16>,
    /// User name
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Read the password from the first line of standard input
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
    /// Version of MQTT
    #[arg(long, value_enum, default_value = "5")]
    pub protocol: Protocol,
    /// Client id [default: a random one]
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Use TLS, trusting the authorities of this system unless --ca names others
    #[arg(long)]
    pub tls: bool,
    /// File with the authorities to trust, PEM (implies --tls)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate, PEM (implies --tls)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The name the broker's certificate must carry, if not HOST (implies --tls)
    #[arg(long, value_name = "NAME")]
    pub verify_name: Option<String>,
}

impl Connection {
    fn wants_tls(&self) -> bool {
        self.tls || self.ca.is_some() || self.cert.is_some() || self.verify_name.is_some()
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(if self.wants_tls() { 8883 } else { 1883 })
    }

    /// `host:port`, for people.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port())
    }

    /// Everything the connection needs; reads the password and the certificates.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn options(&self, verb: &str) -> Result<wire::Options, String> {
        let tls = BrokerTls {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            verify_name: self.verify_name.clone(),
        };
        let tls = self.wants_tls().then(|| wire::client_config(&tls)).transpose().map_err(|error| error.to_string())?;
        let password = if self.password_stdin { read_password()? } else { Secret::default() };
        Ok(wire::Options {
            host: self.host.clone(),
            port: self.port(),
            protocol: match self.protocol {
                Protocol::V3 => MqttProtocol::V3,
                Protocol::V5 => MqttProtocol::V5,
            },
            kept: false,
            client_id: self.client_id.clone().unwrap_or_else(|| random_id(verb)),
            login: self.user.clone().map(|user| (user, password)),
            tls: tls.map(Arc::new),
            will: None,
        })
    }

    /// Says why there is no connection. Exit code 1.
    pub fn failed(&self, error: &LinkError) -> Exit {
        let address = self.address();
        match error {
            LinkError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                complain(format!("nobody answers at {address}: is sense-butler running?"))
            }
            error => complain(format!("{address}: {error}")),
        }
    }
}

fn random_id(verb: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    // 23 characters are what every broker must accept (MQTT 3.1.1 section 3.1.3.1).
    format!("sense-butler-{verb}-{random}").chars().take(23).collect()
}

fn read_password() -> Result<Secret, String> {
    let mut text = String::new();
    // A password file of a gigabyte is a mistake.
    let read = std::io::stdin().take(64 * 1024).read_to_string(&mut text);
    read.map_err(|error| format!("the password cannot be read from standard input: {error}"))?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

/// QoS as written on the command line.
pub fn parse_qos(text: &str) -> Result<QoS, String> {
    let number = text.parse().ok().and_then(QoS::from_u8);
    number.ok_or_else(|| "a QoS is 0 (at most once), 1 (at least once) or 2 (exactly once)".to_owned())
}

/// Runs the talk of a verb on a small runtime of its own.
pub fn run(talk: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(talk),
        Err(error) => complain(format!("the system does not give what is needed to run: {error}")),
    }
}
