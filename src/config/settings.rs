//! `butler.yaml` as typed settings: every value parsed, every path resolved, every default filled in.
//!
//! Invariant: what stands here was validated; no room behind it checks a setting again. Plain data: no reading, no parsing (that is in the
//! sibling files).

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    keep::{journal::JournalSettings, values::ValueSettings},
    names::{Secret, TopicFilter, TopicName},
    telemetry::logging::LogSettings,
};

use super::address::HostPort;

mod network;
mod start;

pub use self::{
    network::Network,
    start::{FixedStart, StartLimits, StartSettings, StartTaskFilter, StartTopic, UserFilter},
};

/// Which generation of Butler a configuration file speaks, and so which payloads, status codes and error bodies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Butler v5.4.0 (session events, 8-key-less JSON, restify's errors).
    V5_4,
    /// Butler 16 and what follows.
    Head,
}

/// Everything of `butler.yaml` (root key `Butler:`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it was read from; `None`: built-in defaults.
    pub file: Option<PathBuf>,
    /// Recognised or written (`Butler.compatibility`).
    pub generation: Generation,
    /// `mqttConfig`
    pub mqtt: MqttSettings,
    /// `udpServerConfig`
    pub udp: UdpSettings,
    /// `restServerConfig`, `restServerEndpointsEnable`
    pub rest: RestSettings,
    /// `startTaskFilter`
    pub start_filter: StartTaskFilter,
    /// `startTask`
    pub start: StartSettings,
    /// `eventSources`
    pub sources: EventSources,
    /// `configQRS`, `cert`
    pub qrs: QrsSettings,
    /// `logLevel`, `fileLogging`, `logDirectory`, `logFormat`
    pub log: LogSettings,
    /// `dockerHealthCheck`
    pub docker_health: DockerHealth,
    /// `keyValueStore`, and whether its endpoint is on.
    pub values: ValueSettings,
    /// `eventJournal`
    pub journal: JournalSettings,
    /// Things that are switched on in the file and will not happen, in plain words ("30 schedules will not run; keep Butler for them").
    pub not_offered: Vec<String>,
}

impl Settings {
    /// All topics on which a message is a start request.
    pub fn start_topics(&self) -> Vec<TopicName> {
        let further = self.start.topics.iter().map(|further| further.topic.clone());
        std::iter::once(self.mqtt.task_start.clone()).chain(further).collect()
    }
}

/// A topic event and its switch: basic topic always when `send`, the full JSON topic when `send_full`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTopics {
    /// Whether this kind is published at all.
    pub send: bool,
    /// Whether the full JSON goes out too.
    pub send_full: bool,
    /// Payload: task name.
    pub basic: TopicName,
    /// Payload: JSON.
    pub full: TopicName,
}

/// The four topics of user activity (generation 5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTopics {
    /// `sessionStartTopic`
    pub session_start: TopicName,
    /// `sessionStopTopic`
    pub session_stop: TopicName,
    /// `connectionOpenTopic`
    pub connection_open: TopicName,
    /// `connectionCloseTopic`
    pub connection_close: TopicName,
    /// `sessionServerStatusTopic`
    pub server_status: TopicName,
    /// `activeUserCountTopic`
    pub active_user_count: TopicName,
    /// `activeUsersTopic`
    pub active_users: TopicName,
    /// `mqttConfig.sessionUser`
    pub user: SessionUser,
}

/// How much of a user's identity leaves in session topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionUser {
    /// `DIR/user`, as Butler.
    Full,
    /// A stable hash instead of the user id.
    Hash,
    /// Nobody: `-`.
    None,
}

/// `mqttConfig`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttSettings {
    /// `enable`: forwarding of events and starting of tasks; the broker runs in any case.
    pub enable: bool,
    /// Which broker, and why (one line for `run`, `check` and health).
    pub broker: BrokerChoice,
    /// The reason for the choice, e.g. "`brokerHost` is absent".
    pub broker_reason: String,
    /// `subscriptionRootTopic`
    pub subscription_root: TopicFilter,
    /// `taskStartTopic`
    pub task_start: TopicName,
    /// `taskFailure…`
    pub failed: EventTopics,
    /// `taskAborted…`
    pub aborted: EventTopics,
    /// `taskSuccess…`
    pub succeeded: EventTopics,
    /// `taskDistribute…`
    pub distributed: EventTopics,
    /// `taskFailureServerStatusTopic`
    pub failure_server_status: TopicName,
    /// Session topics; `None`: the file does not name them (generation head).
    pub session: Option<SessionTopics>,
    /// Prefix of the appliance's own topics, default `qliksense/butler`.
    pub own_topics: TopicName,
    /// `taskTypes`: publish only tasks of these QRS types where QRS has answered (0 reload .. 4 preload); `None`: all.
    pub task_types: Option<Vec<u8>>,
    /// `qrsEnrichmentWaitMs`: how long a full message waits for QRS; zero: never.
    pub enrichment_wait: Duration,
    /// `restQosRetain`: whether `qos` and `retain` in a Butler publish body are obeyed.
    pub rest_qos_retain: bool,
}

