//! The transport (section 4.2 of 5.0, 7.1 of 3.1.1), and that nothing beyond the standards is asked of a client.

use tokio::io::AsyncWriteExt;

use crate::kit::*;

/// Packets in pieces of every size, and many in one piece: TCP as it comes. No property, no will, no user, no id: the least a client can say.
///
/// Shows 3.1.1: [MQTT-7.0.0-2] [MQTT-7.1.1-1]
/// Shows 5.0: [MQTT-4.2.0-1]
#[tokio::test]
async fn a_stream_of_bytes_is_all_it_takes() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        for size in [1, 2, 7, 1_000_000] {
            let mut client = Raw::open(broker.address, version).await;
            let mut bytes = packet(0x10, &Hello::new(version, "").body());
            bytes.extend(subscribe_packet(version, b"t", 0));
            for _ in 0..10 {
                bytes.extend(publish_packet(version, b"t", &[]));
            }
            bytes.extend([0xc0, 0, 0xc0, 0]);
            for piece in bytes.chunks(size) {
                client.stream.write_all(piece).await.unwrap();
                client.stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut kinds = Vec::new();
            for _ in 0..14 {
                kinds.push(client.receive().await.unwrap().0 >> 4);
            }
            assert_eq!(kinds[0], 2, "CONNACK comes first");
            kinds.sort_unstable();
            assert_eq!(kinds, [&[2][..], &[3; 10], &[9], &[13; 2]].concat(), "pieces of {size}");
        }
    }
    broker.stop().await;
}
