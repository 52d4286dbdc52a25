//! A fresh subscriber after the storm: what every retained topic holds.

use std::{collections::HashMap, io, net::SocketAddr, time::Duration};

use tokio::time::timeout;

use super::{
    ledger::Ledger,
    link::{Phase, World},
    violation::Violation,
    wire::{Hello, Packet, Publish, V3, V5, subscribe},
};

const MARK: &str = "mark/of/the/fresh";

/// Subscribes in both versions and judges what comes; the values may take so long to be all there.
pub async fn look(address: SocketAddr, ledger: &Ledger, filter: &str, patience: Duration) {
    for version in [V3, V5] {
        match timeout(3 * patience, values(address, ledger, filter, version, patience)).await {
            Ok(Ok(wrong)) => wrong.into_iter().for_each(|violation| ledger.violation(violation)),
            Ok(Err(error)) => {
                let what = format!("the fresh subscriber of {filter} was let down: {error}");
                ledger.violation(Violation::NoAnswer { what });
            }
            Err(_) => {
                let what = format!("the fresh subscriber of {filter} waits for a message of its own");
                ledger.violation(Violation::NoAnswer { what });
            }
        }
    }
}

async fn values(
    address: SocketAddr,
    ledger: &Ledger,
    filter: &str,
    version: u8,
    patience: Duration,
) -> io::Result<Vec<Violation>> {
    let phase = Phase { address: Some(address), rest: None, load: false, restless: false, end: false };
    let (_phase, receiver) = tokio::sync::watch::channel(phase);
    let mut world = World { phase: receiver, ledger: Ledger::default() };
    let hello = Hello::new(version, &format!("fresh-{version}"), true);
    let Some((mut link, _)) = world.connect(&hello).await else { return Err(io::Error::other("no connection")) };
    link.send(&subscribe(version, 1, MARK, 0)).await?;
    link.send(&subscribe(version, 2, filter, 0)).await?;
    let mut found = HashMap::new();
    let gather = async {
        while !ledger.retained(&found).is_empty() {
            take(link.next().await?, &mut found);
        }
        io::Result::Ok(())
    };
    if let Ok(ended) = timeout(patience, gather).await {
        ended?;
    }
    // A message of its own closes the list: what should not be there would have come before.
    let mark = Publish { topic: MARK.into(), payload: b"mark".to_vec(), qos: 0, retain: false, dup: false, id: 0 };
    link.send(&mark.bytes(version)).await?;
    while !take(link.next().await?, &mut found) {}
    Ok(ledger.retained(&found))
}

/// Whether it was the mark.
fn take(packet: Packet, found: &mut HashMap<String, Vec<u8>>) -> bool {
    match packet {
        Packet::Publish(publish) if publish.topic == MARK => return true,
        Packet::Publish(publish) => _ = found.insert(publish.topic, publish.payload),
        _ => {}
    }
    false
}
