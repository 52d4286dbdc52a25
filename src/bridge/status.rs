//! What the appliance says about itself on MQTT: Butler's status topics, and `state`, `info` and `health` under its own prefix.
//!
//! Invariants: `state` says `online` only after readiness was reached and `offline` before a clean stop (the will says it otherwise); at
//! every connection to an external broker everything is said (again); a broker that does not answer delays nothing but the next word.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    bus::{Bus, Publication},
    config::settings::MqttSettings,
    names::{NameError, QoS, TopicName},
};

/// Butler's fixed topic.
const MQTT_STATUS: &str = "qliksense/butler/mqtt/status";
/// Time between two `health` messages.
const HEALTH_PERIOD: Duration = Duration::from_secs(60);
/// Time for saying `offline` at a stop, of the five seconds a stop may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// A snapshot of the appliance's health: an object, made anew at each call, quickly and without waiting for anybody.
pub type HealthSnapshot = Arc<dyn Fn() -> Value + Send + Sync>;

/// What is said.
#[derive(Clone)]
pub struct StatusSettings {
    state: TopicName,
    info_topic: TopicName,
    health_topic: TopicName,
    mqtt_status: TopicName,
    server_status: Vec<TopicName>,
    /// Payload of `qliksense/butler/mqtt/status`.
    connected: String,
    info: Value,
    health: HealthSnapshot,
}

impl StatusSettings {
    /// `broker`: `host:port` of the broker. `client_id`: what the appliance is called there. `info`: the object for the `info` topic
    /// (version, start time, listeners, which parts are enabled).
    ///
    /// # Errors
    /// If a topic under `own_topics` would be none (longer than MQTT allows).
    pub fn new(
        mqtt: &MqttSettings,
        broker: &str,
        client_id: &str,
        info: Value,
        health: HealthSnapshot,
    ) -> Result<Self, NameError> {
        let session = mqtt.session.as_ref().map(|topics| topics.server_status.clone());
        Ok(Self {
            state: mqtt.own_topics.join("state")?,
            info_topic: mqtt.own_topics.join("info")?,
            health_topic: mqtt.own_topics.join("health")?,
            mqtt_status: TopicName::new(MQTT_STATUS)?,
            server_status: [Some(mqtt.failure_server_status.clone()), session].into_iter().flatten().collect(),
            connected: format!("Connected to MQTT broker {broker} with client ID {client_id}"),
            info,
            health,
        })
    }

    /// The last will for an external broker, and what is stored as `state` before the listeners of the built-in one accept.
    pub fn offline(&self) -> Publication {
        self.state_is("offline")
    }

