//! Messages that ask for something: one table `topic filter -> handler`.
//!
//! Its first entry is the start topic, its second the self-test `<own topics>/ping`. A new handler is one file and one line in `table`.
//! The broker keeps each message until its handler has returned: one that was acknowledged to its publisher is handled at least once, also if
//! the program is killed in between. Invariants: the handlers under way are bounded, and while all are busy messages wait in the broker; the answers of one message leave in the
//! order its handler gives them; no answer goes to a topic of this table or to one of the program's own, wherever the asker wanted it
//! (see [`reply`]), so no message can make the program talk to itself.

pub mod metrics;
pub mod reply;

mod own_start;
mod ping;
mod start;

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    metrics::ActionMetrics,
    reply::{Doors, Reply},
};
use crate::{
    bus::{BoxFuture, Bus, Delivery, KeptDelivery, KeptSubscription},
    config::settings::StartTopic,
    names::{NameError, TopicFilter, TopicName},
    sense::tasks::{Starter, request::Redelivery},
};

/// Of its subscription, in every life of the program.
const NAME: &str = "actions";
/// Messages worked on at a time.
const AT_ONCE: usize = 1_024;
/// Shortest and longest pause before subscribing again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long answers may take that were said when the last start had ended.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long a stop waits for messages under way.
const DRAIN: Duration = Duration::from_millis(900);

/// What answers messages of a topic.
pub trait Handler: Send + Sync + 'static {
    /// Its name in logs and metrics.
    fn name(&self) -> &'static str;

    /// Does what the message asks for and tells how it went. The broker forgets the message when this returns. `kept`: how the message is known
    /// again if the broker hands it over once more.
    fn handle(&self, delivery: Delivery, kept: Option<Redelivery>, reply: Reply) -> BoxFuture<'_, ()>;
}

/// One line of the table.
struct Entry {
    filter: TopicFilter,
    /// Where answers go that are wanted nowhere else.
    answers: TopicName,
    handler: Arc<dyn Handler>,
}

/// What the table is made of.
#[derive(Debug, Clone)]
pub struct ActionSettings {
    /// `mqttConfig.taskStartTopic`
    pub start_topic: TopicName,
    /// `startTask.topics`
    pub start_topics: Vec<StartTopic>,
    /// Prefix of the program's own topics.
    pub own_topics: TopicName,
    /// Topics only the program itself publishes on: nobody gets an answer there.
    pub protected: Vec<TopicFilter>,
}

/// What the topics of `startTask.topics` start and allow, while the table runs. Cheap to clone.
#[derive(Clone)]
pub struct TopicRules(Arc<[Arc<own_start::OwnStart>]>);

impl TopicRules {
    /// From now on messages on these topics start what these say. Topics that are not in the table are passed over.
    pub fn obey(&self, topics: &[StartTopic]) {
        self.0.iter().for_each(|own| own.obey(topics));
    }
}

/// The component: subscribes, dispatches, answers.
pub struct Actions {
    bus: Bus,
    table: Arc<[Entry]>,
    topics: TopicRules,
    doors: Arc<Doors>,
    metrics: ActionMetrics,
    starter: Starter,
    start: Arc<start::StartTask>,
    /// Where answers to starts go that are wanted nowhere else.
    start_answers: TopicName,
    /// Answers that are still to come, and what ends the waiting for them.
    answers: (TaskTracker, CancellationToken),
}

fn table(
    settings: &ActionSettings,
    start: &Arc<start::StartTask>,
    own: &[Arc<own_start::OwnStart>],
) -> Result<Vec<Entry>, NameError> {
    let ping = settings.own_topics.join("ping")?;
    let mut table = vec![entry(settings.start_topic.clone(), start.clone())?, entry(ping, Arc::new(ping::Ping))?];
    for (topic, handler) in settings.start_topics.iter().zip(own) {
        table.push(entry(topic.topic.clone(), Arc::clone(handler) as Arc<dyn Handler>)?);
    }
    Ok(table)
}

fn entry(topic: TopicName, handler: Arc<dyn Handler>) -> Result<Entry, NameError> {
    Ok(Entry { answers: topic.join("response")?, filter: topic.into(), handler })
}

