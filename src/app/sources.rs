//! The sources of events put together: datagrams, and what QRS is asked or tells; one forwarder behind all.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    EVENTS, LOOK,
    supervise::{Stage, Supervisor},
    up,
};
use crate::{
    bridge::{forward::Forwarder, status::StatusHandle},
    config::settings::Settings,
    keep::Keep,
    sense::{
        directory::Cache,
        event::{SenseEvent, TaskEventKind},
        qrs::Qrs,
        receiver::{Port, Receiver},
        sources::{Once, Silence, Sources, SourcesError, Surroundings},
    },
    telemetry::{metrics::Registry, readiness::Readiness},
};

/// What asks QRS, and the place where it meets the datagrams; there is neither where only datagrams are wanted.
pub(super) struct Asked {
    pub(super) sources: Sources,
    once: Once,
    silence: Option<Arc<Silence>>,
}

impl Asked {
    /// `None`: nothing but datagrams is wanted, or no events at all.
    pub(super) fn build(
        settings: &Settings,
        qrs: &Qrs,
        keep: &Keep,
        cache: &Arc<Cache>,
        registry: &mut Registry,
    ) -> Result<Option<Self>, SourcesError> {
        // Then nothing is published, and nothing must count as told.
        if !settings.mqtt.enable {
            return Ok(None);
        }
        let around = Surroundings { qrs, hosts: &settings.qrs, keep, cache: Arc::clone(cache) };
        let Some(sources) = Sources::build(&settings.sources, &around, registry)? else { return Ok(None) };
        let silence = silence(settings);
        let once = Once::open(keep.shelf("told"), silence.clone(), registry)?;
        Ok(Some(Self { sources, once, silence }))
    }
}

/// Only where datagrams are to come, and of the kinds that are published.
fn silence(settings: &Settings) -> Option<Arc<Silence>> {
    let after = settings.sources.silence_alarm;
    if after.is_zero() || !settings.udp.enable {
        return None;
    }
    let mqtt = &settings.mqtt;
    let kinds = [
        (&mqtt.failed, TaskEventKind::Failed),
        (&mqtt.aborted, TaskEventKind::Aborted),
        (&mqtt.succeeded, TaskEventKind::Succeeded),
        (&mqtt.distributed, TaskEventKind::Distributed),
    ];
    let expected = kinds.into_iter().filter(|(topics, _)| topics.send).map(|(_, kind)| kind).collect();
    Some(Arc::new(Silence::new(after, expected)))
}

/// Starts whatever brings events, and the forwarder behind it.
pub(super) fn start(
    supervisor: &Supervisor,
    receiver: Option<Receiver>,
    asked: Option<Asked>,
    forwarder: Forwarder,
    status: StatusHandle,
    readiness: &Readiness,
) {
    if receiver.is_none() && asked.is_none() {
        return;
    }
    let (out, events) = mpsc::channel(EVENTS);
    let datagrams = match asked {
        None => out,
        Some(asked) => start_asked(supervisor, asked, out, readiness),
    };
    if let Some(receiver) = receiver {
        receiver.on_socket_error(Arc::new(move |port| match port {
            Port::Task => status.task_socket_failed(),
            Port::Session => status.session_socket_failed(),
        }));
        let relay = receiver.relay();
        supervisor.restarting(Stage::Doors, "forwardTo", move |stop| relay.clone().run(stop));
        let latch = readiness.latch("udp");
        supervisor.essential(Stage::Doors, "udp", move |stop| up(latch, receiver.run(datagrams, stop)));
    }
    let latch = readiness.latch("events");
    supervisor.essential(Stage::Work, "events", move |stop| up(latch, forwarder.run(events, stop)));
}

/// Starts what asks QRS and the meeting place; datagrams go where the answer leads.
fn start_asked(
    supervisor: &Supervisor,
    asked: Asked,
    out: mpsc::Sender<SenseEvent>,
    readiness: &Readiness,
) -> mpsc::Sender<SenseEvent> {
    let Asked { sources, once, silence } = asked;
    let (datagrams, heard) = mpsc::channel(EVENTS);
    let (found, others) = mpsc::channel(EVENTS);
    let latch = readiness.latch("event sources");
    supervisor.essential(Stage::Doors, "event sources", move |stop| up(latch, sources.run(found, stop)));
    supervisor.essential(Stage::Work, "events told once", move |_| once.run(heard, others, out));
    if let Some(silence) = silence {
        let latch = readiness.note("datagrams");
        supervisor.essential(Stage::Work, "alarm of silence", move |stop| async move {
            let mut every = tokio::time::interval(LOOK);
            while stop.run_until_cancelled(every.tick()).await.is_some() {
                match silence.alarm() {
                    None => latch.up(),
                    Some(sentence) => latch.down(sentence),
                }
            }
        });
    }
    datagrams
}
