//! CONNECT to CONNACK: who is it, may it come in, which session does it get.
//!
//! Every refusal has its code in the CONNACK of the client's own version (`[MQTT-3.1.4-2]`, `[MQTT-3.2.2-5]`); only bytes that are no CONNECT
//! at all are closed without a word (`[MQTT-3.1.0-1]`).

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use super::{
    Entrance, Guest, Leave,
    fit::{fitting, largest},
    inbound::OVERLONG,
    link::{Link, Terms},
    turn::turn,
    wire::Wire,
};
use crate::{
    broker::{
        access::{Access, Policy, Who},
        auth::{Attempt, LoginRefused},
        cargo::{Cargo, OpenCargo, Opened},
        codec::{
            Connect, DecodeError, Framed, Packet, Version, connect_version, decode, frame, is_shortest, write,
            write::ConnAck,
        },
        doorstep::Place,
        engine::Outgoing,
        envelope::Draft,
        hub::Hub,
        identity,
        message::{Door, Origin},
        metrics::Denied,
        peer::Peer,
        seen::Face,
        websocket::Violation,
    },
    names::ClientId,
};

/// The largest CONNECT: will, user name, password and client id may have 64 KiB each.
const CONNECT_SIZE: usize = 512 << 10;
/// What opening a session may take.
pub(super) const OPEN_TIME: Duration = Duration::from_secs(10);

/// A refusal, with its code in 3.1.1 and in 5.0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refuse {
    v3: u8,
    v5: u8,
    reason: &'static str,
    text: &'static str,
}

const IDENTIFIER: Refuse =
    Refuse { v3: 2, v5: 0x85, reason: "client_id", text: "an empty client id needs a clean session" };
const CREDENTIALS: Refuse = Refuse { v3: 4, v5: 0x86, reason: "credentials", text: "user name or password is wrong" };
const FAILURES: Refuse = Refuse {
    v3: 3,
    v5: 0x9f,
    reason: "login_rate",
    text: "too many failed log-ins from this address or with this user name; later ones are looked at again",
};
const BUSY: Refuse =
    Refuse { v3: 3, v5: 0x89, reason: "login_queue", text: "too many log-ins wait for their password to be verified" };
const ANONYMOUS: Refuse =
    Refuse { v3: 5, v5: 0x87, reason: "anonymous", text: "this listener requires a user name and password" };
const CERTIFICATE: Refuse = Refuse {
    v3: 5,
    v5: 0x87,
    reason: "certificate",
    text: "the certificate names no user of broker.toml, or another one than the user name in CONNECT",
};
const AUTH_METHOD: Refuse =
    Refuse { v3: 5, v5: 0x8c, reason: "auth_method", text: "enhanced authentication is not offered" };
const WILL: Refuse =
    Refuse { v3: 5, v5: 0x87, reason: "will", text: "the client may not publish on the topic of its will" };
const WILL_TOPIC: Refuse = Refuse {
    v3: 5,
    v5: 0x90,
    reason: "will_topic",
    text: "the topic of the will has too many levels or begins with `$`",
};
const FULL: Refuse =
    Refuse { v3: 3, v5: 0x97, reason: "full", text: "the broker serves as many clients or sessions as it may" };
const TOO_SMALL: Refuse = Refuse {
    v3: 5,
    v5: 0x95,
    reason: "packet_size",
    text: "the client takes no packet as large as this broker's CONNACK",
};
pub(super) const CROWDED: Refuse = Refuse {
    v3: 3,
    v5: 0x89,
    reason: "busy",
    text: "thousands of clients wait to be let in; try again a little later",
};
pub(super) const GONE: Refuse =
    Refuse { v3: 3, v5: 0x89, reason: "gone", text: "it closed the connection before its turn to come in" };
pub(super) const UNAVAILABLE: Refuse = Refuse { v3: 3, v5: 0x88, reason: "stopping", text: "the broker is stopping" };

impl From<LoginRefused> for Refuse {
    fn from(why: LoginRefused) -> Self {
        match why {
            LoginRefused::Wrong => CREDENTIALS,
            LoginRefused::TooManyFailures => FAILURES,
            LoginRefused::Busy => BUSY,
        }
    }
}

