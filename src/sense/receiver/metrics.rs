//! Counters of the receiver. `received` = `dropped` of all reasons + the events the forwarder counts as accepted or failed + what is still
//! under way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
    },
    registry::Registry,
};

use super::{super::datagram::Reject, kernel::KernelDrops, queue::Queue, socket::Port};

/// Why a datagram does not become an event; what the parser says besides is [`Reject`]'s.
const REASONS: [&str; 6] = ["too_large", "source", "queue_full", "rate_limit", "duplicate", "stopping"];

type PortLabel = [(&'static str, &'static str); 1];
type DropLabels = [(&'static str, &'static str); 2];

/// Handles of the counters. The hot ones are held, not looked up.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    task: Counter,
    session: Counter,
    dropped: Family<DropLabels, Counter>,
    socket_errors: Family<PortLabel, Counter>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, queue: &Queue, kernel: KernelDrops) -> Self {
        let received = Family::<PortLabel, Counter>::default();
        let of = |port: Port| received.get_or_create(&[("port", port.as_str())]).clone();
        let (task, session) = (of(Port::Task), of(Port::Session));
        let metrics = Self { task, session, dropped: Family::default(), socket_errors: Family::default() };
        registry.register("sense_butler_udp_datagrams_received", "Datagrams taken from the kernel", received);
        // All there from the beginning: monitoring sees the first of a reason as a change.
        for port in [Port::Task, Port::Session] {
            for reason in REASONS.into_iter().chain(Reject::ALL.map(Reject::reason)) {
                drop(metrics.dropped.get_or_create(&[("port", port.as_str()), ("reason", reason)]));
            }
        }
        registry.register(
            "sense_butler_udp_datagrams_dropped",
            "Datagrams that did not become an event, by reason",
            metrics.dropped.clone(),
        );
        registry.register(
            "sense_butler_udp_socket_errors",
            "Failures to receive, other than that nothing came",
            metrics.socket_errors.clone(),
        );
        registry.register_collector(Box::new(AtScrape { queue: queue.bytes(), kernel }));
        metrics
    }

    pub(super) fn received(&self, port: Port) {
        match port {
            Port::Task => self.task.inc(),
            Port::Session => self.session.inc(),
        };
    }

    pub(super) fn drop_many(&self, port: Port, reason: &'static str, times: u64) {
        if times > 0 {
            self.dropped.get_or_create(&[("port", port.as_str()), ("reason", reason)]).inc_by(times);
        }
    }

    pub(super) fn socket_failed(&self, port: Port) {
        self.socket_errors.get_or_create(&[("port", port.as_str())]).inc();
    }
}

/// What is looked up when somebody asks.
#[derive(Debug)]
struct AtScrape {
    queue: Arc<AtomicUsize>,
    kernel: KernelDrops,
}

impl Collector for AtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bytes = ConstGauge::new(i64::try_from(self.queue.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        let help = "Bytes of datagrams received and not yet made events of";
        bytes.encode(encoder.encode_descriptor("sense_butler_udp_queue_bytes", help, None, bytes.metric_type())?)?;
        if !self.kernel.is_known() {
            return Ok(());
        }
        let help = "Datagrams the kernel dropped because the receive buffer was full";
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor("sense_butler_udp_kernel_dropped", help, None, kind)?;
        for port in [Port::Task, Port::Session] {
            let labels = [("port", port.as_str())];
            ConstCounter::new(self.kernel.of_port(port)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
