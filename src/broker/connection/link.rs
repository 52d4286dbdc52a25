//! The service loop of a connection: replies, submissions, outgoing messages, reading, time. A hand-written poll, because all of these must
//! be able to move while any of them waits.
//!
//! What was read and may not be submitted yet (no room on the bus, or a slow session holds this publisher) is parked, built, in order; while
//! the park has room, reading goes on, so that acknowledgements are still heard. When it is full the socket rests.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, Sleep},
};

use super::{End, Leave, judge::Verdicts, meter::Meter, spoken::Spoken, wire::Wire};
use crate::broker::{
    access::Access,
    admission::{Turnstile, weight},
    cargo::Opened,
    codec::Version,
    engine::Outgoing,
    hub::Hub,
    peer::{Kick, Peer, Reply},
    session::{Parcel, Session},
};

/// Bytes parked before the socket rests. What is parked goes out in one go once there is room, and others wait for it.
const PARK: usize = 64 << 10;
/// Bytes submitted at a time.
const BATCH: u32 = 16 << 10;
/// Unwritten bytes at which no more messages are taken from the outbox.
pub(super) const OUT: usize = 64 << 10;
/// Unwritten bytes at which reading stops: a peer that sends and never reads.
const OUT_STOP: usize = 256 << 10;
/// Packets handled in a turn: of small ones, what was read at once holds thousands, and everybody else would wait for them.
pub(super) const PACKETS: usize = 64;

/// What client and broker agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub version: Version,
    /// Unacknowledged QoS 1 and 2 messages towards the client.
    pub receive_maximum: u16,
    /// Bytes of the largest packet the client takes.
    pub largest_packet: usize,
    /// The client wants to be told why.
    pub reasons: bool,
    /// Topic aliases the client takes.
    pub topic_aliases: u16,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    pub persistent: bool,
}

/// A connection in service.
pub(super) struct Link {
    pub hub: Hub,
    pub peer: Arc<Peer>,
    pub session: Arc<Session>,
    pub access: Arc<Access>,
    pub version: Version,
    pub terms: Terms,
    /// MQTT 5 topic aliases the client has set, by number.
    pub aliases: Vec<Option<Box<str>>>,
    /// Those set for the client.
    pub spoken: Spoken,
    /// Parked: built, not submitted.
    pub pending: VecDeque<Outgoing>,
    pub pending_bytes: usize,
    /// QoS 1 and 2 messages of the client that are not acknowledged to the end.
    pub inbound: usize,
    /// The client said goodbye; what it sent before is still submitted.
    pub ending: Option<End>,
    pub verdicts: Verdicts,
    /// How much the client sends, where that is limited.
    pub meter: Option<Box<Meter>>,
    pub parcels: Vec<Parcel>,
    pub replies: Vec<Reply>,
    /// The batch there is no room for yet: how many of `pending`, and what they cost on the bus and before the store. It stays what it is while it
    /// waits: whoever asks for more than before goes to the end of the queue, and who goes on talking would never have his turn.
    waiting: Option<(usize, u32, u32)>,
    turnstile: Turnstile,
    store_turnstile: Turnstile,
    /// Room before the store that the next batch has already.
    granted: u32,
    /// A turn's packets were handled, and what was read holds more.
    pub(super) unread: bool,
    last_heard: Instant,
    leave: Option<Leave>,
    _place: OwnedSemaphorePermit,
}

impl Link {
    pub(super) fn new(
        hub: Hub,
        peer: Arc<Peer>,
        (opened, mut leave): (Opened, Leave),
        access: Arc<Access>,
        terms: Terms,
        place: OwnedSemaphorePermit,
    ) -> Self {
        leave.with_will = true;
        let verdicts = Verdicts::new(&access, opened.present);
        let meter = Meter::of(&access, &hub.limits);
        let session = opened.session;
        let turnstile = Turnstile::new(hub.window.clone());
        let store_turnstile = Turnstile::new(hub.store_window.clone());
        Self {
            hub,
            peer,
            session,
            access,
            version: terms.version,
            terms,
            aliases: Vec::new(),
            spoken: Spoken::new(terms.topic_aliases),
            pending: VecDeque::new(),
            pending_bytes: 0,
            inbound: 0,
            ending: None,
            verdicts,
            meter,
            parcels: Vec::new(),
            replies: Vec::new(),
            waiting: None,
            turnstile,
            store_turnstile,
            granted: 0,
            unread: false,
            last_heard: Instant::now(),
            leave: Some(leave),
            _place: place,
        }
    }

