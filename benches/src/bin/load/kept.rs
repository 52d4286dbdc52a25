//! Sessions that outlive their connections, QoS 1: what is acknowledged to a publisher is kept for them.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use sense_butler_benches::{
    Arguments, Fallible,
    mqtt::{Pour, WINDOW, connect, connect_kept, disconnect, end_session, receive, subscribe},
    percentiles,
};
use tokio::{task::JoinSet, time::timeout};

use crate::{LONGEST, count_to, play};

/// The session that is filled while its client is away.
const AWAY: &str = "away";

/// Publishers to subscribers with kept sessions, which end afterwards, outside the clock.
pub(crate) async fn throughput(arguments: &Arguments) -> Fallible<String> {
    let address = arguments.text(1, "address")?;
    let (publishers, subscribers): (u64, u64) =
        (arguments.number(2, "publishers")?, arguments.number(3, "subscribers")?);
    let (count, payload): (u64, usize) = (arguments.number(4, "messages")?, arguments.number(5, "payload")?);
    let window: u64 = arguments.number(6, "in flight")?;
    let total = publishers * count * subscribers;
    let (arrived, mut readers, mut pouring) = (Rc::new(Cell::new(0)), JoinSet::new(), JoinSet::new());
    for number in 0..subscribers {
        let stream = fresh(address, &format!("kept-{number}")).await?;
        count_to(stream, publishers * count, &arrived, &mut readers);
    }
    let mut streams = Vec::new();
    for number in 0..publishers {
        streams.push(connect(address, &format!("pub-{number}")).await?);
    }
    let acknowledged = Rc::new(RefCell::new(Vec::with_capacity((publishers * count) as usize)));
    for (number, stream) in streams.into_iter().enumerate() {
        let acknowledged = acknowledged.clone();
        pouring.spawn_local(async move {
            let topic = format!("bench/{number}");
            let micros = Pour { topic: &topic, qos: 1, count, payload, window }.timed(stream).await?;
            acknowledged.borrow_mut().extend(micros);
            Ok(())
        });
    }
    let seconds = play(readers, pouring, &arrived, total).await?;
    for number in 0..subscribers {
        end_session(address, &format!("kept-{number}")).await?;
    }
    let acknowledged = percentiles(&mut acknowledged.borrow_mut());
    Ok(format!("delivered_per_s={:.0} messages={total} seconds={seconds:.2} {acknowledged}", total as f64 / seconds))
}

/// A kept session that is new, with its subscription.
async fn fresh(address: &str, id: &str) -> Fallible<sense_butler_benches::stream::Stream> {
    end_session(address, id).await?;
    let mut stream = connect_kept(address, id).await?;
    subscribe(&mut stream, "bench/#", 1).await?;
    Ok(stream)
}

/// Messages for a session whose client has left.
pub(crate) async fn fill(arguments: &Arguments) -> Fallible<String> {
    let address = arguments.text(1, "address")?;
    let (count, payload): (u64, usize) = (arguments.number(2, "messages")?, arguments.number(3, "payload")?);
    disconnect(fresh(address, AWAY).await?).await?;
    let began = Instant::now();
    let stream = connect(address, "fills").await?;
    Pour { topic: "bench/away", qos: 1, count, payload, window: WINDOW }.run(stream).await?;
    Ok(format!("messages={count} seconds={:.2}", began.elapsed().as_secs_f64()))
}

/// The client of [`fill`] comes back: each message once, in order, and none besides. Its session ends.
pub(crate) async fn drain(arguments: &Arguments) -> Fallible<String> {
    let (address, count): (_, u64) = (arguments.text(1, "address")?, arguments.number(2, "messages")?);
    let (began, mut next, mut wrong) = (Instant::now(), 0, None);
    let mut stream = connect_kept(address, AWAY).await?;
    let reading = receive(&mut stream, |message| {
        let number = message.payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if number != Some(next) {
            wrong = Some(format!("message {next} was due, {number:?} came"));
        }
        next += 1;
        wrong.is_none() && next < count
    });
    timeout(LONGEST, reading).await.map_err(|_| "not all queued messages came")??;
    let seconds = began.elapsed().as_secs_f64();
    if wrong.is_none() && timeout(Duration::from_millis(300), receive(&mut stream, |_| false)).await.is_ok() {
        wrong = Some(format!("more than {count} messages came, or the connection was closed"));
    }
    end_session(address, AWAY).await?;
    wrong.map_or(Ok(format!("messages={count} seconds={seconds:.2}")), |wrong| Err(wrong.into()))
}
