//! A Qlik Repository Service for tests: the semantics the recordings were made with, over plain HTTP or whatever stream it is given.
//!
//! Task ids beginning with `dead` do not exist; tag `Tag One` = `0000aaaa..` and `0000aaab..`; property `taskGroup=night` = `0000aaac..`.
//! Invariants: every request is written down before it is answered; the xrfkey is checked first; filters are parsed with backslash
//! escapes and a doubled quote is an error, as the real service does.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use sense_butler::{
    config::settings::{QrsSettings, QrsVerify, StartTaskFilter},
    keep::Keep,
    sense::{
        qrs::Qrs,
        tasks::{Patience, Starter},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

/// How the service behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Starts are answered 204.
    #[default]
    Well,
    /// Every call is answered 500.
    AllFail,
    /// Finding works, starts are answered 404.
    StartNotFound,
    /// Every answer takes 800 ms.
    Slow,
    /// Starts are answered 200 with an execution id.
    StartOk,
    /// Starts are answered 201 with the zero id.
    ZeroId,
    /// A start takes effect and the connection breaks before the answer.
    BreakAfterStart,
    /// The next call on a used connection meets a closed one.
    CloseAfterAnswer,
    /// Every call is answered 403.
    Refuse,
    /// Every call is answered 200 with a login page.
    LoginPage,
    /// Every call is answered 503, as by a service that is just starting.
    Starting,
    /// Requests are read and never answered.
    Silent,
}

/// An answer made by hand, for requests whose method and address fit.
#[derive(Debug, Clone)]
pub struct Scripted {
    /// Method.
    pub method: &'static str,
    /// A part of the address as it was sent, but for percent-encoding.
    pub part: String,
    /// Status.
    pub status: u16,
    /// Content.
    pub body: Vec<u8>,
    /// How often it is given; then the next that fits.
    pub times: usize,
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query without the xrfkey, decoded.
    pub url: String,
    /// The whole of it, decoded.
    pub whole: String,
    /// Content of the request.
    pub body: String,
    /// `x-qlik-user`
    pub user: Option<String>,
    /// What it was answered; 0: nothing.
    pub status: u16,
    /// When.
    pub at: Instant,
    /// Number of the connection it came by.
    pub connection: usize,
}

#[derive(Default)]
struct State {
    mode: Mutex<Mode>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
    scripted: Mutex<Vec<Scripted>>,
}

impl State {
    fn scripted(&self, method: &str, url: &str) -> Option<(u16, Vec<u8>)> {
        let mut all = self.scripted.lock().unwrap();
        let fits = |answer: &&mut Scripted| answer.method == method && url.contains(&answer.part) && answer.times > 0;
        let answer = all.iter_mut().find(fits)?;
        answer.times -= 1;
        Some((answer.status, answer.body.clone()))
    }
}

/// The running service; it ends when this is dropped.
pub struct FakeQrs {
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

/// What a service saw.
pub struct Record(Arc<State>);

impl Record {
    /// Ids of the tasks that were asked to start, in order.
    pub fn starts(&self) -> Vec<String> {
        started(&self.0.seen.lock().unwrap())
    }
}

impl Drop for FakeQrs {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FakeQrs {
    pub async fn start() -> Self {
        Self::over(|stream| async move { Ok(stream) }).await
    }

    /// With something (TLS) between the socket and HTTP.
    pub async fn over<S, F>(wrap: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        Self::on("127.0.0.1:0".parse().unwrap(), wrap).await
    }

    /// At an address that was used before.
    pub async fn at(address: SocketAddr) -> Self {
        Self::on(address, |stream| async move { Ok(stream) }).await
    }

