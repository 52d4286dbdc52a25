//! From a start message to the request at the simulated repository service, on the clock that both stamp with.
//!
//!     start_load rate   MQTT-ADDRESS CONTROL-ADDRESS RATE SECONDS
//!     start_load burst  MQTT-ADDRESS CONTROL-ADDRESS COUNT
//!     start_load flight MQTT-ADDRESS CONTROL-ADDRESS COUNT IN-FLIGHT   the next one when an answer came
//!
//! The 10,000 tasks are those of the site `benches/run` writes; each message names the next one, so that none runs when it is asked for. The
//! n-th start request of a task at the repository belongs to the n-th message that names it. What is measured is the start request itself,
//! whatever was asked before it.

use std::{collections::HashMap, process::ExitCode, rc::Rc, time::Duration};

use sense_butler_benches::{
    Arguments, Fallible, http,
    mqtt::{connect, publish, receive, subscribe},
    percentiles, run, wall_micros,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Tasks of the site.
const TASKS: u64 = 10_000;
/// Where answers are published.
const ANSWERS: &str = "qliksense/start_task/response";
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
    // The tasks after those that were started last.
    let executions = executions(control).await?;
    let (began, mut late) = (wall_micros(), Vec::new());
    let sent = match arguments.text(0, "rate, burst or flight")? {
        "rate" => {
            let (rate, seconds) = (arguments.number(3, "rate")?, arguments.number(4, "seconds")?);
            paced(&mut write, executions, (rate, seconds), &mut late).await?
        }
        "burst" => at_once(&mut write, executions, arguments.number(3, "count")?).await?,
        "flight" => {
            let (count, flying) = (arguments.number(3, "count")?, arguments.number(4, "in flight")?);
            one_after_another(mqtt, &mut write, executions, count, flying).await?
        }
        other => return Err(format!("`{other}` is not rate, burst or flight").into()),
    };
    let starts = all_starts(control, began, sent.len()).await?;
    let created = self::executions(control).await? - executions;
    if created != sent.len() as u64 {
        return Err(format!("{} messages, {created} executions", sent.len()).into());
    }
    let mut micros = latencies(&sent, &starts)?;
    let last = starts.iter().map(|(_, at)| *at).max().unwrap_or_default();
    let seconds = last.saturating_sub(began) as f64 / 1e6;
    let per_s = sent.len() as f64 / seconds;
    late.sort_unstable();
    let late = late.get(late.len() * 99 / 100).copied().unwrap_or_default() as f64 / 1e3;
    let percentiles = percentiles(&mut micros);
    Ok(format!("{percentiles} messages={} seconds={seconds:.2} per_s={per_s:.0} late_p99_ms={late:.3}", sent.len()))
}

fn task(number: u64) -> String {
    format!("be9c4000-0000-4000-8000-{:012x}", number % TASKS + 1)
}

fn message(number: u64) -> Vec<u8> {
    publish("qliksense/start_task", 1, (number % 65_535 + 1) as u16, task(number).as_bytes())
}

/// Task and stamp of each message.
type Stamps = Vec<(String, u64)>;

/// `late`: microseconds this process woke after each message's time, which is what the machine takes from everybody (and up to a millisecond of the
/// timer's).
async fn paced(
    write: &mut (impl AsyncWrite + Unpin),
    first: u64,
    (rate, seconds): (u64, u64),
    late: &mut Vec<u64>,
) -> Fallible<Stamps> {
    let mut ticks = interval(Duration::from_micros(1_000_000 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = Vec::new();
    for number in first..first + rate * seconds {
        late.push(ticks.tick().await.elapsed().as_micros() as u64);
        sent.push((task(number), wall_micros()));
        write.write_all(&message(number)).await?;
    }
    Ok(sent)
}

async fn at_once(write: &mut (impl AsyncWrite + Unpin), first: u64, count: u64) -> Fallible<Stamps> {
    let all: Vec<u8> = (first..first + count).flat_map(message).collect();
    let now = wall_micros();
    write.write_all(&all).await?;
    Ok((first..first + count).map(|number| (task(number), now)).collect())
}

/// At most so many without their answer at a time.
async fn one_after_another(
    mqtt: &str,
    write: &mut (impl AsyncWrite + Unpin),
    first: u64,
    count: u64,
    flying: usize,
) -> Fallible<Stamps> {
    let mut answers = connect(mqtt, "start-load-answers").await?;
    subscribe(&mut answers, ANSWERS, 0).await?;
    let room = Rc::new(Semaphore::new(flying));
    let back = Rc::clone(&room);
    tokio::task::spawn_local(async move {
        let started = |payload: &[u8]| payload.windows(9).any(|part| part == br#""started""#);
        let heard = receive(&mut answers, |message| {
            let started = started(message.payload);
            if started {
                back.add_permits(1);
            }
            started
        });
        // An answer that is none of a start, or no connection: nothing more is sent, and that is told.
        let _ = heard.await;
        back.close();
    });
    let mut sent = Vec::new();
    for number in first..first + count {
        room.acquire().await?.forget();
        sent.push((task(number), wall_micros()));
        write.write_all(&message(number)).await?;
    }
    room.acquire_many(flying as u32).await?.forget();
    Ok(sent)
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
