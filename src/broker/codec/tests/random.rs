//! Properties of the codec over random packets and random bytes.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{encoder::*, *};

const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

/// Any text MQTT allows, mostly short.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zå日 /$]{0,12}", "[^\0]{0,40}"]
}

fn topic() -> impl Strategy<Value = String> {
    "[^\0+#]{1,30}"
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

/// Properties that travel, each single one at most once, in wire form and any order.
fn travelling() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let single = (
        option::of((0..2u8).prop_map(|format| vec![0x01, format])),
        option::of(text().prop_map(|kind| cat(&[&[0x03], &bin(kind)]))),
        option::of(topic().prop_map(|topic| cat(&[&[0x08], &bin(topic)]))),
        option::of(payload().prop_map(|data| cat(&[&[0x09], &bin(data)]))),
    );
    let user = vec((text(), text()).prop_map(|(name, value)| cat(&[&[0x26], &bin(name), &bin(value)])), 0..3);
    (single, user)
        .prop_map(|((a, b, c, d), user)| [a, b, c, d].into_iter().flatten().chain(user).collect::<Vec<_>>())
        .prop_shuffle()
}

/// Inserts the properties that do not travel at random places.
fn mixed(kept: &[Vec<u8>], others: &[Option<Vec<u8>>], places: &[prop::sample::Index]) -> Vec<u8> {
    let mut all = kept.to_vec();
    for (other, place) in others.iter().zip(places) {
        if let Some(other) = other {
            all.insert(place.index(all.len() + 1), other.clone());
        }
    }
    let block = all.concat();
    cat(&[&var(block.len()), &block])
}

fn expiry(seconds: Option<u32>) -> Option<Vec<u8>> {
    seconds.map(|seconds| cat(&[&[0x02], &seconds.to_be_bytes()]))
}

