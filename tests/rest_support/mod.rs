//! What the REST tests share: a broker that remembers, a start handler that counts, a server on 127.0.0.1, and a plain HTTP/1.1 client.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use sense_butler::{
    api::{
        Server, Setup, State,
        answer::{Answer, Request},
        counters::Counters,
        server::MAX_CONNECTIONS,
        tasks::TasksState,
    },
    bus::{BoxFuture, Bus, Publication, PublishError, Receipt, Routed, Subscription, Transport},
    config::{
        LoadOptions, built_in,
        reload::Reloaded,
        settings::{Generation, RestSettings, Settings, StartTaskFilter},
    },
    keep::{
        Keep,
        keys::Keys,
        values::{ValueSettings, Values},
    },
    names::{TopicFilter, TopicName},
    net::certificates::Certificates,
    sense::{
        qrs::Qrs,
        tasks::{Patience, Starter},
    },
    telemetry::readiness::Readiness,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// How the broker double answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    Take,
    Refuse(PublishError),
    /// Takes the message and never says so.
    Silence,
    Panic,
}

type Unanswered = tokio::sync::oneshot::Sender<Result<Routed, PublishError>>;

/// A broker that remembers what was published.
#[derive(Clone)]
pub struct Broker {
    pub published: Arc<Mutex<Vec<Publication>>>,
    pub word: Arc<Mutex<Word>>,
    /// Unanswered publishes wait here.
    kept: Arc<Mutex<Vec<Unanswered>>>,
}

impl Broker {
    pub fn new() -> Self {
        Self { published: Arc::default(), word: Arc::new(Mutex::new(Word::Take)), kept: Arc::default() }
    }

    pub fn says(&self, word: Word) {
        *self.word.lock().unwrap() = word;
    }

    /// What was published since the last call.
    pub fn take(&self) -> Vec<Publication> {
        std::mem::take(&mut self.published.lock().unwrap())
    }

    pub fn release(&self) {
        for sender in self.kept.lock().unwrap().drain(..) {
            let _ = sender.send(Ok(Routed::passing(true)));
        }
    }
}

impl Transport for Broker {
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let word = self.word.lock().unwrap().clone();
        let (sender, receipt) = Receipt::channel();
        match word {
            Word::Refuse(error) => return Box::pin(async move { Err(error) }),
            Word::Panic => panic!("the broker double was told to panic"),
            Word::Take => sender.send(Ok(Routed::passing(true))).unwrap(),
            Word::Silence => self.kept.lock().unwrap().push(sender),
        }
        self.published.lock().unwrap().push(publication);
        Box::pin(async move { Ok(receipt) })
    }

    fn subscribe(&self, _: &str, _: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        Box::pin(async { Err(PublishError::Unavailable("the double has no subscriptions".into())) })
    }

    fn is_up(&self) -> bool {
        *self.word.lock().unwrap() == Word::Take
    }
}

/// What holds without a file.
fn defaults() -> Settings {
    built_in(&LoadOptions::default()).unwrap().settings
}

/// Settings of a server on 127.0.0.1, any port, everything on.
pub fn settings() -> RestSettings {
    RestSettings { host: "127.0.0.1".into(), port: 0, ..defaults().rest }
}

