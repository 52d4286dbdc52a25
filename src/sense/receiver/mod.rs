//! The UDP receiver: takes datagrams off the kernel as fast as they come, and makes events of them at its own pace.
//!
//! Two stages. One OS thread per socket does nothing but receive, look at size and source, and put bytes into a queue bounded in bytes: the
//! kernel's buffer, whose overflow nobody is told of, is emptied at once. One task takes from the queue: rate limit, parser, de-duplication,
//! and the channel to the forwarder, whose fullness holds this task and never the threads. A thread of its own beats a runtime task here: it
//! is one system call per datagram and no wake-up is missed while the runtime is busy publishing.
//!
//! Invariants: every datagram received is either sent on as an event or counted as dropped with a reason; nothing is unbounded; `bind` opens
//! everything and `run` opens nothing.

mod kernel;
mod metrics;
mod nodes;
mod queue;
mod relay;
mod socket;
pub(in crate::sense) mod sources;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use self::{
    kernel::KernelDrops,
    metrics::Metrics,
    nodes::Nodes,
    queue::{Datagram, Queue},
    socket::Bound,
    sources::Sources,
};
pub use self::{
    relay::Relay,
    socket::{Listening, Port, ReceiverError},
};
use super::{
    datagram::{self, Reject},
    dedup::Deduplicator,
    event::SenseEvent,
};
use crate::{
    config::settings::{Generation, UdpSettings},
    telemetry::throttle::Throttles,
};

/// How long a thread waits for a datagram before it looks at the stop flag.
const TICK: Duration = Duration::from_millis(200);
/// After the stop signal: time for what the kernel and the queue still hold.
const DRAIN: Duration = Duration::from_secs(1);
/// How often the log is told of datagrams that the kernel dropped.
const KERNEL_CHECK: Duration = Duration::from_secs(10);
/// Time between two log lines about the same reason.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The window of the rate limit.
const MINUTE: Duration = Duration::from_secs(60);

/// Called when a socket fails, with the port it serves.
pub type OnSocketError = Arc<dyn Fn(Port) + Send + Sync>;

/// The bound receiver.
pub struct Receiver {
    sockets: Vec<Bound>,
    shared: Arc<Shared>,
    generation: Generation,
    rate_limit: Option<u32>,
    deduplicator: Option<Deduplicator>,
    kernel: KernelDrops,
    nodes: Nodes,
}

/// What the threads and the task share.
struct Shared {
    queue: Queue,
    metrics: Metrics,
    sources: Sources,
    relay: Relay,
    max_message_size: usize,
    stopping: AtomicBool,
    on_socket_error: std::sync::OnceLock<OnSocketError>,
}

impl Receiver {
    /// Opens the task port and, where one is set, the session port. Nothing is opened when `settings.enable` is off.
    ///
    /// # Errors
    /// Names the address and the key it comes from.
    pub fn bind(
        settings: &UdpSettings,
        generation: Generation,
        registry: &mut Registry,
    ) -> Result<Self, ReceiverError> {
        let sockets = if settings.enable { socket::bind_all(settings)? } else { Vec::new() };
        let kernel = KernelDrops::of(&sockets);
        let queue = Queue::new(settings.queue_max_bytes);
        let metrics = Metrics::register(registry, &queue, kernel.clone());
        let nodes = Nodes::new(registry);
        let bound = sockets.iter().map(|bound| bound.listening.address).collect();
        let relay = Relay::new(&settings.forward, bound, registry)?;
        let shared = Shared {
            queue,
            metrics,
            sources: Sources::new("udpServerConfig.allowedSources", settings.allowed_sources.clone()),
            relay,
            max_message_size: settings.max_message_size,
            stopping: AtomicBool::new(false),
            on_socket_error: std::sync::OnceLock::new(),
        };
        Ok(Self {
            sockets,
            shared: Arc::new(shared),
            generation,
            rate_limit: settings.rate_limit,
            deduplicator: settings.deduplication.map(Deduplicator::new),
            kernel,
            nodes,
        })
    }

    /// What is open: port, address (with the port the system chose, where 0 was asked for), receive buffer granted.
    pub fn listening(&self) -> Vec<Listening> {
        self.sockets.iter().map(|bound| bound.listening).collect()
    }

    /// What sends datagrams on; to be run beside the receiver.
    pub fn relay(&self) -> Relay {
        self.shared.relay.clone()
    }

    /// Whom to tell when a socket fails. The first call counts.
    pub fn on_socket_error(&self, tell: OnSocketError) {
        let _ = self.shared.on_socket_error.set(tell);
    }

