//! Events to publications: every Sense event becomes the messages Butler's users know, and one CloudEvent.
//!
//! Invariants: an event never waits for QRS with its basic message (unless `taskTypes` asks for QRS's word first), and with the full one at
//! most `qrsEnrichmentWaitMs`; basic before full, events of a task in order of arrival; waiting delays no other event; an event is
//! published whatever QRS says or does not say.

mod payload;
mod publisher;
mod session;
#[cfg(test)]
mod tests;
mod waiting;

#[cfg(test)]
pub(crate) use tests::settings as test_settings;

use std::{collections::HashMap, sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    publisher::{Publisher, Tally},
    session::Sessions,
    waiting::{Held, Lane, LookUp, Waiting},
};
use super::{active_users::ActiveUsers, cloud_event};
use crate::{
    bus::{Bus, Publication},
    config::settings::{EventTopics, Generation, MqttSettings},
    names::{NameError, TopicName},
    sense::{
        chronicle::Chronicler,
        directory::{Enrichment, TaskDirectory},
        event::{SenseEvent, TaskEvent, TaskEventKind},
        tasks::Follower,
    },
};

/// Events handled before look-ups, deadlines and the stop signal are looked at again.
const BATCH: usize = 256;
/// Time after the stop signal for events already received and receipts outstanding.
const DRAIN: Duration = Duration::from_millis(700);
/// Look-ups in a row without an answer after which QRS is taken to be away ...
const SILENCES: u32 = 8;
/// ... and not asked again for this long: an event storm must not become a connection storm.
const PAUSE: Duration = Duration::from_secs(1);

/// The kinds of events in metrics, in the order of [`kind`].
const KINDS: [&str; 6] = ["failed", "aborted", "succeeded", "distributed", "engine_reload_failed", "session"];

/// Where a kind stands in [`KINDS`].
const fn kind(event: &SenseEvent) -> usize {
    match event {
        SenseEvent::Session(_) => 5,
        SenseEvent::Task(event) => match event.kind {
            TaskEventKind::Failed => 0,
            TaskEventKind::Aborted => 1,
            TaskEventKind::Succeeded => 2,
            TaskEventKind::Distributed => 3,
            TaskEventKind::EngineReloadFailed => 4,
        },
    }
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    /// By kind; all there from the beginning, so that the first of a kind is seen as a change.
    kinds: [Counter; KINDS.len()],
    enriched: Counter,
    bare: Counter,
    suppressed: Counter,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let events = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let kinds = KINDS.map(|kind| events.get_or_create(&[("kind", kind)]).clone());
        let metrics = Self { kinds, ..Self::default() };
        registry.register("sense_butler_events", "Sense events that came to be published, by kind", events);
        registry.register(
            "sense_butler_events_enriched",
            "Task events published with what QRS knows about them",
            metrics.enriched.clone(),
        );
        registry.register(
            "sense_butler_events_not_enriched",
            "Task events for which QRS was to be asked and gave no answer in time",
            metrics.bare.clone(),
        );
        registry.register(
            "sense_butler_events_suppressed",
            "Events not published because mqttConfig.enable or taskTypes says so",
            metrics.suppressed.clone(),
        );
        metrics
    }
}

/// What is published of the events, while the forwarder runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Switches(watch::Sender<Arc<MqttSettings>>);

impl Switches {
    /// Events that come from now on are published as these settings say; their topics do not change.
    pub fn set(&self, settings: &MqttSettings) {
        self.0.send_replace(Arc::new(settings.clone()));
    }
}

/// The part that turns events into publications.
pub struct Forwarder {
    settings: MqttSettings,
    switches: Switches,
    cloud_events: TopicName,
    bus: Bus,
    directory: Option<Arc<dyn TaskDirectory>>,
    users: ActiveUsers,
    follower: Option<Follower>,
    chronicler: Option<Chronicler>,
    metrics: Metrics,
    publications: publisher::Metrics,
}