impl MqttSettings {
    /// Takes what newer settings publish, on the topics there are: the switches of events, and the types of tasks.
    pub fn switch(&mut self, newer: &Self) {
        let pairs = [
            (&mut self.failed, &newer.failed),
            (&mut self.aborted, &newer.aborted),
            (&mut self.succeeded, &newer.succeeded),
            (&mut self.distributed, &newer.distributed),
        ];
        for (topics, newer) in pairs {
            (topics.send, topics.send_full) = (newer.send, newer.send_full);
        }
        self.task_types.clone_from(&newer.task_types);
    }
}

/// Embedded or external broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerChoice {
    /// The built-in one; `port` is `brokerPort`, used when there is no `broker.toml`.
    Embedded {
        /// `brokerPort`, default 1883.
        port: u16,
    },
    /// A broker elsewhere.
    External(Box<ExternalBroker>),
}

/// A broker elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalBroker {
    /// `brokerHost`
    pub host: String,
    /// `brokerPort`
    pub port: u16,
    /// `brokerUser`
    pub user: Option<String>,
    /// `brokerPassword` or the content of `brokerPasswordFile`
    pub password: Option<Secret>,
    /// `clientId`; absent: one made of the host name, stable over restarts.
    pub client_id: Option<String>,
    /// `protocol`: 3 (MQTT 3.1.1) or 5; default 3, what Butler spoke.
    pub protocol: MqttProtocol,
    /// `brokerTls`, or `azureEventGrid`.
    pub tls: Option<BrokerTls>,
}

/// Version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttProtocol {
    /// MQTT 3.1.1
    V3,
    /// MQTT 5.0
    V5,
}

/// TLS towards an external broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerTls {
    /// `ca`: PEM file with the authorities to trust; absent: the system's.
    pub ca: Option<PathBuf>,
    /// `cert`: client certificate.
    pub cert: Option<PathBuf>,
    /// `key`: its key.
    pub key: Option<PathBuf>,
    /// `verifyName`: the name the certificate must carry, if not the host.
    pub verify_name: Option<String>,
}

/// `udpServerConfig`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpSettings {
    /// `enable`
    pub enable: bool,
    /// `serverHost`: an address, `0.0.0.0`/`::`, `localhost` (both loopbacks), or a name of this machine (looked up when it is bound).
    pub host: String,
    /// `portTaskFailure`
    pub task_port: u16,
    /// `portSessionConnectionEvents`; `None`: not opened.
    pub session_port: Option<u16>,
    /// `maxMessageSize`, bytes; larger datagrams are dropped and counted.
    pub max_message_size: usize,
    /// `enableSourceValidation` with `allowedSources`; `None`: everybody may send. An empty list admits nobody.
    pub allowed_sources: Option<Vec<String>>,
    /// `rateLimit`, messages a minute; `None`: no limit.
    pub rate_limit: Option<u32>,
    /// `deduplication.ttlMinutes`; `None`: off.
    pub deduplication: Option<Duration>,
    /// `queueMaxBytes`: received and not yet published, bytes.
    pub queue_max_bytes: usize,
    /// Receive buffer asked of the kernel, bytes (4 MiB).
    pub receive_buffer: usize,
    /// `forwardTo`, `forwardSessionsTo`: where datagrams are sent on.
    pub forward: Forwarding,
}

/// Where datagrams are sent on as they came, e.g. to Butler during a move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// `forwardTo`: those of `portTaskFailure`.
    pub task: Vec<HostPort>,
    /// Those of `portSessionConnectionEvents`: `forwardSessionsTo`, or the same as the others where that is not written.
    pub session: Vec<HostPort>,
}

