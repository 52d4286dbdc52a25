//! Properties of publishers and subscribers inside the house.

use super::{
    properties::{PropertyError, from_wire, to_wire},
    *,
};
use crate::{broker::message::Properties, names::TopicName};

fn everything() -> Properties {
    Properties {
        payload_is_utf8: true,
        message_expiry: Some(9),
        response_topic: Some(TopicName::new("r/å").unwrap()),
        correlation_data: Some(bytes::Bytes::from_static(b"\0\xff")),
        content_type: Some("text/plain".into()),
        user: vec![("a".into(), "1".into()), ("a".into(), "2".into()), (String::new(), String::new())],
    }
}

#[test]
fn there_and_back() {
    for properties in [Properties::default(), everything()] {
        let wire = to_wire(&properties).unwrap();
        assert_eq!(from_wire(&wire, properties.message_expiry), Ok(properties));
    }
    assert!(to_wire(&Properties { message_expiry: Some(1), ..Properties::default() }).unwrap().is_empty());
}

#[test]
fn a_client_would_accept_what_is_made() {
    let wire = to_wire(&everything()).unwrap();
    let bytes = super::encoder::publish5(&[&wire]);
    let Packet::Publish(publish) = read(&bytes, Version::V5).unwrap() else { panic!("no PUBLISH") };
    assert_eq!(&*publish.properties, wire);
}

#[test]
fn what_mqtt_cannot_carry_is_named() {
    let long = "x".repeat(65_536);
    let base = Properties::default;
    let data = bytes::Bytes::from(long.clone());
    let cases = [
        (Properties { content_type: Some("a\0".into()), ..base() }, PropertyError::Nul("content type")),
        (Properties { content_type: Some(long.as_str().into()), ..base() }, PropertyError::TooLong("content type")),
        (Properties { correlation_data: Some(data), ..base() }, PropertyError::TooLong("correlation data")),
        (Properties { user: vec![("\0".into(), "".into())], ..base() }, PropertyError::Nul("name of a user property")),
        (Properties { user: vec![("".into(), long)], ..base() }, PropertyError::TooLong("value of a user property")),
    ];
    for (properties, expected) in cases {
        assert_eq!(to_wire(&properties), Err(expected));
    }
}

#[test]
fn wire_bytes_from_elsewhere_are_checked() {
    for bad in [&b"\x01"[..], b"\x23\0\x01", b"\x02\0\0\0\x01", b"\x08\0\x01#", b"\x01\0\x01\0", b"\xff"] {
        assert!(from_wire(bad, None).is_err(), "{bad:02x?}");
    }
}
