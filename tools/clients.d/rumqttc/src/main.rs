//! One row of the table of clients: rumqttc. Each check asserts; the number of checks is printed.
//!
//! Usage: clients-rumqttc VERSION(3|5) TRANSPORT(tcp|tls|ws|wss) PORT CA

use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, LastWill, MqttOptions, Packet, QoS, TlsConfiguration, Transport,
    v5::{
        self,
        mqttbytes::v5::{LastWill as LastWill5, Packet as Packet5, PublishProperties},
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a message looks like in either version.
struct Message {
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    properties: Option<PublishProperties>,
}

enum Heard {
    Connected(bool),
    Message(Message),
    Granted(u8),
    /// PUBACK, PUBCOMP, or a QoS 0 message that went out.
    Sent,
}

enum Speaker {
    V3(AsyncClient),
    V5(v5::AsyncClient),
}

struct Run {
    five: bool,
    transport: String,
    port: u16,
    ca: Vec<u8>,
    checks: u32,
}

struct Client {
    speaker: Speaker,
    heard: mpsc::UnboundedReceiver<Heard>,
    waiting: std::collections::VecDeque<Message>,
    driver: JoinHandle<()>,
}

fn from_3(packet: Packet) -> Option<Heard> {
    Some(match packet {
        Packet::ConnAck(ack) => Heard::Connected(ack.session_present),
        Packet::SubAck(ack) => match ack.return_codes[0] {
            rumqttc::SubscribeReasonCode::Success(qos) => Heard::Granted(qos as u8),
            rumqttc::SubscribeReasonCode::Failure => Heard::Granted(0x80),
        },
        Packet::Publish(publish) => Heard::Message(Message {
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: None,
        }),
        Packet::PubAck(_) | Packet::PubComp(_) => Heard::Sent,
        _ => return None,
    })
}

fn from_5(packet: Packet5) -> Option<Heard> {
    Some(match packet {
        Packet5::ConnAck(ack) => Heard::Connected(ack.session_present),
        Packet5::SubAck(ack) => match ack.return_codes[0] {
            v5::mqttbytes::v5::SubscribeReasonCode::Success(qos) => Heard::Granted(qos as u8),
            _ => Heard::Granted(0x80),
        },
        Packet5::Publish(publish) => Heard::Message(Message {
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: publish.properties,
        }),
        Packet5::PubAck(_) | Packet5::PubComp(_) => Heard::Sent,
        _ => return None,
    })
}

impl Client {
    async fn hear(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("something in time").expect("the connection stays")
    }

    async fn until<T>(&mut self, wanted: impl Fn(&Heard) -> Option<T>) -> T {
        loop {
            let heard = self.hear().await;
            if let Some(found) = wanted(&heard) {
                return found;
            }
            if let Heard::Message(message) = heard {
                self.waiting.push_back(message);
            }
        }
    }

    async fn next(&mut self) -> Message {
        if let Some(message) = self.waiting.pop_front() {
            return message;
        }
        loop {
            if let Heard::Message(message) = self.hear().await {
                return message;
            }
        }
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool, properties: PublishProperties) {
        let payload = payload.to_vec();
        match &self.speaker {
            Speaker::V3(client) => client.publish(topic, rumqttc::qos(qos).unwrap(), retain, payload).await.unwrap(),
            Speaker::V5(client) => {
                let qos = v5::mqttbytes::qos(qos).unwrap();
                client.publish_with_properties(topic, qos, retain, payload, properties).await.unwrap();
            }
        }
        self.until(|heard| matches!(heard, Heard::Sent).then_some(())).await;
    }

    async fn say(&mut self, topic: &str, payload: &str) {
        self.publish(topic, payload.as_bytes(), 1, false, PublishProperties::default()).await;
    }

    async fn leave(mut self) {
        match &self.speaker {
            Speaker::V3(client) => client.disconnect().await.unwrap(),
            Speaker::V5(client) => client.disconnect().await.unwrap(),
        }
        // The driver ends with the connection, and with it what is heard.
        let ended = async { while self.heard.recv().await.is_some() {} };
        timeout(PATIENCE, ended).await.expect("a goodbye is heard");
    }

    /// Without a DISCONNECT: the driver and with it the socket is dropped.
    async fn vanish(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }
}

impl Run {
    fn check(&mut self, right: bool, what: &str) {
        assert!(right, "{what}");
        self.checks += 1;
    }

    fn root(&self) -> String {
        format!("rumqttc/{}/{}", if self.five { 5 } else { 3 }, self.transport)
    }

    fn transport(&self) -> Transport {
        let tls = || TlsConfiguration::Simple { ca: self.ca.clone(), alpn: None, client_auth: None };
        match self.transport.as_str() {
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls(tls()),
            "ws" => Transport::Ws,
            "wss" => Transport::Wss(tls()),
            other => panic!("no transport `{other}`"),
        }
    }

    fn host(&self) -> String {
        match self.transport.as_str() {
            // rumqttc wants the whole address here.
            "ws" => format!("ws://localhost:{}/mqtt", self.port),
            "wss" => format!("wss://localhost:{}/mqtt", self.port),
            _ => "localhost".to_owned(),
        }
    }

    async fn open(&mut self, name: &str, clean: bool, will: Option<&str>) -> (Client, bool) {
        let (id, topic) = (format!("{}/{name}", self.root()), format!("{}/will", self.root()));
        let (to, heard) = mpsc::unbounded_channel();
        let (speaker, driver) = if self.five {
            let mut options = v5::MqttOptions::new(id, self.host(), self.port);
            options.set_transport(self.transport()).set_clean_start(clean);
            options.set_max_packet_size(Some(1 << 20));
            if !clean {
                options.set_session_expiry_interval(Some(3_600));
            }
            if let Some(will) = will {
                options.set_last_will(LastWill5::new(
                    topic,
                    will.to_owned(),
                    v5::mqttbytes::QoS::AtLeastOnce,
                    false,
                    None,
                ));
            }
            let (client, mut events) = v5::AsyncClient::new(options, 100);
            let driver = tokio::spawn(async move {
                loop {
                    let heard = match events.poll().await {
                        Ok(v5::Event::Incoming(packet)) => from_5(packet),
                        Ok(v5::Event::Outgoing(rumqttc::Outgoing::Publish(0))) => Some(Heard::Sent),
                        Ok(v5::Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return drop(events.poll().await),
                        Ok(v5::Event::Outgoing(_)) => None,
                        Err(error) => return eprintln!("the connection ended: {error}"),
                    };
                    if heard.is_some_and(|heard| to.send(heard).is_err()) {
                        return;
                    }
                }
            });
            (Speaker::V5(client), driver)
        } else {
            let mut options = MqttOptions::new(id, self.host(), self.port);
            options.set_transport(self.transport()).set_clean_session(clean).set_max_packet_size(1 << 20, 1 << 20);
            if let Some(will) = will {
                options.set_last_will(LastWill::new(topic, will, QoS::AtLeastOnce, false));
            }
            let (client, mut events) = AsyncClient::new(options, 100);
            let driver = tokio::spawn(async move {
                loop {
                    let heard = match events.poll().await {
                        Ok(Event::Incoming(packet)) => from_3(packet),
                        Ok(Event::Outgoing(rumqttc::Outgoing::Publish(0))) => Some(Heard::Sent),
                        Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return drop(events.poll().await),
                        Ok(Event::Outgoing(_)) => None,
                        Err(error) => return eprintln!("the connection ended: {error}"),
                    };
                    if heard.is_some_and(|heard| to.send(heard).is_err()) {
                        return;
                    }
                }
            });
            (Speaker::V3(client), driver)
        };
        let mut client = Client { speaker, heard, waiting: Default::default(), driver };
        let found = |heard: &Heard| if let Heard::Connected(present) = heard { Some(*present) } else { None };
        let present = client.until(found).await;
        self.check(true, "let in");
        (client, present)
    }

    async fn subscribe(&mut self, client: &mut Client, topic: &str, qos: u8) {
        match &client.speaker {
            Speaker::V3(client) => client.subscribe(topic, rumqttc::qos(qos).unwrap()).await.unwrap(),
            Speaker::V5(client) => client.subscribe(topic, v5::mqttbytes::qos(qos).unwrap()).await.unwrap(),
        }
        let granted = client.until(|heard| if let Heard::Granted(code) = heard { Some(*code) } else { None }).await;
        self.check(granted == qos, &format!("{topic} at QoS {qos}: {granted}"));
    }

    async fn qualities(&mut self) {
        let (mut subscriber, _) = self.open("sub", true, None).await;
        let (mut publisher, _) = self.open("pub", true, None).await;
        for qos in 0..3 {
            let topic = format!("{}/qos/{qos}/å", self.root());
            self.subscribe(&mut subscriber, &topic, qos).await;
            for number in 0..10 {
                let text = number.to_string();
                publisher.publish(&topic, text.as_bytes(), qos, false, PublishProperties::default()).await;
                let got = subscriber.next().await;
                self.check(got.payload == text.as_bytes() && got.qos == qos, &format!("QoS {qos}: {number}"));
            }
        }
        let (big, topic) = ("x".repeat(100_000), format!("{}/qos/1/å", self.root()));
        publisher.say(&topic, &big).await;
        let got = subscriber.next().await;
        self.check(got.payload == big.as_bytes(), "100,000 bytes");
        subscriber.leave().await;
        publisher.leave().await;
    }

    async fn retained(&mut self) {
        let topic = format!("{}/retained", self.root());
        let (mut publisher, _) = self.open("retainer", true, None).await;
        publisher.publish(&topic, b"kept", 1, true, PublishProperties::default()).await;
        let (mut late, _) = self.open("late", true, None).await;
        self.subscribe(&mut late, &topic, 1).await;
        let got = late.next().await;
        self.check(got.payload == b"kept" && got.retain, "kept for the late");
        publisher.publish(&topic, b"", 1, true, PublishProperties::default()).await;
        let got = late.next().await;
        self.check(got.payload.is_empty(), "the removal is told");
        publisher.leave().await;
        late.leave().await;
    }

    async fn wills(&mut self) {
        let topic = format!("{}/will", self.root());
        let (mut witness, _) = self.open("witness", true, None).await;
        self.subscribe(&mut witness, &topic, 1).await;
        self.open("polite", true, Some("polite")).await.0.leave().await;
        self.open("mortal", true, Some("gone")).await.0.vanish().await;
        let got = witness.next().await;
        self.check(got.payload == b"gone", "the will of who vanished, and of nobody else");
        witness.leave().await;
    }

    async fn sessions(&mut self) {
        let topic = format!("{}/kept", self.root());
        let (mut first, present) = self.open("keeps", false, None).await;
        self.check(!present, "a new session");
        self.subscribe(&mut first, &topic, 2).await;
        first.leave().await;
        let (mut publisher, _) = self.open("meanwhile", true, None).await;
        for qos in [1, 2] {
            let text = format!("qos {qos}");
            publisher.publish(&topic, text.as_bytes(), qos, false, PublishProperties::default()).await;
        }
        let (mut again, present) = self.open("keeps", false, None).await;
        self.check(present, "the session is there");
        let got = [again.next().await.payload, again.next().await.payload];
        self.check(got == [b"qos 1", b"qos 2"], "what came meanwhile");
        again.leave().await;
        self.open("keeps", true, None).await.0.leave().await;
        publisher.leave().await;
    }

    async fn shared(&mut self) {
        let topic = format!("{}/shared", self.root());
        let mut members = [self.open("member-0", true, None).await.0, self.open("member-1", true, None).await.0];
        for member in &mut members {
            self.subscribe(member, &format!("$share/group/{topic}"), 1).await;
        }
        let (mut publisher, _) = self.open("sharer", true, None).await;
        for number in 0..20 {
            publisher.say(&topic, &number.to_string()).await;
        }
        let mut got = Vec::new();
        for _ in 0..10 {
            for member in &mut members {
                got.push(String::from_utf8(member.next().await.payload).unwrap().parse::<u32>().unwrap());
            }
        }
        got.sort_unstable();
        self.check(got == (0..20).collect::<Vec<_>>(), "each message at one member, ten each");
        for member in members {
            member.leave().await;
        }
        publisher.leave().await;
    }

    async fn properties(&mut self) {
        let topic = format!("{}/properties", self.root());
        let (mut subscriber, _) = self.open("hears", true, None).await;
        self.subscribe(&mut subscriber, &topic, 1).await;
        let (mut publisher, _) = self.open("speaks", true, None).await;
        let sent = PublishProperties {
            message_expiry_interval: Some(1_000),
            content_type: Some("text/plain".into()),
            response_topic: Some("answers".into()),
            correlation_data: Some(vec![0, 255].into()),
            user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into()), ("å".into(), "日本".into())],
            ..PublishProperties::default()
        };
        publisher.publish(&topic, b"x", 1, false, sent.clone()).await;
        let got = subscriber.next().await.properties.expect("properties");
        self.check(got.user_properties == sent.user_properties, "user properties in order");
        self.check(
            got.message_expiry_interval.is_some_and(|left| (1..=1_000).contains(&left)),
            "what is left of the expiry",
        );
        let same = (got.content_type, got.response_topic, got.correlation_data)
            == (sent.content_type, sent.response_topic, sent.correlation_data);
        self.check(same, "the rest");
        subscriber.leave().await;
        publisher.leave().await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Nobody else installs one in this process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let [version, transport, port, ca]: [String; 4] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("VERSION TRANSPORT PORT CA");
    let (ca, port) = (std::fs::read(ca).expect("the CA file"), port.parse().expect("a port"));
    let mut run = Run { five: version == "5", transport, port, ca, checks: 0 };
    run.qualities().await;
    run.retained().await;
    run.wills().await;
    run.sessions().await;
    run.shared().await;
    if run.five {
        run.properties().await;
    }
    println!("{} checks", run.checks);
}
