//! The self-probe: is the broker alive or only there?
//!
//! Every few seconds a client in memory goes through the accept path like any other (connect, subscribe, publish, receive) with an internal
//! identity, so that it works also when every listener requires TLS and a user. Its word has a term: a probe that hangs is no word.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{
        BrokerHandle,
        codec::{Framed, frame},
    },
    telemetry::readiness::Latch,
};

/// Between two probes.
const EVERY: Duration = Duration::from_secs(5);
/// What one may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long its word counts.
const TERM: Duration = Duration::from_secs(15);
/// The largest packet the probe expects.
const LARGEST: usize = 1 << 16;

/// Why the broker does not do its work.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no answer to {step} within {PATIENCE:?}")]
    Silence { step: &'static str },
    #[error("the connection broke at {step}: {source}")]
    Broken { step: &'static str, source: io::Error },
    #[error("an unexpected answer to {step}")]
    Answer { step: &'static str },
}

/// Probes until the stop; `latch` follows.
pub async fn run(broker: BrokerHandle, latch: Latch, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    let mut was_well = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let begun = Instant::now();
        let found = Probe { stream: broker.connect_in_memory(), buffer: Vec::new() }.walk().await;
        match &found {
            Ok(()) => latch.up_for(TERM),
            Err(error) => latch.down(format!("the broker does not pass its own messages on: {error}")),
        }
        if was_well != Some(found.is_ok()) {
            match &found {
                Ok(()) => tracing::info!(took = ?begun.elapsed(), "self-probe: the broker takes and delivers messages"),
                Err(error) => tracing::error!(
                    code = "self_probe_failed",
                    "self-probe: the broker does not pass its own messages on: {error}; if this stays so for a minute, restart the program and report it"
                ),
            }
        }
        was_well = Some(found.is_ok());
    }
}

struct Probe {
    stream: DuplexStream,
    buffer: Vec<u8>,
}

impl Probe {
    async fn walk(mut self) -> Result<(), ProbeError> {
        // Beginning with `$`, so that nobody who watches everything sees it.
        let topic = format!("$probe/{}", uuid::Uuid::new_v4().simple());
        // MQTT 3.1.1, clean session, no keep-alive, no client id: the broker gives one.
        self.step("CONNECT", 0x10, b"\0\x04MQTT\x04\x02\0\0\0\0", 0x20).await?;
        let mut subscribe = vec![0, 1];
        put_text(&mut subscribe, &topic);
        subscribe.push(1);
        self.step("SUBSCRIBE", 0x82, &subscribe, 0x90).await?;
        let mut publish = Vec::new();
        put_text(&mut publish, &topic);
        publish.extend_from_slice(b"probe");
        self.step("PUBLISH", 0x30, &publish, 0x30).await?;
        self.send("DISCONNECT", 0xe0, &[]).await
    }

    /// Sends a packet and waits for one of the expected type.
    async fn step(&mut self, step: &'static str, first: u8, body: &[u8], expected: u8) -> Result<(), ProbeError> {
        let exchange = async {
            self.send(step, first, body).await?;
            self.receive(step).await
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) if answer & 0xf0 == expected => Ok(()),
            Ok(Ok(_)) => Err(ProbeError::Answer { step }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ProbeError::Silence { step }),
        }
    }

    async fn send(&mut self, step: &'static str, first: u8, body: &[u8]) -> Result<(), ProbeError> {
        let mut packet = vec![first];
        put_length(&mut packet, body.len());
        packet.extend_from_slice(body);
        self.stream.write_all(&packet).await.map_err(|source| ProbeError::Broken { step, source })
    }

    /// The first byte of the next packet.
    async fn receive(&mut self, step: &'static str) -> Result<u8, ProbeError> {
        loop {
            match frame(&self.buffer, LARGEST) {
                Ok(Framed::Complete { first, length, .. }) => {
                    self.buffer.drain(..length);
                    return Ok(first);
                }
                Ok(Framed::Incomplete { .. }) => {}
                Err(_) => return Err(ProbeError::Answer { step }),
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|source| ProbeError::Broken { step, source })? == 0 {
                return Err(ProbeError::Broken { step, source: io::ErrorKind::UnexpectedEof.into() });
            }
        }
    }
}

/// MQTT's Remaining Length (section 2.2.3): seven bits a byte, the eighth says that more follow.
fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // The configured prefix is checked to be short; a probe that overflowed would fail and say so.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