impl Forwarder {
    /// Builds it. `directory`: who is asked for the `qs_` fields; not asked in generation 5.4 or when `enrichment_wait` is zero. `users`
    /// is kept up to date with what session datagrams say.
    ///
    /// # Errors
    /// If `<own_topics>/event` is no topic (longer than MQTT allows).
    pub fn new(
        settings: &MqttSettings,
        generation: Generation,
        bus: Bus,
        directory: Option<Arc<dyn TaskDirectory>>,
        users: ActiveUsers,
        registry: &mut Registry,
    ) -> Result<Self, NameError> {
        let asked = generation == Generation::Head && !settings.enrichment_wait.is_zero();
        Ok(Self {
            cloud_events: settings.own_topics.join("event")?,
            settings: settings.clone(),
            switches: Switches(watch::Sender::new(Arc::new(settings.clone()))),
            bus,
            directory: directory.filter(|_| asked),
            users,
            follower: None,
            chronicler: None,
            metrics: Metrics::register(registry),
            publications: publisher::Metrics::register(registry),
        })
    }

    /// With somebody to be told at once what is heard about an execution.
    #[must_use]
    pub fn hinting(self, follower: Follower) -> Self {
        Self { follower: Some(follower), ..self }
    }

    /// With somebody who notes every event that comes, whether or not it is published.
    #[must_use]
    pub fn noting(self, chronicler: Option<Chronicler>) -> Self {
        Self { chronicler, ..self }
    }

    /// What can be changed of it while it runs.
    pub fn switches(&self) -> Switches {
        self.switches.clone()
    }

    /// Forwards until `events` ends, or, after `stop`, until the events already received are out or 0.7 s have passed (0.9 s where the
    /// broker takes nothing any more).
    pub async fn run(self, events: mpsc::Receiver<SenseEvent>, stop: CancellationToken) {
        let sessions = Sessions::new(self.settings.session.clone(), self.cloud_events.clone(), self.users);
        let work = Work {
            sessions,
            publisher: Publisher::start(self.bus, self.publications),
            settings: self.settings,
            switched: self.switches.0.subscribe(),
            cloud_events: self.cloud_events,
            directory: self.directory,
            follower: self.follower,
            chronicler: self.chronicler,
            metrics: self.metrics,
            waiting: Waiting::default(),
            look_ups: JoinSet::new(),
            lanes: HashMap::new(),
            silences: 0,
            ask_again: Instant::now(),
        };
        tokio::select! {
            () = work.run(events, stop.clone()) => {}
            () = too_late(&stop) => warn!(
                code = "events_lost_at_stop",
                "stopped while the broker took no more messages; the last events are lost; look in the QMC what ended"
            ),
        }
    }
}

/// A broker that takes nothing must not hold the stop.
async fn too_late(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(DRAIN + DRAIN / 4).await;
}

/// The running forwarder.
struct Work {
    settings: MqttSettings,
    switched: watch::Receiver<Arc<MqttSettings>>,
    cloud_events: TopicName,
    directory: Option<Arc<dyn TaskDirectory>>,
    follower: Option<Follower>,
    chronicler: Option<Chronicler>,
    sessions: Sessions,
    publisher: Publisher,
    metrics: Metrics,
    waiting: Waiting,
    look_ups: JoinSet<Option<Enrichment>>,
    /// Whose look-up a task of `look_ups` is.
    lanes: HashMap<Id, Lane>,
    silences: u32,
    ask_again: Instant,
}

