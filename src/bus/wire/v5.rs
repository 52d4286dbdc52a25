//! MQTT 5 over rumqttc.

use std::sync::Arc;

use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, EventLoop, Incoming, MqttOptions, StateError,
        mqttbytes::v5::{
            ConnAck, ConnectReturnCode, Filter, LastWill, Packet, PubAckReason, PubCompReason, PubRecReason, Publish,
            PublishProperties, SubscribeReasonCode,
        },
    },
};

use super::{CHANNEL, Event, IDENTIFIERS, KEEP_ALIVE, LinkError, MAX_PACKET, Options, Terms, UNSETTLED, stranger};
use crate::{
    bus::{Delivery, Properties, Publication},
    names::{QoS, TopicFilter, TopicName},
};

/// A session that does not end by itself (MQTT 5.0 section 3.1.2.11.2).
const FOREVER: u32 = u32::MAX;

pub(super) fn open(options: Options) -> (AsyncClient, EventLoop) {
    let mut settings = MqttOptions::new(options.client_id, options.host, options.port);
    settings.set_keep_alive(KEEP_ALIVE).set_max_packet_size(u32::try_from(MAX_PACKET).ok());
    settings.set_outgoing_inflight_upper_limit(IDENTIFIERS);
    if let Some((user, password)) = options.login {
        settings.set_credentials(user, password.expose());
    }
    if let Some(tls) = options.tls {
        settings.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    if let Some(will) = options.will {
        let (topic, payload) = (will.topic.as_str(), will.payload.to_vec());
        settings.set_last_will(LastWill::new(topic, payload, level(will.qos), will.retain, None));
    }
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    settings.set_network_options(network);
    if options.kept {
        settings.set_clean_start(false).set_manual_acks(true);
        settings.set_session_expiry_interval(Some(FOREVER)).set_receive_maximum(Some(UNSETTLED));
    }
    AsyncClient::new(settings, CHANNEL)
}

pub(super) async fn publish(client: &AsyncClient, message: &Publication, qos: QoS) -> Result<(), LinkError> {
    let (topic, payload) = (message.topic.as_str(), message.payload.clone());
    let properties = outgoing(&message.properties);
    let handed = client.publish_bytes_with_properties(topic, level(qos), message.retain, payload, properties).await;
    handed.map_err(|error| LinkError::Request(error.to_string()))
}

pub(super) async fn subscribe(client: &AsyncClient, filters: &[TopicFilter], qos: QoS) -> Result<(), LinkError> {
    let filters = filters.iter().map(|filter| Filter::new(filter.as_str(), level(qos)));
    client.subscribe_many(filters).await.map_err(|error| LinkError::Request(error.to_string()))
}

pub(super) async fn acknowledge(client: &AsyncClient, packet_id: u16) -> Result<(), LinkError> {
    // Of all of it, only the id is looked at.
    let mut publish = Publish::new("", level(QoS::AtLeastOnce), "", None);
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

fn event(event: rumqttc::v5::Event) -> Event {
    match event {
        rumqttc::v5::Event::Incoming(packet) => incoming(packet),
        rumqttc::v5::Event::Outgoing(Outgoing::Publish(id)) => Event::Sent(id),
        rumqttc::v5::Event::Outgoing(Outgoing::Disconnect) => Event::Disconnected,
        rumqttc::v5::Event::Outgoing(_) => Event::Other,
    }
}

fn incoming(packet: Incoming) -> Event {
    match packet {
        Packet::ConnAck(ack) => Event::Connected(terms(&ack)),
        Packet::PubAck(ack) => {
            let taken = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            Event::Acknowledged(ack.pkid, (!taken).then(|| format!("{:?}", ack.reason)))
        }
        // A refusing PUBREC ends the exchange; an accepting one does not.
        Packet::PubRec(ack) => match ack.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Event::Other,
            reason => Event::Acknowledged(ack.pkid, Some(format!("{reason:?}"))),
        },
        Packet::PubComp(ack) => {
            let taken = ack.reason == PubCompReason::Success;
            Event::Acknowledged(ack.pkid, (!taken).then(|| format!("{:?}", ack.reason)))
        }
        Packet::SubAck(ack) => Event::Subscribed(ack.return_codes.iter().map(refusal).collect()),
        Packet::Publish(publish) => {
            delivery(publish).map_or(Event::Other, |delivery| Event::Delivery(Box::new(delivery)))
        }
        _ => Event::Other,
    }
}

fn terms(ack: &ConnAck) -> Terms {
    let session_present = ack.session_present;
    let Some(properties) = &ack.properties else { return Terms { session_present, ..Terms::default() } };
    Terms {
        session_present,
        receive_maximum: properties.receive_max.unwrap_or(u16::MAX),
        max_packet: properties.max_packet_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(MAX_PACKET),
    }
}

/// `None` for a topic that is not UTF-8 or no topic: a broker may not send one (MQTT 5.0 section 1.5.4).
fn delivery(publish: Publish) -> Option<Delivery> {
    let topic = TopicName::new(std::str::from_utf8(&publish.topic).ok()?).ok()?;
    Some(Delivery {
        topic,
        payload: publish.payload,
        qos: QoS::from_u8(publish.qos as u8).unwrap_or_default(),
        retained: publish.retain,
        properties: publish.properties.map(received).unwrap_or_default(),
        origin: stranger(),
        packet_id: (publish.pkid > 0).then_some(publish.pkid),
        dup: publish.dup,
    })
}

fn received(properties: PublishProperties) -> Properties {
    Properties {
        payload_is_utf8: properties.payload_format_indicator == Some(1),
        message_expiry: properties.message_expiry_interval,
        response_topic: properties.response_topic.and_then(|topic| TopicName::new(topic).ok()),
        correlation_data: properties.correlation_data,
        content_type: properties.content_type.map(Arc::from),
        user: properties.user_properties,
    }
}

fn outgoing(properties: &Properties) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: properties.payload_is_utf8.then_some(1),
        message_expiry_interval: properties.message_expiry,
        topic_alias: None,
        response_topic: properties.response_topic.as_ref().map(ToString::to_string),
        correlation_data: properties.correlation_data.clone(),
        user_properties: properties.user.clone(),
        subscription_identifiers: Vec::new(),
        content_type: properties.content_type.as_deref().map(str::to_owned),
    }
}

fn refusal(code: &SubscribeReasonCode) -> Option<String> {
    (!matches!(code, SubscribeReasonCode::Success(_))).then(|| format!("{code:?}"))
}

fn explain(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::Io(error) => LinkError::Io(error),
        ConnectionError::Tls(error) => LinkError::Tls(error.to_string()),
        ConnectionError::ConnectionRefused(code) => LinkError::Refused(sentence(code)),
        ConnectionError::MqttState(StateError::Io(error)) => LinkError::Lost(error.to_string()),
        ConnectionError::MqttState(StateError::ConnectionAborted) => LinkError::Lost("the broker closed it".to_owned()),
        other => LinkError::Lost(other.to_string()),
    }
}

/// MQTT 5.0 section 3.2.2.2, where the plain name of the code does not say what to do.
fn sentence(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => "wrong user name or password".to_owned(),
        ConnectReturnCode::NotAuthorized => "not allowed; are user name and password right?".to_owned(),
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            "it does not speak MQTT 5; try protocol 3".to_owned()
        }
        other => format!("{other:?}"),
    }
}

const fn level(qos: QoS) -> rumqttc::v5::mqttbytes::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::v5::mqttbytes::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
        QoS::ExactlyOnce => rumqttc::v5::mqttbytes::QoS::ExactlyOnce,
    }
}
