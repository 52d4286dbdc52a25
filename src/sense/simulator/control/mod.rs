//! The control door: what happened, and how to make things happen. Plain HTTP, on the loopback only.
//!
//! A web page open in a browser on the same machine must not reach it: calls with an `Origin` are refused. The repository's outages do not
//! concern it.

mod burst;

use std::{sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    Shared,
    fault::Fault,
    http::{Call, Handler},
    journal,
    outlet::{DATAGRAMS_KEPT, Mishaps},
    plan::{Outcome, millis},
    reply::{Cut, Reply},
    site::{NOT_STARTED_KEPT, Origin, RESULTS_KEPT, STARTS_KEPT, StartAnswer, status::Status},
};
use crate::names::TaskId;

/// Answers at the control door.
pub struct Control(pub Arc<Shared>);

impl Handler for Control {
    async fn handle(&self, call: Call) -> Result<Reply, Cut> {
        if call.headers.contains_key("origin") {
            return Ok(error(403, "calls from web pages are refused"));
        }
        let segments: Vec<&str> = call.path.split('/').filter(|segment| !segment.is_empty()).collect();
        let Some((&"control", rest)) = segments.split_first() else { return Ok(nothing()) };
        Ok(match (call.method.as_str(), rest) {
            ("GET", rest) => get(&self.0, rest, &call),
            ("POST", ["burst"]) => burst::burst(&self.0, &call.body).await,
            ("POST", ["datagram"]) => burst::raw(&self.0, &call.body).await,
            ("POST", rest) => post(&self.0, rest, &call),
            ("DELETE", ["fault"]) => {
                self.0.faults.clear();
                Reply::empty(204)
            }
            _ => nothing(),
        })
    }
}

fn get(shared: &Shared, path: &[&str], call: &Call) -> Reply {
    let from = parameter(call, "from").and_then(|text| text.parse().ok()).unwrap_or(0);
    match path {
        [] => overview(shared),
        ["log"] => ok(&shared.journal.json(from)),
        ["starts"] => starts(shared, call, from),
        ["datagrams"] => datagrams(shared, from),
        ["fault"] => ok(&shared.faults.json()),
        ["clock"] => clock(shared),
        ["notifications"] => notifications(shared),
        _ => nothing(),
    }
}

fn post(shared: &Shared, path: &[&str], call: &Call) -> Reply {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    match path {
        ["fault"] => fault(shared, &call.body),
        ["rate"] => rate(shared, &body),
        ["datagrams"] => mishaps(shared, body),
        ["restart"] => restart(shared, &body),
        ["clock"] => set_clock(shared, &body),
        ["stall"] => stall(shared, &body),
        ["scheduler"] => scheduler(shared, &body),
        ["answers"] => answers(shared, body),
        ["task", id, verb] => task(shared, id, verb),
        _ => nothing(),
    }
}

fn ok(value: &Value) -> Reply {
    Reply::json(200, value.to_string())
}

fn error(status: u16, text: &str) -> Reply {
    Reply::json(status, json!({ "error": text }).to_string())
}

fn nothing() -> Reply {
    error(404, "GET /control lists what there is")
}

/// A parameter of the query, decoded.
fn parameter(call: &Call, wanted: &str) -> Option<String> {
    let mut parts = call.query.split('&').filter_map(|part| part.split_once('='));
    let (_, value) = parts.find(|(name, _)| *name == wanted)?;
    percent_decode_str(value).decode_utf8().ok().map(Into::into)
}