    async fn on<S, F>(address: SocketAddr, wrap: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let wrap = Arc::new(wrap);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (state, wrap) = (shared.clone(), wrap.clone());
                connections.spawn(async move {
                    if let Ok(stream) = wrap(stream).await {
                        let _ = serve(stream, state).await;
                    }
                });
            }
        });
        Self { address, state, accepting }
    }

    /// What it saw, also after its end.
    pub fn record(&self) -> Record {
        Record(self.state.clone())
    }

    pub fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
    }

    /// Gives an answer made by hand from now on.
    pub fn script(&self, method: &'static str, part: &str, status: u16, body: impl Into<Vec<u8>>) {
        self.script_times(method, part, status, body, usize::MAX);
    }

    /// Gives an answer made by hand so many times.
    pub fn script_times(&self, method: &'static str, part: &str, status: u16, body: impl Into<Vec<u8>>, times: usize) {
        let answer = Scripted { method, part: part.to_owned(), status, body: body.into(), times };
        self.state.scripted.lock().unwrap().push(answer);
    }

    /// Everything that arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Everything that arrived, which is then forgotten.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.seen.lock().unwrap())
    }

    /// Ids of the tasks that were asked to start, in order.
    pub fn starts(&self) -> Vec<String> {
        started(&self.seen())
    }

    pub fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }

    /// Settings of a client that reaches this service without TLS.
    pub fn settings(&self) -> QrsSettings {
        QrsSettings {
            host: Some(self.address.ip().to_string()),
            port: self.address.port(),
            use_tls: false,
            headers: vec![("X-Qlik-User".into(), "UserDirectory=Internal;UserId=sa_repository".into())],
            client_cert: None,
            client_key: None,
            ca: None,
            verify: QrsVerify::Ca { name: None },
            further: Vec::new(),
        }
    }
}

/// Ids of the tasks that were asked to start, in order.
pub fn started(seen: &[Seen]) -> Vec<String> {
    seen.iter().filter_map(|seen| start_of(&seen.method, &seen.url)).collect()
}

/// The id of the task a request asks to start, in lower case.
pub fn start_of(method: &str, url: &str) -> Option<String> {
    let rest = url.strip_prefix("/qrs/task/").filter(|_| method == "POST")?;
    Some(rest.split('/').next()?.to_lowercase())
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, state: Arc<State>) -> io::Result<()> {
    let connection = {
        let mut connections = state.connections.lock().unwrap();
        *connections += 1;
        *connections
    };
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let (mut length, mut key, mut user) = (0, None, None);
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            let Some((name, value)) = header.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "x-qlik-xrfkey" => key = Some(value.trim().to_owned()),
                "x-qlik-user" => user = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let mut content = vec![0; length];
        stream.read_exact(&mut content).await?;
        let mut words = line.split_whitespace();
        let (method, url) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let mode = *state.mode.lock().unwrap();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let (query_key, filter) = (parameter(query, "xrfkey"), parameter(query, "filter"));
        let shown = filter.as_ref().map_or(path.to_owned(), |filter| format!("{path}?filter={filter}"));
        let whole = percent_encoding::percent_decode_str(&url).decode_utf8().unwrap().into_owned();
        let (status, body) = if key.is_none() || key != query_key || key.is_some_and(|key| key.len() != 16) {
            (403, b"XSRF prevention check failed. Possible XSRF discovered.".to_vec())
        } else if let Some(scripted) = state.scripted(&method, &whole) {
            scripted
        } else {
            let (status, body) = answer(mode, &method, path, filter.as_deref());
            (status, body.into_bytes())
        };
        let broken = mode == Mode::BreakAfterStart && method == "POST";
        let told = if broken || mode == Mode::Silent { 0 } else { status };
        let body_sent = String::from_utf8_lossy(&content).into_owned();
        let seen =
            Seen { method, url: shown, whole, body: body_sent, user, status: told, at: Instant::now(), connection };
        state.seen.lock().unwrap().push(seen);
        if mode == Mode::Silent {
            std::future::pending::<()>().await;
        }
        if mode == Mode::Slow {
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
        if broken {
            return Ok(());
        }
        let content = if status < 300 && !body.starts_with(b"<") { "application/json" } else { "text/html" };
        let head = if status == 204 {
            format!("HTTP/1.1 {status} X\r\n\r\n")
        } else {
            format!("HTTP/1.1 {status} X\r\ncontent-type: {content}\r\ncontent-length: {}\r\n\r\n", body.len())
        };
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        stream.flush().await?;
        if mode == Mode::CloseAfterAnswer {
            return Ok(());
        }
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let raw = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_encoding::percent_decode_str(raw).decode_utf8().unwrap().into_owned())
}

