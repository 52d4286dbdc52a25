//! Load on an MQTT broker.
//!
//!     load throughput ADDRESS PUBLISHERS SUBSCRIBERS QOS MESSAGES-PER-PUBLISHER PAYLOAD
//!     load latency ADDRESS RATE SECONDS QOS
//!     load stalled ADDRESS QOS MESSAGES PAYLOAD        one subscriber of the topic never reads
//!     load idle ADDRESS CLIENTS                        stays until standard input ends
//!     load handshakes ADDRESS RATE SECONDS             connections per second, each greeted and ended
//!     load kept ADDRESS PUBLISHERS SUBSCRIBERS MESSAGES-PER-PUBLISHER PAYLOAD IN-FLIGHT
//!     load fill ADDRESS MESSAGES PAYLOAD               for a session that is kept and whose client is away
//!     load drain ADDRESS MESSAGES                      it comes back
//!     load retain ADDRESS TOPICS PAYLOAD
//!     load retained ADDRESS TOPICS                     subscribes to `#`
//!
//! An ADDRESS that begins with `tls:` means TLS; then BENCH_CA names the authority's PEM file. Every subscriber subscribes to `bench/#` and must
//! get every message of every publisher: a message less is a failure.

mod kept;
mod retained;

use std::{
    cell::Cell,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use sense_butler_benches::{
    Arguments, Fallible,
    mqtt::{Pour, WINDOW, connect, disconnect, publish, receive, subscribe},
    percentiles, run, say,
    stream::Stream,
    wall_micros,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

/// Longest time for one measurement.
const LONGEST: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    run(async {
        let arguments = Arguments::new();
        match arguments.text(0, "what to do")? {
            "throughput" => throughput(&arguments).await,
            "latency" => latency(&arguments).await,
            "stalled" => stalled(&arguments).await,
            "idle" => idle(&arguments).await,
            "handshakes" => handshakes(&arguments).await,
            "kept" => kept::throughput(&arguments).await,
            "fill" => kept::fill(&arguments).await,
            "drain" => kept::drain(&arguments).await,
            "retain" => retained::set(&arguments).await,
            "retained" => retained::read(&arguments).await,
            other => Err(format!("`{other}` is nothing to do; see the top of this program's source").into()),
        }
    })
}

/// Connections of one side; the first that fails ends the measurement.
async fn all_done(mut tasks: JoinSet<Fallible<()>>) -> Fallible<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Both sides, bounded in time; answers the seconds until the last message was at its last receiver.
async fn play(
    readers: JoinSet<Fallible<()>>,
    publishers: JoinSet<Fallible<()>>,
    arrived: &Cell<u64>,
    total: u64,
) -> Fallible<f64> {
    let began = Instant::now();
    let reading = async {
        all_done(readers).await?;
        Ok(began.elapsed().as_secs_f64())
    };
    match timeout(LONGEST, async { tokio::try_join!(reading, all_done(publishers)) }).await {
        Ok(Ok((seconds, ()))) => Ok(seconds),
        Ok(Err(error)) => Err(format!("{error}; {} of {total} messages arrived", arrived.get()).into()),
        Err(_) => {
            Err(format!("after {} s, {} of {total} messages had arrived", LONGEST.as_secs(), arrived.get()).into())
        }
    }
}

/// A subscriber that counts until `expect` messages are there.
async fn reader(
    address: &str,
    id: String,
    qos: u8,
    expect: u64,
    arrived: &Rc<Cell<u64>>,
    tasks: &mut JoinSet<Fallible<()>>,
) -> Fallible<()> {
    let mut stream = connect(address, &id).await?;
    subscribe(&mut stream, "bench/#", qos).await?;
    count_to(stream, expect, arrived, tasks);
    Ok(())
}

fn count_to(mut stream: Stream, expect: u64, arrived: &Rc<Cell<u64>>, tasks: &mut JoinSet<Fallible<()>>) {
    let arrived = arrived.clone();
    tasks.spawn_local(async move {
        let mut count = 0;
        receive(&mut stream, |_| {
            count += 1;
            arrived.set(arrived.get() + 1);
            count < expect
        })
        .await?;
        // Who has all stays: a broker that has to clear away would be measured with it.
        std::mem::forget(stream);
        Ok(())
    });
}

async fn throughput(arguments: &Arguments) -> Fallible<String> {
    let address = arguments.text(1, "address")?;
    let (publishers, subscribers): (u64, u64) =
        (arguments.number(2, "publishers")?, arguments.number(3, "subscribers")?);
    let (qos, count, payload) =
        (arguments.number(4, "QoS")?, arguments.number(5, "messages")?, arguments.number(6, "payload")?);
    let total = publishers * count * subscribers;
    let (arrived, mut readers, mut pouring) = (Rc::new(Cell::new(0)), JoinSet::new(), JoinSet::new());
    for number in 0..subscribers {
        reader(address, format!("sub-{number}"), qos, publishers * count, &arrived, &mut readers).await?;
    }
    let mut streams = Vec::new();
    for number in 0..publishers {
        streams.push(connect(address, &format!("pub-{number}")).await?);
    }
    // All are connected before the first publishes: nothing is on its way when the clock starts.
    for (number, stream) in streams.into_iter().enumerate() {
        pouring.spawn_local(async move {
            Pour { topic: &format!("bench/{number}"), qos, count, payload, window: WINDOW }.run(stream).await
        });
    }
    let seconds = play(readers, pouring, &arrived, total).await?;
    Ok(format!("delivered_per_s={:.0} messages={total} seconds={seconds:.2}", total as f64 / seconds))
}

async fn stalled(arguments: &Arguments) -> Fallible<String> {
    let (address, qos) = (arguments.text(1, "address")?, arguments.number(2, "QoS")?);
    let (count, payload): (u64, usize) = (arguments.number(3, "messages")?, arguments.number(4, "payload")?);
    let mut deaf = connect(address, "deaf").await?;
    subscribe(&mut deaf, "bench/#", qos).await?;
    let (arrived, mut readers, mut pouring) = (Rc::new(Cell::new(0)), JoinSet::new(), JoinSet::new());
    reader(address, "hearing".to_owned(), qos, count, &arrived, &mut readers).await?;
    let stream = connect(address, "publisher").await?;
    pouring
        .spawn_local(async move { Pour { topic: "bench/0", qos, count, payload, window: WINDOW }.run(stream).await });
    let seconds = play(readers, pouring, &arrived, count).await?;
    drop(deaf);
    Ok(format!("messages={count} seconds={seconds:.2}"))
}

async fn latency(arguments: &Arguments) -> Fallible<String> {
    let address = arguments.text(1, "address")?;
    let (rate, seconds, qos): (u64, u64, u8) =
        (arguments.number(2, "rate")?, arguments.number(3, "seconds")?, arguments.number(4, "QoS")?);
    let total = rate * seconds;
    let mut stream = connect(address, "latency-sub").await?;
    subscribe(&mut stream, "bench/#", qos).await?;
    let receiving = async move {
        let mut micros = Vec::with_capacity(total as usize);
        receive(&mut stream, |message| {
            let stamp = message.payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            micros.push(wall_micros().saturating_sub(stamp));
            (micros.len() as u64) < total
        })
        .await?;
        Fallible::Ok(micros)
    };
    let (mut read, mut write) = connect(address, "latency-pub").await?.into_split();
    let acknowledgements = tokio::task::spawn_local(async move {
        let mut buffer = [0; 4096];
        while read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let sending = async move {
        let mut ticks = interval(Duration::from_micros(1_000_000 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut payload = [b'x'; 256];
        for number in 0..total {
            ticks.tick().await;
            payload[..8].copy_from_slice(&wall_micros().to_le_bytes());
            write.write_all(&publish("bench/latency", qos, (number % 65_535 + 1) as u16, &payload)).await?;
            write.flush().await?;
        }
        Fallible::Ok(write)
    };
    let both = timeout(LONGEST, async { tokio::try_join!(receiving, sending) });
    let (mut micros, _writer) = both.await.map_err(|_| "not all messages arrived in time")??;
    acknowledgements.abort();
    Ok(format!("{} messages={total}", percentiles(&mut micros)))
}

/// Connects and subscribes, says `ready`, and waits.
async fn idle(arguments: &Arguments) -> Fallible<String> {
    let (address, clients): (_, u64) = (arguments.text(1, "address")?, arguments.number(2, "clients")?);
    let mut streams = Vec::new();
    for number in 0..clients {
        let mut stream = connect(address, &format!("idle-{number}")).await?;
        subscribe(&mut stream, &format!("idle/{number}"), 1).await?;
        streams.push(stream);
    }
    say("ready");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(format!("clients={}", streams.len()))
}

/// Comes, is greeted and leaves, so many times a second; all must succeed. One that waits does not keep the next from coming.
async fn handshakes(arguments: &Arguments) -> Fallible<String> {
    let address = arguments.text(1, "address")?.to_owned();
    let (rate, seconds): (u64, u64) = (arguments.number(2, "rate")?, arguments.number(3, "seconds")?);
    let (total, mut visits) = (rate * seconds, JoinSet::new());
    let mut ticks = interval(Duration::from_micros(1_000_000 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    for number in 0..total {
        ticks.tick().await;
        let address = address.clone();
        visits.spawn_local(async move {
            let begin = Instant::now();
            let stream = connect(&address, &format!("passing-{number}")).await?;
            let micros = begin.elapsed().as_micros() as u64;
            disconnect(stream).await?;
            Fallible::Ok(micros)
        });
    }
    let mut micros = Vec::with_capacity(total as usize);
    let all = async {
        while let Some(ended) = visits.join_next().await {
            micros.push(ended??);
        }
        Fallible::Ok(())
    };
    timeout(LONGEST, all).await.map_err(|_| "not all connections were greeted in time")??;
    let rate = total as f64 / began.elapsed().as_secs_f64();
    Ok(format!("per_s={rate:.1} {} connections={total}", percentiles(&mut micros)))
}
