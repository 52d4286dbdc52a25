//! `GET /api/v1/events?since=&until=&type=&taskId=&taskName=&appId=&executionId=&before=&after=&order=&limit=&summary=`: what happened in Qlik
//! Sense, from the journal, as an array of flat objects that always have the same fields, all of them texts: a table for a load script.
//!
//! With `summary=true` the answer is one object: how many fit, and the one that comes first. So "did this task succeed after six?" is one call
//! whose answer always has one row.

mod when;

use serde::Serialize;
use time::OffsetDateTime;

use super::{
    answer::{Answer, Request},
    broker_desk::Query,
    fault::{Fault, Kind},
    state::State,
};
use crate::{
    keep::journal::{Ask, Entry, Order, Texts},
    names::{ExecutionId, GuidError, TaskId},
    sense::{chronicle::TYPES, tasks::end::timestamp},
};

pub(super) const PATH: &str = "/api/v1/events";
/// Rows if no other number is asked for, and the most.
const ROWS: (usize, usize) = (100, 10_000);
/// What an id begins with: without a letter a load script would make a number of it, and lose digits.
const ID: char = 'n';
/// All a query may have.
const KNOWN: [&str; 12] = [
    "since",
    "until",
    "type",
    "taskId",
    "taskName",
    "appId",
    "executionId",
    "before",
    "after",
    "order",
    "limit",
    "summary",
];

/// An event, in the order of the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: String,
    time: String,
    #[serde(rename = "type")]
    kind: &'a str,
    task_id: &'a str,
    task_name: &'a str,
    app_id: &'a str,
    app_name: &'a str,
    execution_id: &'a str,
    user: &'a str,
    host: &'a str,
    source: &'a str,
    log_time: &'a str,
    message: &'a str,
}

/// How many fit, and the one that comes first.
#[derive(Serialize)]
struct Summary<'a> {
    count: usize,
    #[serde(flatten)]
    first: Row<'a>,
}

/// # Errors
/// 400 for a wrong query.
pub(super) async fn list(state: &State, request: &Request) -> Result<Answer, Fault> {
    let query = Query::read(request, &KNOWN)?;
    let ask = ask(&query, OffsetDateTime::now_utc())?;
    let summary = query.flag("summary")?;
    let off = || Fault::new(Kind::NotFound, "there is no journal of events; `eventJournal.enable: true` makes one");
    let journal = state.setup.journal.clone().ok_or_else(off)?;
    // Every event is looked at: not on a thread that others wait for.
    let looked = tokio::task::spawn_blocking(move || {
        if summary {
            let first = journal.find(&Ask { limit: 1, ..ask.clone() });
            return summed(journal.count(&ask), first.first());
        }
        written(&journal.find(&ask))
    });
    let defect = |_| Fault::new(Kind::Internal, "the journal could not be searched; the log says more");
    let body = looked.await.map_err(defect)?;
    Ok(Answer::json(200, body).with("cache-control", "no-store"))
}

fn ask(query: &Query, now: OffsetDateTime) -> Result<Ask, Fault> {
    let wrong = |message: String| Fault::new(Kind::Value, message);
    let given = |name: &str| query.get(name).filter(|text| !text.is_empty());
    let text = |name: &str| given(name).map(str::to_owned);
    let moment = |name: &'static str| given(name).map(|text| when::read(name, text, now)).transpose();
    let order = match given("order") {
        None | Some("newest") => Order::NewestFirst,
        Some("oldest") => Order::OldestFirst,
        Some(_) => return Err(wrong("`order` may be newest or oldest".into())),
    };
    let limit = match query.get("limit") {
        None => Some(ROWS.0),
        Some(text) => text.parse().ok().filter(|limit| (1..=ROWS.1).contains(limit)),
    };
    let is_no_id = |name: &str, error: GuidError| wrong(format!("`{name}`: {error}"));
    let task = given("taskId").map(|id| id.parse::<TaskId>().map_err(|error| is_no_id("taskId", error))).transpose()?;
    let execution = given("executionId")
        .map(|id| id.parse::<ExecutionId>().map_err(|error| is_no_id("executionId", error)))
        .transpose()?;
    Ok(Ask {
        since: moment("since")?,
        until: moment("until")?,
        kinds: given("type").map_or(Ok(Vec::new()), kinds)?,
        task_id: task.map(|id| id.to_string()),
        task_name: text("taskName"),
        app_id: text("appId").map(|id| id.to_ascii_lowercase()),
        execution_id: execution.map(|id| id.to_string()),
        before: given("before").map(|text| number("before", text)).transpose()?,
        after: given("after").map(|text| number("after", text)).transpose()?,
        order,
        limit: limit.ok_or_else(|| wrong(format!("`limit` must be a number from 1 to {}", ROWS.1)))?,
    })
}