/// `restServerConfig` and `restServerEndpointsEnable`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestSettings {
    /// `enable`
    pub enable: bool,
    /// `serverHost`: as for UDP; anything but loopback passed the closed doors.
    pub host: String,
    /// `serverPort`
    pub port: u16,
    /// `tls`
    pub tls: Option<RestTls>,
    /// `allowPlaintext`: the deliberate step for a non-loopback address without TLS.
    pub allow_plaintext: bool,
    /// `allowedSources`: networks that may publish and start without a token; empty: loopback only.
    pub allowed_sources: Vec<Network>,
    /// `tokens`: whether tokens let callers in (`Some(true)`: written, so that somebody decided that other machines come in by them).
    pub tokens: Option<bool>,
    /// `allowedOrigins`: web origins whose pages may call, e.g. `https://sense.example.com`.
    pub allowed_origins: Vec<String>,
    /// `allowedHosts`: further names accepted in `Host` on loopback.
    pub allowed_hosts: Vec<String>,
    /// `maxBodyBytes`, default 1 MiB.
    pub max_body: usize,
    /// `publishPerSecond`: messages of one caller; `None` (0 in the file, the default): as many as they like.
    pub publish_per_second: Option<u32>,
    /// Which of the routes this program offers are on.
    pub endpoints: Endpoints,
    /// Butler's endpoint keys that are `true` in the file and not offered here (answered 501), e.g. `createDir`.
    pub endpoints_not_offered: Vec<String>,
}

/// TLS of the REST listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// The routes of Butler that this program offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// `apiListEnabledEndpoints` (v5.4: `apiListEnbledEndpoints`)
    pub list_endpoints: bool,
    /// `butlerping`
    pub butlerping: bool,
    /// `mqttPublishMessage`
    pub mqtt_publish: bool,
    /// `publish`: `POST /api/v1/publish` and `…/bulk`; as `mqttPublishMessage` unless written.
    pub publish: bool,
    /// `senseStartTask`
    pub start_task: bool,
    /// `activeUserCount` (v5.4)
    pub active_user_count: bool,
    /// `activeUsers` (v5.4)
    pub active_users: bool,
    /// `keyValueStore`
    pub key_values: bool,
    /// `tasksRead`: `GET /api/v1/tasks…` and `/api/v1/executions…`; as `senseStartTask` unless written.
    pub tasks_read: bool,
    /// `tasksStart`: `POST /api/v1/tasks/start`; as `senseStartTask` unless written.
    pub tasks_start: bool,
    /// `tasksStop`: `POST /api/v1/executions/{id}/stop`; as `senseStartTask` unless written.
    pub tasks_stop: bool,
    /// `console`: the web console at `/console`.
    pub console: bool,
    /// `configReload`: whether callers from `allowedSources` may reload the configuration; those on this machine always may.
    pub config_reload: bool,
}

/// `eventSources`: where events come from besides datagrams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSources {
    /// `polling`: the pause between two looks at what QRS keeps of executions; `None`: off.
    pub polling: Option<Duration>,
    /// `notifications`; `None`: off.
    pub notifications: Option<NotificationSettings>,
    /// `silenceAlarmHours`: for how long there may be no datagram although QRS saw tasks end; zero: for ever.
    pub silence_alarm: Duration,
}

/// `eventSources.notifications`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationSettings {
    /// `listen`: where QRS's calls are taken.
    pub listen: Vec<SocketAddr>,
    /// `callback`: the same as QRS reaches it, e.g. `http://appliance:8090`; without a slash at the end.
    pub callback: String,
    /// `allowedSources`: addresses and names that may call; empty: those of the hosts in `configQRS`.
    pub allowed_sources: Vec<String>,
    /// `renewMinutes`: the pause between two renewals of the subscriptions.
    pub renew: Duration,
}

/// `configQRS` and `cert`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QrsSettings {
    /// `host`; `None`: no QRS configured, the task part is off and says so.
    pub host: Option<String>,
    /// `port`, default 4242
    pub port: u16,
    /// `useSSL`
    pub use_tls: bool,
    /// `headers.static` or `headerKey`/`headerValue`: sent with every request.
    pub headers: Vec<(String, String)>,
    /// `cert.clientCert`
    pub client_cert: Option<PathBuf>,
    /// `cert.clientCertKey`
    pub client_key: Option<PathBuf>,
    /// `cert.clientCertCA`
    pub ca: Option<PathBuf>,
    /// How the server's certificate is judged.
    pub verify: QrsVerify,
    /// `hosts`: failover candidates of the same site, asked in this order when the one before does not answer.
    pub further: Vec<QrsHost>,
}

/// A further host of the Sense site (an entry of `configQRS.hosts`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QrsHost {
    /// `host`
    pub host: String,
    /// `port`; the same as of the first host unless written.
    pub port: u16,
    /// How its certificate is judged.
    pub verify: QrsVerify,
}

/// How QRS's certificate is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QrsVerify {
    /// Against the CA, for the host's name or `verifyName`.
    Ca {
        /// The name the certificate must carry, if not the host.
        name: Option<String>,
    },
    /// `fingerprint`: SHA-256 of the certificate.
    Fingerprint([u8; 32]),
    /// `rejectUnauthorized: false`: anybody; loud in health.
    Insecure,
}

/// `dockerHealthCheck`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DockerHealth {
    /// `enable`
    pub enable: bool,
    /// `port`
    pub port: u16,
}
