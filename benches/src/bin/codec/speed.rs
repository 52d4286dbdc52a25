//! Nanoseconds per packet, median of five samples; the contenders take turns. A sample is the median of its rounds, so that a round in which
//! something else ran on the machine does not count.
//!
//! Decoding walks over a buffer of 200 packets. What is given to the libraries for nothing: the framing of `mqtt-protocol-core` is ours, its
//! connection state machine is left out, and the buffer `rmqtt-codec` takes apart is filled outside the clock. Encoding starts from packets
//! made outside the clock.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use mqtt_protocol_core::mqtt::packet as core_packet;
use rmqtt_codec::{types, v3 as rmqtt3, v5 as rmqtt5};
use sense_butler::{
    broker::codec::{
        Framed, Version, decode, frame,
        write::{AckKind, PublishOut, ack, publish},
    },
    names::QoS,
};
use tokio_util::codec::{Decoder, Encoder};

/// About 60 KB, as much as a connection may read at once; with far larger buffers the clock would mostly show the allocator giving them back.
const PACKETS: usize = 200;
const ROUNDS: usize = 2_500;
const SAMPLES: usize = 5;
const TOPIC: &str = "plant/line-7/robot-12/state";

type Sample<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// Runs and prints all cases.
pub fn print() {
    println!(
        "ns per packet, median of {SAMPLES} samples of {PACKETS} x {ROUNDS} packets, topic of {} B, payload 256 B",
        TOPIC.len()
    );
    println!("{:<34}{:>10}{:>14}{:>22}", "", "ours", "rmqtt-codec", "mqtt-protocol-core");
    let payload = [b'x'; 256];
    for (name, version, qos) in [
        ("PUBLISH 3.1.1 QoS 0", Version::V3, QoS::AtMostOnce),
        ("PUBLISH 3.1.1 QoS 1", Version::V3, QoS::AtLeastOnce),
        ("PUBLISH 5.0 QoS 0", Version::V5, QoS::AtMostOnce),
        ("PUBLISH 5.0 QoS 1", Version::V5, QoS::AtLeastOnce),
    ] {
        let packet = publish_out(qos, &payload);
        let stream = stream(|out| publish(out, version, &packet));
        row(&format!("{name} decode"), publish_decoders(version, &stream));
        row(&format!("{name} encode"), publish_encoders(version, &packet));
    }
    for (name, version) in [("PUBACK 3.1.1", Version::V3), ("PUBACK 5.0", Version::V5)] {
        let stream = stream(|out| ack(out, version, AckKind::PubAck, 0x1234, 0));
        row(&format!("{name} decode"), ack_decoders(version, &stream));
        row(&format!("{name} encode"), ack_encoders(version));
    }
    let packet = publish_out(QoS::AtMostOnce, &payload);
    let stream = stream(|out| publish(out, Version::V3, &packet));
    let [median] = medians([copy(&stream)]);
    println!("for comparison, copying the bytes of such a PUBLISH: {:.1} ns", median);
}

fn publish_out(qos: QoS, payload: &[u8]) -> PublishOut<'_> {
    PublishOut {
        dup: false,
        qos,
        retain: false,
        packet_id: 0x1234,
        topic: TOPIC.as_bytes(),
        topic_alias: None,
        expiry: None,
        subscription_ids: &[],
        properties: b"",
        payload,
    }
}

