//! Whether the program does its work, part by part: what `/readyz` says and what `online` follows.
//!
//! Each component holds a [`Latch`] under its name and sets it; a component that is dropped (returned, panicked) leaves its latch down with
//! the word `stopped`. Invariants: a part that was never set is not ready; a part whose word has a term (the self-probe) is down again when
//! the term passes without a new word, so a hung probe cannot look healthy; parts that are only noted (QRS, a peer) are shown and do not decide.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};
use tokio::sync::watch;

/// What a part says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    /// Its name, e.g. `rest`, `broker`, `self-probe`.
    pub name: &'static str,
    /// Whether it does its work.
    pub ready: bool,
    /// Whether the whole is unready without it.
    pub required: bool,
    /// One sentence for people: what is wrong, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[derive(Debug, Clone)]
struct Entry {
    part: Part,
    /// The moment until which `ready` counts; `None`: for good.
    until: Option<Instant>,
}

impl Entry {
    fn is_ready(&self, now: Instant) -> bool {
        self.part.ready && self.until.is_none_or(|until| now < until)
    }
}

/// The readiness of the whole program. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Vec<Entry>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Nothing is known yet: not ready until at least one required latch exists and all of them are up.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }

    /// A latch of a part the whole cannot do without. Down (`starting`) until it is set.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.add(name, true)
    }

    /// A latch of a part that is shown and does not decide: a peer that may be away.
    pub fn note(&self, name: &'static str) -> Latch {
        self.add(name, false)
    }

    fn add(&self, name: &'static str, required: bool) -> Latch {
        let part = Part { name, ready: false, required, detail: "starting".into() };
        let mut index = 0;
        self.0.send_modify(|entries| {
            index = entries.len();
            entries.push(Entry { part, until: None });
        });
        Latch { owner: self.clone(), index }
    }

    /// Whether every required part does its work right now.
    pub fn is_ready(&self) -> bool {
        let now = Instant::now();
        let entries = self.0.borrow();
        let mut required = entries.iter().filter(|entry| entry.part.required).peekable();
        required.peek().is_some() && required.all(|entry| entry.is_ready(now))
    }

    /// Every part as it is right now, in the order the latches were made.
    pub fn parts(&self) -> Vec<Part> {
        let now = Instant::now();
        let show = |entry: &Entry| match (entry.part.ready, entry.is_ready(now)) {
            (true, false) => Part { ready: false, detail: "no word for too long".into(), ..entry.part.clone() },
            _ => entry.part.clone(),
        };
        self.0.borrow().iter().map(show).collect()
    }

    /// Waits until some part says something new. A term that runs out is no word: look again at an interval as well.
    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// Makes it visible as `sense_butler_ready` and `sense_butler_part_ready{part,required}`.
    pub fn register(&self, registry: &mut super::metrics::Registry) {
        registry.register_collector(Box::new(Shown(self.clone())));
    }

    fn set(&self, index: usize, ready: bool, detail: String, until: Option<Instant>) {
        self.0.send_if_modified(|entries| {
            let Some(entry) = entries.get_mut(index) else { return false };
            let changed = entry.part.ready != ready || entry.part.detail != detail;
            entry.part.ready = ready;
            entry.part.detail = detail;
            entry.until = until;
            changed
        });
    }
}

/// The readiness as metrics, looked up when somebody asks.
#[derive(Debug)]
struct Shown(Readiness);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ready = ConstGauge::new(i64::from(self.0.is_ready()));
        let help = "1 while every required part does its work";
        ready.encode(encoder.encode_descriptor("sense_butler_ready", help, None, ready.metric_type())?)?;
        let help = "1 while a part does its work; those that are not required are peers that may be away, and files";
        let mut family = encoder.encode_descriptor("sense_butler_part_ready", help, None, ready.metric_type())?;
        for part in self.0.parts() {
            let labels = [("part", part.name), ("required", if part.required { "true" } else { "false" })];
            ConstGauge::new(i64::from(part.ready)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Waits for changes of a [`Readiness`].
#[derive(Debug)]
pub struct Watch(watch::Receiver<Vec<Entry>>);

impl Watch {
    /// Resolves at the next change; never when nobody can change anything any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One part's latch; dropping it says that the part has stopped.
#[derive(Debug)]
pub struct Latch {
    owner: Readiness,
    index: usize,
}

impl Latch {
    /// The part does its work.
    pub fn up(&self) {
        self.owner.set(self.index, true, String::new(), None);
    }

    /// The part does its work, and says so again within `term`.
    pub fn up_for(&self, term: Duration) {
        self.owner.set(self.index, true, String::new(), Instant::now().checked_add(term));
    }

    /// The part does not do its work; `why` is for people and carries no secret.
    pub fn down(&self, why: impl Into<String>) {
        self.owner.set(self.index, false, why.into(), None);
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.down("stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_required_part_must_be_up() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "nothing known is not ready");
        let (broker, rest, qrs) = (readiness.latch("broker"), readiness.latch("rest"), readiness.note("qrs"));
        assert!(!readiness.is_ready());
        broker.up();
        rest.up();
        assert!(readiness.is_ready(), "a noted part does not decide");
        qrs.down("connection refused");
        rest.down("port lost");
        assert!(!readiness.is_ready());
        let parts = readiness.parts();
        assert_eq!(parts.iter().map(|part| part.name).collect::<Vec<_>>(), ["broker", "rest", "qrs"]);
        assert_eq!(serde_json::to_string(&parts[0]).unwrap(), r#"{"name":"broker","ready":true,"required":true}"#);
        assert_eq!(parts[1].detail, "port lost");
    }

    #[test]
    fn monitoring_sees_the_parts() {
        let (readiness, mut registry) = (Readiness::new(), super::super::metrics::Registry::default());
        readiness.register(&mut registry);
        let (broker, qrs) = (readiness.latch("broker"), readiness.note("qrs"));
        broker.up();
        qrs.down("away");
        let text = super::super::metrics::encode(&registry);
        for line in [
            "sense_butler_ready 1\n",
            "sense_butler_part_ready{part=\"broker\",required=\"true\"} 1\n",
            "sense_butler_part_ready{part=\"qrs\",required=\"false\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn a_component_that_goes_takes_its_latch_down() {
        let readiness = Readiness::new();
        let latch = readiness.latch("udp");
        latch.up();
        assert!(readiness.is_ready());
        drop(latch);
        assert!(!readiness.is_ready());
        assert_eq!(readiness.parts()[0].detail, "stopped");
    }

    #[test]
    fn a_probe_that_falls_silent_is_not_healthy() {
        let readiness = Readiness::new();
        let probe = readiness.latch("self-probe");
        probe.up_for(Duration::from_secs(3_600));
        assert!(readiness.is_ready());
        probe.up_for(Duration::ZERO);
        assert!(!readiness.is_ready());
        assert_eq!(readiness.parts()[0].detail, "no word for too long");
    }

    #[tokio::test]
    async fn changes_wake_who_watches() {
        let readiness = Readiness::new();
        let latch = readiness.latch("broker");
        let mut watch = readiness.watch();
        latch.up();
        watch.changed().await;
        assert!(readiness.is_ready());
    }
}
