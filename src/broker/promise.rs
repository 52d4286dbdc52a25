//! What is said to clients and publishers once something is committed, or when it cannot be.
//!
//! Promises are kept or broken in the order they were made. Invariant: every step of a promise is carried out exactly once, one way or the
//! other, so that nobody waits for ever.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    admission::{Room, Window},
    cargo::{OpenRefused, Refusal, SessionWord, Taken, Word},
    codec::write::AckKind,
    peer::{Peer, Reply},
    seen::Parting,
    session::Session,
    store::Sid,
};

/// MQTT 5: "Quota exceeded", for what the store could not take.
pub(super) const QUOTA: u8 = 0x97;
/// MQTT 5: "Implementation specific error"; UNSUBACK knows no other for this.
pub(super) const UNSTORED: u8 = 0x83;

/// One thing to be said.
#[derive(Debug)]
pub(super) enum Step {
    Reply(Arc<Peer>, Reply),
    /// PUBREC: the id counts as received from here on. It goes to the connection that serves the session now.
    Received {
        by: Arc<Peer>,
        packet_id: u16,
        reason: u8,
    },
    Word(oneshot::Sender<Word>, Taken),
    /// The publication is not taken, whatever becomes of the rest.
    Refused(oneshot::Sender<Word>),
    Opened(oneshot::Sender<SessionWord>, SessionWord),
    Noted(oneshot::Sender<()>),
    Parted(oneshot::Sender<Parting>, Parting),
    /// A queue without a client was emptied up to a position.
    HandedOver(Arc<Session>, u64),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Promise {
    /// Sessions whose queues are decided up to a position.
    marks: Vec<(Arc<Session>, u64)>,
    steps: Vec<Step>,
    /// Room before the store that ends with it.
    room: Room,
    window: Option<Window>,
}

impl Promise {
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.steps.is_empty()
    }

    /// Room that is given back when it is decided.
    pub(super) fn owe(&mut self, peer: &Arc<Peer>, cost: u32) {
        self.room.add(peer, cost);
    }

    pub(super) fn room_of(&mut self, window: &Window) {
        self.window = Some(window.clone());
    }

    /// Messages up to this position may be sent to the session's client.
    pub(super) fn mark(&mut self, session: &Arc<Session>, qseq: u64) {
        self.marks.push((Arc::clone(session), qseq));
    }

    /// The sessions whose queues it decides.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.marks.iter().map(|(session, _)| session)
    }

    /// The highest position sent to the client of a session, if it is one of these.
    pub(super) fn sent_to(&self, sid: Sid) -> Option<u64> {
        self.sessions().find(|session| session.kept() == Some(sid)).map(|session| session.sent())
    }

    pub(super) fn push(&mut self, step: Step) {
        if let Some(peer) = step.peer() {
            peer.wait_for_promise();
        }
        self.steps.push(step);
    }

    /// Everything is committed.
    pub(super) fn keep(self) {
        self.settle(Session::commit, Step::keep);
    }

    /// Nothing of it is committed: what was not sent yet is taken back, and everybody is told.
    pub(super) fn break_off(self) {
        self.settle(Session::refuse, Step::break_off);
    }

    fn settle(self, mark: impl Fn(&Session, u64), say: impl Fn(Step, &mut Batch)) {
        for (session, qseq) in self.marks {
            mark(&session, qseq);
        }
        let mut batch = Batch::default();
        for step in self.steps {
            let peer = step.peer().cloned();
            say(step, &mut batch);
            if let Some(peer) = peer {
                batch.settled(&peer);
            }
        }
        batch.send();
        if let Some(window) = self.window {
            self.room.give_back_stored(&window);
        }
    }
}

impl Step {
    /// Whose later replies must not overtake this one.
    pub(super) fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            Self::Reply(peer, _) | Self::Received { by: peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Says it. Whoever waited may have gone; that is no reason to stop.
    pub(super) fn keep(self, batch: &mut Batch) {
        match self {
            Self::Reply(peer, reply) => batch.push(&peer, reply),
            Self::Received { by, packet_id, reason } => batch.received(&by, packet_id, reason),
            Self::Word(sender, taken) => drop(sender.send(Ok(taken))),
            Self::Refused(sender) => drop(sender.send(Err(Refusal::Full))),
            Self::Opened(sender, word) => drop(sender.send(word)),
            Self::Noted(sender) => drop(sender.send(())),
            Self::Parted(sender, parting) => tell(sender, parting),
            Self::HandedOver(session, qseq) => session.handed_over(qseq),
        }
    }

    fn break_off(self, batch: &mut Batch) {
        match self {
            Self::Reply(peer, reply) => batch.push(&peer, refused(reply)),
            Self::Received { by, packet_id, .. } => batch.received(&by, packet_id, QUOTA),
            Self::Word(sender, _) | Self::Refused(sender) => drop(sender.send(Err(Refusal::Full))),
            Self::Opened(sender, _) => drop(sender.send(Err(OpenRefused))),
            // The subscription holds in this process; only parts of this program wait for this.
            Self::Noted(sender) => drop(sender.send(())),
            Self::Parted(sender, _) => tell(sender, Parting::Unstored),
            Self::HandedOver(session, _) => session.take_back(),
        }
    }
}

fn tell(sender: oneshot::Sender<Parting>, parting: Parting) {
    // Whoever asked may have gone.
    let _ = sender.send(parting);
}

fn refused(reply: Reply) -> Reply {
    let all = |codes: Vec<u8>, refusal| codes.iter().map(|code| if *code >= 0x80 { *code } else { refusal }).collect();
    match reply {
        Reply::Ack { kind, packet_id, .. } => Reply::Ack { kind, packet_id, reason: QUOTA },
        Reply::SubAck { packet_id, codes } => Reply::SubAck { packet_id, codes: all(codes, QUOTA) },
        Reply::UnsubAck { packet_id, codes } => Reply::UnsubAck { packet_id, codes: all(codes, UNSTORED) },
    }
}

/// Replies on their way: one lock and one wake for each run of replies to one peer.
#[derive(Debug, Default)]
pub(super) struct Batch {
    peer: Option<Arc<Peer>>,
    replies: Vec<Reply>,
    settled: Vec<Arc<Peer>>,
}

impl Batch {
    pub(super) fn push(&mut self, peer: &Arc<Peer>, reply: Reply) {
        if self.peer.as_ref().is_none_or(|present| present.id != peer.id) {
            self.flush();
            self.peer = Some(Arc::clone(peer));
        }
        self.replies.push(reply);
    }

    fn received(&mut self, by: &Arc<Peer>, packet_id: u16, reason: u8) {
        let serving = by.session().and_then(|session| session.handshakes.lock().routed(packet_id, reason < 0x80));
        if let Some(serving) = serving {
            self.push(&serving, Reply::Ack { kind: AckKind::PubRec, packet_id, reason });
        }
    }

    fn settled(&mut self, peer: &Arc<Peer>) {
        self.settled.push(Arc::clone(peer));
    }

    fn flush(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.reply(&mut self.replies);
        }
        self.replies.clear();
    }

    /// Everything said so far is out before anybody's later replies may go on their own.
    pub(super) fn send(mut self) {
        self.flush();
        for peer in self.settled.drain(..) {
            peer.promise_settled();
        }
    }
}
