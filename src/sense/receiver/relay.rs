//! `forwardTo`: datagrams go on, byte for byte, to other programs, e.g. to Butler during a move.
//!
//! The receiving threads hand copies into a queue bounded in bytes and never wait; one task sends them. Invariants: what did not go on is counted
//! with its target and the reason; a target that is one of our own sockets gets nothing; what `allowedSources` keeps out does not go on, or this
//! program would vouch for it. Names are looked up beside the sending, at the start and every five minutes.

mod metrics;
mod target;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::{
    net::lookup_host,
    sync::Notify,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{metrics::Metrics, target::Target};
use super::{
    DRAIN, LINE_EVERY, ReceiverError,
    queue::{Batch, Datagram, Queue},
    socket::Port,
    too_late,
};
use crate::{
    config::{self, HostPort, address::addresses_of, settings::Forwarding},
    telemetry::throttle::Throttle,
};

/// Bytes that wait to be sent on.
const MOST_BYTES: usize = 16 << 20;
/// Between two look-ups of a name that is known ...
const PERIOD: Duration = Duration::from_secs(300);
/// ... and of one that is not.
const AGAIN: Duration = Duration::from_secs(5);

/// Sends datagrams on. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    wanted: ArcSwap<Forwarding>,
    changed: Notify,
    queue: Queue,
    /// Our own sockets.
    bound: Vec<SocketAddr>,
    metrics: Metrics,
    /// No datagram comes any more.
    closed: CancellationToken,
}

impl Relay {
    /// A relay beside these sockets.
    ///
    /// # Errors
    /// [`ReceiverError::Loop`]: a target is one of them.
    pub(super) fn new(
        forward: &Forwarding,
        bound: Vec<SocketAddr>,
        registry: &mut Registry,
    ) -> Result<Self, ReceiverError> {
        let inner = Inner {
            wanted: ArcSwap::from_pointee(forward.clone()),
            changed: Notify::new(),
            queue: Queue::new(MOST_BYTES),
            bound,
            metrics: Metrics::register(registry),
            closed: CancellationToken::new(),
        };
        let relay = Self(Arc::new(inner));
        relay.check(forward)?;
        Ok(relay)
    }

    /// Whether datagrams can be sent on like this.
    ///
    /// # Errors
    /// [`ReceiverError::Loop`]: a target is one of our own sockets. Names are not looked up for this.
    pub fn check(&self, forward: &Forwarding) -> Result<(), ReceiverError> {
        let own = |target: &&HostPort| known(target).is_some_and(|address| is_own(&self.0.bound, address));
        match forward.task.iter().chain(&forward.session).find(own) {
            Some(target) => Err(ReceiverError::Loop { target: target.to_string() }),
            None => Ok(()),
        }
    }

    /// Datagrams that come from now on go on like this.
    pub fn change(&self, forward: &Forwarding) {
        if **self.0.wanted.load() != *forward {
            self.0.wanted.store(Arc::new(forward.clone()));
            self.0.changed.notify_one();
        }
    }

    /// Takes a copy of a datagram, if it is to go on. Never waits.
    pub(super) fn offer(&self, port: Port, bytes: &[u8], from: IpAddr) {
        static FULL: Throttle = Throttle::every(LINE_EVERY);
        let wanted = self.0.wanted.load();
        let targets = targets_of(&wanted, port);
        if targets.is_empty()
            || self.0.queue.push(Datagram { bytes: bytes.into(), port, from, received: SystemTime::now() })
        {
            return;
        }
        targets.iter().for_each(|target| self.0.metrics.dropped(target, "queue_full"));
        if let Some(suppressed) = FULL.pass() {
            warn!(
                code = "forward_full",
                suppressed,
                "datagrams were not sent on (udpServerConfig.forwardTo): more came than could be sent; look whether the network there is well"
            );
        }
    }

    /// No datagram will be offered any more: what waits is sent, and then it is over.
    pub(super) fn close(&self) {
        self.0.closed.cancel();
    }

    /// Sends on until the receiver has ended, or a second after `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut sender = Sender::new(self.0);
        sender.take_up();
        let inner = Arc::clone(&sender.inner);
        let mut late = pin!(too_late(&stop));
        loop {
            tokio::select! {
                // What came after a change goes where the change says.
                biased;
                () = inner.changed.notified() => sender.take_up(),
                () = inner.closed.cancelled() => break,
                _ = &mut late => break,
                Some(found) = sender.look_ups.join_next() => sender.found(found),
                () = sleep_until(sender.next_look_up) => sender.look_up(),
                batch = inner.queue.take() => sender.send(batch, None).await,
            }
        }
        sender.send(inner.queue.take_now(), Some(Instant::now() + DRAIN / 4)).await;
        sender.count_left();
    }
}

/// Where the datagrams of a port go.
fn targets_of(forward: &Forwarding, port: Port) -> &[HostPort] {
    match port {
        Port::Task => &forward.task,
        Port::Session => &forward.session,
    }
}

