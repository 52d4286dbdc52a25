//! The control door: what happened, and how to make things happen. Plain HTTP, on the loopback only.
//!
//! A web page open in a browser on the same machine must not reach it: calls with an `Origin` are refused.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Shared,
    datagram::{DatagramKind, TaskFields, task_datagram},
    fault::Fault,
    http::{Call, Cut, Handler, Reply},
    plan::Outcome,
};
use crate::names::{ExecutionId, TaskId};

/// Most datagrams of one burst.
const MOST_IN_BURST: u64 = 10_000_000;

/// Answers at the control door.
pub struct Control(pub Arc<Shared>);

impl Handler for Control {
    async fn handle(&self, call: Call) -> Result<Reply, Cut> {
        if call.headers.contains_key("origin") {
            return Ok(error(403, "calls from web pages are refused"));
        }
        let shared = &self.0;
        let segments: Vec<&str> = call.path.split('/').filter(|segment| !segment.is_empty()).collect();
        Ok(match (call.method.as_str(), segments.as_slice()) {
            ("GET", ["control"]) => overview(shared),
            ("GET", ["control", "log"]) => ok(&shared.journal.json()),
            ("GET", ["control", "starts"]) => ok(&shared.with_site(|site| site.starts_json())),
            ("GET", ["control", "datagrams"]) => datagrams(shared),
            ("GET", ["control", "fault"]) => ok(&shared.faults.json()),
            ("POST", ["control", "fault"]) => fault(shared, &call.body),
            ("DELETE", ["control", "fault"]) => {
                shared.faults.clear();
                Reply::empty(204)
            }
            ("POST", ["control", "rate"]) => rate(shared, &call.body),
            ("POST", ["control", "burst"]) => burst(shared, &call.body).await,
            ("POST", ["control", "task", id, verb]) => task(shared, id, verb),
            _ => error(404, "GET /control lists what there is"),
        })
    }
}

fn ok(value: &Value) -> Reply {
    Reply::json(200, value.to_string())
}

fn error(status: u16, text: &str) -> Reply {
    Reply::json(status, json!({ "error": text }).to_string())
}

fn overview(shared: &Shared) -> Reply {
    ok(&json!({
        "simulator": "sense-butler",
        "sampleTask": shared.plan.sample_task.to_string(),
        "get": ["/control/log", "/control/starts", "/control/datagrams", "/control/fault"],
        "post": ["/control/task/{id}/{finish|fail|abort}", "/control/fault", "/control/rate {\"rate\":1}",
            "/control/burst {\"count\":1000,\"rate\":0,\"kind\":\"failed\"}"],
        "delete": ["/control/fault"],
    }))
}

fn datagrams(shared: &Shared) -> Reply {
    let mut value = shared.outlet.json();
    if let Value::Object(fields) = &mut value {
        fields.insert("droppedBeforeSending".to_owned(), shared.with_site(|site| site.effects_dropped()).into());
    }
    ok(&value)
}

fn fault(shared: &Shared, body: &[u8]) -> Reply {
    match Fault::read(body).and_then(|fault| shared.faults.add(fault)) {
        Ok(()) => Reply::empty(204),
        Err(wrong) => error(400, &wrong.to_string()),
    }
}

fn rate(shared: &Shared, body: &[u8]) -> Reply {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    match value.get("rate").and_then(Value::as_f64).filter(|rate| (0.0..=1_000.0).contains(rate)) {
        Some(rate) => {
            shared.with_site(|site| site.set_rate(rate));
            Reply::empty(204)
        }
        None => error(400, "expected {\"rate\": 0 to 1000}"),
    }
}

fn task(shared: &Shared, id: &str, verb: &str) -> Reply {
    let outcome = match verb {
        "finish" => Outcome::Success,
        "fail" => Outcome::Fail,
        "abort" => Outcome::Abort,
        _ => return error(404, "finish, fail or abort"),
    };
    let Ok(id) = id.parse::<TaskId>() else { return error(400, "the id is not a GUID") };
    match shared.with_site(|site| site.force(id, outcome)) {
        Some(executions) => ok(&json!({ "executions": executions })),
        None => error(404, "there is no such task"),
    }
}

/// Sends so many task datagrams, so fast; answers when done.
async fn burst(shared: &Shared, body: &[u8]) -> Reply {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let number = |key: &str| value.get(key).and_then(Value::as_u64);
    let Some(count) = number("count").filter(|count| *count <= MOST_IN_BURST) else {
        return error(400, "expected {\"count\": up to 10000000, \"rate\": per second, 0 or absent for full speed}");
    };
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("failed");
    let Some(kind) = DatagramKind::ALL.into_iter().find(|known| known.word() == kind) else {
        return error(400, "kind: failed, aborted, success or distribute");
    };
    let Some(template) = Template::new(shared, kind) else {
        return error(400, "the profile sends no datagrams of this kind");
    };
    let Ok(_turn) = shared.burst.try_lock() else { return error(409, "another burst is on its way") };
    let began = Instant::now();
    let failed = send_burst(shared, &template, kind, count, number("rate").unwrap_or(0)).await;
    ok(&json!({ "sent": count - failed, "failed": failed, "seconds": began.elapsed().as_secs_f64() }))
}

async fn send_burst(shared: &Shared, template: &Template, kind: DatagramKind, count: u64, rate: u64) -> u64 {
    let began = Instant::now();
    let (mut done, mut failed) = (0, 0);
    while done < count {
        let due = if rate == 0 { count } else { ((began.elapsed().as_secs_f64() * rate as f64) as u64 + 1).min(count) };
        while done < due {
            let text = template.fill(shared.next_burst_number());
            failed += u64::from(!shared.outlet.send(0, kind, &text).await);
            done += 1;
        }
        if done < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    failed
}

/// A datagram that lacks only its execution id.
struct Template {
    before: String,
    after: String,
}

impl Template {
    fn new(shared: &Shared, kind: DatagramKind) -> Option<Self> {
        const MARK: &str = "\u{0}";
        let sample = shared.plan.tasks.iter().find(|task| task.id == shared.plan.sample_task)?;
        let app = sample.app.as_deref().and_then(|name| shared.plan.app(name));
        let fields = TaskFields {
            host: &shared.plan.nodes.first()?.name,
            task: &sample.name,
            app: app.map(|app| app.name.as_str()).unwrap_or_default(),
            user: r"INTERNAL\sa_scheduler",
            task_id: &sample.id.to_string(),
            app_id: &app.map(|app| app.id.to_string()).unwrap_or_default(),
            date: &shared.log_time(),
            execution_id: MARK,
        };
        let text = task_datagram(shared.profile, kind, &fields)?;
        let (before, after) = text.split_once(MARK)?;
        Some(Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// With its own execution id: receivers that drop duplicates must not drop it.
    fn fill(&self, number: u64) -> String {
        let id = ExecutionId::from_u128((0xb0b0_0000_0000_4000_8000u128 << 48) | u128::from(number));
        format!("{}{id}{}", self.before, self.after)
    }
}
