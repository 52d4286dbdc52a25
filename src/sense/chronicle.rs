//! What comes into the journal: Sense events as they come to be published, and the ends of executions that are followed.
//!
//! Invariants: nobody waits for it; of users nothing is noted unless that was switched on, and then as much as the caller shows; an end of
//! which a datagram and the follower tell is one row, that of whoever was first (the journal sees to it).

use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;

use super::{
    event::{Origin, SessionEvent, SessionEventKind, TaskEvent, TaskEventKind},
    tasks::{Execution, Follower, request::StartStatus},
};
use crate::keep::journal::{Note, Sink};

/// The end of an execution that Qlik Sense has no trace of any more.
const UNKNOWN: &str = "sense.task.unknown";
/// Who told, where it was the follower.
const FOLLOWED: &str = "followed";

/// All types of rows.
pub const TYPES: [&str; 10] = [
    TaskEventKind::Failed.type_name(),
    TaskEventKind::Aborted.type_name(),
    TaskEventKind::Succeeded.type_name(),
    TaskEventKind::Distributed.type_name(),
    TaskEventKind::EngineReloadFailed.type_name(),
    UNKNOWN,
    SessionEventKind::SessionStarted.type_name(),
    SessionEventKind::SessionStopped.type_name(),
    SessionEventKind::ConnectionOpened.type_name(),
    SessionEventKind::ConnectionClosed.type_name(),
];

/// Notes what happens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chronicler {
    sink: Sink,
    sessions: bool,
}

impl Chronicler {
    /// `sessions`: what users do is noted, too.
    pub fn new(sink: Sink, sessions: bool) -> Self {
        Self { sink, sessions }
    }

    /// A task event.
    pub fn task(&self, event: &TaskEvent) {
        self.sink.note(|| of_task(event));
    }

    /// What a user did. `user`: as much of them as may be told; `whole`: all of it may, so the message may be noted, which names them.
    pub fn session(&self, event: &SessionEvent, user: impl FnOnce() -> (String, bool)) {
        if self.sessions {
            self.sink.note(|| {
                let (user, whole) = user();
                of_session(event, user, whole)
            });
        }
    }

    /// Notes how followed executions end, until told to stop and what was told before that is noted.
    pub async fn follow(self, follower: Follower, stop: CancellationToken) {
        let mut changes = follower.changes();
        while let Some(change) = stop.run_until_cancelled(changes.recv()).await {
            match change {
                Ok(execution) => self.execution(&execution),
                Err(RecvError::Lagged(missed)) => self.sink.missed(missed),
                Err(RecvError::Closed) => return,
            }
        }
        self.drain(&mut changes);
    }

