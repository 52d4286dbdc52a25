//! What the rest of the broker sees of one connection: a lane for acknowledgements, a kick, holds, its share of the bus.
//!
//! A peer outlives its socket for as long as something it submitted is under way; what is pushed to it then goes nowhere. Invariant: the
//! connection task is woken after every change here that it has to act on.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;

use super::{
    access::Access,
    admission::{Account, SHARE, STORE_SHARE, Window},
    codec::write::AckKind,
    message::Origin,
    seen::Face,
    session::Session,
    wake::WakeCell,
};

/// A packet the dispatcher wants sent to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// PUBACK, PUBREC or PUBCOMP.
    Ack { kind: AckKind, packet_id: u16, reason: u8 },
    /// SUBACK with its codes.
    SubAck { packet_id: u16, codes: Vec<u8> },
    /// UNSUBACK with its codes.
    UnsubAck { packet_id: u16, codes: Vec<u8> },
}

/// Why a connection is closed from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kick {
    /// By new rules it may do nothing any more.
    NotAuthorized,
    ServerShuttingDown,
    SessionTakenOver,
    /// It does not read what it is owed.
    QuotaExceeded,
    /// The store could not take what it sent, and its version of MQTT has no other word for that.
    Unstored,
    AdministrativeAction,
    /// Its user is gone, or has another password.
    LoggedOut,
}

impl Kick {
    /// MQTT 5's DISCONNECT reason code.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::NotAuthorized => 0x87,
            Self::ServerShuttingDown => 0x8b,
            Self::SessionTakenOver => 0x8e,
            Self::QuotaExceeded | Self::Unstored => 0x97,
            Self::AdministrativeAction | Self::LoggedOut => 0x98,
        }
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    replies: Vec<Reply>,
    kick: Option<Kick>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// One connection, or one internal publisher or subscriber.
#[derive(Debug)]
pub(super) struct Peer {
    /// Unique in this process; a session's epoch is the id of its present peer.
    pub id: u64,
    /// For messages it publishes.
    pub origin: Arc<Origin>,
    /// An internal publisher's own lane onto the bus; clients share the window.
    pub lane: Option<Window>,
    session: OnceLock<Arc<Session>>,
    face: OnceLock<Face>,
    access: OnceLock<Arc<Access>>,
    mailbox: Mutex<Mailbox>,
    wake: WakeCell,
    holds: AtomicU32,
    bus: Account,
    store: Account,
    /// Replies that wait for a commit; later ones must not overtake them.
    promised: AtomicU32,
    goodbye: AtomicBool,
    gone: AtomicBool,
    /// The connection that took its session, held until this one's last message is in the stream.
    heir: Mutex<Option<Arc<Peer>>>,
}

impl Peer {
    pub(super) fn new(origin: Origin, lane: Option<Window>) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            origin: Arc::new(origin),
            lane,
            session: OnceLock::new(),
            face: OnceLock::new(),
            access: OnceLock::new(),
            mailbox: Mutex::default(),
            wake: WakeCell::default(),
            holds: AtomicU32::new(0),
            bus: Account::default(),
            store: Account::default(),
            promised: AtomicU32::new(0),
            goodbye: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            heir: Mutex::new(None),
        })
    }

    pub(super) fn set_session(&self, session: Arc<Session>) {
        // Set once, by the dispatcher, when it opens the session.
        let _ = self.session.set(session);
    }

    /// What its client may do, for what happens when the connection is gone. Set once, before it is let into the stream.
    pub(super) fn set_access(&self, access: Arc<Access>) {
        let _ = self.access.set(access);
    }

    pub(super) fn access(&self) -> Option<&Arc<Access>> {
        self.access.get()
    }

    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.session.get()
    }

    /// Says what there is to know of a client's connection; before its session is opened.
    pub(super) fn introduce(&self, face: Face) {
        let _ = self.face.set(face);
    }

    /// `None` for parts of this program.
    pub(super) fn face(&self) -> Option<&Face> {
        self.face.get()
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.wake.register(waker);
    }

    pub(super) fn wake(&self) {
        self.wake.wake();
    }

    /// Appends replies and wakes, once for all of them.
    pub(super) fn reply(&self, replies: &mut Vec<Reply>) {
        self.mailbox.lock().replies.append(replies);
        self.wake.wake();
    }

    /// Asks the connection to close; the first reason stands.
    pub(super) fn kick(&self, why: Kick) {
        self.mailbox.lock().kick.get_or_insert(why);
        self.wake.wake();
    }

    /// For who serves its session without a connection.
    pub(super) fn is_kicked(&self) -> bool {
        self.mailbox.lock().kick.is_some()
    }

    /// DISCONNECT with code 0 was read: the will is off, also if the connection is taken over before the stream hears of its end.
    pub(super) fn say_goodbye(&self) {
        self.goodbye.store(true, Ordering::Release);
    }

    /// The connection is over; the stream hears of it after what it sent before.
    pub(super) fn go(&self) {
        self.gone.store(true, Ordering::Release);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn said_goodbye(&self) -> bool {
        self.goodbye.load(Ordering::Acquire)
    }

    /// A reply to this peer waits for a commit.
    pub(super) fn wait_for_promise(&self) {
        self.promised.fetch_add(1, Ordering::AcqRel);
    }

    /// It was given.
    pub(super) fn promise_settled(&self) {
        self.promised.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether replies wait for a commit: further ones have to queue behind them.
    pub(super) fn waits_for_promise(&self) -> bool {
        self.promised.load(Ordering::Acquire) > 0
    }

    /// What waits for the connection.
    pub(super) fn take(&self, replies: &mut Vec<Reply>) -> Option<Kick> {
        let mut mailbox = self.mailbox.lock();
        std::mem::swap(&mut mailbox.replies, replies);
        mailbox.kick
    }

    /// A session above its high mark holds this publisher.
    pub(super) fn hold(&self) {
        self.holds.fetch_add(1, Ordering::AcqRel);
    }

    /// The session drained.
    pub(super) fn release(&self) {
        if self.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake.wake();
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.holds.load(Ordering::Acquire) > 0
    }

    /// Another connection took its session: what that one sends comes after everything this one has sent and has not submitted yet
    /// (`[MQTT-4.6.0-5]`: the order of a topic's messages is that of their first sending).
    pub(super) fn succeeded_by(&self, heir: &Arc<Self>) {
        heir.hold();
        // A session is taken over from a connection once.
        let former = self.heir.lock().replace(Arc::clone(heir));
        if let Some(former) = former {
            former.release();
        }
    }

    /// The stream heard of its end: nothing more comes from it.
    pub(super) fn concluded(&self) {
        let heir = self.heir.lock().take();
        if let Some(heir) = heir {
            heir.release();
        }
    }

    /// Takes `cost` bytes of this peer's share of the bus, see [`Account::enter`].
    pub(super) fn enter_bus(&self, cost: u32) -> bool {
        self.bus.enter(cost, SHARE)
    }

    /// Gives back what was dispatched and wakes a publisher that waits for its share.
    pub(super) fn leave_bus(&self, cost: u32) {
        if self.bus.leave(cost) {
            self.wake.wake();
        }
    }

    /// The same before the store.
    pub(super) fn enter_store(&self, cost: u32) -> bool {
        self.store.enter(cost, STORE_SHARE)
    }

    /// Gives back what was committed, or turned out to need no commit.
    pub(super) fn leave_store(&self, cost: u32) {
        if self.store.leave(cost) {
            self.wake.wake();
        }
    }
}
