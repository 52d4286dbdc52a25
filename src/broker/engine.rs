//! The engine: rumqttd's router, used alone as an ordered in-process bus with one internal topic. Only this file imports `rumqttd`.
//!
//! Invariants: no string of a client is ever a topic, filter or client id in the router; sequence number, ring and link buffer are written
//! under one lock, so ring order, link order and sequence are one thing; what was submitted stays in the ring until it was dispatched, so a
//! router that dies is replaced and everything in flight is sent again, exactly once. The router's log keeps at least
//! `(SEGMENTS - 1) x SEGMENT` bytes for a reader; admission lets less than that in (asserted at start).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttd::{
    Notification, Router, RouterConfig,
    local::{LinkBuilder, LinkError, LinkRx, LinkTx},
    protocol::{Packet, Publish},
};

use super::{
    cargo::{Cargo, Flight},
    envelope::{Draft, address, restamp},
    peer::Peer,
};

/// The one internal topic.
const TOPIC: &str = "bus";
const SEGMENT: usize = 1 << 20;
const SEGMENTS: usize = 3;
/// Bytes that may be in flight at a time, all doors together; below what the router's log is sure to keep.
pub(super) const IN_FLIGHT: usize = (SEGMENTS - 1) * SEGMENT;
/// Notifications handled in one dispatcher round.
pub(super) const ROUND: usize = 200;
/// An envelope this old in the ring, with the dispatcher idle, means the router is deaf.
const DEAF: Duration = Duration::from_secs(2);

/// The router cannot be built or reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("the routing engine does not start: {0}")]
    Start(Box<LinkError>),
}

impl From<LinkError> for EngineError {
    fn from(error: LinkError) -> Self {
        Self::Start(Box::new(error))
    }
}

/// The sending side, shared by all publishers.
pub(super) struct Engine {
    inner: Mutex<Inner>,
    /// The dispatcher waits for something to arrive.
    idle: AtomicBool,
    with_hook: bool,
}

struct Inner {
    generation: u32,
    next: u64,
    ring: VecDeque<Flight>,
    links: Links,
    stopped: bool,
}

struct Links {
    ingress: LinkTx,
    /// Kept so that the subscription's link stays whole.
    _egress: LinkTx,
    hook: Option<LinkTx>,
}

/// What the engine made of a submitted batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// One envelope to submit.
pub(super) struct Outgoing {
    pub draft: Draft,
    pub cost: u32,
    pub stored: u32,
    pub cargo: Cargo,
}

impl Engine {
    pub(super) fn start(with_hook: bool) -> Result<(Arc<Self>, Egress), EngineError> {
        let (links, receiver) = build(with_hook)?;
        let inner = Inner { generation: 0, next: 1, ring: VecDeque::new(), links, stopped: false };
        let engine = Arc::new(Self { inner: Mutex::new(inner), idle: AtomicBool::new(false), with_hook });
        let egress =
            Egress { engine: Arc::clone(&engine), receiver, generation: 0, expected: 1, arrived: 0, wake_due: false };
        Ok((engine, egress))
    }

    /// Submits envelopes in order: one lock, one wake-up of the router.
    pub(super) fn submit(
        &self,
        peer: Option<&Arc<Peer>>,
        batch: impl IntoIterator<Item = Outgoing>,
    ) -> Result<(), Stopped> {
        let since = Instant::now();
        let mut inner = self.inner.lock();
        if inner.stopped {
            return Err(Stopped);
        }
        let mut last = None;
        for Outgoing { draft, cost, stored, cargo } in batch {
            let seq = inner.next;
            inner.next += 1;
            let envelope = draft.stamp(inner.generation, seq);
            inner.links.push(last.replace(envelope.clone()));
            inner.ring.push_back(Flight { seq, envelope, cost, stored, peer: peer.map(Arc::clone), cargo, since });
        }
        inner.links.push_last(last);
        Ok(())
    }

    /// Nothing is taken any more.
    pub(super) fn stop(&self) {
        self.inner.lock().stopped = true;
    }

    /// Whether everything submitted was dispatched.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().ring.is_empty()
    }

    /// Whether the router has stopped forwarding: the dispatcher waits, and something old waits for it.
    pub(super) fn is_deaf(&self) -> bool {
        self.idle.load(Ordering::Acquire)
            && self.inner.lock().ring.front().is_some_and(|oldest| oldest.since.elapsed() > DEAF)
    }

    /// Kills the router: publishes a topic that its 0.20 release cannot slice, on a link of its own. For tests.
    pub(super) fn kill(&self) {
        let mut inner = self.inner.lock();
        if let Some(hook) = inner.links.hook.as_mut() {
            // `Err` means it is dead already.
            let _ = hook.try_publish("å", "");
        }
    }
}

impl Links {
    fn push(&mut self, envelope: Option<Bytes>) {
        if let Some(envelope) = envelope {
            self.ingress.buffer().push_back(packet(envelope));
        }
    }

