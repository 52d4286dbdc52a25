//! Datagrams of Qlik Sense's log appenders to events: bytes in, [`TaskEvent`] or [`SessionEvent`] out.
//!
//! The format has no escaping: fields are joined by `;`, and task names, app names and messages may contain `;` themselves. So a datagram
//! is not split but anchored: two ids, a time, a level and an id in a row are found in no name (see `anchor`). Invariants: nothing here
//! panics, whatever the bytes; nothing is guessed silently (`ambiguous` is set when a reading was chosen among several); what cannot be
//! read is refused with a reason that can be counted.
//!
//! Sources of the formats: the log appender files that Butler 5.4 and 16 ship, and Butler SOS's for the `qseow` prefixes.

mod anchor;
mod kind;
mod names;
mod text;

use std::time::SystemTime;

use self::{kind::TypeWord, names::split_names};
use super::event::{Origin, SessionEvent, SessionEventKind, TaskEvent, TaskEventKind};
use crate::config::settings::Generation;

/// Why a datagram is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// A type this program does not know.
    #[error("its type (the text before the first `;`) is not one of those the shipped log appenders send")]
    UnknownType,
    /// Fields are missing, or stand where they cannot be recognised.
    #[error(
        "its fields are not those of the shipped log appenders; compare the conversion pattern in LocalLogConfig.xml"
    )]
    Malformed,
    /// Task or app id is neither a GUID, nor empty, nor `(null)`.
    #[error("its task id or app id is not an id of Qlik Sense")]
    BadId,
    /// A session datagram with a command other than the four known.
    #[error("its command is none of `Start session`, `Stop session`, `Open connection`, `Close connection`")]
    UnknownCommand,
}

impl Reject {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Empty, Self::UnknownType, Self::Malformed, Self::BadId, Self::UnknownCommand];

    /// The word used as `reason` in metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnknownType => "unknown_type",
            Self::Malformed => "malformed",
            Self::BadId => "bad_id",
            Self::UnknownCommand => "unknown_command",
        }
    }
}

/// Fields of a scheduler datagram behind its type.
const TASK_FIELDS: usize = 10;
/// Where the task id stands among them when no name contains `;`.
const TASK_ID: usize = 4;
/// Fields of an engine datagram behind its type.
const ENGINE_FIELDS: usize = 8;

/// Reads a datagram of the task port: scheduler (11 fields, or 10 without a type, as Butler up to 4.x had it) or engine (9 fields).
///
/// `generation` decides what Butler's users saw and keep seeing: 5.4 keeps control characters, does not look at ids and accepts datagrams
/// that end early; head removes control characters and refuses those.
///
/// # Errors
/// Says why it is no event.
pub fn parse_task(bytes: &[u8], generation: Generation, received: SystemTime) -> Result<TaskEvent, Reject> {
    let text = text::decode(bytes, generation);
    if text.trim().is_empty() {
        return Err(Reject::Empty);
    }
    let (word, rest) = text.split_once(';').unwrap_or((&text, ""));
    match kind::recognise(word) {
        TypeWord::Known(TaskEventKind::EngineReloadFailed) => engine(rest, generation, received),
        TypeWord::Known(kind) => scheduler(kind, rest, generation, received, false),
        TypeWord::Unknown => Err(Reject::UnknownType),
        TypeWord::NoType => scheduler(TaskEventKind::Failed, &text, generation, received, true),
    }
}

/// Reads a datagram of the session port (8 fields; the message may contain `;`). The type is not looked at, the command is compared
/// exactly, fields may be missing at the end: all as Butler 5.4 did.
///
/// # Errors
/// Says why it is no event.
pub fn parse_session(bytes: &[u8], generation: Generation, received: SystemTime) -> Result<SessionEvent, Reject> {
    let text = text::decode(bytes, generation);
    if text.trim().is_empty() {
        return Err(Reject::Empty);
    }
    let mut fields = text.splitn(8, ';').map(|field| text::field(field, generation));
    let (Some(_type), Some(host), Some(command)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(Reject::Malformed);
    };
    let kind = session_kind(&command).ok_or(Reject::UnknownCommand)?;
    Ok(SessionEvent {
        kind,
        host,
        directory: fields.next(),
        user: fields.next(),
        origin: fields.next(),
        context: fields.next(),
        message: fields.next(),
        received,
    })
}

