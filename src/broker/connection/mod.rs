//! One connection, from its first byte to its last: handshake, service, farewell. One task each, reading and writing.
//!
//! Invariants: whatever the peer does or fails to do is felt by nobody else; every wait has a bound (the CONNECT a deadline, service the
//! keep-alive, the farewell a second); a connection that had a session reports its end to the stream exactly once.

mod fit;
mod handshake;
mod inbound;
mod judge;
mod link;
mod meter;
mod outbound;
mod spoken;
mod turn;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{link::Link, wire::Wire};
use super::{
    cargo::{Cargo, CloseCargo},
    codec::Version,
    departures::Departure,
    doorstep::Place,
    engine::Outgoing,
    envelope::Draft,
    hub::Hub,
    peer::{Kick, Peer},
    seen::Meter,
    settings::Listener,
    websocket::Violation,
};

/// What the farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What submitting the rest may take.
const DRAIN: Duration = Duration::from_secs(10);

/// Where a connection came in.
#[derive(Debug, Clone)]
pub(super) enum Entrance {
    /// Through a listener.
    Listener(Guest),
    /// The self-probe, in memory.
    Probe,
}

/// Who came in through a listener.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub listener: Arc<Listener>,
    pub remote: SocketAddr,
    /// The names in the certificate it showed, where such names are users.
    pub names: Option<Arc<[String]>>,
    /// When its CONNECT must be there.
    pub deadline: Instant,
    /// Its place among those without CONNECT was given to another.
    pub evicted: CancellationToken,
}

impl Entrance {
    /// Name of the listener; none for the self-probe.
    fn listener(&self) -> Option<&Arc<str>> {
        match self {
            Self::Listener(guest) => Some(&guest.listener.name),
            Self::Probe => None,
        }
    }

    /// When the CONNECT must be there; `patience` for who came without a deadline.
    fn deadline(&self, patience: Duration) -> Instant {
        match self {
            Self::Listener(guest) => guest.deadline,
            Self::Probe => Instant::now() + patience,
        }
    }

    /// Resolves when another connection needs the place.
    async fn evicted(&self) {
        match self {
            Self::Listener(guest) => guest.evicted.cancelled().await,
            Self::Probe => std::future::pending().await,
        }
    }
}

impl std::fmt::Display for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listener(Guest { listener, remote, names: None, .. }) => {
                write!(f, "{remote} at listener `{}`", listener.name)
            }
            Self::Listener(Guest { listener, remote, names: Some(names), .. }) => {
                write!(f, "{remote} at listener `{}` with a certificate of {names:?}", listener.name)
            }
            Self::Probe => f.write_str("self-probe"),
        }
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed, or the network failed.
    Gone,
    /// DISCONNECT. With code 0 the will is dropped; with 0x04 it is published.
    Disconnect { with_will: bool, expiry: Option<u32> },
    /// The peer broke a rule.
    Broken { code: u8, why: &'static str },
    /// Closed from inside.
    Kicked(Kick),
    /// Nothing was heard for one and a half keep-alives.
    Silent,
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        match Violation::of(&error) {
            Some(violation) => Self::Broken { code: violation.reason_code(), why: violation.why },
            // Resets, broken pipes and time-outs are all the same here: there is nobody left to talk to.
            None => Self::Gone,
        }
    }
}

impl End {
    /// MQTT 5's DISCONNECT code, where one is sent.
    const fn code(self) -> Option<u8> {
        match self {
            Self::Gone | Self::Disconnect { .. } => None,
            Self::Broken { code, .. } => Some(code),
            Self::Kicked(kick) => Some(kick.code()),
            Self::Silent => Some(0x8d),
        }
    }

    /// The words for the client, where the code does not say enough.
    const fn why(self) -> Option<&'static str> {
        match self {
            Self::Broken { why, .. } => Some(why),
            Self::Silent => Some("nothing was heard for one and a half keep-alives"),
            Self::Kicked(Kick::SessionTakenOver) => Some("another connection came with this client id"),
            Self::Kicked(Kick::QuotaExceeded) => Some("the messages that waited for this client were too many"),
            Self::Gone | Self::Disconnect { .. } | Self::Kicked(_) => None,
        }
    }

    /// The word in metrics.
    const fn reason(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Disconnect { .. } => "disconnect",
            Self::Broken { .. } => "protocol",
            Self::Kicked(Kick::SessionTakenOver) => "taken_over",
            Self::Kicked(Kick::QuotaExceeded) => "quota",
            Self::Kicked(Kick::Unstored) => "store_full",
            Self::Kicked(Kick::NotAuthorized) => "no_rights",
            Self::Kicked(Kick::AdministrativeAction) => "administrator",
            Self::Kicked(Kick::LoggedOut) => "logged_out",
            Self::Kicked(_) => "stop",
            Self::Silent => "keep_alive",
        }
    }
}

