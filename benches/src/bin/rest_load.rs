//! Publishing by REST, and whether all of it arrives by MQTT.
//!
//!     rest_load REST-ADDRESS MQTT-ADDRESS CONNECTIONS SECONDS
//!
//! Each keep-alive connection sends a request, reads its whole answer, sends the next. Every answer must be 201, every message must be at the
//! subscriber, once, and nothing else.

use std::{
    cell::Cell,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use sense_butler_benches::{
    Arguments, Fallible,
    mqtt::{connect, receive, subscribe},
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
const LONGEST: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    run(measure())
}

async fn measure() -> Fallible<String> {
    let arguments = Arguments::new();
    let (rest, mqtt) = (arguments.text(0, "REST address")?, arguments.text(1, "MQTT address")?);
    let (connections, seconds): (usize, u64) = (arguments.number(2, "connections")?, arguments.number(3, "seconds")?);
    let (arrived, changed) = (Rc::new(Cell::new(0usize)), Rc::new(Notify::new()));
    let mut subscriber = connect(mqtt, "rest-load").await?;
    subscribe(&mut subscriber, "bench/rest", 0).await?;
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
        tasks.spawn_local(one(rest.to_owned(), until));
    }
    let mut micros = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        micros.extend(ended??);
    }
    let took = began.elapsed().as_secs_f64();
    let answered = micros.len();
    let all = async {
        while arrived.get() < answered {
            changed.notified().await;
        }
    };
    let _ = timeout(LONGEST, all).await;
    if receiving.is_finished() || arrived.get() != answered {
        return Err(format!("{answered} publishes were answered, {} messages arrived", arrived.get()).into());
    }
    let rate = answered as f64 / took;
    Ok(format!("requests_per_s={rate:.0} {} messages={answered}", percentiles(&mut micros)))
}

/// One connection; answers the microseconds each request took.
async fn one(address: String, until: Instant) -> Fallible<Vec<u64>> {
    let body = format!(r#"{{"topic":"bench/rest","message":"{}"}}"#, "x".repeat(256));
    let request = format!(
        "PUT /v4/mqttpublishmessage HTTP/1.1\r\nHost: {address}\r\nUser-Agent: rest-load\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut micros) = (vec![0; 16 << 10], Vec::with_capacity(1 << 18));
    while Instant::now() < until {
        let begin = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        // The answer is the echo: it is complete when it ends as the body does.
        while !buffer[..filled].ends_with(body.as_bytes()) {
            let count = stream.read(&mut buffer[filled..]).await?;
            filled += count;
            if count == 0 || (filled >= 12 && !buffer.starts_with(b"HTTP/1.1 201")) {
                return Err(format!("answer: {}", String::from_utf8_lossy(&buffer[..filled])).into());
            }
        }
        micros.push(begin.elapsed().as_micros() as u64);
    }
    Ok(micros)
}
