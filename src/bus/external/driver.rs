//! Keeps the connection: makes it, feeds it from the outbox, takes what comes, and makes it again, for ever.
//!
//! Each connection is a rumqttc client of its own; what was not acknowledged on one goes out again on the next, from our outbox.
//!
//! A message on which the broker ends the connection (too large for it, or forbidden by a broker that answers so) would come back as the
//! oldest one for ever and block everything behind it. So after connections that were lost without a single acknowledgement the oldest
//! message is sent alone, on a connection that has proved quiet; if that one is lost three times too, the message is given up, counted, and
//! named in the log. A broker that is merely restarted never gets a message there: it must die three times right after that one message.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Shared,
    outbox::{Drop, Terms},
};
use crate::{
    bus::{
        PublishError,
        wire::{self, Client, Event, Events, LinkError},
    },
    config::settings::ExternalBroker,
    names::{QoS, TopicFilter},
    telemetry::throttle::Throttle,
};

/// Messages under way at most. Enough to keep a broker busy over a network with milliseconds of delay.
const WINDOW: u16 = 128;
/// Connections lost without an acknowledgement before the oldest message is suspected.
const SUSPICIOUS: u32 = 3;
/// How often a message may end a quiet connection.
const STRIKES: u32 = 3;

/// The times that rule reconnecting and stopping; tests use shorter ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// First pause between attempts; doubled each time.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// A connection that says nothing for so long is quiet: it does not end by itself.
    pub quiet: Duration,
    /// A connection lost within this time may have been ended because of what was sent.
    pub at_once: Duration,
    /// Time for what is under way when the program stops.
    pub drain: Duration,
}

const PACE: Pace = Pace {
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(30),
    quiet: Duration::from_secs(2),
    at_once: Duration::from_secs(10),
    drain: Duration::from_millis(1_200),
};

/// Runs the connection of one [`super::External`].
#[derive(Debug, Clone)]
pub struct Driver {
    config: Config,
    client_id: String,
    shared: Arc<Shared>,
    pub(super) pace: Pace,
    suspicion: Suspicion,
}

/// What is known about the oldest message being at fault.
#[derive(Debug, Clone, Default)]
struct Suspicion {
    /// Connections in a row that were lost with messages under way and none acknowledged.
    losses: u32,
    /// The message on trial and how often it ended a quiet connection.
    trial: Option<(u64, u32)>,
}

/// How a connection ended.
enum End {
    /// Lost or never made.
    Lost(LinkError),
    /// The program stops.
    Stopped,
}

impl Driver {
    pub(super) fn new(config: Config, shared: Arc<Shared>) -> Self {
        let client_id = config.broker.client_id.clone().unwrap_or_else(default_client_id);
        Self { config, client_id, shared, pace: PACE, suspicion: Suspicion::default() }
    }

