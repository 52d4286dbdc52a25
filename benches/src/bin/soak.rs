//! A steady load for a long time, with clients coming and going, while the memory of the broker's process is watched.
//!
//!     soak ADDRESS PID MINUTES RATE
//!
//! RATE messages of 128 bytes per second, half of them QoS 1, from ten publishers to ten subscribers that stay. Beside them guests come
//! with new names, listen for up to three seconds and leave, politely or not; others keep their sessions and come back for what was queued;
//! short-lived publishers come, say a hundred things and go. A QoS 1 message that does not reach the subscriber that stays is a failure.
//!
//! The slope is the least-squares line through the resident memory, sampled every five seconds after the first five minutes (of runs shorter
//! than eight minutes: after the first half, which is a look at whether it works and no result).

use std::{
    cell::{Cell, RefCell},
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use sense_butler_benches::{
    Arguments, Fallible,
    mqtt::{connect, connect_kept, frames, publish, receive, subscribe},
    run_within, say,
    stream::Stream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

const PUBLISHERS: u64 = 10;
const PAYLOAD: usize = 128;
const TICK: Duration = Duration::from_millis(5);
const GUESTS: u64 = 12;
const KEEPERS: u64 = 6;
const PASSERS: u64 = 4;
const SAMPLE: Duration = Duration::from_secs(5);
/// What a run may grow by in ten minutes, MB.
const LIMIT: f64 = 1.0;

fn main() -> ExitCode {
    run_within(Duration::from_secs(24 * 3600), async {
        let arguments = Arguments::new();
        let (address, pid) = (arguments.text(0, "address")?.to_owned(), arguments.number(1, "process id")?);
        let (minutes, rate): (f64, u64) =
            (arguments.number(2, "minutes")?, arguments.number(3, "messages per second")?);
        soak(address, pid, Duration::from_secs_f64(minutes * 60.0), rate).await
    })
}

/// What is counted while it runs.
#[derive(Default)]
struct Counts {
    sent: Cell<u64>,
    arrived: Cell<u64>,
    guests: Cell<u64>,
    returns: Cell<u64>,
    passers: Cell<u64>,
    /// State of the generator of pauses; xorshift.
    chance: Cell<u64>,
    stop: Cell<bool>,
    errors: RefCell<Vec<String>>,
}

impl Counts {
    fn below(&self, bound: u64) -> u64 {
        let mut state = self.chance.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.chance.set(state);
        state % bound
    }

    fn millis(&self, most: u64) -> Duration {
        Duration::from_millis(self.below(most) + 1)
    }
}

fn bump(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

async fn soak(address: String, pid: u32, length: Duration, rate: u64) -> Fallible<String> {
    let counts = Rc::new(Counts { chance: Cell::new(0x9e37_79b9_7f4a_7c15), ..Counts::default() });
    let (mut steady, mut passing) = (JoinSet::new(), JoinSet::new());
    for number in 0..PUBLISHERS {
        let subscriber = connect(&address, &format!("stays-{number}")).await?;
        steady.spawn_local(stays(subscriber, number, address.clone(), rate / PUBLISHERS, length, counts.clone()));
    }
    for number in 0..GUESTS.max(KEEPERS).max(PASSERS) {
        if number < GUESTS {
            passing.spawn_local(again(guest, number, address.clone(), counts.clone()));
        }
        if number < KEEPERS {
            passing.spawn_local(again(keeper, number, address.clone(), counts.clone()));
        }
        if number < PASSERS {
            passing.spawn_local(again(passer, number, address.clone(), counts.clone()));
        }
    }
    let samples = watch(pid, length, &counts).await?;
    counts.stop.set(true);
    passing.abort_all();
    let mut lost = 0;
    while let Some(ended) = steady.join_next().await {
        lost += ended??;
    }
    let (sent, seconds) = (counts.sent.get(), length.as_secs_f64());
    let reached = sent as f64 / seconds;
    let skip = if length < Duration::from_secs(480) { length / 2 } else { Duration::from_secs(300) };
    let slope = slope(&samples, skip.as_secs_f64()) * 600.0;
    let line = format!(
        "slope_mb_per_10min={slope:.3} sent={sent} per_s={reached:.0} lost={lost} arrived={} guests={} returns={} passers={} errors={}",
        counts.arrived.get(),
        counts.guests.get(),
        counts.returns.get(),
        counts.passers.get(),
        counts.errors.borrow().len(),
    );
    let errors = counts.errors.borrow();
    let verdicts = [
        (lost > 0, format!("{lost} acknowledged messages did not arrive")),
        (reached < 0.97 * rate as f64, format!("only {reached:.0} of {rate} messages a second were taken")),
        (!errors.is_empty(), format!("{} clients were let down, the first: {}", errors.len(), errors.join("; "))),
        (slope > LIMIT, format!("memory grows by {slope:.2} MB in ten minutes; {LIMIT} is the limit")),
    ];
    match verdicts.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, why)) => Err(format!("{line}\n{why}").into()),
        None => Ok(line),
    }
}