    /// `Full` is success: the packet lies in the buffer and a wake-up is queued. `Disconnected` is the router's death, which the dispatcher
    /// notices too; what was pushed is in the ring and is sent again.
    fn push_last(&mut self, envelope: Option<Bytes>) {
        if let Some(envelope) = envelope {
            let _ = self.ingress.try_publish(TOPIC, envelope);
        }
    }
}

fn packet(envelope: Bytes) -> Packet {
    Packet::Publish(Publish::new(Bytes::from_static(TOPIC.as_bytes()), envelope, false), None)
}

fn build(with_hook: bool) -> Result<(Links, LinkRx), EngineError> {
    let config = RouterConfig {
        max_connections: 8,
        max_outgoing_packet_count: ROUND as u64,
        max_segment_size: SEGMENT,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    let router = Router::new(0, config).spawn();
    let link = |name| LinkBuilder::new(name, router.clone()).build().map_err(EngineError::from);
    let (mut egress, receiver, _) = link("bus-out")?;
    // The router handles its events in order: the subscription is there before the first envelope.
    egress.subscribe(TOPIC)?;
    let (ingress, _, _) = link("bus-in")?;
    let hook = if with_hook { Some(link("bus-test")?.0) } else { None };
    Ok((Links { ingress, _egress: egress, hook }, receiver))
}

/// The receiving side, owned by the dispatcher.
pub(super) struct Egress {
    engine: Arc<Engine>,
    receiver: LinkRx,
    generation: u32,
    expected: u64,
    /// Envelopes that arrived and were not collected yet.
    arrived: usize,
    wake_due: bool,
}

/// Why a round ended without flights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sick {
    /// The router's thread is gone.
    Dead,
    /// An envelope is missing.
    Gap,
}

impl Egress {
    /// Waits for envelopes and takes the flights that belong to them, in order, at most [`ROUND`]. May be dropped while it waits: what
    /// arrived and the wake-up that is due are remembered.
    pub(super) async fn round(&mut self, flights: &mut Vec<Flight>) -> Result<(), Sick> {
        self.wake_if_due().await?;
        if self.arrived == 0 {
            self.engine.idle.store(true, Ordering::Release);
            let first = self.receiver.next().await;
            self.engine.idle.store(false, Ordering::Release);
            self.notice(first.map_err(|_| Sick::Dead)?)?;
        }
        while self.arrived < ROUND && !self.wake_due {
            // In the past: takes what is there, waits for nothing.
            let Ok(notification) = self.receiver.recv_deadline(Instant::now()) else { break };
            self.notice(notification)?;
        }
        self.wake_if_due().await?;
        self.collect(flights);
        Ok(())
    }

    /// Exactly once per Unschedule, and early: the router fills the next round while this one is dispatched.
    async fn wake_if_due(&mut self) -> Result<(), Sick> {
        if self.wake_due {
            self.receiver.wake().await.map_err(|_| Sick::Dead)?;
            self.wake_due = false;
        }
        Ok(())
    }

    fn notice(&mut self, notification: Option<Notification>) -> Result<(), Sick> {
        match notification {
            Some(Notification::Forward(forward)) => self.arrive(&forward.publish.payload),
            Some(Notification::Unschedule) => {
                self.wake_due = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn arrive(&mut self, envelope: &[u8]) -> Result<(), Sick> {
        match address(envelope) {
            Some((generation, seq)) if generation == self.generation && seq == self.expected => {
                self.expected += 1;
                self.arrived += 1;
                Ok(())
            }
            Some((generation, seq)) if generation == self.generation && seq > self.expected => Err(Sick::Gap),
            // An old generation, or one dispatched already.
            _ => Ok(()),
        }
    }

    fn collect(&mut self, flights: &mut Vec<Flight>) {
        let mut inner = self.engine.inner.lock();
        let count = std::mem::take(&mut self.arrived).min(inner.ring.len());
        flights.extend(inner.ring.drain(..count));
    }

    /// A new router; everything in flight is sent again under the submit lock, so nothing overtakes it.
    pub(super) fn restart(&mut self) -> Result<(), EngineError> {
        let (links, receiver) = build(self.engine.with_hook)?;
        let mut inner = self.engine.inner.lock();
        inner.generation = inner.generation.wrapping_add(1);
        inner.links = links;
        self.generation = inner.generation;
        self.receiver = receiver;
        (self.arrived, self.wake_due) = (0, false);
        self.expected = inner.ring.front().map_or(inner.next, |oldest| oldest.seq);
        inner.resend();
        Ok(())
    }
}

impl Inner {
    fn resend(&mut self) {
        let generation = self.generation;
        let mut last = None;
        for flight in &mut self.ring {
            flight.envelope = restamp(&flight.envelope, generation, flight.seq);
            flight.since = Instant::now();
            self.links.push(last.replace(flight.envelope.clone()));
        }
        self.links.push_last(last);
    }
}
