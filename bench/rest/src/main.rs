//! REST publish: requests per second, p50 and p99 at 1, 16 and 64 keep-alive connections, against the REST server with a broker double.
//!
//! `rest-bench` starts itself as `rest-bench serve` (the server, its own process) and loads it from one thread. Every answer is checked for its
//! status, and what the double counted must be what was sent. Arguments: seconds per measurement (3), rounds (3; the median is printed).

use std::{
    error::Error,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sense_butler::{
    api::{Server, Setup, State, answer::Answer, counters::Counters},
    bus::{BoxFuture, Bus, Publication, PublishError, Receipt, Routed, Subscription, Transport},
    config::settings::{Endpoints, Generation, RestSettings},
    names::{TopicFilter, TopicName},
    telemetry::readiness::Readiness,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Counts what is published and says yes.
struct Double(Arc<AtomicU64>);

impl Transport for Double {
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        std::hint::black_box(publication);
        self.0.fetch_add(1, Ordering::Relaxed);
        let (sender, receipt) = Receipt::channel();
        let _ = sender.send(Ok(Routed { matched: Some(true) }));
        Box::pin(async move { Ok(receipt) })
    }

    fn subscribe(&self, _: &str, _: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        Box::pin(async { Err(PublishError::Unavailable("a double".into())) })
    }

    fn is_up(&self) -> bool {
        true
    }
}

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("serve") {
        return serve();
    }
    let seconds = first.map_or(Ok(3), |text| text.parse())?;
    let rounds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    measure(Duration::from_secs(seconds), rounds)
}

/// The server: prints its address, serves until standard input ends, prints what was published.
fn serve() -> Fallible<()> {
    let published = Arc::new(AtomicU64::new(0));
    let rest = RestSettings {
        enable: true,
        host: "127.0.0.1".into(),
        port: 0,
        tls: None,
        allow_plaintext: false,
        allowed_sources: Vec::new(),
        allowed_origins: Vec::new(),
        allowed_hosts: Vec::new(),
        max_body: 1 << 20,
        endpoints: Endpoints {
            list_endpoints: true,
            butlerping: true,
            mqtt_publish: true,
            start_task: true,
            active_user_count: true,
            active_users: true,
        },
        endpoints_not_offered: Vec::new(),
    };
    let server = Server::bind(&rest)?;
    for address in server.addresses() {
        println!("{address}");
    }
    let mut registry = prometheus_client::registry::Registry::default();
    let counters = Counters::register(&mut registry);
    let state = State::new(Setup {
        generation: Generation::Head,
        rest,
        rest_qos_retain: false,
        start_topic: TopicName::new("qliksense/start_task")?,
        protected_topics: vec![TopicFilter::new("qliksense/butler/#")?, TopicFilter::new("qliksense/task_failure")?],
        broker: "double".into(),
        bus: Bus::new(Double(published.clone())),
        start_task: Arc::new(|_| Box::pin(async { Answer::json(200, "{}") })),
        active_users: Arc::new(Vec::new),
        readiness: Readiness::new(),
        registry: Arc::new(registry),
        counters,
    });
    let stop = CancellationToken::new();
    let end = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.cancel();
    });
    tokio::runtime::Runtime::new()?.block_on(server.run(state, stop))?;
    println!("{}", published.load(Ordering::Relaxed));
    Ok(())
}

fn measure(time: Duration, rounds: usize) -> Fallible<()> {
    println!("connections  requests/s   p50 us   p99 us   (median of {rounds} rounds of {} s)", time.as_secs());
    for connections in [1, 16, 64] {
        let mut results = Vec::new();
        for _ in 0..rounds {
            results.push(round(connections, time)?);
        }
        results.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        if let Some(middle) = results.get(rounds / 2) {
            println!("{connections:>11}  {:>10.0}  {:>7}  {:>7}", middle.rate, middle.p50, middle.p99);
        }
    }
    Ok(())
}

struct Outcome {
    rate: f64,
    p50: u128,
    p99: u128,
}

/// One server process, one load, one count.
fn round(connections: usize, time: Duration) -> Fallible<Outcome> {
    let mut server =
        Command::new(std::env::current_exe()?).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(server.stdout.take().ok_or("no standard output")?).lines();
    let address: SocketAddr = lines.next().ok_or("the server said nothing")??.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    let mut latencies = runtime.block_on(load(address, connections, time))?;
    let elapsed = begin.elapsed();
    drop(server.stdin.take());
    let published: usize = lines.next().ok_or("the server did not count")??.parse()?;
    server.wait()?;
    if published != latencies.len() {
        return Err(format!("{} answered, {published} published", latencies.len()).into());
    }
    latencies.sort_unstable();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).map_or(0, Duration::as_micros);
    Ok(Outcome { rate: latencies.len() as f64 / elapsed.as_secs_f64(), p50: at(0.5), p99: at(0.99) })
}

async fn load(address: SocketAddr, connections: usize, time: Duration) -> Fallible<Vec<Duration>> {
    let until = Instant::now() + time;
    let tasks: Vec<_> = (0..connections).map(|_| tokio::spawn(one(address, until))).collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

/// One connection: a request, its whole answer, the next.
async fn one(address: SocketAddr, until: Instant) -> Fallible<Vec<Duration>> {
    let body = format!(r#"{{"topic":"bench/rest","message":"{}"}}"#, "x".repeat(256));
    let request = format!(
        "PUT /v4/mqttpublishmessage HTTP/1.1\r\nHost: {address}\r\nUser-Agent: rest-bench\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 << 10];
    let mut latencies = Vec::with_capacity(1 << 18);
    while Instant::now() < until {
        let begin = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let room = buffer.get_mut(filled..).ok_or("an answer too long")?;
            let count = stream.read(room).await?;
            filled += count;
            let answer = buffer.get(..filled).unwrap_or_default();
            if count == 0 || !answer.starts_with(b"HTTP/1.1 201") {
                return Err(String::from_utf8_lossy(answer).into());
            }
            // The answer is the echo: it is complete when it ends as the body does.
            if answer.ends_with(body.as_bytes()) {
                break;
            }
        }
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}
