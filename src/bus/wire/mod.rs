//! One client connection to an MQTT broker, in MQTT 3.1.1 or 5, over rumqttc: what `external`, `pub` and `sub` have in common.
//!
//! One [`open`] is one connection: nothing of rumqttc's own memory (its request channel, its queue of pending packets) outlives it, so the
//! caller alone decides what is sent again. Invariants: [`Events::next`] may be dropped only together with the connection (a packet half
//! written would be lost); it returns within [`SILENCE`] or fails, so a peer that hangs is noticed.

mod tls;
mod v3;
mod v5;

use std::{io, sync::Arc, time::Duration};

use rustls::ClientConfig;

pub use tls::{TlsError, client_config};

use super::{Delivery, Door, Origin, Publication};
use crate::{
    config::settings::MqttProtocol,
    names::{QoS, Secret, TopicFilter},
};

/// Keep-alive asked for: a half-open connection is noticed after two of them at the latest.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// No call of rumqttc takes longer unless the peer hangs: it pings once per keep-alive.
const SILENCE: Duration = Duration::from_secs(50);
/// Time for TCP, TLS and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest packet MQTT can carry (section 2.2.3): a smaller limit of ours would make a large retained message cut the connection
/// each time it is delivered.
pub const MAX_PACKET: usize = 268_435_455;
/// Messages of a kept session that may be unacknowledged, where we can say so (MQTT 5).
const UNSETTLED: u16 = 1_024;
/// Requests under way inside rumqttc.
const CHANNEL: usize = 256;
/// Packet identifiers in use at a time inside rumqttc. Far more than callers have unacknowledged, because rumqttc takes identifiers in turn
/// and stalls when the turn comes to one still in use.
const IDENTIFIERS: u16 = 4_096;

/// What a connection needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Version of MQTT.
    pub protocol: MqttProtocol,
    /// Client id.
    pub client_id: String,
    /// The broker keeps our session while we are away, and each message until [`Client::acknowledge`]. Else clean session (3.1.1) or clean
    /// start (5) is asked for, and messages are acknowledged as they come.
    pub kept: bool,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// TLS, if wanted.
    pub tls: Option<Arc<ClientConfig>>,
    /// Published by the broker when the connection is lost.
    pub will: Option<Publication>,
}

/// What the broker allows on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Unacknowledged QoS 1 and 2 messages (MQTT 5 Receive Maximum; 65,535 where it says nothing).
    pub receive_maximum: u16,
    /// Largest packet, bytes.
    pub max_packet: usize,
    /// The broker had a session of ours.
    pub session_present: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { receive_maximum: u16::MAX, max_packet: MAX_PACKET, session_present: false }
    }
}

/// What happened on the connection.
#[derive(Debug)]
pub enum Event {
    /// CONNACK: the connection stands.
    Connected(Terms),
    /// The oldest message handed over and not yet reported was written, with this packet identifier (0 for QoS 0).
    Sent(u16),
    /// The broker took responsibility (PUBACK, PUBCOMP), or refused with a reason.
    Acknowledged(u16, Option<String>),
    /// SUBACK: for each filter the reason if it was refused.
    Subscribed(Vec<Option<String>>),
    /// A message.
    Delivery(Box<Delivery>),
    /// DISCONNECT was written: done.
    Disconnected,
    /// Nothing of interest.
    Other,
}

/// Why there is no connection (any more).
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// TCP failed.
    #[error("{}", unreachable_text(.0))]
    Io(io::Error),
    /// TLS failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// The broker refused the connection.
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// What was asked cannot be sent.
    #[error("rumqttc does not accept the request: {0}")]
    Request(String),
}

fn unreachable_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody answers at this address".to_owned(),
        io::ErrorKind::TimedOut => "no answer; is there a firewall in between?".to_owned(),
        _ => format!("it cannot be reached: {error}"),
    }
}

/// Sends.
#[derive(Debug, Clone)]
pub enum Client {
    /// MQTT 3.1.1
    V3(rumqttc::AsyncClient),
    /// MQTT 5
    V5(rumqttc::v5::AsyncClient),
}

/// Drives the connection and tells what happens; nothing moves unless it is polled.
pub struct Events {
    connection: Connection,
    /// Why it ended, kept until everything that came before the end was handed out.
    over: Option<LinkError>,
}

enum Connection {
    V3(Box<rumqttc::EventLoop>),
    V5(Box<rumqttc::v5::EventLoop>),
}

/// Prepares one connection; it is made by the first [`Events::next`].
pub fn open(options: Options) -> (Client, Events) {
    match options.protocol {
        MqttProtocol::V3 => {
            let (client, events) = v3::open(options);
            (Client::V3(client), Events::of(Connection::V3(Box::new(events))))
        }
        MqttProtocol::V5 => {
            let (client, events) = v5::open(options);
            (Client::V5(client), Events::of(Connection::V5(Box::new(events))))
        }
    }
}

