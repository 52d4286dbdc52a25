//! From a start message to the request at the simulated repository service, on the clock that both stamp with.
//!
//!     start_load rate  MQTT-ADDRESS CONTROL-ADDRESS RATE SECONDS
//!     start_load burst MQTT-ADDRESS CONTROL-ADDRESS COUNT
//!
//! The 50 tasks are those of the site `benches/run` writes. The n-th start request of a task at the repository belongs to the n-th message
//! that names it. What is measured is the start request itself, whatever was asked before it.

use std::{collections::HashMap, process::ExitCode, time::Duration};

use sense_butler_benches::{
    Arguments, Fallible, http,
    mqtt::{connect, publish},
    percentiles, run, wall_micros,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Tasks of the site.
const TASKS: u64 = 50;
/// Longest time from the last message to the last request.
const LONGEST: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    run(measure())
}

async fn measure() -> Fallible<String> {
    let arguments = Arguments::new();
    let (mqtt, control) = (arguments.text(1, "MQTT address")?, arguments.text(2, "control address")?);
    let (mut read, mut write) = connect(mqtt, "start-load").await?.into_split();
    tokio::task::spawn_local(async move {
        let mut buffer = [0; 4096];
        while read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let executions = executions(control).await?;
    let began = wall_micros();
    let burst = match arguments.text(0, "rate or burst")? {
        "rate" => None,
        "burst" => Some(arguments.number::<u64>(3, "count")?),
        other => return Err(format!("`{other}` is not rate or burst").into()),
    };
    let sent = match burst {
        Some(count) => at_once(&mut write, count).await?,
        None => paced(&mut write, arguments.number(3, "rate")?, arguments.number(4, "seconds")?).await?,
    };
    let starts = all_starts(control, began, sent.len()).await?;
    let created = self::executions(control).await? - executions;
    if created != sent.len() as u64 {
        return Err(format!("{} messages, {created} executions", sent.len()).into());
    }
    let mut micros = latencies(&sent, &starts)?;
    let last = starts.iter().map(|(_, at)| *at).max().unwrap_or_default();
    let seconds = last.saturating_sub(began) as f64 / 1e6;
    Ok(format!("{} messages={} seconds={seconds:.2}", percentiles(&mut micros), sent.len()))
}

fn task(number: u64) -> String {
    format!("be9c4000-0000-4000-8000-{:012}", number % TASKS + 1)
}

fn message(number: u64) -> Vec<u8> {
    // The same few tasks again and again: without this, those that run would be skipped before QRS is asked.
    let message = format!(r#"{{"taskId":"{}","onRunning":"start"}}"#, task(number));
    publish("qliksense/start_task", 1, (number % 65_535 + 1) as u16, message.as_bytes())
}

/// Task and stamp of each message.
type Stamps = Vec<(String, u64)>;

async fn paced(write: &mut (impl AsyncWrite + Unpin), rate: u64, seconds: u64) -> Fallible<Stamps> {
    let mut ticks = interval(Duration::from_micros(1_000_000 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = Vec::new();
    for number in 0..rate * seconds {
        ticks.tick().await;
        sent.push((task(number), wall_micros()));
        write.write_all(&message(number)).await?;
    }
    Ok(sent)
}

async fn at_once(write: &mut (impl AsyncWrite + Unpin), count: u64) -> Fallible<Stamps> {
    let all: Vec<u8> = (0..count).flat_map(message).collect();
    let now = wall_micros();
    write.write_all(&all).await?;
    Ok((0..count).map(|number| (task(number), now)).collect())
}

/// Waits for so many start requests since `began`; looked at seldom, so that looking does not disturb.
async fn all_starts(control: &str, began: u64, expected: usize) -> Fallible<Stamps> {
    let until = Instant::now() + LONGEST;
    loop {
        sleep(Duration::from_secs(2)).await;
        let starts = starts(control, began).await?;
        if starts.len() >= expected {
            return Ok(starts);
        }
        if Instant::now() > until {
            return Err(format!("{expected} start messages, {} start requests at the repository", starts.len()).into());
        }
    }
}

async fn starts(control: &str, began: u64) -> Fallible<Stamps> {
    let log: Value = serde_json::from_str(&http::get(control, "/control/log").await?)?;
    let requests = log.get("requests").and_then(Value::as_array).ok_or("a log without requests")?;
    let start = |request: &Value| {
        let micros = request.get("micros")?.as_u64().filter(|micros| *micros >= began)?;
        let (method, path) = (request.get("method")?.as_str()?, request.get("path")?.as_str()?);
        let task = path.strip_prefix("/qrs/task/")?.split_once("/start")?.0;
        (method == "POST").then(|| (task.to_owned(), micros))
    };
    Ok(requests.iter().filter_map(start).collect())
}

/// Executions of the site so far.
async fn executions(control: &str) -> Fallible<u64> {
    let starts: Value = serde_json::from_str(&http::get(control, "/control/starts").await?)?;
    let total = starts.get("total").and_then(Value::as_u64);
    total.ok_or_else(|| "/control/starts has no total".into())
}

fn latencies(sent: &Stamps, starts: &Stamps) -> Fallible<Vec<u64>> {
    let mut of_task: HashMap<&str, Vec<u64>> = HashMap::new();
    for (task, at) in starts {
        of_task.entry(task).or_default().push(*at);
    }
    for stamps in of_task.values_mut() {
        stamps.sort_unstable_by(|a, b| b.cmp(a));
    }
    let mut next = |(task, at): &(String, u64)| Some(of_task.get_mut(task.as_str())?.pop()?.saturating_sub(*at));
    let latencies: Option<Vec<u64>> = sent.iter().map(&mut next).collect();
    latencies.ok_or_else(|| "a task was started less often than asked for".into())
}
