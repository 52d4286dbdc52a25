//! Every packet the codec writes, read back by `rmqtt-codec` and compared field by field.
//!
//! The messages are random but the same in every run. Left out: Message Expiry 0, which `rmqtt-codec` does not read.

use bytes::{Bytes, BytesMut};
use rmqtt_codec::{types, v3 as rmqtt3, v5 as rmqtt5};
use sense_butler::{
    broker::{
        codec::{
            Version, properties,
            write::{AckKind, ConnAck, PublishOut, ack, connack, disconnect, pingresp, publish, suback, unsuback},
        },
        message::Properties,
    },
    names::{QoS, TopicName},
};
use tokio_util::codec::Decoder;

/// Xorshift: as random as needed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn flip(&mut self) -> bool {
        self.roll(2) == 1
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flip().then(|| make(self))
    }

    fn text(&mut self) -> String {
        let length = [0, 1, 5, 120, 300][self.roll(5) as usize];
        (0..length).map(|_| ['a', '/', 'å', '日', ' '][self.roll(5) as usize]).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 100, 200, 20_000][self.roll(5) as usize];
        (0..length).map(|_| self.roll(256) as u8).collect()
    }
}

/// Reads the one packet that was written.
fn read<D: Decoder<Item = (P, u32)>, P>(mut codec: D, write: impl FnOnce(&mut BytesMut)) -> P
where
    D::Error: std::fmt::Debug,
{
    let mut out = BytesMut::new();
    write(&mut out);
    let packet = codec.decode(&mut out).expect("a good packet").expect("a whole packet").0;
    assert!(out.is_empty(), "bytes left behind a packet");
    packet
}

fn read3(write: impl FnOnce(&mut BytesMut)) -> rmqtt3::Packet {
    read(rmqtt3::Codec::new(0), write)
}

fn read5(write: impl FnOnce(&mut BytesMut)) -> rmqtt5::Packet {
    read(rmqtt5::Codec::new(0, 0), write)
}

/// Runs and prints.
pub fn print() {
    let mut dice = Dice(0x5eed_cafe);
    let publishes: usize = (0..20_000).map(|_| publishes(&mut dice)).sum();
    let connacks: usize = (0..5_000).map(|_| connacks(&mut dice)).sum();
    let others = acknowledgements(&mut dice) + subscriptions(&mut dice) + partings(&mut dice);
    println!(
        "written by the codec, read back equal by rmqtt-codec: {publishes} PUBLISH, {connacks} CONNACK, {others} others"
    );
}

/// One message in both versions.
fn publishes(dice: &mut Dice) -> usize {
    let properties = Properties {
        payload_is_utf8: dice.flip(),
        message_expiry: dice.some(|dice| 1 + dice.roll(u64::from(u32::MAX)) as u32),
        response_topic: dice.some(|dice| TopicName::new(format!("r{}", dice.text())).expect("a topic")),
        correlation_data: dice.some(|dice| dice.bytes().into()),
        content_type: dice.some(|dice| dice.text().into()),
        user: (0..dice.roll(4)).map(|_| (dice.text(), dice.text())).collect(),
    };
    let wire = properties::to_wire(&properties).expect("what MQTT can carry");
    let subscription_ids: Vec<u32> = (0..dice.roll(3)).map(|_| 1 + dice.roll(268_435_455) as u32).collect();
    let (topic, payload) = (format!("t{}", dice.text()), dice.bytes());
    let qos = QoS::from_u8(dice.roll(3) as u8).expect("a QoS");
    let packet = PublishOut {
        dup: qos != QoS::AtMostOnce && dice.flip(),
        qos,
        retain: dice.flip(),
        packet_id: 1 + dice.roll(65_535) as u16,
        topic: topic.as_bytes(),
        topic_alias: dice.some(|dice| 1 + dice.roll(65_535) as u16),
        expiry: properties.message_expiry,
        subscription_ids: &subscription_ids,
        properties: &wire,
        payload: &payload,
    };
    let expected = types::Publish {
        dup: packet.dup,
        retain: packet.retain,
        qos: types::QoS::try_from(qos as u8).expect("a QoS"),
        topic: topic.as_str().into(),
        packet_id: if qos == QoS::AtMostOnce { None } else { packet.packet_id.try_into().ok() },
        payload: Bytes::copy_from_slice(&payload),
        properties: None,
    };
    let read = read3(|out| publish(out, Version::V3, &packet));
    assert_eq!(read, rmqtt3::Packet::Publish(Box::new(expected.clone())));
    let more = rmqtt5::PublishProperties {
        topic_alias: packet.topic_alias.and_then(|alias| alias.try_into().ok()),
        correlation_data: properties.correlation_data,
        message_expiry_interval: packet.expiry.and_then(|seconds| seconds.try_into().ok()),
        content_type: properties.content_type.as_deref().map(Into::into),
        user_properties: properties.user.iter().map(|(a, b)| (a.as_str().into(), b.as_str().into())).collect(),
        is_utf8_payload: properties.payload_is_utf8,
        response_topic: properties.response_topic.as_ref().map(|topic| topic.as_str().into()),
        subscription_ids: subscription_ids.iter().filter_map(|&id| id.try_into().ok()).collect(),
    };
    let read = read5(|out| publish(out, Version::V5, &packet));
    let expected = types::Publish { properties: Some(more), ..expected };
    assert_eq!(read, rmqtt5::Packet::Publish(Box::new(expected)));
    2
}