    /// Whether what passes counts as clients' traffic; the self-probe's does not.
    pub(super) fn is_client(&self) -> bool {
        self.peer.face().is_some()
    }

    /// The connection is over: nothing more is for it, and newcomers see that it is leaving.
    pub(super) fn depart(&mut self) {
        self.peer.go();
        if let Some(leave) = &mut self.leave {
            leave.departure = Some(self.hub.departures.leave());
        }
    }

    /// Reports the end to the stream. A client with a kept session that said goodbye hears when that is on disk.
    pub(super) fn report(&mut self, end: End) -> Option<oneshot::Receiver<()>> {
        let mut leave = self.leave.take()?;
        // Who said goodbye meant it, whatever ended the connection before everything it sent was submitted.
        (leave.with_will, leave.expiry) = match self.ending.unwrap_or(end) {
            End::Disconnect { with_will, expiry } => (with_will, expiry),
            _ => (true, None),
        };
        if leave.with_will || self.session.sid.is_none() {
            return None;
        }
        let (done, noted) = oneshot::channel();
        leave.done = Some(done);
        Some(noted)
    }

    /// Serves until the connection ends.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> End {
        let mut timer = Box::pin(tokio::time::sleep(self.patience().unwrap_or(Duration::MAX)));
        let stop = self.hub.stop.clone();
        let stopping = stop.cancelled();
        tokio::pin!(stopping);
        poll_fn(|cx| {
            if stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Kicked(Kick::ServerShuttingDown));
            }
            let served = self.poll(wire, timer.as_mut(), cx);
            if let Some(leave) = &mut self.leave {
                // It is in: the next may come.
                leave.entering = None;
            }
            match served {
                Ok(()) => Poll::Pending,
                Err(end) => Poll::Ready(end),
            }
        })
        .await
    }

    /// At the stop: what lies in the outbox still goes out, as far as the client takes it.
    pub(super) async fn last_words<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) {
        poll_fn(|cx| {
            self.peer.register(cx.waker());
            loop {
                // Why it ends is known; the replies are written all the same.
                let _ = self.take_replies(&mut wire.out);
                let moved = self.fill(&mut wire.out).unwrap_or(true);
                match wire.poll_flush(cx) {
                    Ok(false) if !moved => break,
                    Ok(_) => {}
                    Err(_) => return Poll::Ready(()),
                }
            }
            if wire.out.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// After the end: what was read is still submitted. Most of it finds room at once; what does not within the time given goes without,
    /// because a QoS 2 id that was noted must be followed by its message.
    pub(super) async fn drain(&mut self, patience: Duration) {
        let all = poll_fn(|cx| {
            self.peer.register(cx.waker());
            match self.poll_submit(cx) {
                Ok(_) if !self.pending.is_empty() => Poll::Pending,
                _ => Poll::Ready(()),
            }
        });
        let late = tokio::time::timeout(patience, all).await.is_err();
        self.give_up_grant();
        if late {
            let rest = self.pending.drain(..).map(|outgoing| Outgoing { cost: 0, stored: 0, ..outgoing });
            // A stopping broker takes nothing more.
            let _ = self.hub.engine.submit(Some(&self.peer), rest);
        }
    }

    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        // First the waker, then the looking: what is added afterwards wakes again.
        self.peer.register(cx.waker());
        if self.turn(wire, cx)? {
            // Others get theirs before it goes on.
            cx.waker().wake_by_ref();
        } else {
            wire.rest();
        }
        // A client that is sent much and says nothing is silent all the same.
        self.poll_timer(timer, cx)
    }

    /// One turn; whether anything moved.
    fn turn<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
    ) -> Result<bool, End> {
        self.renew()?;
        let mut busy = self.take_replies(&mut wire.out)?;
        busy |= self.meter.as_mut().is_some_and(|meter| meter.poll_rested(cx));
        busy |= self.poll_submit(cx)?;
        if let Some(end) = self.ending.filter(|_| self.pending.is_empty()) {
            return Err(end);
        }
        if self.may_read(wire.out.len()) {
            busy |= wire.again(|bytes, out| self.handle(bytes, out))?;
        }
        busy |= self.fill(&mut wire.out)?;
        busy |= wire.poll_flush(cx)?;
        if self.may_read(wire.out.len()) && !self.unread {
            match wire.poll_read(cx, |bytes, out| self.handle(bytes, out)) {
                Poll::Ready(Ok(true)) => {
                    self.last_heard = Instant::now();
                    busy = true;
                }
                Poll::Ready(Ok(false)) => return Err(End::Gone),
                Poll::Ready(Err(end)) => return Err(end),
                Poll::Pending => {}
            }
        }
        Ok(busy)
    }

    /// Whether more may be read: the park has room, the peer reads what it is sent, and does not send more than it may.
    pub(super) fn may_read(&self, unwritten: usize) -> bool {
        self.ending.is_none() && self.pending_bytes < PARK && unwritten < OUT_STOP && !self.rests()
    }

    fn rests(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| meter.rests())
    }

    /// Parks an envelope until there is room on the bus.
    pub(super) fn park(&mut self, outgoing: Outgoing) {
        self.pending_bytes += weight(outgoing.draft.len(), outgoing.cost);
        self.pending.push_back(outgoing);
    }

    fn poll_submit(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        if self.peer.is_held() {
            // Who may not go on keeps nobody from it.
            self.turnstile.leave();
            self.store_turnstile.leave();
            self.waiting = None;
            self.give_up_grant();
            return Ok(false);
        }
        while !self.pending.is_empty() && !self.peer.is_held() {
            let (count, cost, stored) = self.waiting.take().unwrap_or_else(|| self.batch());
            if !self.poll_stored(stored, cx) || !self.poll_room(cost, cx) {
                self.waiting = Some((count, cost, stored));
                break;
            }
            self.granted = 0;
            let batch = self.pending.drain(..count);
            let bytes = &mut self.pending_bytes;
            let counted = batch.inspect(|outgoing| *bytes -= weight(outgoing.draft.len(), outgoing.cost));
            self.hub.engine.submit(Some(&self.peer), counted).map_err(|_| End::Kicked(Kick::ServerShuttingDown))?;
            moved = true;
        }
        Ok(moved)
    }

    /// The next envelopes that fit a batch, at least one, and what they cost on the bus and before the store.
    fn batch(&self) -> (usize, u32, u32) {
        let (mut count, mut cost, mut stored) = (0, 0u32, 0);
        for outgoing in &self.pending {
            let more = cost.saturating_add(outgoing.cost);
            if count > 0 && more > BATCH {
                break;
            }
            (count, cost, stored) = (count + 1, more, stored + outgoing.stored);
        }
        (count, cost, stored)
    }

    /// Takes room before the store: of this connection's share and of the common window. What was granted stays granted while the bus is full.
    fn poll_stored(&mut self, stored: u32, cx: &mut Context<'_>) -> bool {
        let more = stored.saturating_sub(self.granted);
        if more == 0 {
            return true;
        }
        if !self.peer.enter_store(more) {
            return false;
        }
        if self.store_turnstile.poll_take(more, cx) {
            self.granted += more;
            return true;
        }
        self.peer.leave_store(more);
        false
    }

    fn give_up_grant(&mut self) {
        let granted = std::mem::take(&mut self.granted);
        self.peer.leave_store(granted);
        self.hub.store_window.give_back(granted);
    }

    /// Takes room on the bus: of this connection's share and of the common window.
    fn poll_room(&mut self, cost: u32, cx: &mut Context<'_>) -> bool {
        if !self.peer.enter_bus(cost) {
            return false;
        }
        let taken = self.turnstile.poll_take(cost, cx);
        if !taken {
            self.peer.leave_bus(cost);
        }
        taken
    }

    /// How long the peer may be silent.
    fn patience(&self) -> Option<Duration> {
        let seconds = u64::from(self.terms.keep_alive);
        (seconds > 0).then(|| Duration::from_millis(seconds * 1500))
    }

    /// One deadline, looked at again when it passes, instead of a timer moved with every packet.
    fn poll_timer(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(patience) = self.patience() else { return Ok(()) };
        if self.rests() || (self.peer.is_held() && self.pending_bytes >= PARK) {
            // It is not silent: it is not listened to.
            self.last_heard = Instant::now();
        }
        while timer.as_mut().poll(cx).is_ready() {
            let deadline = self.last_heard + patience;
            if deadline <= Instant::now() {
                return Err(End::Silent);
            }
            timer.as_mut().reset(deadline);
        }
        Ok(())
    }
}