fn stream(write: impl Fn(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    (0..PACKETS).for_each(|_| write(&mut out));
    out.freeze()
}

fn row(name: &str, contenders: [Sample<'_>; 3]) {
    let [ours, rmqtt, core] = medians(contenders);
    println!("{name:<34}{ours:>10.1}{rmqtt:>14.1}{core:>22.1}");
}

/// Nanoseconds per packet; one unclocked sample each to warm up, then turn by turn.
fn medians<const N: usize>(mut contenders: [Sample<'_>; N]) -> [f64; N] {
    let mut samples = [const { Vec::new() }; N];
    for turn in 0..=SAMPLES {
        for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
            let time = contender();
            if turn > 0 {
                samples.push(time.as_nanos() as f64 / PACKETS as f64);
            }
        }
    }
    samples.map(|mut samples| {
        samples.sort_by(f64::total_cmp);
        samples[SAMPLES / 2]
    })
}

/// Runs `work` for every round, with what `prepare` makes outside the clock; gives the median of the rounds.
fn clock<T>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T)) -> Duration {
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let input = prepare();
            let start = Instant::now();
            work(input);
            start.elapsed()
        })
        .collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}

fn each_frame(stream: &[u8], mut run: impl FnMut(u8, &[u8])) {
    let mut rest = stream;
    let mut packets = 0;
    while let Ok(Framed::Complete { first, body, length }) = frame(rest, 1 << 20) {
        run(first, body);
        rest = &rest[length..];
        packets += 1;
    }
    assert_eq!(packets, PACKETS);
}

fn ours_decodes(version: Version, stream: &Bytes) -> Sample<'_> {
    Box::new(move || {
        clock(|| (), |()| each_frame(stream, |first, body| assert!(black_box(&decode(first, body, version)).is_ok())))
    })
}

fn rmqtt_decodes(version: Version, stream: &Bytes) -> Sample<'_> {
    Box::new(move || {
        clock(
            || BytesMut::from(&stream[..]),
            |mut buffer| match version {
                Version::V3 => drain(&mut rmqtt3::Codec::new(1 << 20), &mut buffer),
                Version::V5 => drain(&mut rmqtt5::Codec::new(1 << 20, 1 << 20), &mut buffer),
            },
        )
    })
}

fn drain<D: Decoder>(codec: &mut D, buffer: &mut BytesMut) {
    let mut packets = 0;
    while let Ok(Some(packet)) = codec.decode(buffer) {
        black_box(&packet);
        packets += 1;
    }
    assert_eq!(packets, PACKETS);
}

fn publish_decoders(version: Version, stream: &Bytes) -> [Sample<'_>; 3] {
    let core: Sample<'_> = Box::new(move || {
        clock(
            || (),
            |()| {
                each_frame(stream, |first, body| match version {
                    Version::V3 => {
                        assert!(black_box(&core_packet::v3_1_1::Publish::parse(first & 15, Arc::from(body))).is_ok());
                    }
                    Version::V5 => {
                        assert!(black_box(&core_packet::v5_0::Publish::parse(first & 15, Arc::from(body))).is_ok());
                    }
                });
            },
        )
    });
    [ours_decodes(version, stream), rmqtt_decodes(version, stream), core]
}

fn ack_decoders(version: Version, stream: &Bytes) -> [Sample<'_>; 3] {
    let core: Sample<'_> = Box::new(move || {
        clock(
            || (),
            |()| {
                each_frame(stream, |_, body| match version {
                    Version::V3 => assert!(black_box(&core_packet::v3_1_1::Puback::parse(body)).is_ok()),
                    Version::V5 => assert!(black_box(&core_packet::v5_0::Puback::parse(body)).is_ok()),
                });
            },
        )
    });
    [ours_decodes(version, stream), rmqtt_decodes(version, stream), core]
}

fn ours_encodes<'a>(write: impl Fn(&mut BytesMut) + 'a) -> Sample<'a> {
    let mut out = BytesMut::new();
    Box::new(move || {
        clock(
            || (),
            |()| {
                out.clear();
                (0..PACKETS).for_each(|_| write(&mut out));
                black_box(&out);
            },
        )
    })
}

fn rmqtt_encodes<'a, P: Clone + 'a, E: Encoder<P> + 'a>(mut codec: E, packet: P) -> Sample<'a> {
    let mut out = BytesMut::new();
    Box::new(move || {
        clock(
            || vec![packet.clone(); PACKETS],
            |packets| {
                out.clear();
                packets.into_iter().for_each(|packet| assert!(codec.encode(packet, &mut out).is_ok()));
                black_box(&out);
            },
        )
    })
}