/// Why there is no CONNECT to look at.
enum NoConnect {
    Gone,
    Wrong(DecodeError, Option<Version>),
}

impl From<std::io::Error> for NoConnect {
    fn from(error: std::io::Error) -> Self {
        Violation::of(&error).map_or(Self::Gone, |violation| Self::Wrong(DecodeError::Protocol(violation.why), None))
    }
}

/// Lets a client in, or writes the refusal and returns `None`.
pub(super) async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Hub,
    wire: &mut Wire<S>,
    entrance: &Entrance,
    doorstep: Option<Place>,
) -> Option<Link> {
    let patience = Duration::from_secs(u64::from(hub.limits.connect_timeout));
    let first = tokio::time::timeout_at(entrance.deadline(patience), first_packet(wire, hub.limits.packet_size));
    let shown_out = async {
        entrance.evicted().await;
        // What has arrived meanwhile is looked at once more: in a storm of connections nobody goes whose CONNECT lies there unread.
        tokio::task::yield_now().await;
    };
    let first = tokio::select! {
        biased;
        () = hub.stop.cancelled() => return None,
        first = first => first,
        () = shown_out => return None,
    };
    // Whoever has introduced himself takes no place from those who have not, however long he waits for the rest.
    drop(doorstep);
    let connect = match first {
        Ok(Ok(connect)) => connect,
        Ok(Err(no_connect)) => {
            refuse_bytes(hub, wire, &no_connect);
            return None;
        }
        Err(_) => {
            hub.metrics.refused("no_connect_in_time");
            return None;
        }
    };
    let (version, most) = (connect.version, largest(connect.maximum_packet_size));
    match admit(hub, wire, entrance, connect).await {
        Ok((link, answer)) => {
            if let Some(face) = link.peer.face() {
                wire.meter.introduce(&face.traffic, version);
                hub.metrics.login(if link.peer.origin.user.is_some() { "user" } else { "anonymous" });
            }
            answer.write(&mut wire.out, hub, link.version, &link.session.client);
            Some(link)
        }
        Err(refuse) => {
            if refuse.reason == WILL.reason {
                hub.metrics.denied(Denied::Will);
            }
            if let Some(suppressed) = hub.metrics.refused_client(refuse.reason) {
                tracing::warn!(code = "mqtt_client_refused", %entrance, suppressed, "MQTT client refused: {}", refuse.text);
            }
            write_refusal(&mut wire.out, version, most, refuse);
            None
        }
    }
}

async fn first_packet<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    limit: usize,
) -> Result<Connect, NoConnect> {
    let limit = limit.min(CONNECT_SIZE);
    let mut found = None;
    loop {
        let open = poll_fn(|cx| wire.poll_read(cx, |bytes, _| look(bytes, limit, &mut found))).await?;
        if let Some(connect) = found {
            return Ok(connect);
        }
        if !open {
            return Err(NoConnect::Gone);
        }
    }
}

fn look(bytes: &[u8], limit: usize, found: &mut Option<Connect>) -> Result<usize, NoConnect> {
    if bytes.first().is_some_and(|first| first >> 4 != 1) {
        return Err(NoConnect::Wrong(DecodeError::Protocol("the first packet is not CONNECT"), None));
    }
    let (first, body, length) = match frame(bytes, limit).map_err(|error| NoConnect::Wrong(error, None))? {
        Framed::Complete { first, body, length } => (first, body, length),
        Framed::Incomplete { .. } => return Ok(0),
    };
    match decode(first, body, Version::V3) {
        Ok(Packet::Connect(connect)) if connect.version == Version::V5 && !is_shortest(length, body.len()) => {
            return Err(NoConnect::Wrong(OVERLONG, Some(Version::V5)));
        }
        Ok(Packet::Connect(connect)) => *found = Some(*connect),
        Ok(_) => return Err(NoConnect::Wrong(DecodeError::Protocol("the first packet is not CONNECT"), None)),
        Err(error) => return Err(NoConnect::Wrong(error, connect_version(body))),
    }
    Ok(length)
}