    /// Keeps the connection until told to stop; then gives what is under way a moment, says DISCONNECT and answers whoever still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pause = self.pace.first_pause;
        loop {
            let (began, answers) = (Instant::now(), self.shared.answers());
            match self.contained(&stop).await {
                End::Stopped => break,
                End::Lost(error) => self.note(&error),
            }
            if self.shared.answers() > answers || began.elapsed() > self.pace.longest_pause {
                pause = self.pace.first_pause;
            }
            if stop.run_until_cancelled(sleep(self.pace.jittered(pause))).await.is_none() {
                break;
            }
            pause = self.pace.longest_pause.min(pause * 2);
        }
        self.close().await;
    }

    /// One connection in a task of its own: a panic in there (rumqttc unwraps here and there) is a lost connection and no more.
    async fn contained(&mut self, stop: &CancellationToken) -> End {
        let (mut attempt, stop) = (self.clone(), stop.clone());
        let mut alone = JoinSet::new();
        alone.spawn(async move {
            let end = attempt.connection(&stop).await;
            (attempt, end)
        });
        match alone.join_next().await {
            Some(Ok((attempt, end))) => {
                self.suspicion = attempt.suspicion;
                end
            }
            _ => {
                self.shared.outbox().lost();
                End::Lost(LinkError::Lost("a defect in this program; see the log line before".to_owned()))
            }
        }
    }

    /// One connection, from the first packet to the last.
    async fn connection(&mut self, stop: &CancellationToken) -> End {
        let mut events;
        let client;
        match options(&self.config, &self.client_id).await {
            Ok(options) => (client, events) = wire::open(options),
            Err(error) => return End::Lost(error),
        }
        let terms = match stop.run_until_cancelled(events.connect()).await {
            None => return End::Stopped,
            Some(Err(error)) => return End::Lost(error),
            Some(Ok(terms)) => terms,
        };
        self.shared.claims.connected(terms.session_present);
        let on_trial = self.suspicion.losses >= SUSPICIOUS;
        let mut asked = HashSet::new();
        if on_trial {
            match stop.run_until_cancelled(self.quiet(&client, &mut events, &mut asked)).await {
                None => return End::Stopped,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    // It ends by itself: no message is at fault.
                    self.suspicion = Suspicion::default();
                    return End::Lost(error);
                }
            }
        }
        self.connected(terms, on_trial);
        let (began, answers) = (Instant::now(), self.shared.answers());
        let end = self.converse(&client, &mut events, asked, stop).await;
        let ended_at_once = matches!(end, End::Lost(_)) && began.elapsed() < self.pace.at_once;
        self.disconnected(ended_at_once && self.shared.answers() == answers);
        end
    }

    /// Sees that the connection stands while nothing is published on it.
    async fn quiet(
        &self,
        client: &Client,
        events: &mut Events,
        asked: &mut HashSet<TopicFilter>,
    ) -> Result<(), LinkError> {
        self.subscribe(client, asked).await?;
        let watch = async {
            loop {
                let event = events.next().await?;
                self.shared.take(event);
            }
        };
        timeout(self.pace.quiet, watch).await.unwrap_or(Ok(()))
    }

    fn connected(&mut self, terms: wire::Terms, on_trial: bool) {
        let widened = u64::from(WINDOW.min(terms.receive_maximum / 4 * 3).max(1));
        let abandoned = {
            let mut outbox = self.shared.outbox();
            if on_trial {
                let strikes =
                    self.suspicion.trial.filter(|trial| Some(trial.0) == outbox.oldest()).map_or(0, |trial| trial.1);
                self.suspicion.trial = outbox.oldest().map(|number| (number, strikes));
            }
            let window = if on_trial { 1 } else { widened };
            outbox.connected(Terms { window, widened, max_packet: terms.max_packet })
        };
        self.shared.metrics.dropped(Drop::Abandoned.as_str(), abandoned);
        self.shared.metrics.connects.inc();
        *self.shared.error.lock() = None;
        self.shared.connections.send_modify(|count| *count += 1);
        tracing::info!("connected to the MQTT broker at {} as {}", self.shared.broker, self.client_id);
    }

    /// `suspicious`: it was lost soon, and the broker had not answered a single message.
    fn disconnected(&mut self, suspicious: bool) {
        let (answered, under_way) = {
            let mut outbox = self.shared.outbox();
            let under_way = outbox.has_handed();
            (outbox.lost(), under_way)
        };
        self.shared.metrics.dropped(Drop::Abandoned.as_str(), answered);
        if !suspicious {
            self.suspicion = Suspicion::default();
        } else if under_way {
            self.suspicion.losses += 1;
            self.strike();
        }
    }

    /// The message on trial ended a connection once more.
    fn strike(&mut self) {
        let Some((number, strikes)) = &mut self.suspicion.trial else { return };
        *strikes += 1;
        if *strikes < STRIKES {
            return;
        }
        let why = PublishError::Refused("the broker ends the connection whenever it gets this message".into());
        let given_up = self.shared.outbox().take(*number, Err(why));
        self.suspicion = Suspicion::default();
        if let Some(message) = given_up {
            self.shared.metrics.dropped(Drop::Poison.as_str(), 1);
            tracing::error!(code = "external_message_given_up", topic = %message.topic, bytes = message.payload.len(),
                "message given up: the MQTT broker at {} ends the connection whenever it gets it; look whether it is too large or forbidden there (its log says)",
                self.shared.broker);
        }
    }

    /// Sends and receives until the connection is lost or the program stops.
    async fn converse(
        &self,
        client: &Client,
        events: &mut Events,
        asked: HashSet<TopicFilter>,
        stop: &CancellationToken,
    ) -> End {
        let mut pump = pin!(self.pump(events));
        let mut feed = pin!(self.feed(client, asked));
        tokio::select! {
            end = &mut pump => return end,
            error = &mut feed => return End::Lost(error),
            () = stop.cancelled() => {}
        }
        let empty = async {
            while self.shared.outbox().fill().messages > 0 {
                self.shared.emptied.notified().await;
            }
        };
        // Whatever ends it, DISCONNECT is next: so that the will is not published.
        tokio::select! {
            end = &mut pump => return end,
            _ = &mut feed => {}
            _ = timeout(self.pace.drain, empty) => {}
        }
        let goodbye = async {
            // A connection that is gone shows in the pump.
            let _ = self.acknowledge(client).await;
            client.disconnect().await;
            pump.await
        };
        drop(timeout(Duration::from_millis(300), goodbye).await);
        End::Stopped
    }

    async fn pump(&self, events: &mut Events) -> End {
        loop {
            match events.next().await {
                Ok(Event::Disconnected) => return End::Stopped,
                Ok(event) => self.shared.take(event),
                Err(error) => return End::Lost(error),
            }
        }
    }

    /// Hands over subscriptions and messages as there is room; ends only with the connection.
    async fn feed(&self, client: &Client, mut asked: HashSet<TopicFilter>) -> LinkError {
        loop {
            if let Err(error) = self.hand_over(client, &mut asked).await {
                return error;
            }
            tokio::select! {
                () = self.shared.work.notified() => {}
                () = self.shared.resubscribe.notified() => {}
                () = self.shared.claims.ready.notified() => {}
            }
        }
    }

    async fn hand_over(&self, client: &Client, asked: &mut HashSet<TopicFilter>) -> Result<(), LinkError> {
        self.subscribe(client, asked).await?;
        loop {
            self.acknowledge(client).await?;
            self.shared.drop_oversized();
            // The guard must not live across the wait.
            let next = self.shared.outbox().next();
            let Some((_, message)) = next else { return Ok(()) };
            client.publish(&message, QoS::AtLeastOnce).await?;
        }
    }

    /// Tells the broker what is dealt with.
    async fn acknowledge(&self, client: &Client) -> Result<(), LinkError> {
        for packet_id in self.shared.claims.take_ready() {
            client.acknowledge(packet_id).await?;
        }
        Ok(())
    }

    /// Asks for the filters that were not asked for on this connection.
    async fn subscribe(&self, client: &Client, asked: &mut HashSet<TopicFilter>) -> Result<(), LinkError> {
        let missing: Vec<_> = self.shared.inbox.wanted().into_iter().filter(|filter| !asked.contains(filter)).collect();
        if !missing.is_empty() {
            client.subscribe(&missing, QoS::AtLeastOnce).await?;
            asked.extend(missing);
        }
        Ok(())
    }

    fn note(&self, error: &LinkError) {
        static FAILED: Throttle = Throttle::every(Duration::from_secs(60));
        *self.shared.error.lock() = Some(error.to_string());
        let waiting = self.shared.outbox().fill().messages;
        let broker = &self.shared.broker;
        match error {
            LinkError::Lost(_) => tracing::warn!(
                code = "external_broker_lost",
                waiting,
                "MQTT broker at {broker}: {error}; connecting again; if this goes on, look into its log"
            ),
            _ => {
                if let Some(suppressed) = FAILED.pass() {
                    tracing::warn!(
                        code = "external_broker_away",
                        waiting,
                        suppressed,
                        "MQTT broker at {broker}: {error}; it is tried again and again; look whether it runs and what mqttConfig says of it"
                    );
                }
            }
        }
    }

    async fn close(&self) {
        let left = self.shared.outbox().close();
        self.shared.metrics.dropped(Drop::Stopped.as_str(), left);
        if left > 0 {
            tracing::warn!(
                code = "external_stop_lost",
                "{left} messages for the MQTT broker at {} were not taken before the stop and are lost; if it was away, start it first next time",
                self.shared.broker
            );
        }
        self.shared.stop.cancel();
        self.shared.forwarders.close();
        self.shared.forwarders.wait().await;
    }
}