fn core_encodes<'a>(write: impl Fn() -> Vec<u8> + 'a) -> Sample<'a> {
    Box::new(move || {
        clock(
            || (),
            |()| {
                (0..PACKETS).for_each(|_| {
                    black_box(write());
                });
            },
        )
    })
}

fn publish_encoders<'a>(version: Version, packet: &'a PublishOut<'a>) -> [Sample<'a>; 3] {
    let id = (packet.qos != QoS::AtMostOnce).then_some(packet.packet_id);
    let rmqtt = types::Publish {
        dup: packet.dup,
        retain: packet.retain,
        qos: types::QoS::try_from(packet.qos as u8).expect("a QoS"),
        topic: ByteString::from(TOPIC),
        packet_id: id.map(|id| id.try_into().expect("an id")),
        payload: Bytes::copy_from_slice(packet.payload),
        properties: None,
    };
    let mut out = BytesMut::new();
    publish(&mut out, version, packet);
    let Ok(Framed::Complete { first, body, .. }) = frame(&out, 1 << 20) else { panic!("no frame") };
    let (flags, body) = (first & 15, Arc::from(body));
    let (rmqtt, core): (Sample<'a>, Sample<'a>) = match version {
        Version::V3 => {
            let (core, _) = core_packet::v3_1_1::Publish::parse(flags, body).expect("a PUBLISH");
            let rmqtt = rmqtt_encodes(rmqtt3::Codec::new(0), rmqtt3::Packet::Publish(Box::new(rmqtt)));
            (rmqtt, core_encodes(move || core.to_continuous_buffer()))
        }
        Version::V5 => {
            let (core, _) = core_packet::v5_0::Publish::parse(flags, body).expect("a PUBLISH");
            let rmqtt = rmqtt_encodes(rmqtt5::Codec::new(0, 0), rmqtt5::Packet::Publish(Box::new(rmqtt)));
            (rmqtt, core_encodes(move || core.to_continuous_buffer()))
        }
    };
    [ours_encodes(move |out| publish(out, version, packet)), rmqtt, core]
}

fn ack_encoders<'a>(version: Version) -> [Sample<'a>; 3] {
    let packet_id = 0x1234.try_into().expect("an id");
    let body = b"\x12\x34";
    let (rmqtt, core): (Sample<'a>, Sample<'a>) = match version {
        Version::V3 => {
            let (core, _) = core_packet::v3_1_1::Puback::parse(body).expect("a PUBACK");
            let rmqtt = rmqtt_encodes(rmqtt3::Codec::new(0), rmqtt3::Packet::PublishAck { packet_id });
            (rmqtt, core_encodes(move || core.to_continuous_buffer()))
        }
        Version::V5 => {
            let (core, _) = core_packet::v5_0::Puback::parse(body).expect("a PUBACK");
            let packet = rmqtt5::PublishAck {
                packet_id,
                reason_code: rmqtt5::PublishAckReason::Success,
                properties: Vec::new(),
                reason_string: None,
            };
            let rmqtt = rmqtt_encodes(rmqtt5::Codec::new(0, 0), rmqtt5::Packet::PublishAck(packet));
            (rmqtt, core_encodes(move || core.to_continuous_buffer()))
        }
    };
    [ours_encodes(move |out| ack(out, version, AckKind::PubAck, 0x1234, 0)), rmqtt, core]
}

fn copy(stream: &Bytes) -> Sample<'_> {
    let mut out = BytesMut::with_capacity(stream.len());
    Box::new(move || {
        clock(
            || (),
            |()| {
                out.clear();
                let size = stream.len() / PACKETS;
                stream.chunks(size).for_each(|packet| out.extend_from_slice(packet));
                black_box(&out);
            },
        )
    })
}
