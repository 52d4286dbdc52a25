//! Publishes by `POST /api/v1/publish` on keep-alive connections, one request after the other on each, or by `…/bulk` with several messages a
//! request; every message that was acknowledged must arrive at a subscriber, whose session is kept where messages are stored.
//!
//! `publish_load REST MQTT CONNECTIONS SECONDS BYTES routed|stored MESSAGES`: with one message a request, `publish`; with more, `bulk`.

use std::{
    cell::Cell,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use sense_butler_benches::{
    Arguments, Fallible,
    mqtt::{connect, connect_kept, end_session, receive, subscribe},
    percentiles, run,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

/// Longest time from the last answer to the last message.
const LONGEST: Duration = Duration::from_secs(20);
const TOPIC: &str = "bench/publish";
/// The subscriber.
const ID: &str = "publish-load";

fn main() -> ExitCode {
    run(measure())
}

/// What is sent again and again.
struct Request {
    bytes: Vec<u8>,
    /// Messages in it.
    messages: usize,
}

impl Request {
    fn new(address: &str, bytes: usize, durability: &str, messages: usize) -> Self {
        let one = format!(r#"{{"topic":"{TOPIC}","payload":"{}","durability":"{durability}"}}"#, "x".repeat(bytes));
        let (path, body) = match messages {
            1 => ("publish", one),
            several => ("publish/bulk", format!("[{}]", vec![one; several].join(","))),
        };
        let head = format!(
            "POST /api/v1/{path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: publish-load\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self { bytes: [head.into_bytes(), body.into_bytes()].concat(), messages }
    }
}

async fn measure() -> Fallible<String> {
    let arguments = Arguments::new();
    let (rest, mqtt) = (arguments.text(0, "REST address")?, arguments.text(1, "MQTT address")?);
    let (connections, seconds): (usize, u64) = (arguments.number(2, "connections")?, arguments.number(3, "seconds")?);
    let (bytes, durability) = (arguments.number(4, "bytes of a payload")?, arguments.text(5, "routed or stored")?);
    let messages: usize = arguments.number(6, "messages of a request")?;
    let request = Rc::new(Request::new(rest, bytes, durability, messages));
    let stored = durability == "stored";
    end_session(mqtt, ID).await?;
    let mut subscriber = if stored { connect_kept(mqtt, ID).await? } else { connect(mqtt, ID).await? };
    subscribe(&mut subscriber, TOPIC, u8::from(stored)).await?;
    let (arrived, changed) = (Rc::new(Cell::new(0usize)), Rc::new(Notify::new()));
    let (count, change) = (arrived.clone(), changed.clone());
    let receiving = tokio::task::spawn_local(async move {
        receive(&mut subscriber, |_| {
            count.set(count.get() + 1);
            change.notify_one();
            true
        })
        .await
    });
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn_local(one(rest.to_owned(), request.clone(), until));
    }
    let mut micros = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        micros.extend(ended??);
    }
    let took = began.elapsed().as_secs_f64();
    let answered = micros.len() * request.messages;
    let all = async {
        while arrived.get() < answered {
            changed.notified().await;
        }
    };
    let _ = timeout(LONGEST, all).await;
    if receiving.is_finished() || arrived.get() != answered {
        return Err(format!("{answered} messages were acknowledged, {} arrived", arrived.get()).into());
    }
    receiving.abort();
    end_session(mqtt, ID).await?;
    let (requests, messages) = (micros.len() as f64 / took, answered as f64 / took);
    Ok(format!(
        "requests_per_s={requests:.0} messages_per_s={messages:.0} {} messages={answered}",
        percentiles(&mut micros)
    ))
}

/// One connection; answers the microseconds each request took.
async fn one(address: String, request: Rc<Request>, until: Instant) -> Fallible<Vec<u64>> {
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut micros) = (vec![0; 256 << 10], Vec::with_capacity(1 << 18));
    while Instant::now() < until {
        let begin = Instant::now();
        stream.write_all(&request.bytes).await?;
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|whole| filled < whole) {
            if filled == buffer.len() {
                buffer.resize(2 * filled, 0);
            }
            let count = stream.read(&mut buffer[filled..]).await?;
            filled += count;
            if count == 0 || (filled >= 12 && !buffer.starts_with(b"HTTP/1.1 200")) {
                return Err(format!("answer: {}", String::from_utf8_lossy(&buffer[..filled.min(1_000)])).into());
            }
            if whole.is_none() {
                whole = length(&buffer[..filled]);
            }
        }
        micros.push(begin.elapsed().as_micros() as u64);
    }
    Ok(micros)
}

/// Bytes of the whole answer, once its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let line = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    Some(head + 4 + line?.trim().parse::<usize>().ok()?)
}