/// One CONNACK in both versions.
fn connacks(dice: &mut Dice) -> usize {
    let (id, reason, information) = (dice.some(Dice::text), dice.some(Dice::text), dice.some(Dice::text));
    let codes =
        [0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9f];
    let code = codes[dice.roll(codes.len() as u64) as usize];
    let packet = ConnAck {
        session_present: dice.flip(),
        code,
        session_expiry: dice.some(|dice| dice.roll(1 << 32) as u32),
        receive_maximum: dice.some(|dice| 1 + dice.roll(65_535) as u16),
        maximum_packet_size: dice.some(|dice| 1 + dice.roll(u64::from(u32::MAX)) as u32),
        assigned_client_id: id.as_deref(),
        topic_alias_maximum: dice.roll(1 << 16) as u16,
        reason_string: reason.as_deref(),
        server_keep_alive: dice.some(|dice| dice.roll(1 << 16) as u16),
        response_information: information.as_deref(),
    };
    let expected = rmqtt5::ConnectAck {
        session_present: packet.session_present && code == 0,
        reason_code: code.try_into().expect("a reason code"),
        session_expiry_interval_secs: packet.session_expiry,
        receive_max: packet.receive_maximum.unwrap_or(65_535).try_into().expect("not 0"),
        max_packet_size: packet.maximum_packet_size,
        assigned_client_id: id.as_deref().map(Into::into),
        topic_alias_max: packet.topic_alias_maximum,
        server_keepalive_sec: packet.server_keep_alive,
        response_info: information.as_deref().map(Into::into),
        reason_string: reason.as_deref().map(Into::into),
        ..rmqtt5::ConnectAck::default()
    };
    let read = read5(|out| connack(out, Version::V5, &packet));
    assert_eq!(read, rmqtt5::Packet::ConnectAck(Box::new(expected)));
    let code = dice.roll(6) as u8;
    let read = read3(|out| connack(out, Version::V3, &ConnAck { code, ..packet }));
    let session_present = packet.session_present && code == 0;
    let return_code = code.try_into().expect("a return code");
    assert_eq!(read, rmqtt3::Packet::ConnectAck(rmqtt3::ConnectAck { return_code, session_present }));
    2
}