/// Serves one connection until it ends. `doorstep` is its place among those that have not sent their CONNECT.
pub(super) async fn serve<S>(hub: Hub, stream: S, entrance: Entrance, doorstep: Option<Place>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The self-probe is no client: its traffic is in nobody's numbers.
    let totals = entrance.listener().map_or_else(Arc::default, |_| Arc::clone(&hub.metrics.totals));
    totals.sockets.inc();
    let mut wire = Wire::new(stream, Meter::new(&totals));
    let Some(mut link) = handshake::welcome(&hub, &mut wire, &entrance, doorstep).await else {
        // The refusal is in the write buffer.
        let _ = tokio::time::timeout(FAREWELL, wire.finish()).await;
        return;
    };
    hub.metrics.connected(entrance.listener());
    let end = link.run(&mut wire).await;
    hub.metrics.closed(end.reason(), entrance.listener());
    log_end(&link, end);
    if end == End::Kicked(Kick::ServerShuttingDown) {
        let _ = tokio::time::timeout(FAREWELL, link.last_words(&mut wire)).await;
    }
    // Nobody reads there any more: a shared group gives its messages to others.
    link.depart();
    link.drain(DRAIN).await;
    let noted = link.report(end);
    if let (Version::V5, Some(code)) = (link.version, end.code()) {
        link.say_why(&mut wire.out, code, end.why());
    }
    if let Some(noted) = noted {
        // A client that said goodbye and sees the connection closed may rely on it: its will does not come, whatever happens to the program.
        let _ = tokio::time::timeout(FAREWELL, noted).await;
    }
    let _ = tokio::time::timeout(FAREWELL, wire.finish()).await;
}

/// Tells the stream, when it is dropped, that a connection is over: exactly once, however it ends, and also if it asked for a session and did
/// not wait for it.
pub(super) struct Leave {
    hub: Hub,
    peer: Arc<Peer>,
    with_will: bool,
    expiry: Option<u32>,
    /// Who wants to know when it is on disk.
    done: Option<oneshot::Sender<()>>,
    departure: Option<Departure>,
    /// Its turn to come in, until it was served for the first time.
    entering: Option<OwnedSemaphorePermit>,
}

impl Leave {
    pub(super) fn new(hub: &Hub, peer: &Arc<Peer>) -> Self {
        Self {
            hub: hub.clone(),
            peer: Arc::clone(peer),
            with_will: false,
            expiry: None,
            done: None,
            departure: None,
            entering: None,
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let expiry = self.expiry.map(|seconds| seconds.min(self.hub.limits.session_expiry));
        let departure = self.departure.take().or_else(|| Some(self.hub.departures.leave()));
        let done = self.done.take();
        let cargo = Cargo::Close(CloseCargo { with_will: self.with_will, expiry, done, _departure: departure });
        // A stopping broker takes nothing more; then there are no sessions to tell either.
        let _ =
            self.hub.engine.submit(Some(&self.peer), [Outgoing { draft: Draft::control(), cost: 0, stored: 0, cargo }]);
    }
}

fn log_end(link: &Link, end: End) {
    let client = &link.session.client;
    match end {
        End::Broken { code, why } => {
            tracing::warn!(code = "mqtt_client_broken", %client, reason_code = format_args!("0x{code:02x}"), "MQTT client disconnected: {why}; mend the client")
        }
        End::Kicked(Kick::QuotaExceeded) => {
            tracing::warn!(code = "mqtt_client_full", %client, "MQTT client disconnected: it does not read its messages and its queue is full; look why it is slow, or raise limits.queue_bytes and limits.queue_messages in broker.toml");
        }
        End::Kicked(Kick::Unstored) => {
            tracing::warn!(code = "mqtt_client_unstored", %client, "MQTT client disconnected: the store could not take what it sent; the lines before say what is wrong with the store");
        }
        End::Kicked(Kick::AdministrativeAction) => {
            tracing::info!(%client, "MQTT client disconnected: an administrator asked for it");
        }
        End::Silent => {
            tracing::info!(%client, "MQTT client disconnected: nothing was heard from it for one and a half keep-alives")
        }
        _ => tracing::debug!(%client, ?end, "MQTT client disconnected"),
    }
}
