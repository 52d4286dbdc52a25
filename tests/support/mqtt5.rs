//! rumqttc's MQTT 5 client, driven by hand: it moves only while a test waits for something. Messages that come meanwhile are kept.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{collections::VecDeque, time::Duration};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, mqttbytes,
        mqttbytes::v5::{Packet, Publish, PublishProperties},
    },
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A connected MQTT 5 client.
pub struct Client5 {
    mqtt: AsyncClient,
    events: EventLoop,
    messages: VecDeque<Publish>,
}

impl Client5 {
    /// The client and whether its session was there, or why it was refused.
    pub async fn connect(options: MqttOptions) -> Result<(Self, bool), ConnectionError> {
        let (mqtt, events) = AsyncClient::new(options, 100);
        let mut client = Self { mqtt, events, messages: VecDeque::new() };
        let found = client.until(|packet| match packet {
            Packet::ConnAck(ack) => Some(ack.session_present),
            _ => None,
        });
        let present = found.await?;
        Ok((client, present))
    }

    /// Connects with a clean start.
    pub async fn open(port: u16, id: &str) -> Self {
        Self::connect(options_5(port, id)).await.unwrap().0
    }

    async fn until<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> Result<T, ConnectionError> {
        let search = async {
            loop {
                let Event::Incoming(packet) = self.events.poll().await? else { continue };
                let found = wanted(&packet);
                if let Packet::Publish(publish) = packet {
                    self.messages.push_back(publish);
                }
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("a packet in time")
    }

    /// Subscribes with QoS 2 and waits for the SUBACK.
    pub async fn subscribe(&mut self, filter: &str) {
        self.mqtt.subscribe(filter, mqttbytes::QoS::ExactlyOnce).await.unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await.unwrap();
    }

    /// Publishes; with QoS 1 and 2, waits for the last acknowledgement.
    pub async fn publish(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: impl Into<Vec<u8>>,
        properties: PublishProperties,
    ) {
        let quality = mqttbytes::qos(qos).unwrap();
        let payload: Vec<u8> = payload.into();
        self.mqtt.publish_with_properties(topic, quality, retain, payload, properties).await.unwrap();
        if qos == 0 {
            let out =
                async { while !matches!(self.events.poll().await.unwrap(), Event::Outgoing(Outgoing::Publish(_))) {} };
            return tokio::time::timeout(PATIENCE, out).await.expect("sent in time");
        }
        let last = |packet: &Packet| match packet {
            Packet::PubAck(_) if qos == 1 => Some(()),
            Packet::PubComp(_) if qos == 2 => Some(()),
            _ => None,
        };
        self.until(last).await.unwrap();
    }

    /// The next message.
    pub async fn next(&mut self) -> Publish {
        while self.messages.is_empty() {
            self.until(|packet| matches!(packet, Packet::Publish(_)).then_some(())).await.unwrap();
        }
        self.messages.pop_front().unwrap()
    }
}

pub fn options_5(port: u16, id: &str) -> MqttOptions {
    MqttOptions::new(id, "127.0.0.1", port)
}
