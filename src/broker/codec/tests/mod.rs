//! What the codec promises, rule by rule.

use super::*;

/// Frames and decodes one packet that must be there whole.
fn read(bytes: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    match frame(bytes, usize::MAX)? {
        Framed::Complete { first, body, length } => {
            assert_eq!(length, bytes.len(), "the frame is the whole input: {bytes:02x?}");
            decode(first, body, version)
        }
        Framed::Incomplete { needed } => panic!("{needed} bytes needed: {bytes:02x?}"),
    }
}

mod smoke {
    use bytes::BytesMut;

    use super::*;
    use crate::names::QoS;

    #[test]
    fn a_publish_is_written_and_read_in_both_versions() {
        for version in [Version::V3, Version::V5] {
            let packet = write::PublishOut {
                dup: true,
                qos: QoS::ExactlyOnce,
                retain: true,
                packet_id: 0x1234,
                topic: "å/ö/日本".as_bytes(),
                topic_alias: Some(7),
                expiry: Some(60),
                subscription_ids: &[],
                properties: b"\x01\x01\x26\x00\x01a\x00\x01b",
                payload: &[7; 300],
            };
            let mut out = BytesMut::new();
            write::publish(&mut out, version, &packet);
            assert_eq!(out.len(), write::publish_size(version, &packet));
            let Packet::Publish(read) = read(&out, version).unwrap() else { panic!("no PUBLISH") };
            let v5 = version == Version::V5;
            assert_eq!((read.dup, read.retain, read.qos, read.packet_id), (true, true, QoS::ExactlyOnce, 0x1234));
            assert_eq!((read.topic, read.payload), ("å/ö/日本", [7; 300].as_slice()));
            assert_eq!((read.topic_alias, read.expiry), (v5.then_some(7), v5.then_some(60)));
            assert_eq!(&*read.properties, if v5 { packet.properties } else { b"" });
        }
    }

    #[test]
    fn a_connect_of_3_1_1_is_read() {
        let bytes = b"\x10\x20\x00\x04MQTT\x04\xc6\x00\x3c\x00\x02id\x00\x01w\x00\x02hi\x00\x01u\x00\x06secret";
        let Packet::Connect(connect) = read(bytes, Version::V5).unwrap() else { panic!("no CONNECT") };
        assert_eq!((connect.version, connect.keep_alive, connect.client_id.as_str()), (Version::V3, 60, "id"));
        assert_eq!(
            connect.will.as_ref().map(|will| (will.topic.as_str(), &*will.payload)),
            Some(("w", b"hi".as_slice()))
        );
        assert_eq!(connect.password.as_ref().map(Password::expose), Some(b"secret".as_slice()));
        assert!(!format!("{connect:?}").contains("secret"));
    }
}