/// A running server with its doubles.
pub struct Running {
    pub address: SocketAddr,
    pub broker: Broker,
    pub readiness: Readiness,
    /// Requests that reached the start handler.
    pub starts: Arc<Mutex<Vec<Request>>>,
    pub users: Arc<Mutex<Vec<String>>>,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

/// A starter without a Qlik Sense.
fn tasks(keep: &Keep) -> TasksState {
    let filter = StartTaskFilter::default();
    let starter = Starter::open(Qrs::new(&defaults().qrs), filter, keep.shelf("starts"), Patience::default()).unwrap();
    TasksState { starter }
}

/// The body the start handler double answers with.
pub const START_ANSWER: &str = "{\n  \"double\": true\n}";

pub fn start(generation: Generation, rest: RestSettings) -> Running {
    start_with(generation, rest, |_| {})
}

pub fn start_with(generation: Generation, rest: RestSettings, change: impl FnOnce(&mut Setup)) -> Running {
    start_in(generation, rest, MAX_CONNECTIONS, change)
}

/// The same with room for so many connections.
pub fn start_in(generation: Generation, rest: RestSettings, room: usize, change: impl FnOnce(&mut Setup)) -> Running {
    let certificates = Certificates::default();
    let server = Server::bind(&rest, &certificates).unwrap().with_room(room);
    let address = server.addresses()[0];
    let broker = Broker::new();
    let readiness = Readiness::new();
    let starts: Arc<Mutex<Vec<Request>>> = Arc::default();
    let users: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut registry = prometheus_client::registry::Registry::default();
    let counters = Counters::register(&mut registry);
    let keep = Keep::open(None, &mut registry).unwrap();
    let values = Values::open(&keep, ValueSettings::default(), &mut registry).unwrap();
    let keys = Keys::open(&keep, &mut registry).unwrap();
    let (seen, names) = (starts.clone(), users.clone());
    let mut setup = Setup {
        generation,
        rest,
        rest_qos_retain: false,
        start_topics: vec![TopicName::new("qliksense/start_task").unwrap()],
        protected_topics: Vec::new(),
        broker: "embedded, because `brokerHost` is absent".into(),
        bus: Bus::new(broker.clone()),
        desk: None,
        start_task: Arc::new(move |request| {
            seen.lock().unwrap().push(request);
            Box::pin(async { Answer::json(200, START_ANSWER) })
        }),
        tasks: tasks(&keep),
        active_users: Arc::new(move || names.lock().unwrap().clone()),
        values,
        keys,
        journal: None,
        tokens: None,
        readiness: readiness.clone(),
        registry: Arc::new(registry),
        counters,
        console: None,
        reload: Arc::new(|_| Box::pin(async { Ok(Reloaded::default()) })),
    };
    change(&mut setup);
    let stop = CancellationToken::new();
    let (state, child) = (State::new(setup), stop.clone());
    let task = tokio::spawn(async move { server.run(state, child).await.unwrap() });
    tokio::spawn(certificates.watch(stop.clone()));
    Running { address, broker, readiness, starts, users, stop, task }
}

impl Running {
    pub async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.connect().await.send("GET", path, &[], None).await
    }

    pub async fn put(&self, path: &str, body: &str) -> Reply {
        self.connect().await.send("PUT", path, &[("content-type", "application/json")], Some(body.as_bytes())).await
    }
}

/// A stream of bytes, plain or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One keep-alive connection.
pub struct Client {
    stream: Box<dyn Stream>,
    address: SocketAddr,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// How long a test waits for an answer before it says there is none.
pub const PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, address)
    }

    /// Over a stream that is there already.
    pub fn over(stream: impl Stream + 'static, address: SocketAddr) -> Self {
        Self { stream: Box::new(stream), address, buffer: Vec::new() }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Sends a request; a `Host` naming the server is added unless one is given. A `None` body sends no body and no length.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if let Some(body) = body.filter(|_| !has_length) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        self.raw(&bytes).await;
        self.reply(method == "HEAD").await.expect("an answer")
    }

    /// Sends bytes as they are. A server that has closed already is no error here: its answer may still be read.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads one answer; `None` when the connection ended before one was complete.
    pub async fn reply(&mut self, head_only: bool) -> Option<Reply> {
        tokio::time::timeout(PATIENCE, self.read(head_only))
            .await
            .expect("an answer or the end of the connection in time")
    }

    async fn read(&mut self, head_only: bool) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: Bytes::new() };
        let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        if status == 100 {
            return Some(reply);
        }
        if !head_only {
            while self.buffer.len() < length {
                self.more().await?;
            }
            reply.body = self.buffer.drain(..length).collect::<Vec<_>>().into();
        }
        Some(reply)
    }

    async fn more(&mut self) -> Option<()> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk).await {
            Ok(0) | Err(_) => None,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Some(())
            }
        }
    }
}
