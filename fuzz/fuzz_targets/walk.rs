//! What must hold for any bytes a client may send. Shared by the fuzz targets and by the unit test that replays their corpus; the parent module
//! brings the codec's names into scope.

use super::{BytesMut, DecodeError, Framed, Packet, Publish, Version, decode, frame, write};

/// The limit the walk frames with, bytes.
const LIMIT: usize = 1 << 20;

/// Reads packet after packet until the input ends, or is refused; gives the number of packets that were read.
pub fn walk(mut input: &[u8], version: Version) -> usize {
    let mut packets = 0;
    loop {
        match frame(input, LIMIT) {
            Ok(Framed::Complete { first, body, length }) => {
                assert!(
                    length <= input.len() && length <= LIMIT && body.len() + 2 <= length && length <= body.len() + 5
                );
                packets += usize::from(one(first, body, version));
                input = input.split_at(length).1;
            }
            Ok(Framed::Incomplete { needed }) => {
                assert!(needed > input.len(), "{needed} asks for nothing new");
                return packets;
            }
            Err(error) => {
                refused(error);
                return packets;
            }
        }
    }
}

/// Reads one framed packet; whether it is one.
pub fn one(first: u8, body: &[u8], version: Version) -> bool {
    match decode(first, body, version) {
        Ok(Packet::Publish(publish)) => again(&publish, version),
        Ok(Packet::Connect(connect)) => connect_holds(&connect),
        Ok(_) => {}
        Err(error) => {
            refused(error);
            return false;
        }
    }
    true
}

/// Written and read again, a PUBLISH is the same.
fn again(publish: &Publish<'_>, version: Version) {
    let packet = write::PublishOut {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        packet_id: publish.packet_id,
        topic: publish.topic.as_bytes(),
        topic_alias: publish.topic_alias,
        expiry: publish.expiry,
        subscription_ids: &[],
        properties: &publish.properties,
        payload: publish.payload,
    };
    let mut out = BytesMut::new();
    write::publish(&mut out, version, &packet);
    assert_eq!(out.len(), write::publish_size(version, &packet));
    let Ok(Framed::Complete { first, body, length }) = frame(&out, usize::MAX) else {
        panic!("what was written is no frame: {out:?}")
    };
    assert_eq!(length, out.len());
    assert_eq!(decode(first, body, version), Ok(Packet::Publish(publish.clone())));
}

fn connect_holds(connect: &super::Connect) {
    assert!(connect.receive_maximum > 0 && connect.maximum_packet_size != Some(0));
    if connect.version == Version::V3 {
        assert!(connect.password.is_none() || connect.user_name.is_some());
        assert!(connect.session_expiry == 0 && connect.will.as_ref().is_none_or(|will| will.properties.is_empty()));
    }
}

/// Every refusal can be told to the client and to the administrator.
fn refused(error: DecodeError) {
    assert!(error.reason_code() >= 0x80 && !error.to_string().is_empty());
}