impl Actions {
    /// Builds the table. Nothing is subscribed yet.
    ///
    /// # Errors
    /// If a topic made of the configured ones is too long for MQTT.
    pub fn build(settings: &ActionSettings, bus: Bus, starter: Starter) -> Result<Self, NameError> {
        let answers = (TaskTracker::new(), CancellationToken::new());
        let (tracker, stop) = answers.clone();
        let start = Arc::new(start::StartTask::new(starter.clone(), tracker, stop));
        let own = |topic| Arc::new(own_start::OwnStart::new(Arc::clone(&start), topic));
        let own: Arc<[_]> = settings.start_topics.iter().map(own).collect();
        let table = table(settings, &start, &own)?;
        let doors = Doors {
            taken: table.iter().map(|entry| entry.filter.clone()).chain(settings.protected.iter().cloned()).collect(),
            own: settings.own_topics.clone(),
        };
        Ok(Self {
            bus,
            table: table.into(),
            topics: TopicRules(own),
            doors: Arc::new(doors),
            metrics: ActionMetrics::default(),
            starter,
            start,
            start_answers: settings.start_topic.join("response")?,
            answers,
        })
    }

    /// The counters, to be hung into the registry.
    pub fn metrics(&self) -> &ActionMetrics {
        &self.metrics
    }

    /// What can be changed of it while it runs.
    pub fn topics(&self) -> TopicRules {
        self.topics.clone()
    }

    /// Answers messages until told to stop, then lets those under way end.
    pub async fn run(self, stop: CancellationToken) {
        let (running, turns) = (TaskTracker::new(), Arc::new(Semaphore::new(AT_ONCE)));
        self.resume();
        let mut pause = BACK_OFF.0;
        while !stop.is_cancelled() {
            let filters = self.table.iter().map(|entry| entry.filter.clone()).collect();
            match self.bus.subscribe_kept(NAME, filters).await {
                Ok(subscription) => {
                    pause = BACK_OFF.0;
                    self.listen(subscription, &stop, &running, &turns).await;
                }
                Err(error) => tracing::debug!(%error, "the topics of the action table cannot be subscribed yet"),
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
        running.close();
        if tokio::time::timeout(DRAIN, running.wait()).await.is_err() {
            tracing::warn!(
                code = "messages_left_at_stop",
                left = running.len(),
                "stopped before every message was answered; what was asked of tasks is answered after the next start of the program"
            );
        }
        self.last_answers().await;
    }

    /// Answers what an earlier life of the program was asked and had not answered.
    fn resume(&self) {
        for resumed in self.starter.resume(|_| true) {
            let Some(address) = &resumed.request.return_address else { continue };
            let reply = Reply::back(&self.doors, address, &self.start_answers, &self.bus, &self.metrics);
            self.start.resume(resumed, reply);
        }
    }

    /// What was said before the stop is answered; who waits longer is answered when the program is up again.
    async fn last_answers(&self) {
        let (answers, stop) = &self.answers;
        answers.close();
        let _ = tokio::time::timeout(DRAIN, self.starter.stopped()).await;
        if tokio::time::timeout(LAST_WORDS, answers.wait()).await.is_err() {
            stop.cancel();
        }
    }

    /// Wants no messages, as long as the program runs: from now on nobody keeps any for the table; what is kept already waits until it runs.
    pub async fn rest(self, stop: CancellationToken) {
        // What was asked by REST goes on all the same; there its asker asks again.
        drop(self.starter.resume(|request| request.door == "rest"));
        if let Err(error) = self.bus.subscribe_kept(NAME, Vec::new()).await {
            tracing::debug!(%error, "the topics of the action table cannot be given up");
        }
        stop.cancelled().await;
    }

    /// Dispatches until the subscription ends or the program stops.
    async fn listen(
        &self,
        mut subscription: KeptSubscription,
        stop: &CancellationToken,
        running: &TaskTracker,
        turns: &Arc<Semaphore>,
    ) {
        while let Some(Some(kept)) = stop.run_until_cancelled(subscription.recv()).await {
            let topic = &kept.delivery.topic;
            let Some(entry) = self.table.iter().find(|entry| entry.filter.matches(topic.as_str())) else {
                tracing::warn!(
                    code = "kept_message_unhandled",
                    %topic,
                    "a message that was kept for a topic of an earlier configuration is not handled; send it again to a topic of today"
                );
                kept.settle();
                continue;
            };
            // The semaphore is never closed: an error cannot come.
            let Some(Ok(turn)) = stop.run_until_cancelled(turns.clone().acquire_owned()).await else { return };
            self.metrics.message(entry.handler.name());
            let reply = Reply::new(&self.doors, &kept.delivery, &entry.answers, &self.bus, &self.metrics);
            let (handler, again) = (entry.handler.clone(), known_again(&kept));
            running.spawn(async move {
                let (delivery, settlement) = kept.split();
                handler.handle(delivery, again, reply).await;
                settlement.settle();
                drop(turn);
            });
        }
    }
}

/// What a message that is handed over again after a restart has in common with itself.
fn known_again(kept: &KeptDelivery) -> Option<Redelivery> {
    Some(Redelivery { mark: kept.mark.clone()?, repeated: kept.again })
}