/// Types with commas between; each as it stands in rows, or the beginning of some up to a dot, e.g. `sense.task`.
fn kinds(text: &str) -> Result<Vec<String>, Fault> {
    let mut kinds = Vec::new();
    for part in text.split(',').map(str::trim) {
        let fits = |kind: &str| kind.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let before = kinds.len();
        kinds.extend(TYPES.iter().filter(|kind| fits(kind)).map(|kind| (*kind).to_owned()));
        if kinds.len() == before {
            let shown: String = part.chars().take(60).collect();
            let message = format!("`type`: there is no `{shown}`; there are {}", TYPES.join(", "));
            return Err(Fault::new(Kind::Value, message));
        }
    }
    Ok(kinds)
}

fn id(number: u64) -> String {
    format!("{ID}{number:014x}")
}

/// The number of an event by the id in its row.
fn number(name: &str, text: &str) -> Result<u64, Fault> {
    let digits = text.strip_prefix(ID).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.ok_or_else(|| Fault::new(Kind::Value, format!("`{name}` must be the `id` of a row")))
}

fn row(entry: &Entry) -> Row<'_> {
    let Texts { kind, task_id, execution_id, app_id, task_name, app_name, user, host, source, log_time, message } =
        entry.texts();
    Row {
        id: id(entry.id),
        time: moment(entry.at),
        kind,
        task_id,
        task_name,
        app_id,
        app_name,
        execution_id,
        user,
        host,
        source,
        log_time,
        message,
    }
}

/// UTC, to the millisecond.
fn moment(at: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
    moment.map(timestamp).unwrap_or_default()
}

// Texts and numbers: writing them as JSON cannot fail.

fn written(entries: &[Entry]) -> String {
    let rows: Vec<_> = entries.iter().map(row).collect();
    serde_json::to_string(&rows).unwrap_or_default()
}

fn summed(count: usize, first: Option<&Entry>) -> String {
    let none = Row {
        id: String::new(),
        time: String::new(),
        kind: "",
        task_id: "",
        task_name: "",
        app_id: "",
        app_name: "",
        execution_id: "",
        user: "",
        host: "",
        source: "",
        log_time: "",
        message: "",
    };
    let summary = Summary { count, first: first.map_or(none, row) };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn read(query: &str) -> Result<Ask, Kind> {
        let request = Request {
            method: "GET".into(),
            path: PATH.into(),
            query: query.into(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
            peer: ([127, 0, 0, 1], 1).into(),
            token: None,
            visit: None,
            lane: None,
        };
        let query = Query::read(&request, &KNOWN).map_err(|fault| fault.kind)?;
        ask(&query, datetime!(2026-11-23 12:00 UTC)).map_err(|fault| fault.kind)
    }

    #[test]
    fn queries() {
        let guid = "5A1E5000-0000-4000-8000-000000000001";
        let asked = read(&format!(
            "since=2h&until=2026-11-23T11:00:00Z&type=sense.task.failed,sense.session&taskId={guid}&taskName=T%20%C3%A4&appId={guid}\
             &executionId={guid}&before=n0000000000002a&after=n0&order=oldest&limit=10000"
        ));
        let hour = 3_600_000;
        let noon = 1_795_435_200_000;
        let lower = Some(guid.to_lowercase());
        let expected = Ask {
            since: Some(noon - 2 * hour),
            until: Some(noon - hour),
            kinds: ["sense.task.failed", "sense.session.started", "sense.session.stopped"].map(str::to_owned).to_vec(),
            task_id: lower.clone(),
            task_name: Some("T ä".into()),
            app_id: lower.clone(),
            execution_id: lower,
            before: Some(42),
            after: Some(0),
            order: Order::OldestFirst,
            limit: 10_000,
        };
        assert_eq!(asked, Ok(expected));
        assert_eq!(read(""), Ok(Ask { limit: 100, ..Ask::default() }));
        assert_eq!(read("since=&taskId=&type=&before="), Ok(Ask { limit: 100, ..Ask::default() }), "empty is absent");
        let mut ran = 0;
        for wrong in [
            "sinc=2h",
            "since=soon",
            "since=1h&since=2h",
            "type=sense.tas",
            "type=sense.task,",
            "taskId=x",
            "executionId=1",
            "before=42",
            "after=nx",
            "after=n+1",
            "order=up",
            "limit=0",
            "limit=10001",
            "limit=",
        ] {
            assert_eq!(read(wrong), Err(Kind::Value), "{wrong}");
            ran += 1;
        }
        assert_eq!(ran, 14);
    }

    #[test]
    fn an_id_is_an_id_and_sorts_as_its_number() {
        for number_of in [0, 42, 7_354_102_579_200_000, u64::MAX] {
            assert_eq!(number("before", &id(number_of)), Ok(number_of));
        }
        assert!(id(7_354_102_579_200_000) < id(7_354_102_579_200_001));
        assert_eq!(moment(1_795_435_200_007), "2026-11-23T12:00:00.007Z");
    }
}