/// The address of a target that needs no look-up: of both loopbacks the IPv4 one, on which Butler listens.
fn known(target: &HostPort) -> Option<SocketAddr> {
    let address = addresses_of(&target.host)?.first().copied()?;
    Some(SocketAddr::new(address, target.port))
}

/// Whether what is sent to an address arrives at one of our sockets.
fn is_own(bound: &[SocketAddr], target: SocketAddr) -> bool {
    let ip = target.ip().to_canonical();
    let here = || ip.is_loopback() || config::own_addresses().contains(&ip);
    let ours = |socket: &SocketAddr| socket.ip().to_canonical() == ip || (socket.ip().is_unspecified() && here());
    bound.iter().any(|socket| socket.port() == target.port() && ours(socket))
}

type Found = (HostPort, io::Result<Vec<SocketAddr>>);

/// The running relay: the targets with their sockets.
struct Sender {
    inner: Arc<Inner>,
    targets: Vec<Target>,
    /// For each port the places of its targets.
    task: Vec<usize>,
    session: Vec<usize>,
    look_ups: JoinSet<Found>,
    next_look_up: Instant,
}

impl Sender {
    fn new(inner: Arc<Inner>) -> Self {
        let (task, session) = Default::default();
        Self { inner, targets: Vec::new(), task, session, look_ups: JoinSet::new(), next_look_up: Instant::now() }
    }

    /// Makes targets of what is wanted; those that were there before go on with their sockets.
    fn take_up(&mut self) {
        let wanted = self.inner.wanted.load_full();
        let mut before = std::mem::take(&mut self.targets);
        let mut place = |written: &HostPort| {
            let known = self.targets.iter().position(|target| target.written == *written);
            known.unwrap_or_else(|| {
                let old = before.iter().position(|target| target.written == *written);
                let target = old.map(|at| before.swap_remove(at));
                self.targets.push(target.unwrap_or_else(|| Target::new(written.clone(), &self.inner.metrics)));
                self.targets.len() - 1
            })
        };
        self.task = wanted.task.iter().map(&mut place).collect();
        self.session = wanted.session.iter().map(&mut place).collect();
        self.look_up();
    }

    /// Finds out where the targets are; names are asked for beside the sending.
    fn look_up(&mut self) {
        self.next_look_up = Instant::now() + PERIOD;
        // A name service that does not answer is not asked again before it has.
        let idle = self.look_ups.is_empty();
        for target in &mut self.targets {
            match known(&target.written) {
                Some(address) => target.lead_to(address, is_own(&self.inner.bound, address)),
                None if idle => drop(self.look_ups.spawn(ask(target.written.clone()))),
                None => self.next_look_up = Instant::now() + AGAIN,
            }
        }
    }

    fn found(&mut self, found: Result<Found, JoinError>) {
        // A look-up that panicked is asked for again like one that failed.
        let Ok((written, addresses)) = found else {
            self.next_look_up = self.next_look_up.min(Instant::now() + AGAIN);
            return;
        };
        let Some(target) = self.targets.iter_mut().find(|target| target.written == written) else { return };
        let why = match addresses.map(|addresses| addresses.into_iter().min_by_key(|one| (one.is_ipv6(), one.ip()))) {
            Ok(Some(address)) => return target.lead_to(address, is_own(&self.inner.bound, address)),
            Ok(None) => "it has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        warn!(
            code = "forward_name_unresolved",
            to = %written,
            "a name in udpServerConfig.forwardTo cannot be resolved: {why}; it is tried again; correct it, or write the address"
        );
        self.next_look_up = self.next_look_up.min(Instant::now() + AGAIN);
    }

    /// Sends datagrams, until a moment at the latest; what is left then goes back into the queue.
    async fn send(&mut self, mut batch: Batch<'_>, until: Option<Instant>) {
        while until.is_none_or(|until| Instant::now() < until) {
            let Some(datagram) = batch.next() else { return };
            let places = match datagram.port {
                Port::Task => &self.task,
                Port::Session => &self.session,
            };
            for place in places {
                if let Some(target) = self.targets.get_mut(*place) {
                    target.send(&datagram.bytes).await;
                }
            }
        }
    }

    /// What nobody sends any more.
    fn count_left(&self) {
        let wanted = self.inner.wanted.load();
        for port in [Port::Task, Port::Session] {
            let left = self.inner.queue.left(port);
            targets_of(&wanted, port)
                .iter()
                .for_each(|target| self.inner.metrics.dropped_many(target, "stopping", left));
        }
    }
}

