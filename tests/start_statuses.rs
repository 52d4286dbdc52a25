//! Every status a start request can have, by every door: MQTT 3.1.1 (response topic), MQTT 5 (Response Topic and Correlation Data), REST.
//!
//! One table; each of its cells has a task of its own, and is judged by the whole answer and by what the site really started.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/mqtt5.rs"]
mod mqtt5;
#[path = "support/site.rs"]
mod site;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use app::{App, Dir, PATIENCE};
use mqtt::Client;
use mqtt5::Client5;
use rumqttc::{QoS, v5::mqttbytes::v5::PublishProperties};
use sense_butler::{
    names::TaskId,
    sense::{
        qrs::{ExecutionStatus, Qrs, Session},
        tasks::request::StartStatus::{self, *},
    },
};
use serde_json::{Value, json};
use site::{Site, task};
use tokio::task::JoinSet;

const START: &str = "qliksense/start_task";
const RESPONSE: &str = "qliksense/start_task/response";
const REST: &str = "/api/v1/tasks/start";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Mqtt3,
    Mqtt5,
    Rest,
}

const DOORS: [Door; 3] = [Door::Mqtt3, Door::Mqtt5, Door::Rest];

/// What a cell does when the first word was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// What runs of the task ends so.
    End(&'static str),
}

/// What is there before the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Nothing,
    /// The task runs.
    Running,
    /// The start of the task is answered so.
    Answer(&'static str, u16),
}

/// How REST tells what is told by MQTT with a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByRest {
    /// With the same answers.
    Alike,
    /// It cannot: the whole call is refused with this HTTP status and the same code.
    Refused(u16, &'static str),
}

/// A row of the table.
struct Row {
    name: &'static str,
    /// Keys of the task of each of its cells, in the site's file.
    task: &'static str,
    given: Given,
    /// What is asked, beside the task; `{}` in a text is the task's id.
    wish: fn(&str) -> Value,
    then: Then,
    /// Statuses and codes, in order; the last is the last word.
    words: &'static [(StartStatus, Option<&'static str>)],
    /// Whether the answers name the task: it was looked up.
    named: bool,
    by_rest: ByRest,
    /// Executions the site has of the task in the end, with those it had before.
    starts: usize,
    /// Whether QRS is away.
    away: bool,
}

const ROW: Row = Row {
    name: "",
    task: "duration: 4000",
    given: Given::Nothing,
    wish: |id| json!({"taskId": id}),
    then: Then::Nothing,
    words: &[],
    named: true,
    by_rest: ByRest::Alike,
    starts: 0,
    away: false,
};

