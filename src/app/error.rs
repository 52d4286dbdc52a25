//! Why the program cannot start, and, where a port is taken, by whom and what to do about it.

use std::{io, net::SocketAddr};

use super::holder;
use crate::{
    api::ApiError, broker::BrokerError, keep::KeepError, names::NameError, sense::receiver::ReceiverError,
    sense::sources::SourcesError, telemetry::logfile::FileError,
};

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The built-in broker.
    #[error("{}", with_holder(.0.to_string(), .0.taken(), holder::of_tcp, "If that is your present MQTT broker, set `mqttConfig.broker: external` or stop it"))]
    Broker(#[from] BrokerError),
    /// The UDP receiver.
    #[error("{}", with_holder(.0.to_string(), .0.taken(), holder::of_udp, "If that is Butler, stop it or give one of the two another port"))]
    Receiver(#[from] ReceiverError),
    /// REST or the health port.
    #[error("{}", with_holder(.0.to_string(), .0.taken(), holder::of_tcp, "If that is Butler, stop it or set another `restServerConfig.serverPort`"))]
    Api(#[from] ApiError),
    /// The sources of events besides datagrams.
    #[error("{}", with_holder(.0.to_string(), .0.taken(), holder::of_tcp, "Give one of the two another port"))]
    Sources(#[from] SourcesError),
    /// The program's own file.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The audit log was asked for.
    #[error("startTask.auditLog is true: {0}")]
    Audit(#[from] FileError),
    /// A prefix of the program's own topics is too long.
    #[error("mqttConfig.ownTopicsRoot cannot be used: {0}")]
    Name(#[from] NameError),
}

impl BuildError {
    /// Whether the configuration is at fault (exit code 64) and not the machine (exit code 1).
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Broker(error) => matches!(error, BrokerError::Certificate { .. }),
            Self::Api(error) => error.is_configuration(),
            Self::Receiver(error) => matches!(error, ReceiverError::Loop { .. }),
            Self::Keep(_) | Self::Sources(_) | Self::Audit(_) => false,
            Self::Name(_) => true,
        }
    }
}

/// Who holds a port, where the system tells, and what to do.
fn with_holder(text: String, taken: Option<u16>, holder: fn(u16) -> Option<String>, advice: &str) -> String {
    match taken {
        None => text,
        Some(port) => match holder(port) {
            Some(holder) => format!("{text}. Port {port} is held by {holder}. {advice}"),
            None => format!("{text}. Port {port} is held by another program. {advice}"),
        },
    }
}

impl BrokerError {
    fn taken(&self) -> Option<u16> {
        match self {
            Self::Bind { address, source, .. } => taken(*address, source),
            _ => None,
        }
    }
}

impl ApiError {
    fn taken(&self) -> Option<u16> {
        match self {
            Self::Bind(error) => taken(error.address, &error.source),
            _ => None,
        }
    }
}

impl SourcesError {
    fn taken(&self) -> Option<u16> {
        match self {
            Self::Bind(error) => taken(error.address, &error.source),
            Self::Keep(_) => None,
        }
    }
}

impl ReceiverError {
    fn taken(&self) -> Option<u16> {
        match self {
            Self::PortTaken { address, .. } => Some(address.port()),
            _ => None,
        }
    }
}

fn taken(address: SocketAddr, error: &io::Error) -> Option<u16> {
    (error.kind() == io::ErrorKind::AddrInUse).then(|| address.port())
}