async fn ask(target: HostPort) -> Found {
    let found = lookup_host((target.host.as_str(), target.port)).await;
    let found = found.map(Iterator::collect);
    (target, found)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::telemetry::metrics::encode;

    fn target(text: &str) -> HostPort {
        text.parse().unwrap()
    }

    fn to(targets: &[SocketAddr]) -> Forwarding {
        let task: Vec<HostPort> = targets.iter().map(|address| target(&address.to_string())).collect();
        Forwarding { session: task.clone(), task }
    }

    /// A program on this machine that may hear.
    fn listener() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn heard(socket: &UdpSocket) -> Vec<u8> {
        let mut bytes = vec![0; 70_000];
        let length = socket.recv(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn offer(relay: &Relay, bytes: &[u8]) {
        relay.offer(Port::Task, bytes, "127.0.0.1".parse().unwrap());
    }

    #[test]
    fn own_sockets_are_known_by_every_address_that_leads_to_them() {
        let bound = |text: &str| vec![text.parse().unwrap()];
        let cases = [
            ("127.0.0.1:9998", "127.0.0.1:9998", true),
            ("127.0.0.1:9998", "127.0.0.1:9988", false),
            ("127.0.0.1:9998", "10.255.255.1:9998", false),
            ("127.0.0.1:9998", "[::ffff:127.0.0.1]:9998", true),
            ("0.0.0.0:9998", "127.0.0.2:9998", true),
            ("[::]:9998", "127.0.0.1:9998", true),
            ("0.0.0.0:9998", "192.0.2.1:9998", false),
        ];
        for (socket, target, own) in cases {
            assert_eq!(is_own(&bound(socket), target.parse().unwrap()), own, "{socket} {target}");
        }
        let mut registry = Registry::default();
        let forward = Forwarding { task: Vec::new(), session: vec![target("localhost:9998")] };
        let refused = Relay::new(&forward, bound("127.0.0.1:9998"), &mut registry).err().unwrap().to_string();
        assert!(refused.contains("localhost:9998 is a port of this program itself"), "{refused}");
    }

    #[tokio::test]
    async fn targets_change_while_it_runs_and_what_waits_is_sent_at_the_end() {
        let ((one, first), (other, second)) = (listener(), listener());
        let mut registry = Registry::default();
        let relay = Relay::new(&to(&[first]), Vec::new(), &mut registry).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(relay.clone().run(stop.clone()));
        offer(&relay, b"a");
        let one = tokio::task::spawn_blocking(move || (heard(&one), one)).await.unwrap();
        assert_eq!(one.0, b"a");
        relay.change(&to(&[first, second]));
        offer(&relay, b"");
        let (one, other) =
            tokio::task::spawn_blocking(move || ((heard(&one.1), one.1), (heard(&other), other))).await.unwrap();
        assert_eq!((one.0.len(), other.0.len()), (0, 0), "an empty datagram is one, too");
        relay.change(&to(&[second]));
        stop.cancel();
        offer(&relay, b"c");
        relay.close();
        running.await.unwrap();
        assert_eq!(heard(&other.1), b"c");
        let counted = encode(&registry);
        for (address, times) in [(first, 2), (second, 2)] {
            let line = format!("sense_butler_udp_forwarded_total{{target=\"{address}\"}} {times}\n");
            assert!(counted.contains(&line), "{line}{counted}");
        }
        one.1.set_nonblocking(true).unwrap();
        assert!(one.1.recv(&mut [0; 8]).is_err(), "it was taken off the list");
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_name_that_leads_back_or_that_nobody_knows() {
        let mut registry = Registry::default();
        let own: SocketAddr = "127.0.0.1:9998".parse().unwrap();
        let (back, nobody) = (target("back.example:9998"), target("nobody.example:9998"));
        let forward = Forwarding { task: vec![back.clone(), nobody.clone()], session: Vec::new() };
        let relay = Relay::new(&forward, vec![own], &mut registry).unwrap();
        let mut sender = Sender::new(Arc::clone(&relay.0));
        sender.take_up();
        sender.look_ups.abort_all();
        sender.found(Ok((back, Ok(vec!["[::1]:9998".parse().unwrap(), own]))));
        sender.found(Ok((nobody, Err(io::ErrorKind::NotFound.into()))));
        assert!(sender.next_look_up <= Instant::now() + AGAIN, "it is asked for again soon");
        offer(&relay, b"x");
        sender.send(relay.0.queue.take_now(), None).await;
        let counted = encode(&registry);
        for line in [
            "dropped_total{target=\"back.example:9998\",reason=\"loop\"} 1",
            "dropped_total{target=\"nobody.example:9998\",reason=\"unresolved\"} 1",
            "forwarded_total{target=\"back.example:9998\"} 0",
        ] {
            assert!(counted.contains(line), "{line}\n{counted}");
        }
    }

    #[tokio::test]
    async fn a_full_queue_holds_nobody_and_is_counted() {
        let (_socket, address) = listener();
        let mut registry = Registry::default();
        let relay = Relay::new(&to(&[address]), Vec::new(), &mut registry).unwrap();
        let datagram = vec![0; 60_000];
        for _ in 0..300 {
            offer(&relay, &datagram);
        }
        let counted = encode(&registry);
        let full = counted.lines().find_map(|line| line.split_once("reason=\"queue_full\"} ")?.1.parse::<u64>().ok());
        assert!(full.is_some_and(|times| (20..30).contains(&times)), "{counted}");
        relay.close();
        relay.clone().run(CancellationToken::new()).await;
        let counted = encode(&registry);
        assert!(counted.contains(&format!("forwarded_total{{target=\"{address}\"}} 2")), "{counted}");
    }
}