impl Work {
    async fn run(mut self, mut events: mpsc::Receiver<SenseEvent>, stop: CancellationToken) {
        let mut end = None;
        let mut open = true;
        while open || !self.waiting.is_empty() {
            self.begin_look_ups();
            let deadline = self.waiting.next_deadline();
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                () = stop.cancelled(), if end.is_none() => end = Some(Instant::now() + DRAIN),
                () = sleep_until(end.unwrap_or(far)), if end.is_some() => break,
                Some(answer) = self.look_ups.join_next_with_id() => self.answered(answer).await,
                () = sleep_until(deadline.unwrap_or(far)), if deadline.is_some() => {}
                event = events.recv(), if open => match event {
                    Some(event) => self.batch(event, &mut events).await,
                    None => open = false,
                },
            }
            for held in self.waiting.expired(Instant::now()) {
                self.release(held, None).await;
            }
        }
        for held in self.waiting.give_up() {
            self.release(held, None).await;
        }
        self.publisher.close(end.unwrap_or_else(|| Instant::now() + DRAIN)).await;
    }

    async fn batch(&mut self, first: SenseEvent, events: &mut mpsc::Receiver<SenseEvent>) {
        // A sender that has gone has changed nothing.
        if self.switched.has_changed().unwrap_or(false) {
            let newer = Arc::clone(&self.switched.borrow_and_update());
            self.settings.switch(&newer);
        }
        let mut next = Some(first);
        for room in (0..BATCH).rev() {
            let Some(event) = next else { break };
            self.hint(&event);
            self.note(&event);
            if let Some(counter) = self.metrics.kinds.get(kind(&event)) {
                counter.inc();
            }
            match event {
                event if !self.settings.enable => self.keep_quiet(&event),
                SenseEvent::Task(event) => self.task(event).await,
                SenseEvent::Session(event) => self.sessions.forward(event, events.len(), &mut self.publisher).await,
            }
            // Nothing is taken from the channel that this batch has no room for.
            next = if room > 0 { events.try_recv().ok() } else { None };
        }
        if events.is_empty() {
            self.sessions.catch_up(&mut self.publisher).await;
        }
    }

    /// Who follows the execution of an event looks at it now.
    fn hint(&self, event: &SenseEvent) {
        if let (Some(follower), SenseEvent::Task(event)) = (&self.follower, event)
            && let Some(execution) = event.execution_id()
        {
            follower.hint(execution);
        }
    }

    /// Into the journal. It never waits.
    fn note(&self, event: &SenseEvent) {
        match (&self.chronicler, event) {
            (None, _) => {}
            (Some(chronicler), SenseEvent::Task(event)) => chronicler.task(event),
            (Some(chronicler), SenseEvent::Session(event)) => chronicler.session(event, || self.sessions.shown(event)),
        }
    }

    /// `mqttConfig.enable: false`: nothing goes out, but REST still answers who is active.
    fn keep_quiet(&mut self, event: &SenseEvent) {
        self.metrics.suppressed.inc();
        if let SenseEvent::Session(event) = event {
            self.sessions.count(event);
        }
    }

    async fn task(&mut self, event: TaskEvent) {
        let tally = Tally::default();
        let lane = self.lane(&event);
        let judged = self.settings.task_types.is_some() && lane.is_some();
        if !judged {
            self.basic(&event, &tally).await;
        }
        let held = Held { event, tally, basic_sent: !judged };
        match lane {
            None => self.release(held, None).await,
            Some(lane) => {
                let deadline = Instant::now() + self.settings.enrichment_wait;
                for held in self.waiting.hold(lane, held, deadline) {
                    self.release(held, None).await;
                }
            }
        }
    }

    /// Where an event waits for QRS; `None`: it does not.
    fn lane(&self, event: &TaskEvent) -> Option<Lane> {
        self.directory.as_ref()?;
        event.task_id()?;
        let lane = Waiting::lane(event.task_id.as_deref()?);
        let away = self.silences >= SILENCES && Instant::now() < self.ask_again;
        (!away || self.waiting.is_waiting(&lane)).then_some(lane)
    }

    fn begin_look_ups(&mut self) {
        let Some(directory) = &self.directory else { return };
        while let Some(LookUp { lane, task_id, app_id }) = self.waiting.next_look_up() {
            let (directory, wait) = (directory.clone(), self.settings.enrichment_wait);
            let task = self
                .look_ups
                .spawn(async move { timeout(wait, directory.enrich(&task_id, &app_id)).await.ok().flatten() });
            self.lanes.insert(task.id(), lane);
        }
    }

    async fn answered(&mut self, answer: Result<(Id, Option<Enrichment>), JoinError>) {
        let (id, enrichment) = match answer {
            Ok((id, enrichment)) => (id, enrichment),
            // A panic in the directory is its own affair; here it is no answer.
            Err(error) => (error.id(), None),
        };
        if enrichment.is_some() {
            self.silences = 0;
        } else {
            self.silences = self.silences.saturating_add(1);
            self.ask_again = Instant::now() + PAUSE;
        }
        let Some(lane) = self.lanes.remove(&id) else { return };
        for held in self.waiting.answered(&lane) {
            self.release(held, enrichment.as_ref()).await;
        }
    }

    /// Sends what is left of an event: its full message and its CloudEvent, and its basic message if that waited, too.
    async fn release(&mut self, held: Held, enrichment: Option<&Enrichment>) {
        let Held { mut event, tally, basic_sent } = held;
        self.count(enrichment);
        if let Some(known) = enrichment.filter(|_| event.ambiguous) {
            known_names(&mut event, known);
        }
        if enrichment.is_some_and(|known| self.is_unwanted(&event, known)) {
            self.metrics.suppressed.inc();
            return self.publisher.end(tally).await;
        }
        if !basic_sent {
            self.basic(&event, &tally).await;
        }
        let full = payload::full(&event, enrichment);
        let cloud_event = cloud_event::of_task(&event, &payload::with_more(&full, &event, enrichment));
        if let Some(topics) = topics(&self.settings, event.kind).filter(|topics| topics.send && topics.send_full) {
            let publication = Publication::new(topics.full.clone(), full);
            self.publisher.send(publication, &tally).await;
        }
        self.publisher.send(Publication::new(self.cloud_events.clone(), cloud_event), &tally).await;
        self.publisher.end(tally).await;
    }

    fn count(&self, enrichment: Option<&Enrichment>) {
        if self.directory.is_some() {
            let counter = if enrichment.is_some() { &self.metrics.enriched } else { &self.metrics.bare };
            counter.inc();
        }
    }

    async fn basic(&mut self, event: &TaskEvent, tally: &Tally) {
        let Some(topics) = topics(&self.settings, event.kind).filter(|topics| topics.send) else { return };
        let name = event.task_name.clone().unwrap_or_default();
        self.publisher.send(Publication::new(topics.basic.clone(), name), tally).await;
    }

    /// `taskTypes`: what QRS's answer says is not published, as Butler head kept silent about it: tasks of another type, tasks QRS does
    /// not know, and reloads without an app.
    fn is_unwanted(&self, event: &TaskEvent, known: &Enrichment) -> bool {
        let Some(wanted) = &self.settings.task_types else { return false };
        let kind = known.task.as_ref().and_then(|task| task.get("taskType")).and_then(Value::as_u64);
        let is_wanted = kind.is_some_and(|kind| wanted.iter().any(|wanted| u64::from(*wanted) == kind));
        let no_app = event.app_id.as_deref().is_none_or(|id| id.is_empty() || id == "(null)");
        !is_wanted || (kind == Some(0) && no_app)
    }
}

/// Where a `;` left open which part belongs to the task's name and which to the app's, QRS knows, if its names are those that were sent.
fn known_names(event: &mut TaskEvent, known: &Enrichment) {
    let name = |object: &Option<Value>| Some(object.as_ref()?.get("name")?.as_str()?.to_owned());
    let (Some(task), Some(app)) = (name(&known.task), name(&known.app)) else { return };
    if let (Some(sent_task), Some(sent_app)) = (&event.task_name, &event.app_name)
        && format!("{task};{app}") == format!("{sent_task};{sent_app}")
    {
        (event.task_name, event.app_name) = (Some(task), Some(app));
    }
}

/// The engine's own report has no topic of its own; it is published as CloudEvent only.
fn topics(settings: &MqttSettings, kind: TaskEventKind) -> Option<&EventTopics> {
    match kind {
        TaskEventKind::Failed => Some(&settings.failed),
        TaskEventKind::Aborted => Some(&settings.aborted),
        TaskEventKind::Succeeded => Some(&settings.succeeded),
        TaskEventKind::Distributed => Some(&settings.distributed),
        TaskEventKind::EngineReloadFailed => None,
    }
}