    fn state_is(&self, word: &str) -> Publication {
        Publication::new(self.state.clone(), format!(r#"{{"state":"{word}"}}"#)).qos(QoS::AtLeastOnce).retained()
    }

    fn info(&self) -> Publication {
        Publication::new(self.info_topic.clone(), self.info.to_string()).retained()
    }

    fn health(&self) -> Publication {
        Publication::new(self.health_topic.clone(), (self.health)().to_string()).retained()
    }

    /// What Butler says when it is up: its servers first, then the connection, as 5.4 flushed them.
    fn start(&self) -> Vec<Publication> {
        self.server_status.iter().map(|topic| Publication::new(topic.clone(), "start")).collect()
    }

    fn connected(&self) -> Publication {
        Publication::new(self.mqtt_status.clone(), self.connected.clone())
    }
}

/// Tells the status part what happened. Cheap to clone; never waits; what happens twice before it is told is told once.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle(Arc<Signals>);

#[derive(Debug, Default)]
struct Signals {
    ready: Notify,
    reconnected: Notify,
    task_socket: Notify,
    session_socket: Notify,
}

impl Signals {
    fn forget_reconnected(&self) {
        // Enabling takes the permit, if there is one; else it only registers, until the drop.
        std::pin::pin!(self.reconnected.notified()).as_mut().enable();
    }
}

impl StatusHandle {
    /// Readiness was reached.
    pub fn ready(&self) {
        self.0.ready.notify_one();
    }

    /// A connection to an external broker was made, the first or a later one.
    pub fn reconnected(&self) {
        self.0.reconnected.notify_one();
    }

    /// The socket for task events failed.
    pub fn task_socket_failed(&self) {
        self.0.task_socket.notify_one();
    }

    /// The socket for session events failed.
    pub fn session_socket_failed(&self) {
        self.0.session_socket.notify_one();
    }
}

/// The status part.
pub struct Status {
    settings: StatusSettings,
    bus: Bus,
    handle: StatusHandle,
}

impl Status {
    /// Builds it.
    pub fn new(settings: StatusSettings, bus: Bus) -> Self {
        Self { settings, bus, handle: StatusHandle::default() }
    }

    /// The handle to tell it things.
    pub fn handle(&self) -> StatusHandle {
        self.handle.clone()
    }

    /// Rewrites a stored `state` of an earlier run. Called before listeners accept.
    pub async fn prepare(&self) {
        self.say(self.settings.offline()).await;
    }

    /// Waits for readiness, says so, keeps `health` fresh, and says goodbye at `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let signals = self.handle.0.clone();
        tokio::select! {
            () = stop.cancelled() => return self.goodbye().await,
            () = signals.ready.notified() => {}
        }
        let mut begun = self.begin().await;
        let mut health = interval_at(Instant::now() + HEALTH_PERIOD, HEALTH_PERIOD);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.goodbye().await,
                () = signals.reconnected.notified() => match begun {
                    true => self.greet().await,
                    false => begun = self.begin().await,
                },
                () = signals.task_socket.notified() => self.error(0).await,
                () = signals.session_socket.notified() => self.error(1).await,
                _ = health.tick() => match begun {
                    true => self.say(self.settings.health()).await,
                    false => begun = self.begin().await,
                },
            }
        }
    }

    /// The first word. False where nobody can hear it: an external broker that is not connected yet.
    async fn begin(&self) -> bool {
        if !self.bus.is_up() {
            return false;
        }
        // The connection this is said on is no reason to say it again.
        self.handle.0.forget_reconnected();
        for publication in self.settings.start() {
            self.say(publication).await;
        }
        self.greet().await;
        true
    }

    async fn greet(&self) {
        let settings = &self.settings;
        for publication in [settings.connected(), settings.state_is("online"), settings.info(), settings.health()] {
            self.say(publication).await;
        }
    }

    /// Butler's word on a server status topic when a socket fails.
    async fn error(&self, server: usize) {
        if let Some(topic) = self.settings.server_status.get(server) {
            self.say(Publication::new(topic.clone(), "error")).await;
        }
    }

    async fn goodbye(&self) {
        if timeout(GOODBYE, self.say(self.settings.offline())).await.is_err() {
            warn!(
                code = "offline_not_said",
                "the broker did not take the message that this program stops; its will says so instead, nothing needs to be done"
            );
        }
    }

    async fn say(&self, publication: Publication) {
        let topic = publication.topic.clone();
        if let Err(error) = self.bus.publish(publication).await {
            warn!(
                code = "status_not_published",
                %topic,
                %error,
                "the program's own status could not be published; it is tried again with the next, and the lines before say what is wrong with the broker"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    };

    use serde_json::json;

    use super::*;
    use crate::{
        bridge::forward::test_settings,
        bus::{BoxFuture, PublishError, Receipt, Routed, Subscription, Transport},
        names::TopicFilter,
    };

    #[derive(Clone, Default)]
    struct Recorder(Arc<(Mutex<Vec<Publication>>, Notify, AtomicBool)>);

    impl Recorder {
        async fn wait_for(&self, count: usize) -> Vec<(String, String, bool, QoS)> {
            loop {
                let said = self.0.1.notified();
                let sent = self.0.0.lock().unwrap().clone();
                if sent.len() >= count {
                    let text = |p: &Publication| String::from_utf8(p.payload.to_vec()).unwrap();
                    return sent.iter().map(|p| (p.topic.to_string(), text(p), p.retain, p.qos)).collect();
                }
                said.await;
            }
        }
    }

    impl Transport for Recorder {
        fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
            self.0.0.lock().unwrap().push(publication);
            self.0.1.notify_waiters();
            let (sender, receipt) = Receipt::channel();
            sender.send(Ok(Routed::UNTOLD)).unwrap();
            Box::pin(async { Ok(receipt) })
        }

        fn subscribe(&self, _: &str, _: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
            Box::pin(async { Err(PublishError::Refused("not in this test".into())) })
        }

        fn is_up(&self) -> bool {
            !self.0.2.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn nothing_is_said_into_the_void_and_everything_at_the_first_connection() {
        for connected_before_ready in [false, true] {
            let recorder = Recorder::default();
            let health: HealthSnapshot = Arc::new(|| json!({}));
            let settings = StatusSettings::new(&test_settings(), "h:1883", "sb", json!({}), health).unwrap();
            let status = Status::new(settings, Bus::new(recorder.clone()));
            let (handle, stop) = (status.handle(), CancellationToken::new());
            recorder.0.2.store(!connected_before_ready, Ordering::Relaxed);
            let running = tokio::spawn(status.run(stop.clone()));
            if connected_before_ready {
                handle.reconnected();
                handle.ready();
            } else {
                handle.ready();
                tokio::task::yield_now().await;
                assert!(recorder.0.0.lock().unwrap().is_empty());
                recorder.0.2.store(false, Ordering::Relaxed);
                handle.reconnected();
            }
            let sent = recorder.wait_for(6).await;
            assert_eq!(sent[3].1, r#"{"state":"online"}"#, "{connected_before_ready}");
            stop.cancel();
            running.await.unwrap();
            let sent = recorder.wait_for(7).await;
            assert_eq!((sent.len(), sent[6].1.as_str()), (7, r#"{"state":"offline"}"#), "{connected_before_ready}");
        }
    }

    #[tokio::test]
    async fn everything_is_said_in_butlers_order_and_again_after_a_reconnect() {
        let (recorder, calls) = (Recorder::default(), Arc::new(AtomicU32::new(0)));
        let health: HealthSnapshot = Arc::new(move || json!({"call": calls.fetch_add(1, Ordering::Relaxed)}));
        let settings = StatusSettings::new(&test_settings(), "h:1883", "sb", json!({"version": "1"}), health).unwrap();
        let status = Status::new(settings, Bus::new(recorder.clone()));
        let (handle, stop) = (status.handle(), CancellationToken::new());
        status.prepare().await;
        let running = tokio::spawn(status.run(stop.clone()));
        assert_eq!(recorder.wait_for(1).await.len(), 1, "nothing but `offline` before readiness");
        handle.ready();
        let sent = recorder.wait_for(7).await;
        let line = |at: usize| (sent[at].0.as_str(), sent[at].1.as_str(), sent[at].2);
        assert_eq!(line(0), ("q/butler/state", r#"{"state":"offline"}"#, true));
        assert_eq!(line(1), ("q/server", "start", false));
        assert_eq!(line(2), ("q/session_server", "start", false));
        assert_eq!(line(3), (MQTT_STATUS, "Connected to MQTT broker h:1883 with client ID sb", false));
        assert_eq!(line(4), ("q/butler/state", r#"{"state":"online"}"#, true));
        assert_eq!(sent[4].3, QoS::AtLeastOnce);
        assert_eq!(line(5), ("q/butler/info", r#"{"version":"1"}"#, true));
        assert_eq!(line(6), ("q/butler/health", r#"{"call":0}"#, true));
        handle.reconnected();
        let sent = recorder.wait_for(11).await;
        assert_eq!((sent[7].0.as_str(), sent[8].0.as_str()), (MQTT_STATUS, "q/butler/state"));
        handle.task_socket_failed();
        assert_eq!(recorder.wait_for(12).await[11].1, "error");
        stop.cancel();
        running.await.unwrap();
        let sent = recorder.wait_for(13).await;
        assert_eq!((sent[12].0.as_str(), sent[12].1.as_str()), ("q/butler/state", r#"{"state":"offline"}"#));
    }
}