impl Client {
    /// Hands a message over, in order, with a QoS that may differ from its own; waits only for room.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn publish(&self, publication: &Publication, qos: QoS) -> Result<(), LinkError> {
        match self {
            Self::V3(client) => v3::publish(client, publication, qos).await,
            Self::V5(client) => v5::publish(client, publication, qos).await,
        }
    }

    /// Subscribes; the broker's word comes as [`Event::Subscribed`].
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn subscribe(&self, filters: &[TopicFilter], qos: QoS) -> Result<(), LinkError> {
        match self {
            Self::V3(client) => v3::subscribe(client, filters, qos).await,
            Self::V5(client) => v5::subscribe(client, filters, qos).await,
        }
    }

    /// Lets the broker forget a message of QoS 1; for a kept session.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn acknowledge(&self, packet_id: u16) -> Result<(), LinkError> {
        match self {
            Self::V3(client) => v3::acknowledge(client, packet_id).await,
            Self::V5(client) => v5::acknowledge(client, packet_id).await,
        }
    }

    /// Asks for an orderly end; [`Event::Disconnected`] follows.
    pub async fn disconnect(&self) {
        // Fails only if the connection is gone already.
        match self {
            Self::V3(client) => drop(client.disconnect().await),
            Self::V5(client) => drop(client.disconnect().await),
        }
    }
}

impl Connection {
    async fn next(&mut self) -> Result<Event, LinkError> {
        match self {
            Self::V3(events) => v3::next(events).await,
            Self::V5(events) => v5::next(events).await,
        }
    }

    fn left(&mut self) -> Option<Event> {
        match self {
            Self::V3(events) => v3::left(events),
            Self::V5(events) => v5::left(events),
        }
    }
}

impl Events {
    const fn of(connection: Connection) -> Self {
        Self { connection, over: None }
    }

    /// The next thing that happens. rumqttc reports the end of a connection before what it read together with it; here the end comes last.
    ///
    /// # Errors
    /// The connection is over; this and its [`Client`] are of no use any more.
    pub async fn next(&mut self) -> Result<Event, LinkError> {
        let ended = match self.over.take() {
            Some(ended) => ended,
            None => match tokio::time::timeout(SILENCE, self.connection.next()).await {
                Ok(Ok(event)) => return Ok(event),
                Ok(Err(ended)) => ended,
                Err(_) => LinkError::Timeout(SILENCE),
            },
        };
        let Some(left) = self.connection.left() else { return Err(ended) };
        self.over = Some(ended);
        Ok(left)
    }

    /// Makes the connection.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub async fn connect(&mut self) -> Result<Terms, LinkError> {
        let connect = async {
            loop {
                if let Event::Connected(terms) = self.next().await? {
                    return Ok(terms);
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or(Err(LinkError::Timeout(CONNECT_TIMEOUT)))
    }
}

/// Bytes of the PUBLISH packet a message makes at most (MQTT 5.0 section 3.3; property identifiers and lengths counted generously).
pub fn packet_size(publication: &Publication) -> usize {
    let properties = &publication.properties;
    let user: usize = properties.user.iter().map(|(key, value)| 5 + key.len() + value.len()).sum();
    let response = properties.response_topic.as_ref().map_or(0, |topic| 3 + topic.as_str().len());
    let correlation = properties.correlation_data.as_ref().map_or(0, |data| 3 + data.len());
    let content_type = properties.content_type.as_ref().map_or(0, |text| 3 + text.len());
    // Fixed header 5, topic length 2, packet identifier 2, property length 4, format 2, expiry 5.
    20 + publication.topic.as_str().len() + publication.payload.len() + user + response + correlation + content_type
}

/// Who published a message at a broker elsewhere is not known; its access rules decided.
fn stranger() -> Origin {
    Origin { door: Door::External, client: None, user: None, may_start: true }
}

const fn level(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
        QoS::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// CONNACK and three messages in one write, then the end.
    async fn last_words(protocol: MqttProtocol) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut connect = [0; 256];
            assert!(stream.read(&mut connect).await.unwrap() > 0);
            let (connack, publish): (&[u8], &[u8]) = match protocol {
                MqttProtocol::V3 => (&[0x20, 2, 0, 0], &[0x30, 4, 0, 1, b't']),
                MqttProtocol::V5 => (&[0x20, 3, 0, 0, 0], &[0x30, 5, 0, 1, b't', 0]),
            };
            let mut words = connack.to_vec();
            for number in *b"123" {
                words.extend_from_slice(publish);
                words.push(number);
            }
            stream.write_all(&words).await.unwrap();
        });
        let options = Options {
            host: "127.0.0.1".into(),
            port,
            protocol,
            client_id: "test".into(),
            kept: false,
            login: None,
            tls: None,
            will: None,
        };
        let (_client, mut events) = open(options);
        let mut heard = Vec::new();
        while let Ok(event) = events.next().await {
            if let Event::Delivery(delivery) = event {
                heard.push(String::from_utf8(delivery.payload.to_vec()).unwrap());
            }
        }
        broker.await.unwrap();
        heard
    }

    #[tokio::test]
    async fn what_comes_with_the_end_of_a_connection_is_heard() {
        for protocol in [MqttProtocol::V3, MqttProtocol::V5] {
            assert_eq!(last_words(protocol).await, ["1", "2", "3"], "{protocol:?}");
        }
    }
}