    /// Receives until `stop`, then sends on what the kernel and the queue hold, for one second at most. A full `events` holds the events
    /// back in the queue, and what does not fit there is dropped and counted.
    ///
    /// # Errors
    /// If a receiving thread cannot be started or ends before `stop`: a socket nobody reads must not look healthy.
    pub async fn run(self, events: mpsc::Sender<SenseEvent>, stop: CancellationToken) -> Result<(), ReceiverError> {
        let shared = self.shared.clone();
        let deaf = CancellationToken::new();
        let start = |bound| start_thread(bound, shared.clone(), deaf.clone());
        let threads = self.sockets.into_iter().map(start).collect::<Result<Vec<_>, _>>();
        let threads = threads.inspect_err(|_| shared.stopping.store(true, Ordering::Relaxed))?;
        // Ends with this: a name service that does not answer must not hold the stop.
        let _sources = AbortOnDropHandle::new(tokio::spawn(keep_sources(shared.clone(), stop.clone())));
        let mut stage = Stage {
            shared: shared.clone(),
            generation: self.generation,
            limiter: self.rate_limit.map(|limit| RateLimit::new(limit, Instant::now())),
            deduplicator: self.deduplicator,
            nodes: self.nodes,
            events,
            log: Throttles::every(LINE_EVERY),
        };
        let mut watch = tokio::time::interval(KERNEL_CHECK);
        let mut kernel_drops = self.kernel.total();
        let mut stopped = None;
        while !stop.is_cancelled() && !deaf.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = deaf.cancelled() => {}
                batch = shared.queue.take() => tokio::select! {
                    () = stage.process(batch) => {}
                    // The forwarder is stuck: what it does not take within the drain time is lost, and counted.
                    at = too_late(&stop) => stopped = Some(at),
                },
                _ = watch.tick() => kernel_drops = tell_kernel_drops(&self.kernel, kernel_drops),
            }
        }
        let end = stopped.unwrap_or_else(Instant::now) + DRAIN;
        let ended_early = !stop.is_cancelled();
        shared.stopping.store(true, Ordering::Relaxed);
        // Threads end within a tick and a drain; joining them is the only blocking step.
        let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
        shared.relay.close();
        let _ = tokio::time::timeout_at(end.into(), stage.process(shared.queue.take_now())).await;
        for port in [Port::Task, Port::Session] {
            shared.metrics.drop_many(port, "stopping", shared.queue.left(port));
        }
        if ended_early { Err(ReceiverError::Deaf) } else { Ok(()) }
    }
}

/// Waits for the stop and the time after it; tells when the stop was.
async fn too_late(stop: &CancellationToken) -> Instant {
    stop.cancelled().await;
    let at = Instant::now();
    tokio::time::sleep(DRAIN).await;
    at
}

async fn keep_sources(shared: Arc<Shared>, stop: CancellationToken) {
    shared.sources.keep_resolved(stop).await;
}

fn tell_kernel_drops(kernel: &KernelDrops, before: u64) -> u64 {
    let now = kernel.total();
    if now > before {
        warn!(
            code = "udp_dropped_by_system",
            datagrams = now - before,
            "the kernel dropped datagrams because its receive buffer was full; a larger buffer helps (net.core.rmem_max)"
        );
    }
    now
}

/// `deaf` is cancelled when the thread ends, however it ends.
fn start_thread(
    bound: Bound,
    shared: Arc<Shared>,
    deaf: CancellationToken,
) -> Result<thread::JoinHandle<()>, ReceiverError> {
    let name = format!("udp-{}", bound.listening.port.as_str());
    let work = move || {
        let _deaf = deaf.drop_guard();
        receive(&bound, &shared);
    };
    thread::Builder::new().name(name).spawn(work).map_err(ReceiverError::Thread)
}

/// The receiving thread of one socket.
fn receive(bound: &Bound, shared: &Shared) {
    let port = bound.listening.port;
    let mut buffer = vec![0; socket::MAX_DATAGRAM];
    let mut log = Throttles::every(LINE_EVERY);
    let mut draining = None;
    loop {
        if draining.is_none() && shared.stopping.load(Ordering::Relaxed) {
            // What the kernel holds was received before the stop; it is taken, but not waited for.
            draining = Some(Instant::now() + DRAIN / 4);
            let _ = bound.socket.set_nonblocking(true);
        }
        if draining.is_some_and(|end| Instant::now() >= end) {
            return;
        }
        match bound.socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                shared.admit(port, bytes, from.ip().to_canonical(), &mut log);
            }
            Err(error) if socket::is_quiet(&error) => {
                if draining.is_some() {
                    return;
                }
            }
            Err(error) => shared.socket_failed(port, &error, &mut log),
        }
    }
}

