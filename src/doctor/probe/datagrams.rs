//! What the log appenders of this site really send: listened to on the configured ports, told without names.
//!
//! Invariant: what is kept of datagrams is bounded; words are told only if they are Qlik's own.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    config::{
        Loaded, address,
        settings::{Generation, UdpSettings},
    },
    names::TaskId,
    sense::{
        datagram,
        event::{SessionEvent, TaskEvent, TaskEventKind},
        qrs::probe::{Answer, Question},
    },
};

/// Datagrams that are kept.
const MOST: usize = 10_000;
const NO_LISTENING: &str =
    "say for how many seconds datagrams are listened for, while tasks run and users work: --listen 300";
/// Words of Qlik's own in what the proxy sends.
const WORDS: [&str; 22] = [
    "app",
    "appaccess",
    "close",
    "connection",
    "due",
    "for",
    "hub",
    "inactivity",
    "is",
    "logout",
    "open",
    "proxy",
    "qmc",
    "sense",
    "session",
    "single",
    "start",
    "stop",
    "timeout",
    "to",
    "user",
    "was",
];

type Kept = Arc<Mutex<Vec<(bool, Vec<u8>)>>>;

/// The open sockets, or why there are none.
pub(super) enum Listening {
    /// Datagrams come in.
    Open { kept: Kept, generation: Generation, listen: Duration, _receiving: Vec<AbortOnDropHandle<()>> },
    /// They do not.
    Closed(String),
}

impl Listening {
    pub(super) async fn begin(loaded: &Loaded, listen: Duration) -> Self {
        if listen.is_zero() {
            return Self::Closed(NO_LISTENING.to_owned());
        }
        let (kept, udp) = (Kept::default(), &loaded.settings.udp);
        let mut receiving = Vec::new();
        for (is_session, address) in addresses(udp) {
            match UdpSocket::bind(address).await {
                Ok(socket) => {
                    let kept = Arc::clone(&kept);
                    receiving.push(AbortOnDropHandle::new(tokio::spawn(receive(socket, is_session, kept))));
                }
                // The second address of `localhost`.
                Err(_) if address.is_ipv6() && !receiving.is_empty() => {}
                Err(error) => {
                    return Self::Closed(format!(
                        "the UDP port {address} cannot be opened ({error}): stop what runs there for the time of the probe"
                    ));
                }
            }
        }
        Self::Open { kept, generation: loaded.settings.generation, listen, _receiving: receiving }
    }

    /// Waits for the rest of the time and tells.
    pub(super) async fn gather(self, task: Option<TaskId>) -> Vec<(Question, Answer)> {
        let all = [Question::DatagramUser, Question::DatagramAppId, Question::ProxyFields, Question::AbortThenFailure];
        let (kept, generation) = match self {
            Self::Closed(why) => return all.map(|question| (question, Answer::NotAsked(why.clone()))).to_vec(),
            Self::Open { kept, generation, listen, _receiving: receiving } => {
                tokio::time::sleep(listen).await;
                drop(receiving);
                (kept, generation)
            }
        };
        let kept = std::mem::take(&mut *kept.lock());
        let read =
            |wanted: bool| kept.iter().filter(move |(is_session, _)| *is_session == wanted).map(|(_, bytes)| bytes);
        let now = SystemTime::now();
        let tasks: Vec<TaskEvent> =
            read(false).filter_map(|bytes| datagram::parse_task(bytes, generation, now).ok()).collect();
        let sessions: Vec<SessionEvent> =
            read(true).filter_map(|bytes| datagram::parse_session(bytes, generation, now).ok()).collect();
        vec![
            (Question::DatagramUser, told(tasks.iter().map(|event| users(event, task)))),
            (Question::DatagramAppId, told(tasks.iter().map(app))),
            (Question::ProxyFields, told(sessions.iter().map(proxy))),
            (Question::AbortThenFailure, order(&tasks, task)),
        ]
    }
}

fn addresses(udp: &UdpSettings) -> Vec<(bool, SocketAddr)> {
    let hosts = address::look_up(&udp.host).unwrap_or_default();
    let ports = [(false, Some(udp.task_port)), (true, udp.session_port)];
    let of = |(is_session, port): (bool, Option<u16>)| {
        let hosts = hosts.clone();
        port.into_iter()
            .flat_map(move |port| hosts.clone().into_iter().map(move |ip| (is_session, SocketAddr::new(ip, port))))
    };
    ports.into_iter().flat_map(of).collect()
}