prop_compose! {
    fn places()(places in vec(any::<prop::sample::Index>(), 2)) -> Vec<prop::sample::Index> { places }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm(bytes in vec(any::<u8>(), 0..200), version in select(&VERSIONS)) {
        walk::walk(&bytes, version);
        walk::one(0x10, &bytes, version);
        let _ = connect_version(&bytes);
        let _ = properties::from_wire(&bytes, None);
    }

    /// Random bytes seldom get past the header; these always do.
    #[test]
    fn no_body_does_harm(first in any::<u8>(), body in vec(any::<u8>(), 0..100), version in select(&VERSIONS)) {
        walk::one(first, &body, version);
        walk::walk(&packet(first, &[&body]), version);
    }

    /// Good packets with a few bytes changed, cut or added.
    #[test]
    fn no_damage_does_harm(
        kept in travelling(), topic in topic(), id in 1..=u16::MAX, qos in 0..3u8, payload in payload(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(),
    ) {
        let id = if qos == 0 { vec![] } else { id.to_be_bytes().to_vec() };
        let mut bytes = packet(0x30 | qos << 1, &[&bin(topic), &id, &mixed(&kept, &[], &[]), &payload]);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        for version in VERSIONS {
            walk::walk(&bytes, version);
            walk::walk(&bytes[..cut.index(bytes.len())], version);
        }
    }

    /// A stream arrives in pieces: a cut frame asks for more, never for more than the packet is long.
    #[test]
    fn cut_frames_ask_for_more(first in select(&[0x30u8, 0x32, 0x40, 0x82][..]), body in vec(any::<u8>(), 0..400)) {
        let bytes = packet(first, &[&body]);
        for cut in 0..bytes.len() {
            match frame(&bytes[..cut], bytes.len()) {
                Ok(Framed::Incomplete { needed }) => prop_assert!(cut < needed && needed <= bytes.len()),
                other => prop_assert!(false, "{:?} after {} bytes", other, cut),
            }
        }
        let complete = Framed::Complete { first, body: &body, length: bytes.len() };
        prop_assert_eq!(frame(&bytes, bytes.len()), Ok(complete));
    }

    #[test]
    fn publish_is_read(
        kept in travelling(), places in places(), alias in option::of(1..=u16::MAX), seconds in option::of(any::<u32>()),
        topic in topic(), id in 1..=u16::MAX, flags in select(&[0u8, 1, 2, 3, 4, 5, 10, 11, 12, 13][..]), payload in payload(),
    ) {
        let qos = QoS::from_u8((flags >> 1) & 3).unwrap();
        let id = if qos == QoS::AtMostOnce { 0 } else { id };
        let wire_id = if id == 0 { vec![] } else { id.to_be_bytes().to_vec() };
        let expected = Publish {
            dup: flags & 8 != 0, qos, retain: flags & 1 != 0, packet_id: id, topic: &topic, topic_alias: alias,
            expiry: seconds, properties: kept.concat().into(), payload: &payload,
        };
        let others = [alias.map(|alias| cat(&[&[0x23], &alias.to_be_bytes()])), expiry(seconds)];
        let bytes = packet(0x30 | flags, &[&bin(&topic), &wire_id, &mixed(&kept, &others, &places), &payload]);
        prop_assert_eq!(read(&bytes, Version::V5), Ok(Packet::Publish(expected.clone())));
        let bytes = packet(0x30 | flags, &[&bin(&topic), &wire_id, &payload]);
        let expected = Publish { topic_alias: None, expiry: None, properties: b"".as_slice().into(), ..expected };
        prop_assert_eq!(read(&bytes, Version::V3), Ok(Packet::Publish(expected)));
    }

    #[test]
    fn connect_is_read(
        version in select(&VERSIONS), clean_start in any::<bool>(), keep_alive in any::<u16>(), client_id in text(),
        will in option::of((topic(), payload(), 0..3u8, any::<bool>(), travelling(), any::<u32>(), option::of(any::<u32>()))),
        user_name in option::of(text()), password in option::of(payload()), places in places(),
        session_expiry in any::<u32>(), receive_maximum in 1..=u16::MAX, topic_alias_maximum in any::<u16>(),
    ) {
        let v5 = version == Version::V5;
        let password = password.filter(|_| v5 || user_name.is_some());
        let mut flags = u8::from(clean_start) << 1 | u8::from(user_name.is_some()) << 7 | u8::from(password.is_some()) << 6;
        let mut payload = bin(&client_id);
        if let Some((topic, message, qos, retain, kept, delay, seconds)) = &will {
            flags |= 4 | qos << 3 | u8::from(*retain) << 5;
            if v5 {
                let others = [Some(cat(&[&[0x18], &delay.to_be_bytes()])), expiry(*seconds)];
                payload.extend(mixed(kept, &others, &places));
            }
            payload.extend(cat(&[&bin(topic), &bin(message)]));
        }
        payload.extend(user_name.iter().flat_map(bin));
        payload.extend(password.iter().flat_map(bin));
        let properties = props(&[
            b"\x11", &session_expiry.to_be_bytes(), b"\x21", &receive_maximum.to_be_bytes(), b"\x22",
            &topic_alias_maximum.to_be_bytes(),
        ]);
        let level: &[u8] = if v5 { b"\x05" } else { b"\x04" };
        let properties = if v5 { properties } else { vec![] };
        let bytes = packet(0x10, &[b"\0\x04MQTT", level, &[flags], &keep_alive.to_be_bytes(), &properties, &payload]);
        let Ok(Packet::Connect(read)) = read(&bytes, Version::V3) else {
            return Err(TestCaseError::fail(format!("{:?}", read(&bytes, Version::V3))));
        };
        prop_assert_eq!((read.version, read.clean_start, read.keep_alive), (version, clean_start, keep_alive));
        prop_assert_eq!((&read.client_id, &read.user_name), (&client_id, &user_name));
        prop_assert_eq!(read.password.as_ref().map(|password| password.expose().to_vec()), password);
        let ours = if v5 { (session_expiry, receive_maximum, topic_alias_maximum) } else { (0, 65_535, 0) };
        prop_assert_eq!((read.session_expiry, read.receive_maximum, read.topic_alias_maximum), ours);
        let will = will.map(|(topic, message, qos, retain, kept, delay, seconds)| Will {
            topic, payload: message.into(), qos: QoS::from_u8(qos).unwrap(), retain,
            delay: if v5 { delay } else { 0 }, expiry: seconds.filter(|_| v5),
            properties: if v5 { kept.concat() } else { vec![] },
        });
        prop_assert_eq!(&read.will, &will);
    }

    #[test]
    fn subscriptions_are_read(
        version in select(&VERSIONS), id in 1..=u16::MAX, number in option::of(1..=268_435_455u32),
        lines in vec((text(), 0..3u8, any::<bool>(), any::<bool>(), 0..3u8), 1..20),
    ) {
        let v5 = version == Version::V5;
        let mut wanted = Vec::new();
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        for (filter, qos, no_local, retain_as_published, retain_handling) in lines {
            let no_local = no_local && v5 && !filter.starts_with("$share/");
            let (retain_as_published, retain_handling) = (retain_as_published && v5, if v5 { retain_handling } else { 0 });
            let byte = qos | u8::from(no_local) << 2 | u8::from(retain_as_published) << 3 | retain_handling << 4;
            subscribe.extend(cat(&[&bin(&filter), &[byte]]));
            unsubscribe.extend(bin(&filter));
            let qos = QoS::from_u8(qos).unwrap();
            let options = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
            wanted.push(SubscribeFilter { filter, options });
        }
        let number = number.filter(|_| v5);
        let block = number.map(|number| cat(&[&[0x0b], &var(number as usize)])).unwrap_or_default();
        let (some, none) = if v5 { (props(&[&block]), vec![0]) } else { (vec![], vec![]) };
        let filters = wanted.iter().map(|line| line.filter.clone()).collect();
        let bytes = packet(0x82, &[&id.to_be_bytes(), &some, &subscribe]);
        let expected = Subscribe { packet_id: id, subscription_id: number, filters: wanted };
        prop_assert_eq!(read(&bytes, version), Ok(Packet::Subscribe(expected)));
        let bytes = packet(0xa2, &[&id.to_be_bytes(), &none, &unsubscribe]);
        prop_assert_eq!(read(&bytes, version), Ok(Packet::Unsubscribe(Unsubscribe { packet_id: id, filters })));
    }
}
