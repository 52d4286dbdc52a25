//! Bursts: so many task datagrams, so fast, each with an execution id of its own; and datagrams whose bytes the caller gives.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    super::{
        Shared,
        datagram::{DatagramKind, TaskFields, task_datagram},
        reply::Reply,
    },
    error, ok,
};
use crate::names::ExecutionId;

/// Most datagrams of one burst.
const MOST_IN_BURST: u64 = 10_000_000;

/// Sends so many task datagrams, so fast; answers when done.
pub async fn burst(shared: &Shared, body: &[u8]) -> Reply {
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

/// Sends any bytes as a task datagram, as often as asked: what no appender would ever send.
pub async fn raw(shared: &Shared, body: &[u8]) -> Reply {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let bytes = match (text("text"), text("base64")) {
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(encoded)) => STANDARD.decode(encoded).ok(),
        _ => None,
    };
    let times = value.get("times").map_or(Some(1), Value::as_u64).filter(|times| *times <= MOST_IN_BURST);
    let (Some(bytes), Some(times)) = (bytes, times) else {
        return error(400, "expected {\"text\": \"...\"} or {\"base64\": \"...\"}, and perhaps \"times\"");
    };
    let mut failed = 0;
    for _ in 0..times {
        failed += u64::from(!shared.outlet.send_bytes(0, DatagramKind::Failed, &bytes).await);
    }
    ok(&json!({ "sent": times - failed, "failed": failed }))
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