fn overview(shared: &Shared) -> Reply {
    ok(&json!({
        "simulator": "SIMULATOR of a Qlik Sense site (sense-butler)",
        "sampleTask": shared.plan.sample_task.to_string(),
        "get": ["/control/log?from=0", "/control/starts?from=0&task=", "/control/datagrams?from=0", "/control/fault",
            "/control/clock", "/control/notifications"],
        "post": ["/control/task/{id}/{start|finish|fail|abort|skip|error}", "/control/fault {\"path\",\"action\"}",
            "/control/restart {\"downSeconds\":5,\"initialisingSeconds\":2}",
            "/control/scheduler {\"available\":false}", "/control/answers {\"gzip\":true,\"chunked\":true}",
            "/control/stall {\"seconds\":30}", "/control/datagram {\"text\":\"...\",\"base64\":\"...\",\"times\":1}",
            "/control/clock {\"speed\":60,\"advanceSeconds\":3600,\"skewSeconds\":-300}", "/control/rate {\"rate\":1}",
            "/control/datagrams {\"loss\":0.3,\"duplicate\":0.1}", "/control/burst {\"count\":1000,\"rate\":0,\"kind\":\"failed\"}"],
        "delete": ["/control/fault"],
        "kept": { "requests": journal::KEPT, "starts": STARTS_KEPT, "notStarted": NOT_STARTED_KEPT,
            "executionResults": RESULTS_KEPT, "datagrams": DATAGRAMS_KEPT },
    }))
}

fn starts(shared: &Shared, call: &Call, from: u64) -> Reply {
    let only = match parameter(call, "task").map(|text| text.parse::<TaskId>()) {
        Some(Err(_)) => return error(400, "task: not a GUID"),
        Some(Ok(id)) => Some(id),
        None => None,
    };
    ok(&shared.with_site(|site| site.starts(from, only)).json())
}

fn datagrams(shared: &Shared, from: u64) -> Reply {
    let mut value = shared.outlet.json(from);
    if let Value::Object(fields) = &mut value {
        fields.insert("droppedBeforeSending".to_owned(), shared.with_site(|site| site.effects_dropped()).into());
    }
    ok(&value)
}

/// What happens to datagrams from now on.
fn mishaps(shared: &Shared, body: Value) -> Reply {
    let read = |body: Value| body.is_object().then(|| serde_json::from_value::<Mishaps>(body).ok()).flatten();
    match read(body).filter(Mishaps::are_sound) {
        Some(mishaps) => {
            shared.outlet.set_mishaps(mishaps, shared.seed);
            Reply::empty(204)
        }
        None => error(400, "expected {\"loss\": 0 to 1, \"duplicate\": 0 to 1}"),
    }
}

fn notifications(shared: &Shared) -> Reply {
    let mut value = shared.with_site(|site| site.notifications_json());
    if let (Value::Object(fields), Value::Object(calls)) = (&mut value, shared.notifier.json()) {
        fields.extend(calls);
    }
    ok(&value)
}

fn clock(shared: &Shared) -> Reply {
    let (now, log) = shared.with_site(|site| (site.calendar().qrs(site.now()), site.calendar().log(site.now())));
    ok(&json!({ "now": now, "logTime": log, "speed": shared.clock.speed() }))
}

/// What was left out stays as it is; nothing is changed when a part is wrong.
fn set_clock(shared: &Shared, body: &Value) -> Reply {
    const EXPECTED: &str =
        "expected {\"speed\": 0.001 to 10000, \"advanceSeconds\": 0 to 2592000, \"skewSeconds\": up to a year}";
    let number = |key: &str, range: std::ops::RangeInclusive<f64>| match body.get(key) {
        None => Ok(None),
        Some(value) => value.as_f64().filter(|number| range.contains(number)).map(Some).ok_or(()),
    };
    let (speed, advance) = (number("speed", 0.001..=10_000.0), number("advanceSeconds", 0.0..=2_592_000.0));
    let skew = number("skewSeconds", -3.2e7..=3.2e7);
    let (Ok(speed), Ok(advance), Ok(skew)) = (speed, advance, skew) else { return error(400, EXPECTED) };
    if speed.is_none() && advance.is_none() && skew.is_none() {
        return error(400, EXPECTED);
    }
    if let Some(speed) = speed {
        shared.clock.set_speed(speed);
    }
    if let Some(advance) = advance {
        shared.clock.put_forward(millis(advance));
    }
    if let Some(skew) = skew {
        shared.with_site(|site| site.skew((skew * 1000.0) as i64));
    }
    shared.with_site(|_| ());
    clock(shared)
}

