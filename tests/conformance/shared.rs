//! Shared subscriptions (section 4.8.2 of 5.0), which clients of 3.1.1 may make, too.

use std::collections::BTreeSet;

use crate::kit::*;

/// Shows 5.0: [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[tokio::test]
async fn how_a_shared_subscription_is_written() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut client = client(&broker, version, "c").await;
        let invalid = if version == V5 { 0x8f } else { 0x80 };
        for filter in
            ["$share", "$share/", "$share/g", "$share/g/", "$share//t", "$share/+/t", "$share/#", "$share/a#/t"]
        {
            assert_eq!(client.subscribe(filter, 1).await, invalid, "{filter}");
        }
        assert_eq!(client.subscribe("$share/g/t/#/x", 1).await, invalid);
        for filter in ["$share/g/t", "$share/å g/#", "$share/g//", "$share/$share/g/t", "$share/g/+/t"] {
            assert_eq!(client.subscribe(filter, 1).await, 1, "{filter}");
        }
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-4.8.2-3]
#[tokio::test]
async fn one_member_gets_each_message_with_its_own_qos() {
    let broker = Running::start(|_| {});
    let mut members = Vec::new();
    for (number, version) in [V5, V3, V5].into_iter().enumerate() {
        let mut member = client(&broker, version, &format!("m{number}")).await;
        let qos = number as u8;
        assert_eq!(member.subscribe("$share/g/t/#", qos).await, qos);
        members.push(member);
    }
    let mut publisher = client(&broker, V5, "pub").await;
    for number in 0..9u8 {
        publisher.publish("t/x", &[number], 2, 5, false).await;
        expect(&mut publisher, 0x50, &[0, 5], "PUBREC").await;
        publisher.ack(0x62, 5).await;
        expect(&mut publisher, 0x70, &[0, 5], "PUBCOMP").await;
    }
    let mut seen = BTreeSet::new();
    for (qos, member) in members.iter_mut().enumerate() {
        for _ in 0..3 {
            let got = member.receive_publish().await;
            assert_eq!(usize::from(got.qos), qos);
            assert!(seen.insert(got.payload));
        }
        nothing_more(member).await;
    }
    assert_eq!(seen.len(), 9);
    broker.stop().await;
}

/// Groups are apart from each other, and from the subscriptions of their members: of several copies each has its own identifier.
///
/// Shows 5.0: [MQTT-3.3.4-5] [MQTT-4.8.2-3]
#[tokio::test]
async fn a_member_of_groups_gets_a_copy_for_each() {
    let broker = Running::start(|_| {});
    let mut client = client(&broker, V5, "c").await;
    for (filter, qos, id) in [("t", 1, 1), ("$share/g/t", 0, 2), ("$share/h/t", 1, 3), ("$share/h/+", 0, 4)] {
        assert_eq!(client.subscribe_with(filter, qos, &[0x0b, id]).await, qos);
    }
    let mut publisher = self::client(&broker, V5, "pub").await;
    deliver(&mut publisher, false, "t", &[], b"x").await;
    let mut copies = Vec::new();
    for _ in 0..4 {
        let got = client.receive_publish().await;
        copies.push((subscription_ids(&got), got.qos));
    }
    copies.sort();
    assert_eq!(copies, [(vec![1], 1), (vec![2], 0), (vec![3], 1), (vec![4], 0)]);
    nothing_more(&mut client).await;
    broker.stop().await;
}

/// Shows 5.0: [MQTT-4.8.2-4] [MQTT-4.8.2-5] [MQTT-4.8.2-6]
#[tokio::test]
async fn what_one_member_was_sent_is_not_handed_on() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V3, "pub").await;
    let mut first = connected(&broker, kept(V5, "m1", 600)).await;
    first.subscribe("$share/g/t", 2).await;
    publisher.publish("t", b"begun", 2, 5, false).await;
    expect(&mut publisher, 0x50, &[0, 5], "PUBREC").await;
    let begun = first.receive_publish().await;
    let mut second = client(&broker, V5, "m2").await;
    second.subscribe("$share/g/t", 2).await;
    // Its connection goes: the other does not get it, and it does when it is back.
    drop(first);
    let mut first = connected(&broker, kept(V5, "m1", 600)).await;
    let again = first.receive_publish().await;
    assert_eq!((again.id, again.dup, &again.payload), (begun.id, true, &begun.payload));
    first.ack(0x50, again.id).await;
    expect(&mut first, 0x62, &again.id.to_be_bytes(), "PUBREL").await;
    drop(first);
    let mut first = connected(&broker, kept(V5, "m1", 600)).await;
    expect(&mut first, 0x62, &again.id.to_be_bytes(), "PUBREL again").await;
    nothing_more(&mut second).await;
    // Refused by a member: for nobody else.
    first.ack(0x70, again.id).await;
    for (number, qos) in [1, 1, 2, 2].into_iter().enumerate() {
        publisher.publish("t", &[number as u8], qos, 6, false).await;
        publisher.receive().await.unwrap();
        if qos == 2 {
            publisher.ack(0x62, 6).await;
            publisher.receive().await.unwrap();
        }
    }
    let mut refused = 0;
    for member in [&mut first, &mut second] {
        for _ in 0..2 {
            let got = member.receive_publish().await;
            let code = if got.qos == 1 { 0x40 } else { 0x50 };
            member.send(code, &cat(&[&got.id.to_be_bytes(), &[0x80]])).await;
            refused += 1;
        }
        nothing_more(member).await;
    }
    assert_eq!(refused, 4);
    // Its session ends with a QoS 2 message half way: nobody else gets that.
    publisher.publish("t", b"half way", 2, 7, false).await;
    publisher.receive().await.unwrap();
    publisher.publish("t", b"half way", 2, 8, false).await;
    publisher.receive().await.unwrap();
    assert_eq!(first.receive_publish().await.payload, b"half way");
    assert_eq!(second.receive_publish().await.payload, b"half way");
    drop(first);
    leave(client(&broker, V5, "m1").await).await;
    nothing_more(&mut second).await;
    broker.stop().await;
}
