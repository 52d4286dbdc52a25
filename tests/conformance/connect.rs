//! CONNECT (section 3.1): its form, client ids, log-in.

use crate::kit::*;

/// Shows 3.1.1: [MQTT-3.1.0-1]
/// Shows 5.0: [MQTT-3.1.0-1] [MQTT-3.14.0-1]
#[tokio::test]
async fn the_first_packet_is_connect() {
    let broker = Running::start(|_| {});
    let mut cases = 0;
    for version in BOTH {
        let mut packets = vec![publish_packet(version, b"t", &[]), subscribe_packet(version, b"t", 0)];
        packets.extend([0xc0, 0xe0, 0xf0].map(|first| packet(first, &[])));
        packets.extend([0x20, 0x40, 0x62, 0x90, 0xd0].map(|first| packet(first, &[0, 1])));
        packets.push(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
        for bytes in packets {
            let mut client = Raw::open(broker.address, version).await;
            client.bytes(&bytes).await;
            assert!(client.is_closed().await, "{bytes:?}");
            cases += 1;
        }
    }
    assert_eq!(cases, 22);
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.0-2] [MQTT-4.8.0-1]
/// Shows 5.0: [MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT-4.13.1-1]
#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let second = packet(0x10, &Hello::new(version, "bad").body());
        ends_with(&broker, version, &second, 0x82, "a second CONNECT").await;
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.2-1] [MQTT-3.1.2-2]
/// Shows 5.0: [MQTT-3.1.2-1] [MQTT-3.1.2-2]
#[tokio::test]
async fn names_and_versions_that_are_not_served() {
    let broker = Running::start(|_| {});
    let connect = |name: &str, level: u8| packet(0x10, &cat(&[&field(name), &[level, 2, 0, 0], &field("c")]));
    let old: &[u8] = &[0x20, 2, 0, 1];
    let new: &[u8] = &[0x20, 3, 0, 0x84, 0];
    for (name, level, answer) in [
        ("MQIsdp", 3, old),
        ("MQTT", 0, old),
        ("MQTT", 3, old),
        ("MQTT", 6, new),
        ("MQTT", 255, new),
        ("MQTX", 4, &[]),
        ("mqtt", 4, &[]),
        ("", 5, &[]),
    ] {
        let mut client = Raw::open(broker.address, V3).await;
        client.bytes(&connect(name, level)).await;
        let answered = client.receive().await.map_or_else(Vec::new, |(first, body)| packet(first, &body));
        assert_eq!(answered, answer, "{name} {level}");
        assert!(answer.is_empty() || client.is_closed().await);
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15]
/// Shows 3.1.1: [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.2-22] [MQTT-3.1.3-3]
/// Shows 3.1.1: [MQTT-3.1.4-1] [MQTT-3.2.2-6]
/// Shows 5.0: [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.2-16]
/// Shows 5.0: [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-3] [MQTT-3.1.4-1] [MQTT-3.2.2-6]
/// Shows 5.0: [MQTT-3.2.2-7]
#[tokio::test]
async fn flags_and_fields_of_connect_agree() {
    let broker = Running::start(|_| {});
    let mut cases = 0;
    for version in BOTH {
        let (id, text, none) = (field("c"), field("text"), properties(version, &[]));
        let table: [(&str, u8, &[&[u8]]); 13] = [
            ("reserved flag", 0x03, &[&id]),
            ("QoS of no will", 0x0a, &[&id]),
            ("RETAIN of no will", 0x22, &[&id]),
            ("will of QoS 3", 0x1e, &[&id, &none, &text, &text]),
            ("no will", 0x06, &[&id]),
            ("half a will", 0x06, &[&id, &none, &text]),
            ("a will without its flag", 0x02, &[&id, &none, &text, &text]),
            ("no user name", 0x82, &[&id]),
            ("a user name without its flag", 0x02, &[&id, &text]),
            ("no password", 0xc2, &[&id, &text]),
            ("a password without its flag", 0x82, &[&id, &text, &text]),
            ("no client id", 0x02, &[]),
            ("nothing behind the keep-alive but half a client id", 0x02, &[&[0]]),
        ];
        for (case, flags, rest) in table {
            malformed_connect(&broker, version, &connect_packet(version, flags, rest), 0x81, case).await;
            cases += 1;
        }
    }
    assert_eq!(cases, 26);
    // A password alone: malformed in 3.1.1, allowed in 5.0.
    let alone = |version| connect_packet(version, 0x42, &[&field("c"), &field("p")]);
    malformed_connect(&broker, V3, &alone(V3), 0, "a password without a user name").await;
    let mut client = Raw::open(broker.address, V5).await;
    client.bytes(&alone(V5)).await;
    assert_eq!(client.receive().await.unwrap().1[1], 0);
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.2-19] [MQTT-3.1.2-21] [MQTT-3.1.3-1] [MQTT-3.1.4-4]
/// Shows 5.0: [MQTT-3.1.2-17] [MQTT-3.1.2-19] [MQTT-3.1.3-1] [MQTT-3.1.4-5]
#[tokio::test]
async fn all_fields_of_connect_in_their_order() {
    let broker = Running::start(|settings| {
        settings.listeners[0].allow_anonymous = false;
        settings.users.push(user("anna", "geheim"));
    });
    for version in BOTH {
        let mut watcher = connected(&broker, Hello::new(version, "watcher").user("anna", "geheim")).await;
        watcher.subscribe("will", 1).await;
        let will = Some(("will".into(), "gone".into(), 1));
        let mortal = Hello { will, ..Hello::new(version, "mortal").user("anna", "geheim") };
        drop(connected(&broker, mortal).await);
        let got = watcher.receive_publish().await;
        assert_eq!((got.topic.as_str(), got.payload.as_slice(), got.qos), ("will", b"gone".as_slice(), 1));
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.3-5] [MQTT-3.1.4-4] [MQTT-3.2.0-1]
/// Shows 5.0: [MQTT-3.1.3-5] [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.2-1] [MQTT-3.2.2-8]
#[tokio::test]
async fn client_ids_of_letters_and_digits() {
    let broker = Running::start(|_| {});
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut cases = 0;
    for version in BOTH {
        let mut ids: Vec<&str> = (1..=23).map(|length| &letters[..length]).collect();
        ids.extend((0..letters.len() - 23).step_by(13).map(|from| &letters[from..from + 23]));
        ids.extend(["å/#+$ ", letters]);
        for id in ids {
            let (_client, connack) = Raw::connect(broker.address, &Hello::new(version, id)).await;
            assert_eq!(connack[..2], [0, 0], "{id}");
            cases += 1;
        }
    }
    assert_eq!(cases, 2 * (23 + 3 + 2));
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.3-6] [MQTT-3.1.3-8] [MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5]
/// Shows 5.0: [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[tokio::test]
async fn clients_without_an_id() {
    let broker = Running::start(|_| {});
    let mut old = [client(&broker, V3, "").await, client(&broker, V3, "").await];
    for nameless in &mut old {
        nothing_more(nameless).await;
    }
    refused(&broker, &Hello { clean: false, ..Hello::v3("") }, [2, 0], "a session without a name").await;
    let (mut first, connack) = Raw::connect(broker.address, &Hello::v5("")).await;
    let (mut second, other) = Raw::connect(broker.address, &kept(V5, "", 60)).await;
    let given = |connack: &[u8]| String::from_utf8(of_connack(connack)[&0x12][0][2..].to_vec()).unwrap();
    assert_ne!(given(&connack), given(&other));
    nothing_more(&mut first).await;
    let (_third, present) = Raw::connect(broker.address, &kept(V5, &given(&other), 60)).await;
    assert_eq!((present[0], of_connack(&present).contains_key(&0x12)), (1, false), "the session has the name given");
    ends(&mut second, 0x8e, "taken over by its name").await;
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.4-5] [MQTT-3.2.2-4] [MQTT-3.2.2-5]
/// Shows 5.0: [MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-4.13.2-1]
#[tokio::test]
async fn refused_clients_get_their_code_and_nothing_they_sent_counts() {
    let broker = Running::start(|settings| {
        settings.listeners[0].allow_anonymous = false;
        settings.users.push(user("anna", "geheim"));
    });
    for version in BOTH {
        let good = |id: &str| Hello::new(version, id).user("anna", "geheim");
        let mut watcher = connected(&broker, good("watcher")).await;
        watcher.subscribe("#", 0).await;
        drop(connected(&broker, kept(version, "kept", 60).user("anna", "geheim")).await);
        for (case, hello, codes) in [
            ("wrong password", kept(version, "kept", 60).user("anna", "Geheim"), [4, 0x86]),
            ("unknown user", kept(version, "kept", 60).user("bo", "geheim"), [4, 0x86]),
            ("no user", kept(version, "kept", 60), [5, 0x87]),
        ] {
            refused(&broker, &hello, codes, case).await;
            let mut client = Raw::open(broker.address, version).await;
            let rest = publish_packet(version, b"behind/the/refusal", &[]);
            client.bytes(&cat(&[&packet(0x10, &hello.body()), &rest])).await;
            assert_eq!(client.receive().await.unwrap().1[1], codes[usize::from(version == V5)]);
            assert!(client.is_closed().await);
        }
        let mut publisher = connected(&broker, good("pub")).await;
        deliver(&mut publisher, false, "after", &[], b"x").await;
        assert_eq!(watcher.receive_publish().await.topic, "after");
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-4.12.0-1] [MQTT-4.12.0-4] [MQTT-4.12.0-6] [MQTT-4.12.0-7] [MQTT-3.15.2-1]
#[tokio::test]
async fn enhanced_authentication_is_refused() {
    let broker = Running::start(|_| {});
    let method = cat(&[&[0x15], &field("SCRAM-SHA-1")]);
    for block in [method.clone(), cat(&[&method, &[0x16], &field("data")])] {
        let (mut client, connack) = Raw::connect(broker.address, &with(Hello::v5("c"), &block)).await;
        assert_eq!(connack[..2], [0, 0x8c]);
        assert!(client.is_closed().await);
    }
    let (_client, connack) = Raw::connect(broker.address, &Hello::v5("c")).await;
    assert!(!of_connack(&connack).contains_key(&0x15));
    for (case, body) in [
        ("continue", cat(&[&[0x18, method.len() as u8], &method])),
        ("again", cat(&[&[0x19, method.len() as u8], &method])),
        ("success", vec![]),
        ("a code there is not", cat(&[&[0x17, method.len() as u8], &method])),
    ] {
        ends_with(&broker, V5, &packet(0xf0, &body), 0x82, case).await;
    }
    ends_with(&broker, V5, &packet(0xf0, &[0x18, 0]), 0x82, "without a method").await;
    broker.stop().await;
}