/// Handshakes stall: connections are accepted and hear nothing for a while.
fn stall(shared: &Shared, body: &Value) -> Reply {
    match body.get("seconds").and_then(Value::as_f64).filter(|seconds| (0.0..=86_400.0).contains(seconds)) {
        Some(seconds) => {
            shared.outage.stall(Duration::from_secs_f64(seconds));
            Reply::empty(204)
        }
        None => error(400, "expected {\"seconds\": 0 to 86400}"),
    }
}

/// Whether a scheduler is available from now on.
fn scheduler(shared: &Shared, body: &Value) -> Reply {
    match body.get("available").and_then(Value::as_bool) {
        Some(available) => {
            shared.with_site(|site| site.set_scheduler(available));
            Reply::empty(204)
        }
        None => error(400, "expected {\"available\": true or false}"),
    }
}

/// How answers of the repository are sent from now on.
fn answers(shared: &Shared, body: Value) -> Reply {
    match body.is_object().then(|| serde_json::from_value(body).ok()).flatten() {
        Some(wire) => {
            *shared.wire.lock() = wire;
            Reply::empty(204)
        }
        None => error(400, "expected {\"gzip\": true or false, \"chunked\": true or false}"),
    }
}

/// The repository and its scheduler are started anew.
fn restart(shared: &Shared, body: &Value) -> Reply {
    let seconds = |key: &str, usual: f64| match body.get(key) {
        None => Some(usual),
        Some(value) => value.as_f64().filter(|seconds| (0.0..=86_400.0).contains(seconds)),
    };
    let (Some(down), Some(initialising)) = (seconds("downSeconds", 5.0), seconds("initialisingSeconds", 2.0)) else {
        return error(400, "expected {\"downSeconds\": 0 to 86400, \"initialisingSeconds\": 0 to 86400}");
    };
    shared.outage.begin(Duration::from_secs_f64(down), Duration::from_secs_f64(initialising));
    let reset = shared.with_site(|site| site.restart());
    shared.notifier.forget();
    ok(&json!({ "executionsReset": reset, "downSeconds": down, "initialisingSeconds": initialising }))
}

fn fault(shared: &Shared, body: &[u8]) -> Reply {
    match Fault::read(body).and_then(|fault| shared.faults.add(fault)) {
        Ok(()) => Reply::empty(204),
        Err(wrong) => error(400, &wrong.to_string()),
    }
}

fn rate(shared: &Shared, body: &Value) -> Reply {
    match body.get("rate").and_then(Value::as_f64).filter(|rate| (0.0..=1_000.0).contains(rate)) {
        Some(rate) => {
            shared.with_site(|site| site.set_rate(rate));
            Reply::empty(204)
        }
        None => error(400, "expected {\"rate\": 0 to 1000}"),
    }
}

fn task(shared: &Shared, id: &str, verb: &str) -> Reply {
    let Ok(id) = id.parse::<TaskId>() else { return error(400, "the id is not a GUID") };
    let outcome = match verb {
        "start" => return start(shared, id),
        "skip" => return ended(shared.with_site(|site| site.end_oddly(id, Status::Skipped))),
        "error" => return ended(shared.with_site(|site| site.end_oddly(id, Status::Error))),
        "finish" => Outcome::Success,
        "fail" => Outcome::Fail,
        "abort" => Outcome::Abort,
        _ => return error(404, "start, finish, fail, abort, skip or error"),
    };
    ended(shared.with_site(|site| site.force(id, outcome)))
}

fn ended(executions: Option<usize>) -> Reply {
    match executions {
        Some(executions) => ok(&json!({ "executions": executions })),
        None => error(404, "there is no such task"),
    }
}

/// As by schedule, at once.
fn start(shared: &Shared, id: TaskId) -> Reply {
    match shared.with_site(|site| site.start(id, r"INTERNAL\sa_scheduler", Origin::Control)) {
        StartAnswer::Started(execution) => ok(&json!({ "executionId": execution.to_string() })),
        StartAnswer::Disabled => error(409, "the task is disabled"),
        StartAnswer::NoScheduler => error(409, "no scheduler is available"),
        StartAnswer::Running(_) => error(409, "the task is running"),
        StartAnswer::Unknown => error(404, "there is no such task"),
    }
}
