//! Task datagrams, and the publications that come of them.
//!
//!     udp_load count   UDP-ADDRESS MQTT-ADDRESS REST-ADDRESS COUNT RATE      RATE 0: as fast as it goes
//!     udp_load latency UDP-ADDRESS MQTT-ADDRESS RATE SECONDS
//!
//! count: what the program received (its metrics) and the kernel dropped must be what was sent, and everything received must be at the
//! subscriber as a basic and as a full message. latency: the task's name is the time of sending, and the payload of the basic message.

use std::{
    cell::Cell,
    net::UdpSocket,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use sense_butler_benches::{
    Arguments, Fallible, http,
    mqtt::{Incoming, connect, receive, subscribe},
    percentiles, run, wall_micros,
};
use tokio::time::{sleep, timeout};

/// Longest time from the last datagram to the last publication.
const LONGEST: Duration = Duration::from_secs(60);

const BASIC: &str = "qliksense/task_failure";
const FULL: &str = "qliksense/task_failure_full";

fn main() -> ExitCode {
    run(async {
        let arguments = Arguments::new();
        match arguments.text(0, "count or latency")? {
            "count" => count(&arguments).await,
            "latency" => latency(&arguments).await,
            other => Err(format!("`{other}` is not count or latency").into()),
        }
    })
}

/// Its execution differs from that of every other datagram, of earlier runs too: nothing is taken for a repetition.
fn datagram(name: &str, run: u64, number: u64) -> String {
    format!(
        "/scheduler-task-failed/;sense-1;{name};Sales;LAB\\goran;22b106a8-e7ed-4466-b700-{:012};8f1d1ecf-97a6-4eb5-8f47-f9156300b854;\
         2024-04-12 07:33:03,508;INFO;{:08x}-{:04x}-4d1f-ae82-{number:012};Max retries reached",
        number % 1_000,
        run & 0xffff_ffff,
        (run >> 32) & 0xffff
    )
}

/// Sends on a thread of its own; answers the seconds it took.
fn send(to: String, count: u64, rate: u64, stamped: bool) -> Fallible<f64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(&to)?;
    let (began, run) = (Instant::now(), wall_micros());
    for number in 0..count {
        if let Some(nanos) = (number * 1_000_000_000).checked_div(rate) {
            let wait = (began + Duration::from_nanos(nanos)).saturating_duration_since(Instant::now());
            // Shorter waits are made up for by the next: a sleep takes its time.
            if wait > Duration::from_micros(500) {
                std::thread::sleep(wait);
            }
        }
        let name = if stamped { wall_micros().to_string() } else { format!("Reload of Sales {number}") };
        socket.send(datagram(&name, run, number).as_bytes())?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// What the program and the kernel have counted so far.
struct Counted {
    received: u64,
    kernel_dropped: u64,
    dropped: u64,
}

impl Counted {
    async fn now(rest: &str) -> Fallible<Self> {
        let text = http::get(rest, "/metrics").await?;
        let of = |name| http::metric(&text, name);
        Ok(Self {
            received: of("sense_butler_udp_datagrams_received_total"),
            kernel_dropped: of("sense_butler_udp_kernel_dropped_total"),
            dropped: of("sense_butler_udp_datagrams_dropped_total"),
        })
    }
}

async fn count(arguments: &Arguments) -> Fallible<String> {
    let (udp, mqtt, rest) =
        (arguments.text(1, "UDP")?.to_owned(), arguments.text(2, "MQTT")?, arguments.text(3, "REST")?);
    let (count, rate): (u64, u64) = (arguments.number(4, "count")?, arguments.number(5, "rate")?);
    let (basic, full) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)));
    for (topic, counter) in [(BASIC, &basic), (FULL, &full)] {
        let mut stream = connect(mqtt, topic).await?;
        subscribe(&mut stream, topic, 0).await?;
        let counter = counter.clone();
        tokio::task::spawn_local(async move {
            receive(&mut stream, |_: Incoming<'_>| {
                counter.set(counter.get() + 1);
                true
            })
            .await
        });
    }
    let before = Counted::now(rest).await?;
    let seconds = tokio::task::spawn_blocking(move || send(udp, count, rate, false)).await??;
    let mut until = Instant::now() + LONGEST;
    loop {
        sleep(Duration::from_millis(100)).await;
        let now = Counted::now(rest).await?;
        let (received, kernel) = (now.received - before.received, now.kernel_dropped - before.kernel_dropped);
        let dropped = now.dropped - before.dropped;
        if received + kernel == count && dropped == 0 && basic.get() == received && full.get() == received {
            return Ok(format!(
                "sent={count} seconds={seconds:.2} received={received} kernel_dropped={kernel} basic={} full={}",
                basic.get(),
                full.get()
            ));
        }
        if dropped > 0 || basic.get() > received {
            until = until.min(Instant::now() + Duration::from_secs(1));
        }
        if Instant::now() > until {
            return Err(format!(
                "{count} sent, {kernel} dropped by the kernel, {received} received, {dropped} dropped by the program; published: {} basic, \
                 {} full",
                basic.get(),
                full.get()
            )
            .into());
        }
    }
}

async fn latency(arguments: &Arguments) -> Fallible<String> {
    let (udp, mqtt) = (arguments.text(1, "UDP")?.to_owned(), arguments.text(2, "MQTT")?);
    let (rate, seconds): (u64, u64) = (arguments.number(3, "rate")?, arguments.number(4, "seconds")?);
    let total = rate * seconds;
    let mut stream = connect(mqtt, "udp-latency").await?;
    subscribe(&mut stream, BASIC, 0).await?;
    let sending = tokio::task::spawn_blocking(move || send(udp, total, rate, true));
    let mut micros = Vec::with_capacity(total as usize);
    let receiving = receive(&mut stream, |message| {
        let now = wall_micros();
        let stamp = std::str::from_utf8(message.payload).ok().and_then(|text| text.parse().ok());
        micros.extend(stamp.map(|stamp: u64| now.saturating_sub(stamp)));
        (micros.len() as u64) < total
    });
    let ended = timeout(LONGEST + Duration::from_secs(seconds), receiving).await;
    sending.await??;
    match ended {
        Ok(result) => result?,
        Err(_) => return Err(format!("{total} sent, {} messages arrived", micros.len()).into()),
    }
    Ok(format!("{} messages={total}", percentiles(&mut micros)))
}