async fn receive(socket: UdpSocket, is_session: bool, kept: Kept) {
    let mut buffer = vec![0; 65_536];
    loop {
        // What Windows tells of a sender's closed port is nobody's loss.
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        let mut kept = kept.lock();
        if kept.len() < MOST {
            kept.push((is_session, buffer.get(..length).unwrap_or_default().to_vec()));
        }
    }
}

/// Each different line once.
fn told(lines: impl Iterator<Item = String>) -> Answer {
    let lines: BTreeSet<String> = lines.collect();
    match lines.is_empty() {
        true => Answer::NotAsked(
            "no such datagram came; listen longer (--listen), while tasks run and users work".to_owned(),
        ),
        false => Answer::Told(lines.into_iter().take(20).collect()),
    }
}

fn users(event: &TaskEvent, probed: Option<TaskId>) -> String {
    let by = if probed.is_some() && event.task_id() == probed { "started by this probe" } else { "started otherwise" };
    format!("{:?}, {by}: {}", event.kind, user(event.user.as_deref()))
}

/// Service users of Qlik's own are told, people are not.
fn user(text: Option<&str>) -> String {
    let Some(text) = text else { return "no such field".to_owned() };
    let own = text.to_lowercase().split(['\\', '/']).next_back().is_some_and(|id| id.starts_with("sa_"));
    match text {
        "" => "empty".to_owned(),
        "(null)" => text.to_owned(),
        _ if own => format!("\"{text}\""),
        _ => format!(
            "<directory>{}<user>",
            if text.contains('\\') {
                "\\"
            } else if text.contains('/') {
                "/"
            } else {
                ""
            }
        ),
    }
}

fn app(event: &TaskEvent) -> String {
    let id = match event.app_id.as_deref() {
        None => "no such field".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => match uuid::Uuid::try_parse(text) {
            Ok(id) if id.is_nil() => "the zero id".to_owned(),
            Ok(_) => "an id".to_owned(),
            Err(_) => signs(text),
        },
    };
    let name = match event.app_name.as_deref() {
        None => "no such field",
        Some("") => "empty",
        Some("(null)") => "(null)",
        Some(_) => "a name",
    };
    format!("{:?}: app id {id}, app name {name}", event.kind)
}

fn proxy(event: &SessionEvent) -> String {
    let field = |text: &Option<String>| text.as_deref().map_or_else(|| "no such field".to_owned(), signs);
    let (origin, context, message) = (field(&event.origin), field(&event.context), field(&event.message));
    format!("{:?}: origin \"{origin}\", context \"{context}\", message \"{message}\"", event.kind)
}

/// A text in which every word that is not Qlik's own is `a`, every number `9`, every id `<id>`.
fn signs(text: &str) -> String {
    let mut told = String::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let lower = word.to_lowercase();
        told.push_str(match word {
            _ if uuid::Uuid::try_parse(word).is_ok() => "<id>",
            _ if word == "null" || WORDS.contains(&lower.as_str()) || !is_word(first) => word,
            _ if word.chars().all(|c| c.is_ascii_digit()) => "9",
            _ => "a",
        });
        rest = behind;
    }
    told.chars().take(200).collect()
}

/// Which kinds came of the probed task, in their order.
fn order(tasks: &[TaskEvent], task: Option<TaskId>) -> Answer {
    let Some(task) = task else {
        return Answer::NotAsked("name a harmless task that is started and stopped: --task <id>".to_owned());
    };
    let kinds: Vec<TaskEventKind> =
        tasks.iter().filter(|event| event.task_id() == Some(task)).map(|event| event.kind).collect();
    if !kinds.contains(&TaskEventKind::Aborted) {
        return Answer::NotAsked(
            "no abort of the named task was heard: is the log appender for aborted tasks installed?".to_owned(),
        );
    }
    Answer::Told(vec![format!("heard of the task that was started and stopped: {kinds:?}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_names_are_not_told() {
        assert_eq!(signs("/app/5a1e5000-0000-4000-8000-000000000001?x=Goran&y=17"), "/app/<id>?a=a&a=9");
        assert_eq!(signs("Session for user LAB\\goran was closed; (null)"), "Session for user a\\a was a; (null)");
        assert_eq!(user(Some(r"LAB\goran")), r"<directory>\<user>");
        assert_eq!(user(Some(r"INTERNAL\sa_scheduler")), "\"INTERNAL\\sa_scheduler\"");
        assert_eq!(
            (user(Some("(null)")), user(Some("")), user(None)),
            ("(null)".into(), "empty".into(), "no such field".into())
        );
    }
}