/// A CONNECT that breaks a rule is answered where its version can be told: 5.0 has codes for it, 3.1.1 only for an unknown version.
fn refuse_bytes<S: AsyncRead + AsyncWrite + Unpin>(hub: &Hub, wire: &mut Wire<S>, why: &NoConnect) {
    let NoConnect::Wrong(error, version) = why else { return };
    hub.metrics.refused("no_connect");
    tracing::debug!("not an MQTT client: {error}");
    let answer = error.unsupported_version_answer().or_else(|| match version {
        Some(Version::V5) => Some((Version::V5, error.reason_code())),
        _ => None,
    });
    if let Some((version, code)) = answer {
        write::connack(&mut wire.out, version, &ConnAck { code, ..ConnAck::default() });
    }
}

/// The reason string is left away where it does not fit (`[MQTT-3.2.2-19]`).
fn write_refusal(out: &mut BytesMut, version: Version, most: usize, refuse: Refuse) {
    let code = match version {
        Version::V3 => refuse.v3,
        Version::V5 => refuse.v5,
    };
    let with = |reason_string| ConnAck { code, reason_string, ..ConnAck::default() };
    let _ = fitting(out, most, |out| write::connack(out, version, &with(Some(refuse.text))))
        || fitting(out, most, |out| write::connack(out, version, &with(None)));
}

/// What the CONNACK has to say beyond the limits.
struct Answer {
    present: bool,
    assigned: bool,
    expiry: Option<u32>,
    keep_alive: Option<u16>,
}

impl Answer {
    fn write(&self, out: &mut BytesMut, hub: &Hub, version: Version, client: &ClientId) {
        let packet = ConnAck {
            session_present: self.present,
            session_expiry: self.expiry,
            receive_maximum: Some(hub.limits.inflight),
            maximum_packet_size: u32::try_from(hub.limits.packet_size).ok(),
            assigned_client_id: self.assigned.then(|| client.as_str()),
            topic_alias_maximum: hub.limits.topic_aliases,
            server_keep_alive: self.keep_alive,
            ..ConnAck::default()
        };
        write::connack(out, version, &packet);
    }
}

async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Hub,
    wire: &mut Wire<S>,
    entrance: &Entrance,
    mut connect: Connect,
) -> Result<(Link, Answer), Refuse> {
    let place = Arc::clone(&hub.places).try_acquire_owned().map_err(|_| FULL)?;
    if connect.authentication_method.is_some() {
        return Err(AUTH_METHOD);
    }
    // The policy it is judged by; a newer one is noticed when it begins to be served.
    let policy = hub.policies.present();
    let who = authenticate(hub, &policy, entrance, &connect).await?;
    let assigned = connect.client_id.is_empty();
    let client = client_id(&connect)?;
    let access = policy.access(who, &client, entrance.listener());
    check_will(hub, &access, &connect)?;
    let expiry = expiry(hub, &connect);
    let keep_alive = keep_alive(hub, &connect);
    let origin = Origin {
        door: Door::Mqtt,
        client: Some(client.clone()),
        user: access.user_name(),
        // Whether this or that message may start is decided when it comes; those that may not go no further.
        may_start: true,
    };
    let peer = Peer::new(origin, None);
    let mut answer = Answer {
        present: false,
        assigned,
        expiry: (expiry != connect.session_expiry).then_some(expiry),
        keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
    };
    let most = largest(connect.maximum_packet_size);
    if !fitting(&mut BytesMut::new(), most, |out| answer.write(out, hub, connect.version, &client)) {
        return Err(TOO_SMALL);
    }
    if let Entrance::Listener(guest) = entrance {
        peer.introduce(Face::new(guest.remote, Arc::clone(&guest.listener.name), connect.version, keep_alive));
    }
    peer.set_access(Arc::clone(&access));
    let turn = if peer.face().is_some() { Some(turn(hub, wire).await?) } else { None };
    let mut leave = Leave::new(hub, &peer);
    leave.entering = turn;
    let opened = open(hub, &peer, client, &mut connect, expiry).await?;
    answer.present = opened.present;
    let terms = Terms {
        version: connect.version,
        receive_maximum: connect.receive_maximum.min(hub.limits.inflight),
        largest_packet: most,
        reasons: connect.request_problem_information,
        topic_aliases: connect.topic_alias_maximum,
        keep_alive,
        persistent: expiry > 0,
    };
    Ok((Link::new(hub.clone(), peer, (opened, leave), access, terms, place), answer))
}

