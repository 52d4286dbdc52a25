//! rumqttc with its packets sorted: messages here, acknowledgements there, so that a test can wait for either.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use rumqttc::{AsyncClient, ConnectionError, Event, MqttOptions, Outgoing, Packet, Publish, QoS};
use tokio::{sync::mpsc, task::JoinHandle};

const PATIENCE: Duration = Duration::from_secs(60);

/// A connected MQTT 3.1.1 client.
pub struct Client {
    pub mqtt: AsyncClient,
    messages: mpsc::UnboundedReceiver<Publish>,
    answers: mpsc::UnboundedReceiver<Packet>,
    driver: JoinHandle<ConnectionError>,
    id: String,
}

impl Client {
    /// Connects with a clean session.
    pub async fn connect(port: u16, id: &str) -> Self {
        Self::with(options(port, id)).await
    }

    pub async fn with(options: MqttOptions) -> Self {
        let (client, _) = Self::open(options).await.unwrap_or_else(|error| panic!("{error}"));
        client
    }

    /// The client and whether its session was there, or why it was refused.
    pub async fn open(options: MqttOptions) -> Result<(Self, bool), ConnectionError> {
        let id = options.client_id();
        let (mqtt, mut events) = AsyncClient::new(options, 1_000);
        let present = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Event::Incoming(Packet::ConnAck(ack)) = events.poll().await? {
                    return Ok::<bool, ConnectionError>(ack.session_present);
                }
            }
        });
        let present = present.await.expect("a CONNACK in time")?;
        let (to_messages, messages) = mpsc::unbounded_channel();
        let (to_answers, answers) = mpsc::unbounded_channel();
        let driver = tokio::spawn(async move {
            // A test that has seen enough drops its ends.
            let sort = |packet| {
                let _ = match packet {
                    Packet::Publish(publish) => to_messages.send(publish).is_ok(),
                    packet => to_answers.send(packet).is_ok(),
                };
            };
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(packet)) => sort(packet),
                    Ok(Event::Outgoing(_)) => {}
                    Err(error) => {
                        // What came in one read with the end of the connection is kept behind the error.
                        for event in events.state.events.drain(..) {
                            if let Event::Incoming(packet) = event {
                                sort(packet);
                            }
                        }
                        return error;
                    }
                }
            }
        });
        Ok((Self { mqtt, messages, answers, driver, id }, present))
    }

    /// Subscribes and waits for the SUBACK.
    pub async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.mqtt.subscribe(filter, qos).await.unwrap();
        self.answer(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    /// Publishes; with QoS 1 and 2, waits for the last acknowledgement.
    pub async fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: impl Into<Vec<u8>>) {
        self.mqtt.publish(topic, qos, retain, payload).await.unwrap();
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.answer(|packet| matches!(packet, Packet::PubAck(_))).await,
            QoS::ExactlyOnce => self.answer(|packet| matches!(packet, Packet::PubComp(_))).await,
        }
    }

    async fn answer(&mut self, mut wanted: impl FnMut(&Packet) -> bool) {
        let search = async { while !wanted(&self.answers.recv().await.expect("still connected")) {} };
        tokio::time::timeout(PATIENCE, search).await.expect("an answer in time");
    }

    /// The next message.
    pub async fn next(&mut self) -> Publish {
        self.find(|_| true).await
    }

    /// The next message, or `None` when the connection has ended; waits without a limit.
    pub async fn next_or_end(&mut self) -> Option<Publish> {
        self.messages.recv().await
    }

    /// The next message that fits; others are passed over.
    pub async fn find(&mut self, mut wanted: impl FnMut(&Publish) -> bool) -> Publish {
        let search = async {
            while let Some(publish) = self.messages.recv().await {
                if wanted(&publish) {
                    return Ok(publish);
                }
            }
            Err((&mut self.driver).await)
        };
        let found = tokio::time::timeout(PATIENCE, search).await.expect("the message in time");
        found.unwrap_or_else(|error| panic!("{} was disconnected: {error:?}", self.id))
    }

    /// The next message on a topic as JSON.
    pub async fn json(&mut self, topic: &str) -> serde_json::Value {
        let publish = self.find(|publish| publish.topic == topic).await;
        serde_json::from_slice(&publish.payload).unwrap()
    }

    pub fn is_connected(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Says DISCONNECT and waits until the connection has ended.
    pub async fn leave(mut self) {
        self.mqtt.disconnect().await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, &mut self.driver).await;
        ended.expect("the end of the connection").unwrap();
    }

    /// Vanishes without a word.
    pub async fn vanish(mut self) {
        self.driver.abort();
        let _ = (&mut self.driver).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Publishes one message after the other, as fast as they are acknowledged, until all are or the connection ends. `acknowledged` hears of each whose
/// PUBACK or PUBREC came: the broker's word that it has it.
pub async fn feed<K, I>(
    options: MqttOptions,
    topic: &'static str,
    qos: QoS,
    messages: I,
    mut acknowledged: impl FnMut(K),
) where
    K: Send + 'static,
    I: Iterator<Item = (K, String)> + Send + 'static,
{
    let (client, mut events) = AsyncClient::new(options, 10);
    // In the order in which they go out; whether it is the last.
    let unsent: Arc<Mutex<VecDeque<(K, bool)>>> = Arc::default();
    let feeding = tokio::spawn({
        let (unsent, mut messages) = (Arc::clone(&unsent), messages.peekable());
        async move {
            while let Some((key, payload)) = messages.next() {
                unsent.lock().unwrap().push_back((key, messages.peek().is_none()));
                if client.publish(topic, qos, false, payload).await.is_err() {
                    break;
                }
            }
            // As long as somebody holds it, the connection is kept.
            client
        }
    });
    let (mut under_way, mut open, mut all_sent) = (HashMap::new(), 0, false);
    while !all_sent || open > 0 {
        match events.poll().await {
            Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                let (key, last) = unsent.lock().unwrap().pop_front().unwrap();
                under_way.insert(id, key);
                (open, all_sent) = (open + 1, last);
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                under_way.remove(&ack.pkid).into_iter().for_each(&mut acknowledged);
                open -= 1;
            }
            Ok(Event::Incoming(Packet::PubRec(ack))) => {
                under_way.remove(&ack.pkid).into_iter().for_each(&mut acknowledged);
            }
            Ok(Event::Incoming(Packet::PubComp(_))) => open -= 1,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    feeding.abort();
}

pub fn options(port: u16, id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(60));
    options
}
