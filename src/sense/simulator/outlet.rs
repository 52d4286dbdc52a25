//! Where datagrams leave: one UDP socket per simulated node, counted.
//!
//! Invariant: every datagram that was to be sent is counted once per target, as sent or as failed.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::UdpSocket;

use super::{SimulatorError, datagram::DatagramKind, journal::micros_now, rng::Rng};

/// Datagrams that are kept, as they were sent.
pub const DATAGRAMS_KEPT: usize = 20_000;

/// Where datagrams go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Task events: receivers of the scheduler's appenders.
    pub tasks: Vec<SocketAddr>,
    /// Session and connection events: receivers of the proxy's appenders.
    pub sessions: Vec<SocketAddr>,
}

/// The sockets of one node; only the families in use are open.
#[derive(Debug)]
struct Node {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

/// All nodes' sockets.
#[derive(Debug)]
pub struct Outlet {
    nodes: Vec<Node>,
    targets: Targets,
    sent: [AtomicU64; DatagramKind::ALL.len()],
    failed: AtomicU64,
    list: Mutex<List>,
    mishaps: Mutex<(Mishaps, Rng)>,
}

/// What happens to datagrams on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mishaps {
    /// How likely one is lost, 0 to 1.
    pub loss: f64,
    /// How likely one comes twice, 0 to 1.
    pub duplicate: f64,
}

impl Mishaps {
    /// Whether they can happen.
    pub fn are_sound(&self) -> bool {
        (0.0..=1.0).contains(&self.loss) && (0.0..=1.0).contains(&self.duplicate)
    }
}

/// The latest datagrams, and the number of the next.
#[derive(Debug, Default)]
struct List {
    recent: VecDeque<Sent>,
    next: u64,
}

/// A datagram that went out.
#[derive(Debug)]
struct Sent {
    number: u64,
    micros: u64,
    node: usize,
    kind: DatagramKind,
    /// How often it was sent; 0: it was lost.
    times: u8,
    whole: bool,
    text: String,
}

impl Outlet {
    /// Opens the sockets of `nodes` nodes.
    pub fn open(nodes: usize, targets: Targets) -> Result<Self, SimulatorError> {
        let mishaps = Mutex::new((Mishaps::default(), Rng::new(0)));
        let nodes = (0..nodes).map(|_| Node::open(&targets)).collect::<Result<_, _>>()?;
        Ok(Self {
            nodes,
            targets,
            sent: Default::default(),
            failed: AtomicU64::new(0),
            list: Mutex::default(),
            mishaps,
        })
    }

    /// Sends a datagram of a node to all its targets, and keeps it for whoever asks; the answer is whether all went.
    pub async fn send_and_keep(&self, node: usize, kind: DatagramKind, text: &str) -> bool {
        let times = self.times();
        let mut whole = true;
        for _ in 0..times {
            whole &= self.send(node, kind, text).await;
        }
        let mut list = self.list.lock();
        if list.recent.len() >= DATAGRAMS_KEPT {
            list.recent.pop_front();
        }
        let number = list.next;
        list.next += 1;
        list.recent.push_back(Sent { number, micros: micros_now(), node, kind, times, whole, text: text.to_owned() });
        whole
    }

    /// What happens to datagrams from now on; bursts are spared.
    pub fn set_mishaps(&self, mishaps: Mishaps, seed: u64) {
        *self.mishaps.lock() = (mishaps, Rng::new(seed));
    }

    fn times(&self) -> u8 {
        let mut guard = self.mishaps.lock();
        let (Mishaps { loss, duplicate }, rng) = &mut *guard;
        if *loss > 0.0 && rng.unit() < *loss {
            return 0;
        }
        1 + u8::from(*duplicate > 0.0 && rng.unit() < *duplicate)
    }

    /// Sends a datagram of a node to all its targets; the answer is whether all went.
    pub async fn send(&self, node: usize, kind: DatagramKind, text: &str) -> bool {
        self.send_bytes(node, kind, text.as_bytes()).await
    }

    /// The same, with any bytes.
    pub async fn send_bytes(&self, node: usize, kind: DatagramKind, bytes: &[u8]) -> bool {
        let targets = if kind == DatagramKind::Proxy { &self.targets.sessions } else { &self.targets.tasks };
        let mut all = true;
        for target in targets {
            let sent = match self.nodes.get(node).and_then(|node| node.socket(target)) {
                Some(socket) => socket.send_to(bytes, target).await.is_ok(),
                None => false,
            };
            let counter = self.sent.get(kind as usize).filter(|_| sent).unwrap_or(&self.failed);
            counter.fetch_add(1, Ordering::Relaxed);
            all &= sent;
        }
        all
    }

    /// How many were sent, by kind, and the latest of them (without those of bursts) from number `from` on.
    pub fn json(&self, from: u64) -> Value {
        let count = |kind: DatagramKind| self.sent.get(kind as usize).map_or(0, |sent| sent.load(Ordering::Relaxed));
        let kinds: Map<String, Value> =
            DatagramKind::ALL.iter().map(|kind| (kind.word().to_owned(), count(*kind).into())).collect();
        let total: u64 = DatagramKind::ALL.iter().map(|kind| count(*kind)).sum();
        let list: Value = self.list.lock().recent.iter().filter(|sent| sent.number >= from).map(Sent::json).collect();
        json!({ "total": total, "sent": kinds, "list": list, "failed": self.failed.load(Ordering::Relaxed),
            "targets": { "tasks": addresses(&self.targets.tasks), "sessions": addresses(&self.targets.sessions) } })
    }
}

impl Sent {
    fn json(&self) -> Value {
        json!({ "number": self.number, "micros": self.micros, "node": self.node, "kind": self.kind.word(),
            "times": self.times, "toAll": self.whole, "text": self.text })
    }
}

fn addresses(targets: &[SocketAddr]) -> Value {
    targets.iter().map(SocketAddr::to_string).collect()
}

impl Node {
    fn open(targets: &Targets) -> Result<Self, SimulatorError> {
        let all = || targets.tasks.iter().chain(&targets.sessions);
        let v4 = all().filter(|target| target.is_ipv4()).map(|target| target.ip()).collect::<Vec<_>>();
        let v6 = all().filter(|target| target.is_ipv6()).map(|target| target.ip()).collect::<Vec<_>>();
        let (any4, any6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        Ok(Self {
            v4: socket(&v4, IpAddr::V4(Ipv4Addr::LOCALHOST), any4)?,
            v6: socket(&v6, IpAddr::V6(Ipv6Addr::LOCALHOST), any6)?,
        })
    }

    fn socket(&self, target: &SocketAddr) -> Option<&UdpSocket> {
        if target.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }
}

/// A socket for these targets: on the loopback when all of them are there, so that no firewall asks.
fn socket(targets: &[IpAddr], loopback: IpAddr, any: IpAddr) -> Result<Option<UdpSocket>, SimulatorError> {
    if targets.is_empty() {
        return Ok(None);
    }
    let address = if targets.iter().all(IpAddr::is_loopback) { loopback } else { any };
    let failed = |source| SimulatorError::Socket { source };
    let socket = std::net::UdpSocket::bind((address, 0)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    UdpSocket::from_std(socket).map(Some).map_err(failed)
}