    fn drain(&self, changes: &mut broadcast::Receiver<Execution>) {
        loop {
            match changes.try_recv() {
                Ok(execution) => self.execution(&execution),
                Err(TryRecvError::Lagged(missed)) => self.sink.missed(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn execution(&self, execution: &Execution) {
        if let Some(note) = of_execution(execution, SystemTime::now()) {
            self.sink.note(|| note);
        }
    }
}

fn of_task(event: &TaskEvent) -> Note {
    // In lower case, so that they can be compared: Sense sends them so, and this program writes them so.
    let id = |sent: &Option<String>| text(sent).to_ascii_lowercase();
    Note {
        at: happened(event),
        kind: event.kind.type_name(),
        task_id: id(&event.task_id),
        execution_id: id(&event.execution_id),
        app_id: id(&event.app_id),
        task_name: text(&event.task_name),
        app_name: text(&event.app_name),
        user: text(&event.user),
        host: event.host.clone(),
        source: event.origin.as_str(),
        log_time: text(&event.log_time),
        message: text(&event.message),
    }
}

/// A datagram says nothing of its zone and comes at once; QRS tells of what may be hours ago, in UTC.
fn happened(event: &TaskEvent) -> u64 {
    let told = event.log_time.as_deref().filter(|_| event.origin != Origin::Datagram);
    told.and_then(utc).unwrap_or_else(|| milliseconds(event.received))
}

fn of_session(event: &SessionEvent, user: String, whole: bool) -> Note {
    Note {
        at: milliseconds(event.received),
        kind: event.kind.type_name(),
        user,
        host: event.host.clone(),
        source: Origin::Datagram.as_str(),
        message: if whole { text(&event.message) } else { String::new() },
        ..Note::default()
    }
}

/// `None`: it goes on.
fn of_execution(execution: &Execution, now: SystemTime) -> Option<Note> {
    let kind = match execution.word() {
        StartStatus::Finished => TaskEventKind::Succeeded.type_name(),
        StartStatus::Failed => TaskEventKind::Failed.type_name(),
        StartStatus::Aborted => TaskEventKind::Aborted.type_name(),
        StartStatus::Unknown => UNKNOWN,
        _ => return None,
    };
    let end = execution.end.as_ref();
    let stopped = end.and_then(|end| end.stopped_at.clone());
    let last_line = end.and_then(|end| end.log_tail.iter().rev().find(|line| !line.trim().is_empty()));
    let word = || end.map(|end| end.status.clone());
    Some(Note {
        at: stopped.as_deref().and_then(utc).unwrap_or_else(|| milliseconds(now)),
        kind,
        task_id: execution.task.to_string(),
        execution_id: execution.id.to_string(),
        task_name: execution.task_name.clone().unwrap_or_default(),
        host: end.and_then(|end| end.node.clone()).unwrap_or_default(),
        source: FOLLOWED,
        log_time: stopped.unwrap_or_default(),
        message: last_line.cloned().or_else(word).unwrap_or_default(),
        ..Note::default()
    })
}

/// `(null)` is what a log appender writes for nothing.
fn text(field: &Option<String>) -> String {
    field.clone().filter(|text| text != "(null)").unwrap_or_default()
}

fn utc(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

fn milliseconds(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::settings::Generation,
        names::{ExecutionId, TaskId},
        sense::{
            datagram::{parse_session, parse_task},
            qrs::ExecutionStatus,
            tasks::end::ExecutionEnd,
        },
    };

    const TASK: &str = "0000aaaa-0000-4000-8000-00000000000a";
    const EXECUTION: &str = "ec000000-0000-4000-8000-000000000001";

    fn received() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_500)
    }

    #[test]
    fn a_task_event_is_noted_as_it_was_sent_with_ids_that_can_be_compared() {
        let text = format!(
            "/scheduler-task-success/;h;T;(null);LAB\\u;{};(null);2026-05-04 10:00:01,234;INFO;{EXECUTION};m",
            TASK.to_uppercase()
        );
        let event = parse_task(text.as_bytes(), Generation::Head, received()).unwrap();
        let note = of_task(&event);
        assert_eq!((note.at, note.kind, note.source), (1_500, "sense.task.succeeded", "datagram"));
        assert_eq!((&*note.task_id, &*note.execution_id), (TASK, EXECUTION));
        assert_eq!((&*note.app_id, &*note.app_name, &*note.task_name), ("", "", "T"));
        assert_eq!((&*note.user, &*note.host, &*note.message), (r"LAB\u", "h", "m"));
        assert_eq!(note.log_time, "2026-05-04 10:00:01,234");
        let asked = TaskEvent { origin: Origin::Polling, log_time: Some("1970-01-01T00:00:00.700Z".into()), ..event };
        assert_eq!(
            (of_task(&asked).at, of_task(&asked).source),
            (700, "polling"),
            "when it was, not when it was asked"
        );
        assert_eq!(of_task(&TaskEvent { log_time: None, ..asked }).at, 1_500);
    }

    #[test]
    fn of_a_user_no_more_is_noted_than_may_be_told() {
        let text = "/proxy-session/;p;Start session;LAB;anna;o;c;Start session for user 'LAB\\anna'";
        let event = parse_session(text.as_bytes(), Generation::Head, received()).unwrap();
        let note = of_session(&event, "LAB/anna".into(), true);
        assert_eq!(
            (note.kind, &*note.user, note.message.contains("anna")),
            ("sense.session.started", "LAB/anna", true)
        );
        let note = of_session(&event, "-".into(), false);
        assert!(!format!("{note:?}").contains("anna"));
    }

    #[test]
    fn an_execution_is_noted_when_it_has_ended() {
        let end = |stopped: Option<&str>, log: &[&str]| ExecutionEnd {
            status: "FinishedFail".into(),
            started_at: None,
            stopped_at: stopped.map(str::to_owned),
            duration_ms: None,
            attempts: 1,
            node: Some("n".into()),
            log_tail: log.iter().map(|line| (*line).to_owned()).collect(),
        };
        let execution = |status, end: Option<ExecutionEnd>, over| Execution {
            id: EXECUTION.parse::<ExecutionId>().unwrap(),
            task: TASK.parse::<TaskId>().unwrap(),
            task_name: Some("T".into()),
            started_by: None,
            status: Some(status),
            end,
            over,
        };
        let noted = |execution: &Execution| of_execution(execution, received());
        assert_eq!(noted(&execution(ExecutionStatus::Started, None, false)), None);
        let failed = execution(
            ExecutionStatus::FinishedFail,
            Some(end(Some("1970-01-01T00:00:01.000Z"), &["x", "Error", " "])),
            true,
        );
        let note = noted(&failed).unwrap();
        assert_eq!(
            (note.at, note.kind, &*note.message, note.source),
            (1_000, "sense.task.failed", "Error", "followed")
        );
        assert_eq!((&*note.task_id, &*note.execution_id, &*note.task_name, &*note.host), (TASK, EXECUTION, "T", "n"));
        let kinds = [
            (ExecutionStatus::FinishedSuccess, Some(end(None, &[])), "sense.task.succeeded"),
            (ExecutionStatus::Aborted, Some(end(None, &[])), "sense.task.aborted"),
            (ExecutionStatus::Started, None, "sense.task.unknown"),
        ];
        let mut ran = 0;
        for (status, end, kind) in kinds {
            let note = noted(&execution(status, end, true)).unwrap();
            assert_eq!((note.kind, note.at), (kind, 1_500));
            assert!(TYPES.contains(&note.kind));
            ran += 1;
        }
        assert_eq!(ran, 3);
    }
}