const fn code(code: &'static str) -> Option<&'static str> {
    Some(code)
}

const ROWS: &[Row] = &[
    Row { name: "started", words: &[(Started, None)], starts: 1, ..ROW },
    Row {
        name: "finished",
        wish: |id| json!({"taskId": id, "wait": "finished"}),
        then: Then::End("finish"),
        words: &[(Started, None), (Finished, None)],
        starts: 1,
        ..ROW
    },
    Row {
        name: "failed",
        wish: |id| json!({"taskId": id, "wait": "finished"}),
        then: Then::End("fail"),
        words: &[(Started, None), (Failed, None)],
        starts: 1,
        ..ROW
    },
    Row {
        name: "aborted",
        wish: |id| json!({"taskId": id, "wait": "finished"}),
        then: Then::End("abort"),
        words: &[(Started, None), (Aborted, None)],
        starts: 1,
        ..ROW
    },
    Row {
        name: "accepted: it runs, and is started when it has ended",
        given: Given::Running,
        wish: |id| json!({"taskId": id, "onRunning": "queue"}),
        then: Then::End("finish"),
        words: &[(Accepted, code("queued")), (Started, None)],
        starts: 2,
        ..ROW
    },
    Row {
        name: "expired: it runs for too long",
        given: Given::Running,
        wish: |id| json!({"taskId": id, "onRunning": "queue", "deadlineSeconds": 1}),
        words: &[(Accepted, code("queued")), (Expired, code("deadline"))],
        starts: 1,
        ..ROW
    },
    Row { name: "skipped", given: Given::Running, words: &[(Skipped, code("running"))], starts: 1, ..ROW },
    Row {
        name: "not started: disabled",
        task: "duration: 1, enabled: false",
        words: &[(NotStarted, code("not_started"))],
        ..ROW
    },
    Row {
        name: "not started: refused",
        given: Given::Answer("status", 409),
        words: &[(NotStarted, code("qrs_refused"))],
        ..ROW
    },
    Row { name: "denied", words: &[(Denied, code("task_filter"))], named: false, ..ROW },
    Row {
        name: "unknown task: no such id",
        task: "",
        words: &[(UnknownTask, code("unknown_task"))],
        named: false,
        ..ROW
    },
    Row {
        name: "unknown task: no such tag",
        wish: |_| json!({"tag": "nobody"}),
        words: &[(UnknownTask, code("no_match"))],
        named: false,
        ..ROW
    },
    Row {
        name: "invalid: a name nothing can have",
        wish: |_| json!({"tag": "no\nbody"}),
        words: &[(Invalid, code("bad_name"))],
        named: false,
        ..ROW
    },
    Row {
        name: "invalid: unreadable",
        wish: |id| json!({"taskId": id, "later": true}),
        words: &[(Invalid, code("unknown_field"))],
        named: false,
        by_rest: ByRest::Refused(400, "a call that cannot be read is an error of the call, as on every other route"),
        ..ROW
    },
    Row {
        name: "unknown: whether it started",
        // Not done, and QRS does not say so.
        given: Given::Answer("status", 500),
        words: &[(Unknown, code("undecided"))],
        ..ROW
    },
    Row {
        name: "unknown: how it ends",
        // Done, without an execution id.
        given: Given::Answer("statusAfter", 204),
        wish: |id| json!({"taskId": id, "wait": "finished"}),
        words: &[(Unknown, code("not_followed"))],
        starts: 1,
        ..ROW
    },
    Row {
        name: "accepted, then expired: QRS is away",
        wish: |id| json!({"taskId": id, "deadlineSeconds": 1}),
        words: &[(Accepted, code("qrs_unreachable")), (Expired, code("deadline"))],
        named: false,
        away: true,
        ..ROW
    },
    Row {
        name: "unreachable",
        wish: |id| json!({"taskId": id, "deadlineSeconds": 0}),
        words: &[(Unreachable, code("qrs_unreachable"))],
        named: false,
        by_rest: ByRest::Refused(503, "nobody could be asked about any task: the call may be made again as it is"),
        away: true,
        ..ROW
    },
    Row {
        name: "unreachable, beside one that is denied",
        wish: |id| json!({"taskIds": [id, NOT_ALLOWED], "deadlineSeconds": 0}),
        words: &[(Unreachable, code("qrs_unreachable"))],
        named: false,
        away: true,
        ..ROW
    },
];

/// Allowed to nobody.
const NOT_ALLOWED: &str = "00000000-0000-0000-0000-0000000000ff";

/// All statuses. A new one does not compile here until the table has it.
fn all_statuses() -> Vec<StartStatus> {
    let all = [
        Accepted,
        Started,
        Finished,
        Failed,
        Aborted,
        Skipped,
        Expired,
        NotStarted,
        Denied,
        UnknownTask,
        Invalid,
        Unreachable,
        Unknown,
    ];
    for status in all {
        match status {
            Accepted | Started | Finished | Failed | Aborted | Skipped | Expired | NotStarted | Denied
            | UnknownTask | Invalid | Unreachable | Unknown => {}
        }
    }
    all.to_vec()
}

/// A row by a door.
#[derive(Clone, Copy)]
struct Cell {
    row: &'static Row,
    door: Door,
    number: u128,
}

fn cells() -> Vec<Cell> {
    let each = ROWS.iter().flat_map(|row| DOORS.map(|door| (row, door)));
    each.zip(1..).map(|((row, door), number)| Cell { row, door, number }).collect()
}

impl Cell {
    fn task(&self) -> TaskId {
        TaskId::from_u128(self.number)
    }

    fn name(&self) -> String {
        format!("{} ({:?})", self.row.name, self.door)
    }

    fn client(&self) -> String {
        format!("table-{}", self.number)
    }

    fn transaction(&self) -> Value {
        // REST takes a text as `Idempotency-Key`; MQTT may have anything.
        if self.door == Door::Rest {
            json!(self.client())
        } else {
            json!({"cell": self.number as u64, "of": [null, "å"]})
        }
    }

    fn wish(&self) -> Value {
        let mut wish = (self.row.wish)(&self.task().to_string());
        wish["transaction"] = self.transaction();
        wish
    }

    /// Runs it; the answers, each as far as it concerns its task.
    async fn run(self, site: Arc<Site>, ports: (u16, u16)) -> Vec<Value> {
        match self.row.given {
            Given::Nothing => {}
            Given::Running => drop(site.start_elsewhere(self.task()).await),
            Given::Answer(action, status) => {
                let fault = json!({"action": action, "status": status, "text": "", "method": "POST"});
                site.fault(&format!("/qrs/task/{}/start", self.task()), fault).await;
            }
        }
        let work = async {
            match self.door {
                Door::Mqtt3 => self.by_mqtt3(&site, ports.0).await,
                Door::Mqtt5 => self.by_mqtt5(&site, ports.0).await,
                Door::Rest => self.by_rest(&site, ports.1).await,
            }
        };
        let answers = tokio::time::timeout(PATIENCE * 2, work).await;
        answers.unwrap_or_else(|_| panic!("{}: no last word", self.name()))
    }

    /// What happens at the site when so many words were said.
    async fn said(&self, site: &Site, words: usize) {
        if let Then::End(how) = self.row.then
            && words == 1
        {
            self.runs(site).await;
            site.end_execution(self.task(), how).await;
        }
    }

    /// Waits until its execution has begun: "started" is said when the site has taken the start, and what is ended before it runs has no beginning to
    /// tell of.
    async fn runs(&self, site: &Site) {
        let (qrs, mut pace) = (Qrs::new(&site.settings()), tokio::time::interval(Duration::from_millis(5)));
        let runs = |session: &Session| session.status == Some(ExecutionStatus::Started);
        while !qrs.sessions_of(self.task()).await.unwrap().iter().any(runs) {
            pace.tick().await;
        }
    }

    /// Whether an answer is about its task; others of the same request are about another.
    fn is_mine(&self, answer: &Value) -> bool {
        answer["taskId"] != NOT_ALLOWED
    }

    async fn by_mqtt3(&self, site: &Site, port: u16) -> Vec<Value> {
        let mut client = Client::connect(port, &self.client()).await;
        client.subscribe(RESPONSE, QoS::AtLeastOnce).await;
        client.publish(START, QoS::AtLeastOnce, false, self.wish().to_string()).await;
        let mut answers = Vec::new();
        while answers.len() < self.row.words.len() {
            // Other cells are answered on the same topic.
            let told = client.next().await;
            assert!(told.topic == RESPONSE && told.qos == QoS::AtLeastOnce && !told.retain, "{told:?}");
            let answer: Value = serde_json::from_slice(&told.payload).unwrap();
            if answer["requestedBy"] == self.client() && self.is_mine(&answer) {
                answers.push(answer);
                self.said(site, answers.len()).await;
            }
        }
        answers
    }

    async fn by_mqtt5(&self, site: &Site, port: u16) -> Vec<Value> {
        let mut client = Client5::open(port, &self.client()).await;
        let (topic, correlation) = (format!("answers/{}", self.number), vec![0, 0xff, self.number as u8]);
        client.subscribe(&topic).await;
        let properties = PublishProperties {
            response_topic: Some(topic.clone()),
            correlation_data: Some(correlation.clone().into()),
            ..PublishProperties::default()
        };
        client.publish(START, 1, false, self.wish().to_string(), properties).await;
        let mut answers = Vec::new();
        while answers.len() < self.row.words.len() {
            let told = client.next().await;
            assert_eq!((&told.topic[..], told.qos as u8, told.retain), (topic.as_bytes(), 1, false), "{}", self.name());
            let with = told.properties.unwrap();
            assert_eq!(with.correlation_data.as_deref(), Some(&correlation[..]), "{}", self.name());
            assert_eq!(with.content_type.as_deref(), Some("application/json"));
            assert_eq!(with.payload_format_indicator, Some(1));
            let answer: Value = serde_json::from_slice(&told.payload).unwrap();
            if self.is_mine(&answer) {
                answers.push(answer);
                self.said(site, answers.len()).await;
            }
        }
        answers
    }

    /// One call that waits where one word is expected; else calls that do not, with the same transaction, until the last word.
    async fn by_rest(&self, site: &Site, port: u16) -> Vec<Value> {
        let timeout = if self.row.words.len() == 1 { 1_000 } else { 0 };
        let (path, body) = (format!("{REST}?timeout={timeout}"), self.wish().to_string());
        let mut answers: Vec<Value> = Vec::new();
        loop {
            let (status, text) = app::http(port, "POST", &path, &[], &body).await;
            let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {error}: {text}"));
            if let ByRest::Refused(refused, _) = self.row.by_rest {
                assert_eq!(status, refused, "{}: {told}", self.name());
                return vec![told];
            }
            assert!([200, 202].contains(&status), "{}: {status} {told}", self.name());
            let results = told["results"].as_array().unwrap();
            if let Some(result) = results.iter().find(|result| self.is_mine(result))
                && answers.last().is_none_or(|last| last["status"] != result["status"])
            {
                answers.push(result.clone());
                self.said(site, answers.len()).await;
            }
            if status == 200 {
                return answers;
            }
            // Between two looks.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every field of every answer.
    fn judge(&self, answers: &[Value], executions: &[String]) {
        let name = self.name();
        assert_eq!(executions.len(), self.row.starts, "{name}: really started");
        if let (Door::Rest, ByRest::Refused(..)) = (self.door, self.row.by_rest) {
            let error = answers[0]["error"].as_object().unwrap();
            assert_eq!((answers[0].as_object().unwrap().len(), error.len()), (1, 3), "{name}: {error:?}");
            assert_eq!(error["code"].as_str(), self.row.words[0].1, "{name}");
            assert!(error["request_id"].is_string() && is_sentence(&error["message"]), "{name}: {error:?}");
            return;
        }
        let told: Vec<_> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
        let expected: Vec<_> = self.row.words.iter().map(|(status, _)| status.as_str()).collect();
        assert_eq!(told, expected, "{name}: {answers:?}");
        for (place, answer) in answers.iter().enumerate() {
            self.judge_answer(place, answer, executions);
        }
    }

    fn judge_answer(&self, place: usize, answer: &Value, executions: &[String]) {
        let name = self.name();
        let (status, code) = self.row.words[place];
        let (ended, again) = (matches!(status, Finished | Failed | Aborted), answer.get("duplicate").is_some());
        let mut keys =
            vec!["status", "taskId", "taskName", "executionId", "transaction", "error", "door", "requestedBy", "at"];
        keys.extend(ended.then_some("execution"));
        // By REST a later word is heard by asking again.
        keys.extend((self.door == Door::Rest && again).then_some("duplicate"));
        let found: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, keys, "{name}: {answer}");
        assert!(!again || (self.row.words.len() > 1 && answer["duplicate"] == true), "{name}: {answer}");
        // Of what cannot be read, only the transaction is.
        let by_id = self.wish().get("tag").is_none() && status != Invalid;
        assert_eq!(answer["taskId"], json!(by_id.then(|| self.task().to_string())), "{name}");
        assert_eq!(answer["taskName"], json!(self.row.named.then(|| name.clone())), "{name}");
        assert_eq!(answer["transaction"], self.transaction(), "{name}");
        let (door, by) = match self.door {
            Door::Rest => ("rest", "127.0.0.1".to_owned()),
            Door::Mqtt3 | Door::Mqtt5 => ("mqtt", self.client()),
        };
        assert_eq!((&answer["door"], &answer["requestedBy"]), (&json!(door), &json!(by)), "{name}");
        let at = answer["at"].as_str().unwrap();
        assert!(at.len() == 24 && at.starts_with("20") && at.ends_with('Z'), "{name}: {at}");
        // Which execution: the one that was just started, or the one that was there.
        let execution = match (status, code) {
            (Started | Finished | Failed | Aborted, _) => executions.last(),
            (Accepted, Some("queued")) | (Skipped, _) => executions.first(),
            _ => None,
        };
        assert_eq!(answer["executionId"], json!(execution), "{name}: {executions:?}");
        match code {
            None => assert_eq!(answer["error"], Value::Null, "{name}"),
            Some(code) => {
                let error = answer["error"].as_object().unwrap();
                assert_eq!((error.len(), error["code"].as_str()), (2, Some(code)), "{name}: {answer}");
                assert!(is_sentence(&error["message"]), "{name}: {answer}");
            }
        }
        if ended {
            judge_execution(&name, status, &answer["execution"]);
        }
    }
}

fn is_sentence(message: &Value) -> bool {
    message.as_str().is_some_and(|text| text.len() > 10 && text.contains(' '))
}

/// How an execution went.
fn judge_execution(name: &str, status: StartStatus, execution: &Value) {
    let mut keys = vec!["status", "startedAt", "stoppedAt", "durationMs", "attempts", "node"];
    keys.extend((status == Failed).then_some("logTail"));
    let found: Vec<_> = execution.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys, "{name}: {execution}");
    let word = match status {
        Finished => "FinishedSuccess",
        Failed => "FinishedFail",
        _ => "Aborted",
    };
    assert_eq!((&execution["status"], &execution["attempts"]), (&json!(word), &json!(1)), "{name}: {execution}");
    assert_eq!(execution["node"], "sense-1", "{name}: {execution}");
    assert!(execution["startedAt"].is_string() && execution["stoppedAt"].is_string(), "{name}: {execution}");
    assert!(execution["durationMs"].is_u64(), "{name}: {execution}");
    if status == Failed {
        let lines = execution["logTail"].as_array().unwrap();
        assert!(lines.iter().any(|line| line.as_str().unwrap().contains("Execution Failed")), "{name}: {lines:?}");
    }
}

/// Runs cells side by side; each with its answers.
async fn run(cells: Vec<Cell>, site: &Arc<Site>, ports: (u16, u16)) -> Vec<(Cell, Vec<Value>)> {
    let mut running = JoinSet::new();
    for cell in cells {
        let site = Arc::clone(site);
        running.spawn(async move { (cell, cell.run(site, ports).await) });
    }
    running.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_status_by_every_door() {
    let cells = cells();
    let there = |cell: &&Cell| !cell.row.task.is_empty();
    let tasks: String = cells.iter().filter(there).map(|cell| task(cell.task(), &cell.name(), cell.row.task)).collect();
    let allowed = cells.iter().filter(|cell| cell.row.words[0].0 != Denied).map(|cell| cell.task().to_string());
    let allowed: Vec<_> = allowed.collect();
    let filter = format!(
        "  startTaskFilter: {{ enable: true, allowTask: {{ taskId: {}, tag: {}, customProperty: [] }} }}\n",
        json!(allowed),
        json!(["nobody", "no\nbody"])
    );
    let (site, dir) = (Arc::new(Site::start(&tasks).await), Dir::new());
    let app = App::configured(&dir, &site.butler_yaml(&filter)).await;
    let ports = (app.mqtt().await, app.rest().await);
    let (away, here): (Vec<_>, Vec<_>) = cells.iter().copied().partition(|cell| cell.row.away);
    let mut ran = run(here, &site, ports).await;
    site.order("restart", json!({"downSeconds": 3_600, "initialisingSeconds": 0})).await;
    ran.extend(run(away, &site, ports).await);
    let executions = site.executions().await;
    let (mut shown, mut refused) = (BTreeSet::new(), 0);
    for (cell, answers) in &ran {
        cell.judge(answers, executions.get(&cell.task()).map_or(&[], Vec::as_slice));
        match (cell.door, cell.row.by_rest) {
            (Door::Rest, ByRest::Refused(status, why)) => {
                println!("{}: {status} instead, because {why}", cell.name());
                refused += 1;
            }
            _ => shown.extend(cell.row.words.iter().map(|(status, _)| (cell.door, status.as_str()))),
        }
    }
    // Whatever REST refuses as a whole in one row, another row shows with its status.
    let all = all_statuses();
    let missing = |door: &Door| all.iter().any(|status| !shown.contains(&(*door, status.as_str())));
    assert_eq!(DOORS.iter().filter(|door| missing(door)).count(), 0, "{shown:?}");
    assert_eq!((ran.len(), shown.len(), refused), (57, 39, 2));
    app.stop().await;
}