fn acknowledgements(dice: &mut Dice) -> usize {
    let mut seen = 0;
    for code in [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x92, 0x97, 0x99] {
        let id = 1 + dice.roll(65_535) as u16;
        let packet_id = id.try_into().expect("an id");
        if let Ok(reason_code) = rmqtt5::PublishAckReason::try_from(code) {
            let expected = rmqtt5::PublishAck { packet_id, reason_code, ..rmqtt5::PublishAck::default() };
            let read = |kind| read5(|out| ack(out, Version::V5, kind, id, code));
            assert_eq!(read(AckKind::PubAck), rmqtt5::Packet::PublishAck(expected.clone()));
            assert_eq!(read(AckKind::PubRec), rmqtt5::Packet::PublishReceived(expected));
            seen += 2;
        }
        if let Ok(reason_code) = rmqtt5::PublishAck2Reason::try_from(code) {
            let expected = rmqtt5::PublishAck2 { packet_id, reason_code, ..rmqtt5::PublishAck2::default() };
            let read = |kind| read5(|out| ack(out, Version::V5, kind, id, code));
            assert_eq!(read(AckKind::PubRel), rmqtt5::Packet::PublishRelease(expected.clone()));
            assert_eq!(read(AckKind::PubComp), rmqtt5::Packet::PublishComplete(expected));
            seen += 2;
        }
        let read = |kind| read3(|out| ack(out, Version::V3, kind, id, code));
        assert_eq!(read(AckKind::PubAck), rmqtt3::Packet::PublishAck { packet_id });
        assert_eq!(read(AckKind::PubRec), rmqtt3::Packet::PublishReceived { packet_id });
        assert_eq!(read(AckKind::PubRel), rmqtt3::Packet::PublishRelease { packet_id });
        assert_eq!(read(AckKind::PubComp), rmqtt3::Packet::PublishComplete { packet_id });
        seen += 4;
    }
    assert_eq!(seen, 40 + 9 * 2 + 2 * 2);
    seen
}

fn subscriptions(dice: &mut Dice) -> usize {
    let granted = [0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
    let gone = [0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
    let mut seen = 0;
    for length in [1, 2, 10, 124, 125, 126, 127, 500] {
        let id = 1 + dice.roll(65_535) as u16;
        let packet_id = id.try_into().expect("an id");
        let codes: Vec<u8> = (0..length).map(|_| granted[dice.roll(12) as usize]).collect();
        let status = codes.iter().map(|&code| code.try_into().expect("a code")).collect();
        let (properties, reason_string) = (Vec::new(), None);
        let expected = rmqtt5::SubscribeAck { packet_id, properties, reason_string, status };
        assert_eq!(read5(|out| suback(out, Version::V5, id, &codes)), rmqtt5::Packet::SubscribeAck(expected));
        let answer = |&code: &u8| match code {
            0..=2 => rmqtt3::SubscribeReturnCode::Success(code.try_into().expect("a QoS")),
            _ => rmqtt3::SubscribeReturnCode::Failure,
        };
        let expected = rmqtt3::Packet::SubscribeAck { packet_id, status: codes.iter().map(answer).collect() };
        assert_eq!(read3(|out| suback(out, Version::V3, id, &codes)), expected);
        let codes: Vec<u8> = (0..length).map(|_| gone[dice.roll(7) as usize]).collect();
        let status = codes.iter().map(|&code| code.try_into().expect("a code")).collect();
        let expected = rmqtt5::UnsubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status };
        assert_eq!(read5(|out| unsuback(out, Version::V5, id, &codes)), rmqtt5::Packet::UnsubscribeAck(expected));
        let expected = rmqtt3::Packet::UnsubscribeAck { packet_id };
        assert_eq!(read3(|out| unsuback(out, Version::V3, id, &codes)), expected);
        seen += 4;
    }
    seen
}

fn partings(dice: &mut Dice) -> usize {
    assert_eq!(read3(pingresp), rmqtt3::Packet::PingResponse);
    assert_eq!(read5(pingresp), rmqtt5::Packet::PingResponse);
    let mut seen = 2;
    for code in 0..=255 {
        if let Ok(reason_code) = rmqtt5::DisconnectReasonCode::try_from(code) {
            let text = dice.some(Dice::text);
            let reason_string = text.as_deref().map(Into::into);
            let expected = rmqtt5::Disconnect { reason_code, reason_string, ..rmqtt5::Disconnect::default() };
            let read = read5(|out| disconnect(out, Version::V5, code, text.as_deref()));
            assert_eq!(read, rmqtt5::Packet::Disconnect(expected));
            seen += 1;
        }
    }
    seen
}
