//! Many retained topics, and one subscriber that wants them all.

use std::time::{Duration, Instant};

use sense_butler_benches::{
    Arguments, Fallible,
    mqtt::{Incoming, WINDOW, connect, frames, publish, receive, subscription},
    stream::Stream,
};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::LONGEST;

/// Below which the topics lie; ten thousand to a branch.
const ROOT: &str = "bench/retained";

fn topic(number: u64) -> String {
    format!("{ROOT}/{}/{number}", number / 10_000)
}

/// The number of one of our topics.
fn number(topic: &[u8]) -> Option<u64> {
    let (_, number) = std::str::from_utf8(topic).ok()?.strip_prefix(ROOT)?.rsplit_once('/')?;
    number.parse().ok()
}

/// One retained message of QoS 1 for each topic, all acknowledged.
pub(crate) async fn set(arguments: &Arguments) -> Fallible<String> {
    let address = arguments.text(1, "address")?;
    let (topics, payload): (u64, usize) = (arguments.number(2, "topics")?, arguments.number(3, "payload")?);
    let (began, mut stream) = (Instant::now(), connect(address, "retains").await?);
    timeout(LONGEST, pour(&mut stream, topics, payload)).await.map_err(|_| "acknowledgements are missing")??;
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!("topics={topics} seconds={seconds:.2} per_s={:.0}", topics as f64 / seconds))
}

async fn pour(stream: &mut Stream, topics: u64, payload: usize) -> Fallible<()> {
    let payload = vec![b'x'; payload];
    let (mut sent, mut acknowledged, mut buffer, mut filled) = (0, 0, vec![0; 16 << 10], 0);
    while acknowledged < topics {
        let mut out = Vec::new();
        while sent < topics && sent - acknowledged < WINDOW && out.len() < 32 << 10 {
            let mut frame = publish(&topic(sent), 1, (sent % 65_535 + 1) as u16, &payload);
            // The flag `retain`.
            frame[0] |= 1;
            out.extend(frame);
            sent += 1;
        }
        stream.send(&out).await?;
        if sent < topics && sent - acknowledged < WINDOW {
            continue;
        }
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err(format!("the broker closed the connection after {sent} retained messages").into());
        }
        filled += count;
        let used = frames(&buffer[..filled], |first, _| acknowledged += u64::from(first >> 4 == 4));
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
    Ok(())
}

/// Subscribes to `#`; each topic must come once, marked as retained. What the broker itself has retained comes, too, and is not counted.
pub(crate) async fn read(arguments: &Arguments) -> Fallible<String> {
    let (address, topics): (_, u64) = (arguments.text(1, "address")?, arguments.number(2, "topics")?);
    let (mut seen, mut came, mut wrong) = (vec![false; topics as usize], 0, None);
    let mut stream = connect(address, "wants-all").await?;
    let began = Instant::now();
    // A broker may send what is retained before its SUBACK.
    stream.send(&subscription("#", 1)).await?;
    let mut take = |message: Incoming<'_>| {
        let Some(number) = number(message.topic) else { return true };
        let new = seen.get_mut(number as usize).is_some_and(|seen| !std::mem::replace(seen, true));
        if !new || !message.retained {
            wrong = Some(format!("topic {number}: new {new}, retained {}", message.retained));
        }
        came += 1;
        wrong.is_none() && came < topics
    };
    let ended = timeout(LONGEST, receive(&mut stream, &mut take)).await;
    let seconds = began.elapsed().as_secs_f64();
    if ended.is_ok() {
        // One too many would be one that came before.
        let _ = timeout(Duration::from_millis(300), receive(&mut stream, &mut take)).await;
    }
    match (ended, wrong) {
        (_, Some(wrong)) => Err(wrong.into()),
        (Err(_), _) => Err(format!("{came} of {topics} retained messages came").into()),
        (Ok(ended), _) => {
            ended?;
            Ok(format!("topics={came} seconds={seconds:.2} per_s={:.0}", topics as f64 / seconds))
        }
    }
}