async fn authenticate(hub: &Hub, policy: &Policy, entrance: &Entrance, connect: &Connect) -> Result<Who, Refuse> {
    let Entrance::Listener(Guest { listener, remote, names, .. }) = entrance else { return Ok(Who::Internal) };
    if let Some(names) = names {
        let known = |name: &str| policy.user(name).cloned();
        let user = identity::user(names, connect.user_name.as_deref(), known).ok_or(CERTIFICATE)?;
        return Ok(Who::User { user, by_password: false });
    }
    match &connect.user_name {
        Some(name) if policy.has_users() => {
            let password = connect.password.as_ref().map_or(&[][..], |password| password.expose());
            let user = hub.auth.verify(policy, Attempt { name, password, from: remote.ip() }).await?;
            Ok(Who::User { user, by_password: true })
        }
        name => match policy.anonymous(&listener.name) {
            Some(rights) => Ok(Who::Anonymous { rights, here: remote.ip().to_canonical().is_loopback() }),
            None if name.is_some() => Err(CREDENTIALS),
            None => Err(ANONYMOUS),
        },
    }
}

fn check_will(hub: &Hub, access: &Access, connect: &Connect) -> Result<(), Refuse> {
    let Some(will) = &connect.will else { return Ok(()) };
    if will.topic.split('/').count() > hub.limits.topic_levels || will.topic.starts_with('$') {
        return Err(WILL_TOPIC);
    }
    if access.may_publish(&will.topic) { Ok(()) } else { Err(WILL) }
}

fn client_id(connect: &Connect) -> Result<ClientId, Refuse> {
    if !connect.client_id.is_empty() {
        return ClientId::new(&connect.client_id).map_err(|_| IDENTIFIER);
    }
    if connect.version == Version::V3 && !connect.clean_start {
        return Err(IDENTIFIER);
    }
    ClientId::new(format!("auto-{}", uuid::Uuid::new_v4().simple())).map_err(|_| IDENTIFIER)
}

/// Seconds the session outlives the connection. 3.1.1 knows only "not at all" and "for ever", which is as long as this broker allows.
fn expiry(hub: &Hub, connect: &Connect) -> u32 {
    match connect.version {
        Version::V3 if connect.clean_start => 0,
        Version::V3 => hub.limits.session_expiry,
        Version::V5 => connect.session_expiry.min(hub.limits.session_expiry),
    }
}

/// Only 5.0 clients can be told another keep-alive.
fn keep_alive(hub: &Hub, connect: &Connect) -> u16 {
    match connect.version {
        Version::V5
            if hub.limits.keep_alive < u16::MAX
                && (connect.keep_alive == 0 || connect.keep_alive > hub.limits.keep_alive) =>
        {
            hub.limits.keep_alive
        }
        _ => connect.keep_alive,
    }
}

async fn open(
    hub: &Hub,
    peer: &Arc<Peer>,
    client: ClientId,
    connect: &mut Connect,
    expiry: u32,
) -> Result<Opened, Refuse> {
    let (reply, answer) = oneshot::channel();
    let cargo = OpenCargo {
        client,
        inside: false,
        clean_start: connect.clean_start,
        expiry,
        will: connect.will.take(),
        marks: hub.marks(),
        reply,
    };
    let outgoing = Outgoing { draft: Draft::control(), cost: 0, stored: 0, cargo: Cargo::Open(Box::new(cargo)) };
    hub.engine.submit(Some(peer), [outgoing]).map_err(|_| UNAVAILABLE)?;
    match tokio::time::timeout(OPEN_TIME, answer).await {
        Ok(Ok(opened)) => opened.map_err(|_| FULL),
        _ => Err(UNAVAILABLE),
    }
}
