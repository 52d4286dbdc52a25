//! MQTT 3.1.1 over rumqttc.

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, Incoming, LastWill, MqttOptions, NetworkOptions,
    Outgoing, Packet, Publish, StateError, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};

use super::{CHANNEL, Event, IDENTIFIERS, KEEP_ALIVE, LinkError, MAX_PACKET, Options, Terms, level, stranger};
use crate::{
    bus::{Delivery, Properties, Publication},
    names::{QoS, TopicFilter, TopicName},
};

pub(super) fn open(options: Options) -> (AsyncClient, EventLoop) {
    let mut settings = MqttOptions::new(options.client_id, options.host, options.port);
    settings.set_keep_alive(KEEP_ALIVE).set_max_packet_size(MAX_PACKET, MAX_PACKET).set_inflight(IDENTIFIERS);
    if let Some((user, password)) = options.login {
        settings.set_credentials(user, password.expose());
    }
    if let Some(tls) = options.tls {
        settings.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    if let Some(will) = options.will {
        settings.set_last_will(LastWill::new(will.topic.as_str(), will.payload.to_vec(), level(will.qos), will.retain));
    }
    if options.kept {
        settings.set_clean_session(false).set_manual_acks(true);
    }
    let (client, mut events) = AsyncClient::new(settings, CHANNEL);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

pub(super) async fn publish(client: &AsyncClient, message: &Publication, qos: QoS) -> Result<(), LinkError> {
    let topic = message.topic.as_str();
    let handed = client.publish_bytes(topic, level(qos), message.retain, message.payload.clone()).await;
    handed.map_err(|error| LinkError::Request(error.to_string()))
}

pub(super) async fn subscribe(client: &AsyncClient, filters: &[TopicFilter], qos: QoS) -> Result<(), LinkError> {
    let filters = filters.iter().map(|filter| SubscribeFilter::new(filter.as_str().to_owned(), level(qos)));
    client.subscribe_many(filters).await.map_err(|error| LinkError::Request(error.to_string()))
}

pub(super) async fn acknowledge(client: &AsyncClient, packet_id: u16) -> Result<(), LinkError> {
    // Of all of it, only the id is looked at.
    let mut publish = Publish::new("", level(QoS::AtLeastOnce), "");
    publish.pkid = packet_id;
    client.ack(&publish).await.map_err(|error| LinkError::Request(error.to_string()))
}

pub(super) async fn next(events: &mut EventLoop) -> Result<Event, LinkError> {
    events.poll().await.map(event).map_err(explain)
}

/// What was read together with the end of the connection and not handed out.
pub(super) fn left(events: &mut EventLoop) -> Option<Event> {
    events.state.events.pop_front().map(event)
}

fn event(event: rumqttc::Event) -> Event {
    match event {
        rumqttc::Event::Incoming(packet) => incoming(packet),
        rumqttc::Event::Outgoing(Outgoing::Publish(id)) => Event::Sent(id),
        rumqttc::Event::Outgoing(Outgoing::Disconnect) => Event::Disconnected,
        rumqttc::Event::Outgoing(_) => Event::Other,
    }
}

fn incoming(packet: Incoming) -> Event {
    match packet {
        Packet::ConnAck(ack) => Event::Connected(Terms { session_present: ack.session_present, ..Terms::default() }),
        Packet::PubAck(ack) => Event::Acknowledged(ack.pkid, None),
        Packet::PubComp(ack) => Event::Acknowledged(ack.pkid, None),
        Packet::SubAck(ack) => Event::Subscribed(ack.return_codes.iter().map(refusal).collect()),
        Packet::Publish(publish) => match TopicName::new(&publish.topic) {
            Ok(topic) => Event::Delivery(Box::new(Delivery {
                topic,
                payload: publish.payload,
                qos: QoS::from_u8(publish.qos as u8).unwrap_or_default(),
                retained: publish.retain,
                properties: Properties::default(),
                origin: stranger(),
                packet_id: (publish.pkid > 0).then_some(publish.pkid),
                dup: publish.dup,
            })),
            Err(_) => Event::Other,
        },
        _ => Event::Other,
    }
}

fn refusal(code: &SubscribeReasonCode) -> Option<String> {
    matches!(code, SubscribeReasonCode::Failure).then(|| "not allowed".to_owned())
}

fn explain(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::Io(error) => LinkError::Io(error),
        ConnectionError::Tls(error) => LinkError::Tls(error.to_string()),
        ConnectionError::ConnectionRefused(code) => LinkError::Refused(sentence(code).to_owned()),
        ConnectionError::MqttState(StateError::Io(error)) => LinkError::Lost(error.to_string()),
        ConnectionError::MqttState(StateError::ConnectionAborted) => LinkError::Lost("the broker closed it".to_owned()),
        other => LinkError::Lost(other.to_string()),
    }
}

/// MQTT 3.1.1 section 3.2.2.3.
const fn sentence(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "accepted",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1; try protocol 5",
        ConnectReturnCode::BadClientId => "it does not accept the client id",
        ConnectReturnCode::ServiceUnavailable => "it is not available at the moment",
        ConnectReturnCode::BadUserNamePassword => "wrong user name or password",
        ConnectReturnCode::NotAuthorized => "not allowed; are user name and password right?",
    }
}