/// Samples of (second, MB), a line each minute.
async fn watch(pid: u32, length: Duration, counts: &Counts) -> Fallible<Vec<(f64, f64)>> {
    let (begun, mut samples, mut ticks, mut minute) = (Instant::now(), Vec::new(), interval(SAMPLE), 0);
    while begun.elapsed() < length {
        ticks.tick().await;
        let (at, memory) = (begun.elapsed().as_secs_f64(), resident(pid)?);
        samples.push((at, memory));
        if at as u64 / 60 >= minute {
            say(&format!(
                "{minute:>4} min  {memory:>8.1} MB  {:>10} sent  {:>10} arrived",
                counts.sent.get(),
                counts.arrived.get()
            ));
            minute += 1;
        }
    }
    Ok(samples)
}

/// Resident memory of a process, MB.
fn resident(pid: u32) -> Fallible<f64> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| format!("process {pid}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS: the process ended")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// MB per second, of what was sampled after so many seconds.
fn slope(samples: &[(f64, f64)], skip: f64) -> f64 {
    let used: Vec<_> = samples.iter().filter(|(at, _)| *at >= skip).collect();
    let count = used.len().max(1) as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| used.iter().map(|sample| pick(sample)).sum::<f64>() / count;
    let (at, memory) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let covariance: f64 = used.iter().map(|sample| (sample.0 - at) * (sample.1 - memory)).sum();
    let variance: f64 = used.iter().map(|sample| (sample.0 - at).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

/// A publisher and the subscriber of its topic; answers how many of its QoS 1 messages did not arrive.
async fn stays(
    mut subscriber: Stream,
    number: u64,
    address: String,
    rate: u64,
    length: Duration,
    counts: Rc<Counts>,
) -> Fallible<u64> {
    let qos = (number % 2) as u8;
    let topic = format!("soak/{number}");
    subscribe(&mut subscriber, &topic, qos).await?;
    let sent = pour_steadily(&address, number, qos, &topic, rate, length, &counts);
    let seen = Cell::new(0);
    let hear = receive(&mut subscriber, |_| {
        seen.set(seen.get() + 1);
        bump(&counts.arrived);
        true
    });
    let sent = tokio::select! {
        sent = sent => sent?,
        ended = hear => return ended.map(|()| 0),
    };
    if qos == 0 {
        return Ok(0);
    }
    let rest = receive(&mut subscriber, |_| {
        seen.set(seen.get() + 1);
        seen.get() < sent
    });
    if seen.get() < sent {
        // What has not arrived by then counts as lost.
        let _ = timeout(Duration::from_secs(10), rest).await;
    }
    Ok(sent.saturating_sub(seen.get()))
}

/// At a steady rate for so long; answers how many were sent (QoS 1: and acknowledged).
async fn pour_steadily(
    address: &str,
    number: u64,
    qos: u8,
    topic: &str,
    rate: u64,
    length: Duration,
    counts: &Counts,
) -> Fallible<u64> {
    let (mut read, mut write) = connect(address, &format!("pours-{number}")).await?.into_split();
    let acknowledged = Rc::new(Cell::new(0));
    let reader = tokio::task::spawn_local({
        let acknowledged = acknowledged.clone();
        async move {
            let (mut buffer, mut filled) = (vec![0; 16 << 10], 0);
            while let Ok(count @ 1..) = read.read(&mut buffer[filled..]).await {
                filled += count;
                let used = frames(&buffer[..filled], |first, _| {
                    acknowledged.set(acknowledged.get() + u64::from(first >> 4 == 4))
                });
                buffer.copy_within(used..filled, 0);
                filled -= used;
            }
        }
    });
    let payload = vec![b'x'; PAYLOAD];
    let (begun, mut ticks, mut sent, mut out) = (Instant::now(), interval(TICK), 0, Vec::new());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while begun.elapsed() < length {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        // A broker that does not keep up is not buried: so much and no more at once.
        let most = if qos == 0 { due } else { due.min(acknowledged.get() + 5_000) };
        while sent < most && out.len() < 64 << 10 {
            out.extend(publish(topic, qos, (sent % 65_535 + 1) as u16, &payload));
            sent += 1;
            bump(&counts.sent);
        }
        write.write_all(&out).await.map_err(|error| format!("publisher {number}: {error}"))?;
        out.clear();
    }
    let all = async {
        while qos == 1 && acknowledged.get() < sent {
            sleep(TICK).await;
        }
    };
    timeout(Duration::from_secs(30), all)
        .await
        .map_err(|_| format!("publisher {number}: acknowledgements are missing"))?;
    reader.abort();
    Ok(sent)
}

/// One visit after the other until the end; what goes wrong is kept.
async fn again<F>(visit: fn(u64, u64, String, Rc<Counts>) -> F, number: u64, address: String, counts: Rc<Counts>)
where
    F: Future<Output = Fallible<()>>,
{
    let mut round = 0;
    while !counts.stop.get() {
        round += 1;
        if let Err(error) = visit(number, round, address.clone(), counts.clone()).await
            && !counts.stop.get()
        {
            counts.errors.borrow_mut().push(error.to_string());
            sleep(SAMPLE).await;
        }
    }
}

/// Listens for so long.
async fn listen(stream: &mut Stream, length: Duration, counts: &Counts) -> Fallible<()> {
    let heard = receive(stream, |_| {
        bump(&counts.arrived);
        true
    });
    // The end of the time is the way it should end.
    timeout(length, heard).await.unwrap_or(Ok(()))
}

/// A new name, a look at one topic, and gone.
async fn guest(number: u64, round: u64, address: String, counts: Rc<Counts>) -> Fallible<()> {
    let mut stream = connect(&address, &format!("guest-{number}-{round}")).await?;
    subscribe_in_traffic(&mut stream, &format!("soak/{}", counts.below(PUBLISHERS))).await?;
    listen(&mut stream, counts.millis(3_000), &counts).await?;
    if counts.below(2) == 0 {
        stream.write_all(&[0xe0, 0]).await?;
    }
    bump(&counts.guests);
    Ok(())
}

/// Keeps its session, and comes back for what was queued.
async fn keeper(number: u64, _round: u64, address: String, counts: Rc<Counts>) -> Fallible<()> {
    let mut stream = connect_kept(&address, &format!("keeper-{number}")).await?;
    subscribe_in_traffic(&mut stream, &format!("soak/{}", number * 2 % PUBLISHERS + 1)).await?;
    listen(&mut stream, Duration::from_secs(2) + counts.millis(2_000), &counts).await?;
    drop(stream);
    bump(&counts.returns);
    sleep(counts.millis(500)).await;
    Ok(())
}

/// Messages may come before the SUBACK: it is not waited for by itself.
async fn subscribe_in_traffic(stream: &mut Stream, filter: &str) -> Fallible<()> {
    let mut body = vec![0, 1];
    body.extend((filter.len() as u16).to_be_bytes());
    body.extend(filter.as_bytes());
    body.push(1);
    Ok(stream.write_all(&sense_butler_benches::mqtt::packet(0x82, &body)).await?)
}

/// Comes, says a hundred things on a topic of its own, hears them acknowledged and goes.
async fn passer(number: u64, round: u64, address: String, counts: Rc<Counts>) -> Fallible<()> {
    let mut stream = connect(&address, &format!("passer-{number}-{round}")).await?;
    let topic = format!("passing/{number}/{}", round % 1_000);
    let out: Vec<u8> = (1..=100).flat_map(|id| publish(&topic, 1, id, &[b'x'; PAYLOAD])).collect();
    stream.write_all(&out).await?;
    // A PUBACK has four bytes.
    let mut acknowledgements = [0; 400];
    timeout(SAMPLE * 6, stream.read_exact(&mut acknowledgements)).await??;
    stream.write_all(&[0xe0, 0]).await?;
    bump(&counts.passers);
    sleep(counts.millis(400)).await;
    Ok(())
}