async fn options(config: &Config, client_id: &str) -> Result<wire::Options, LinkError> {
    let broker = &config.broker;
    let tls = match broker.tls.clone() {
        None => None,
        Some(tls) => {
            let read = tokio::task::spawn_blocking(move || wire::client_config(&tls)).await;
            let read = read.map_err(|error| LinkError::Tls(error.to_string()))?;
            Some(Arc::new(read.map_err(|error| LinkError::Tls(error.to_string()))?))
        }
    };
    Ok(wire::Options {
        host: broker.host.clone(),
        port: broker.port,
        protocol: broker.protocol,
        client_id: client_id.to_owned(),
        kept: true,
        login: login(broker),
        tls,
        will: config.will.clone(),
    })
}

fn login(broker: &ExternalBroker) -> Option<(String, crate::names::Secret)> {
    if broker.user.is_none() && broker.password.is_none() {
        return None;
    }
    Some((broker.user.clone().unwrap_or_default(), broker.password.clone().unwrap_or_default()))
}

/// `sense-butler-<host>`: the same after every restart, another one on every machine.
fn default_client_id() -> String {
    let host = std::env::var("COMPUTERNAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "host".to_owned());
    let host: String = host.trim().chars().take(64).collect();
    format!("sense-butler-{}", host.to_lowercase())
}

impl Pace {
    /// Between 75 % and 125 % of a pause, within the limits: many appliances shall not come back to a restarted broker at the same moment.
    fn jittered(&self, pause: Duration) -> Duration {
        // A hasher of the standard library is keyed at random: enough for this purpose.
        let share = u32::try_from(RandomState::new().build_hasher().finish() % 51).unwrap_or(25);
        (pause * (75 + share) / 100).clamp(self.first_pause, self.longest_pause)
    }
}