fn answer(mode: Mode, method: &str, path: &str, filter: Option<&str>) -> (u16, String) {
    match mode {
        Mode::AllFail => return (500, "something went wrong".into()),
        Mode::Refuse => return (403, "Forbidden: Your account is inactive.".into()),
        Mode::LoginPage => return (200, "<html>please log in</html>".into()),
        Mode::Starting => return (503, "The service is starting".into()),
        _ => {}
    }
    if method == "POST" {
        return start(mode, path);
    }
    match (path, filter) {
        ("/qrs/about", _) => (200, r#"{"buildVersion":"fake","schemaPath":"About"}"#.into()),
        ("/qrs/task/count", _) => (200, r#"{"value":4}"#.into()),
        ("/qrs/executionsession" | "/qrs/executionresult/full", Some(_)) => (200, "[]".into()),
        ("/qrs/task" | "/qrs/task/full" | "/qrs/app/full", None) => (400, "Missing parameter value(s)".into()),
        ("/qrs/task", Some(filter)) => found(filter),
        ("/qrs/task/full", Some(filter)) => found(filter),
        ("/qrs/app/full", Some(filter)) => found(filter),
        _ => (404, "No matching endpoint found".into()),
    }
}

fn start(mode: Mode, path: &str) -> (u16, String) {
    let known = path
        .strip_prefix("/qrs/task/")
        .and_then(|rest| rest.strip_suffix("/start/synchronous").or_else(|| rest.strip_suffix("/start")))
        .is_some_and(|id| id.len() == 36 && !id.starts_with("dead"));
    let execution = format!(r#"{{"value":"{}"}}"#, uuid::Uuid::new_v4());
    match mode {
        _ if !known => (404, "Not found".into()),
        Mode::StartNotFound => (404, "The task could not be found".into()),
        Mode::StartOk => (200, execution),
        Mode::ZeroId => (201, r#"{"value":"00000000-0000-0000-0000-000000000000"}"#.into()),
        _ => (204, String::new()),
    }
}

/// What a filter finds: tasks of the fixed little site. Comparisons of text ignore case, and name and value of a property need not
/// belong together, as in the real service.
fn found(filter: &str) -> (u16, String) {
    if let Some(id) = filter.strip_prefix("id eq ") {
        return (200, if id.starts_with("dead") { "[]".into() } else { format!("[{}]", object(id)) });
    }
    let Some(texts) = quoted_texts(filter) else {
        return (400, format!("Cannot parse the expression: {filter}"));
    };
    let texts: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
    let ids: &[&str] = match texts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tag one"] => &["0000aaaa-0000-4000-8000-000000000001", "0000aaab-0000-4000-8000-000000000002"],
        ["taskgroup", "night" | "x"] => &["0000aaac-0000-4000-8000-000000000003"],
        _ => &[],
    };
    (200, format!("[{}]", ids.iter().map(|id| object(id)).collect::<Vec<_>>().join(",")))
}

/// The quoted texts of an expression, unescaped; `None` where the real service says it cannot parse.
fn quoted_texts(filter: &str) -> Option<Vec<String>> {
    let (mut texts, mut rest) = (Vec::new(), filter.chars().peekable());
    while let Some(character) = rest.next() {
        if character != '\'' {
            continue;
        }
        let mut text = String::new();
        loop {
            match rest.next()? {
                '\'' => break,
                '\\' => text.push(rest.next()?),
                other => text.push(other),
            }
        }
        if rest.peek() == Some(&'\'') {
            return None;
        }
        texts.push(text);
    }
    Some(texts)
}

fn object(id: &str) -> String {
    let tags = match &id[..8] {
        "0000aaaa" | "0000aaab" => r#"[{"id":"t","name":"Tag One"}]"#,
        _ => "[]",
    };
    let properties = match &id[..8] {
        "0000aaac" => {
            r#"[{"value":"night","definition":{"name":"taskGroup"}},{"value":"x","definition":{"name":"other"}}]"#
        }
        _ => "[]",
    };
    let name = format!("Reload task {}", &id[..8]);
    format!(
        r#"{{"id":"{id}","name":"{name}","taskType":0,"tags":{tags},"customProperties":{properties},"schemaPath":"ReloadTask"}}"#
    )
}

/// A starter that keeps nothing over a restart and does not look long for what became of a call.
pub fn starter_of(qrs: Qrs, filter: StartTaskFilter) -> Starter {
    let keep = Keep::open(None, &mut Registry::default()).unwrap();
    let patience =
        Patience { settle: Duration::from_millis(200), away: Duration::from_secs(2), look: Duration::from_millis(20) };
    Starter::open(qrs, filter, keep.shelf("starts"), patience).unwrap()
}