fn session_kind(command: &str) -> Option<SessionEventKind> {
    match command {
        "Start session" => Some(SessionEventKind::SessionStarted),
        "Stop session" => Some(SessionEventKind::SessionStopped),
        "Open connection" => Some(SessionEventKind::ConnectionOpened),
        "Close connection" => Some(SessionEventKind::ConnectionClosed),
        _ => None,
    }
}

/// `legacy`: there was no type, so only an anchor makes this a task event at all.
fn scheduler(
    kind: TaskEventKind,
    body: &str,
    generation: Generation,
    received: SystemTime,
    legacy: bool,
) -> Result<TaskEvent, Reject> {
    let fields: Vec<&str> = body.split(';').collect();
    let anchors = anchor::find(&fields, TASK_ID);
    let lenient = generation == Generation::V5_4;
    let build = Build { kind, generation, received };
    if legacy && anchors.count == 0 {
        return Err(Reject::Malformed);
    }
    if fields.len() == TASK_FIELDS {
        let event = build.positional(&fields, false);
        return if lenient || anchor::ids_are_valid(&event) { Ok(event) } else { Err(Reject::BadId) };
    }
    match anchors.last {
        Some(at) => build.anchored(&fields, at, anchors.count > 1).ok_or(Reject::Malformed),
        // More fields than there are and no anchor: whatever is read is one of several readings.
        None if lenient && fields.len() >= 2 => Ok(build.positional(&fields, fields.len() > TASK_FIELDS)),
        None => Err(Reject::Malformed),
    }
}

/// `host;AppId;SessionId;ActiveUserDirectory;ActiveUserId;date;level;message`
fn engine(body: &str, generation: Generation, received: SystemTime) -> Result<TaskEvent, Reject> {
    let mut fields = body.splitn(ENGINE_FIELDS, ';').map(|field| text::field(field, generation));
    let mut next = || fields.next().ok_or(Reject::Malformed);
    let (host, app_id, _session) = (next()?, next()?, next()?);
    let (directory, user) = (next()?, next()?);
    let (log_time, log_level, message) = (next()?, next()?, next()?);
    Ok(TaskEvent {
        kind: TaskEventKind::EngineReloadFailed,
        host,
        task_name: None,
        app_name: None,
        user: Some(format!("{directory}\\{user}")),
        task_id: None,
        app_id: Some(app_id),
        log_time: Some(log_time),
        log_level: Some(log_level),
        execution_id: None,
        message: Some(message),
        received,
        ambiguous: false,
        origin: Origin::Datagram,
    })
}

/// What every reading of a scheduler datagram has in common.
struct Build {
    kind: TaskEventKind,
    generation: Generation,
    received: SystemTime,
}

impl Build {
    /// Fields where the pattern puts them; what is behind the ninth is the message.
    fn positional(&self, fields: &[&str], ambiguous: bool) -> TaskEvent {
        let names = fields.get(1).map(|name| (*name).to_owned());
        let apps = fields.get(2).map(|name| (*name).to_owned());
        self.event(fields, TASK_ID, names, apps, ambiguous)
    }

    /// Fields around the anchor at `at`; between host and user stand the two names, whatever they contain.
    fn anchored(&self, fields: &[&str], at: usize, several: bool) -> Option<TaskEvent> {
        let names = split_names(fields.get(1..at.checked_sub(1)?)?)?;
        Some(self.event(fields, at, Some(names.task), Some(names.app), several || names.ambiguous))
    }

    fn event(
        &self,
        fields: &[&str],
        id: usize,
        task: Option<String>,
        app: Option<String>,
        ambiguous: bool,
    ) -> TaskEvent {
        let field = |at: usize| fields.get(at).map(|field| text::field(field, self.generation));
        let clean = |name: String| text::owned_field(name, self.generation);
        TaskEvent {
            kind: self.kind,
            host: field(0).unwrap_or_default(),
            task_name: task.map(clean),
            app_name: app.map(clean),
            user: id.checked_sub(1).and_then(field).map(text::single_backslashes),
            task_id: field(id),
            app_id: field(id + 1),
            log_time: field(id + 2),
            log_level: field(id + 3),
            execution_id: field(id + 4),
            message: text::message(fields.get(id + 5..).unwrap_or_default(), self.generation),
            received: self.received,
            ambiguous,
            origin: Origin::Datagram,
        }
    }
}

#[cfg(test)]
mod tests;