impl Shared {
    /// The hot path: as little as possible between two receives.
    fn admit(&self, port: Port, bytes: &[u8], from: std::net::IpAddr, log: &mut Throttles) {
        self.metrics.received(port);
        let admitted = self.sources.admits(from);
        if admitted {
            self.relay.offer(port, bytes, from);
        }
        let reason = if bytes.len() > self.max_message_size {
            "too_large"
        } else if !admitted {
            "source"
        } else if !self.queue.push(Datagram { bytes: bytes.into(), port, from, received: SystemTime::now() }) {
            "queue_full"
        } else {
            return;
        };
        self.metrics.drop_many(port, reason, 1);
        if let Some(suppressed) = log.pass(reason) {
            warn!(
                code = "udp_dropped",
                suppressed,
                port = port.as_str(),
                %from,
                bytes = bytes.len(),
                reason,
                "datagrams dropped: {}",
                advice(reason)
            );
        }
    }

    fn socket_failed(&self, port: Port, error: &std::io::Error, log: &mut Throttles) {
        self.metrics.socket_failed(port);
        if let Some(suppressed) = log.pass("socket") {
            warn!(
                code = "udp_socket_failed",
                suppressed,
                port = port.as_str(),
                %error,
                "receiving datagrams failed, it goes on; look whether the network of this machine is well"
            );
        }
        if let Some(tell) = self.on_socket_error.get() {
            tell(port);
        }
        // A socket that fails for good must not take a core.
        thread::sleep(TICK);
    }
}

/// The second stage: from bytes to events.
struct Stage {
    shared: Arc<Shared>,
    generation: Generation,
    limiter: Option<RateLimit>,
    deduplicator: Option<Deduplicator>,
    nodes: Nodes,
    events: mpsc::Sender<SenseEvent>,
    log: Throttles,
}

impl Stage {
    /// Cancel-safe: a datagram is taken from the batch only when there is room for its event.
    async fn process(&mut self, mut batch: queue::Batch<'_>) {
        let events = self.events.clone();
        while let Ok(room) = events.reserve().await {
            let Some(event) = self.next_event(&mut batch) else { return };
            room.send(event);
        }
        for datagram in batch {
            self.dropped(&datagram, "stopping", None);
        }
    }

    fn next_event(&mut self, batch: &mut queue::Batch<'_>) -> Option<SenseEvent> {
        for datagram in batch {
            match self.read(&datagram) {
                Ok(event) => return Some(event),
                Err((reason, reject)) => self.dropped(&datagram, reason, reject),
            }
        }
        None
    }

    fn read(&mut self, datagram: &Datagram) -> Result<SenseEvent, (&'static str, Option<Reject>)> {
        if self.limiter.as_mut().is_some_and(|limiter| !limiter.admits(Instant::now())) {
            return Err(("rate_limit", None));
        }
        let refused = |reject: Reject| (reject.reason(), Some(reject));
        let event = match datagram.port {
            Port::Session => datagram::parse_session(&datagram.bytes, self.generation, datagram.received)
                .map(SenseEvent::Session)
                .map_err(refused)?,
            Port::Task => datagram::parse_task(&datagram.bytes, self.generation, datagram.received)
                .map(SenseEvent::Task)
                .map_err(refused)?,
        };
        self.nodes.heard(datagram.port, event.host(), datagram.received);
        let twice = match (&event, &mut self.deduplicator) {
            (SenseEvent::Task(event), Some(dedup)) => dedup.is_duplicate(event, Instant::now()),
            _ => false,
        };
        if twice { Err(("duplicate", None)) } else { Ok(event) }
    }

    fn dropped(&mut self, datagram: &Datagram, reason: &'static str, reject: Option<Reject>) {
        self.shared.metrics.drop_many(datagram.port, reason, 1);
        let Some(suppressed) = self.log.pass(reason) else { return };
        let (port, from) = (datagram.port.as_str(), datagram.from);
        match reject {
            Some(why) => {
                let beginning: String = String::from_utf8_lossy(&datagram.bytes).chars().take(60).collect();
                warn!(code = "udp_ignored", suppressed, port, %from, reason, ?beginning, "datagram ignored: {why}");
            }
            None => info!(suppressed, port, %from, reason, "datagram ignored"),
        }
    }
}

/// What to do about datagrams that are dropped before they are read.
fn advice(reason: &str) -> &'static str {
    match reason {
        "too_large" => "they are larger than udpServerConfig.maxMessageSize; raise it, or look who sends them",
        "source" => "their sender is none of udpServerConfig.allowedSources; add it if it is a node of the site",
        _ => "more came than could be published; raise udpServerConfig.queueMaxBytes if bursts are that long",
    }
}

/// Messages a minute, counted in windows of a minute as Butler does.
#[derive(Debug)]
struct RateLimit {
    limit: u32,
    since: Instant,
    used: u32,
}

impl RateLimit {
    fn new(limit: u32, now: Instant) -> Self {
        Self { limit, since: now, used: 0 }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= MINUTE {
            (self.since, self.used) = (now, 0);
        }
        self.used = self.used.saturating_add(1);
        self.used <= self.limit
    }
}
