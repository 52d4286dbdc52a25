//! Being told of a change by QRS: what it sends, and what it does when it is refused or not answered.
//!
//! The first call is answered 503, the second not at all until it hangs up, every further one 200. Invariant: the subscription is ended, and its
//! address holds a secret word, so that what is counted came from QRS.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Answer, Consent, Masks, Question, shape};
use crate::sense::qrs::http::Http;

const NO_CALLBACK: &str =
    "say where Qlik Sense reaches this machine, at a port that is free here: --callback http://<this machine>:<port>";
const NO_TASK: &str = "notifications come when something runs: name a harmless task with --task <id>";
/// Most of a call that is read, bytes.
const MOST: usize = 256 << 10;
/// Calls that are remembered.
const MOST_CALLS: usize = 100;

/// One call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    body: String,
    at: Instant,
    /// How long it waited for an answer it did not get.
    waited: Option<Duration>,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// The open subscription, or why there is none.
pub(super) enum Listening {
    /// QRS was asked to call.
    Open { calls: Calls, handle: String, subscribed: String, _accepting: AbortOnDropHandle<()> },
    /// It was not.
    Closed(Answer),
}

impl Listening {
    pub(super) async fn begin(http: &Http, consent: &Consent, masks: &Masks) -> Self {
        let Some((address, url)) = &consent.callback else { return Self::not_asked(NO_CALLBACK) };
        if consent.task.is_none() {
            return Self::not_asked(NO_TASK);
        }
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => return Self::not_asked(&format!("the port for --callback cannot be opened: {error}")),
        };
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let body = Value::from(format!("{}/{secret}", url.trim_end_matches('/'))).to_string();
        let path = "notification?name=ExecutionResult&changetype=2";
        let answer = http.try_out(Method::POST, path, body).await;
        let subscribed = masks.answer("POST notification", &answer);
        let sound = answer.ok().filter(|raw| (200..300).contains(&raw.status));
        let handle = sound
            .and_then(|raw| serde_json::from_slice::<Value>(&raw.body).ok()?.get("value")?.as_str().map(str::to_owned));
        let Some(handle) = handle else { return Self::Closed(Answer::Told(vec![subscribed])) };
        let calls = Calls::default();
        let accepting = tokio::spawn(accept(listener, secret, Arc::clone(&calls)));
        Self::Open { calls, handle, subscribed, _accepting: AbortOnDropHandle::new(accepting) }
    }

    fn not_asked(why: &str) -> Self {
        Self::Closed(Answer::NotAsked(why.to_owned()))
    }

    /// Waits for what comes, and ends the subscription.
    pub(super) async fn gather(&mut self, http: &Http, consent: &Consent) -> Vec<(Question, Answer)> {
        let (body, retry) = match self {
            Self::Closed(answer) => (answer.clone(), answer.clone()),
            Self::Open { calls, handle, subscribed, .. } => {
                tokio::time::sleep(consent.patience).await;
                let ended = http.try_out(Method::DELETE, &format!("notification?handle={handle}"), "").await;
                let ended = ended.map_or_else(|_| "no answer".to_owned(), |raw| raw.status.to_string());
                let calls = calls.lock().clone();
                let mut lines = vec![subscribed.clone(), format!("DELETE notification: {ended}")];
                lines.extend(bodies(&calls));
                (Answer::Told(lines), Answer::Told(repetitions(&calls, consent.patience)))
            }
        };
        vec![(Question::NotificationBody, body), (Question::NotificationRetry, retry)]
    }
}

/// The different shapes that came.
fn bodies(calls: &[Call]) -> Vec<String> {
    let mut shapes: Vec<String> = Vec::new();
    for call in calls {
        let shape =
            serde_json::from_str(&call.body).map_or_else(|_| "no JSON".to_owned(), |value: Value| shape(&value));
        if !shapes.contains(&shape) && shapes.len() < 5 {
            shapes.push(shape);
        }
    }
    if shapes.is_empty() { vec!["no call came".to_owned()] } else { shapes }
}

fn repetitions(calls: &[Call], patience: Duration) -> Vec<String> {
    let again = |first: Option<&Call>, what: &str| {
        let first = first?;
        let second = calls.iter().find(|call| call.at > first.at && call.body == first.body);
        Some(match second {
            Some(second) => format!("{what}: repeated after {:.1} s", (second.at - first.at).as_secs_f32()),
            None => format!("{what}: not repeated within {} s", patience.as_secs()),
        })
    };
    let unanswered = calls.get(1);
    let waited = unanswered.map(|call| match call.waited {
        Some(waited) => format!("not answered: it hung up after {:.1} s", waited.as_secs_f32()),
        None => format!("not answered: it waited longer than {} s", patience.as_secs()),
    });
    let lines: Vec<String> = again(calls.first(), "answered 503")
        .into_iter()
        .chain(again(unanswered, "not answered"))
        .chain(waited)
        .collect();
    if lines.is_empty() { vec!["no call came".to_owned()] } else { lines }
}

async fn accept(listener: TcpListener, secret: String, calls: Calls) {
    let mut under_way = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Who has ended makes room.
        while under_way.try_join_next().is_some() {}
        if under_way.len() < MOST_CALLS {
            under_way.spawn(serve(stream, secret.clone(), Arc::clone(&calls)));
        }
    }
}

async fn serve(mut stream: TcpStream, secret: String, calls: Calls) {
    let read = timeout(Duration::from_secs(10), read(&mut stream, &secret)).await;
    let Ok(Some(body)) = read else { return };
    let (number, at) = {
        let mut calls = calls.lock();
        if calls.len() < MOST_CALLS {
            calls.push(Call { body, at: Instant::now(), waited: None });
        }
        (calls.len(), Instant::now())
    };
    let status = match number {
        1 => "503 Service Unavailable",
        2 => {
            // It ends when the other side hangs up.
            let _ = stream.read(&mut [0; 1]).await;
            if let Some(call) = calls.lock().get_mut(1) {
                call.waited = Some(at.elapsed());
            }
            return;
        }
        _ => "200 OK",
    };
    let _ = stream
        .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
        .await;
}

/// The body of one request to the secret address.
async fn read(stream: &mut TcpStream, secret: &str) -> Option<String> {
    let mut taken = Vec::new();
    let mut chunk = [0; 8_192];
    loop {
        let text = String::from_utf8_lossy(&taken).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length =
                lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let whole = match length {
                Some(length) => body.len() >= length,
                None => body.ends_with("0\r\n\r\n") || !lower.contains("chunked"),
            };
            if whole {
                return head.lines().next().filter(|line| line.contains(secret)).map(|_| body.to_owned());
            }
        }
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        taken.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if taken.len() > MOST {
            return None;
        }
    }
}
