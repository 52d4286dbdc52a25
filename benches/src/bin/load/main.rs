//! Load on an MQTT broker: publishers, subscribers, what arrived, how fast. MQTT 3.1.1 over TCP, raw, so that the client costs little.
//!
//!     load ADDRESS PUBLISHERS SUBSCRIBERS QOS MESSAGES-PER-PUBLISHER [PAYLOAD]     throughput
//!     load ADDRESS latency RATE SECONDS QOS                                        latency
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

const WINDOW: usize = 500;

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { byte | 128 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

async fn connect(address: &str, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.set_nodelay(true).unwrap();
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, 2, 0, 0]);
    text(&mut body, id);
    stream.write_all(&packet(0x10, &body)).await.unwrap();
    let mut ack = [0; 4];
    stream.read_exact(&mut ack).await.unwrap();
    assert_eq!(ack, [0x20, 2, 0, 0]);
    stream
}

async fn subscribe(stream: &mut TcpStream, topic: &str, qos: u8) {
    let mut body = vec![0, 1];
    text(&mut body, topic);
    body.push(qos);
    stream.write_all(&packet(0x82, &body)).await.unwrap();
    let mut ack = [0; 5];
    stream.read_exact(&mut ack).await.unwrap();
    assert_eq!(ack[0], 0x90);
}

/// Splits frames off `buf`, calls `each(first, body)`; returns bytes used.
fn frames(buf: &[u8], mut each: impl FnMut(u8, &[u8])) -> usize {
    let mut at = 0;
    loop {
        let rest = &buf[at..];
        if rest.len() < 2 {
            return at;
        }
        let (mut len, mut shift, mut used) = (0usize, 0, 1);
        loop {
            let Some(&byte) = rest.get(used) else { return at };
            used += 1;
            len |= ((byte & 127) as usize) << shift;
            shift += 7;
            if byte & 128 == 0 {
                break;
            }
        }
        if rest.len() < used + len {
            return at;
        }
        each(rest[0], &rest[used..used + len]);
        at += used + len;
    }
}

async fn reader(mut stream: TcpStream, qos: u8, expect: u64, done: Rc<Cell<u64>>, notify: Rc<Notify>, latencies: Option<Rc<RefCell<Vec<u32>>>>, epoch: Instant) {
    let mut buf = vec![0u8; 256 << 10];
    let (mut filled, mut acks, mut count) = (0, Vec::new(), 0u64);
    while count < expect {
        let n = stream.read(&mut buf[filled..]).await.unwrap();
        if n == 0 {
            panic!("closed by the broker after {count} of {expect}");
        }
        filled += n;
        let used = frames(&buf[..filled], |first, body| {
            if first >> 4 == 3 {
                count += 1;
                let topic = u16::from_be_bytes([body[0], body[1]]) as usize;
                let mut at = 2 + topic;
                if (first >> 1) & 3 == 1 {
                    acks.extend_from_slice(&[0x40, 2, body[at], body[at + 1]]);
                    at += 2;
                }
                if let Some(latencies) = &latencies {
                    let sent = u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
                    latencies.borrow_mut().push((epoch.elapsed().as_micros() as u64).saturating_sub(sent) as u32);
                }
            }
        });
        buf.copy_within(used..filled, 0);
        filled -= used;
        if qos > 0 && !acks.is_empty() {
            stream.write_all(&acks).await.unwrap();
            acks.clear();
        }
    }
    done.set(done.get() + count);
    notify.notify_one();
    std::mem::forget(stream);
}

async fn publisher(stream: TcpStream, topic: String, qos: u8, count: usize, payload: usize) {
    let (mut rd, mut wr) = stream.into_split();
    let inflight = Rc::new(Cell::new(0usize));
    let room = Rc::new(Notify::new());
    if qos > 0 {
        let (inflight, room) = (inflight.clone(), room.clone());
        tokio::task::spawn_local(async move {
            let mut buf = vec![0u8; 64 << 10];
            let mut filled = 0;
            loop {
                let Ok(n) = rd.read(&mut buf[filled..]).await else { return };
                if n == 0 {
                    return;
                }
                filled += n;
                let mut acks = 0;
                let used = frames(&buf[..filled], |first, _| acks += usize::from(first >> 4 == 4));
                buf.copy_within(used..filled, 0);
                filled -= used;
                inflight.set(inflight.get() - acks);
                room.notify_one();
            }
        });
    }
    let mut body = Vec::new();
    text(&mut body, &topic);
    let id_at = body.len();
    if qos > 0 {
        body.extend_from_slice(&[0, 0]);
    }
    body.extend(std::iter::repeat_n(b'x', payload));
    let frame = packet(0x30 | (qos << 1), &body);
    let id_at = id_at + frame.len() - body.len();
    let mut out = Vec::with_capacity(64 << 10);
    for number in 0..count {
        if qos > 0 {
            while inflight.get() >= WINDOW {
                if !out.is_empty() {
                    wr.write_all(&out).await.unwrap();
                    out.clear();
                }
                room.notified().await;
            }
            inflight.set(inflight.get() + 1);
        }
        let start = out.len();
        out.extend_from_slice(&frame);
        if qos > 0 {
            let id = (number % 65535 + 1) as u16;
            out[start + id_at..start + id_at + 2].copy_from_slice(&id.to_be_bytes());
        }
        if out.len() > 32 << 10 {
            wr.write_all(&out).await.unwrap();
            out.clear();
        }
    }
    wr.write_all(&out).await.unwrap();
    while inflight.get() > 0 {
        room.notified().await;
    }
    std::mem::forget(wr);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    tokio::task::LocalSet::new().run_until(async move {
        if args[1] == "latency" {
            latency(&args).await
        } else {
            throughput(&args).await
        }
    }).await;
}

async fn throughput(args: &[String]) {
    let number = |at: usize| args[at].parse::<usize>().unwrap();
    let (pubs, subs, qos, count) = (number(1), number(2), number(3) as u8, number(4));
    let payload = args.get(5).map_or(256, |p| p.parse().unwrap());
    let (done, notify) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    // 20 -> 20: everybody publishes to one topic space, every subscriber gets everything.
    let expect = (pubs * count) as u64;
    let epoch = Instant::now();
    for number in 0..subs {
        let mut stream = connect(&args[0], &format!("sub-{number}")).await;
        subscribe(&mut stream, "bench/#", qos).await;
        tokio::task::spawn_local(reader(stream, qos, expect, done.clone(), notify.clone(), None, epoch));
    }
    let mut streams = Vec::new();
    for number in 0..pubs {
        streams.push(connect(&args[0], &format!("pub-{number}")).await);
    }
    let start = Instant::now();
    for (number, stream) in streams.into_iter().enumerate() {
        tokio::task::spawn_local(publisher(stream, format!("bench/{number}"), qos, count, payload));
    }
    let total = expect * subs as u64;
    while done.get() < total {
        if tokio::time::timeout(Duration::from_secs(120), notify.notified()).await.is_err() {
            println!("LOST: {} of {total} arrived", done.get());
            std::process::exit(1);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} delivered/s ({total} messages, {seconds:.2} s, {pubs}->{subs} QoS {qos})", total as f64 / seconds);
    std::process::exit(0);
}

async fn latency(args: &[String]) {
    let (rate, seconds, qos): (u64, u64, u8) = (args[2].parse().unwrap(), args[3].parse().unwrap(), args[4].parse().unwrap());
    let (done, notify) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let epoch = Instant::now();
    let mut stream = connect(&args[0], "lat-sub").await;
    subscribe(&mut stream, "lat", qos).await;
    tokio::task::spawn_local(reader(stream, qos, rate * seconds, done.clone(), notify.clone(), Some(latencies.clone()), epoch));
    let stream = connect(&args[0], "lat-pub").await;
    let (mut rd, mut wr) = stream.into_split();
    tokio::task::spawn_local(async move {
        let mut buf = [0; 4096];
        while rd.read(&mut buf).await.is_ok_and(|n| n > 0) {}
    });
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
    for number in 0..rate * seconds {
        tick.tick().await;
        let mut body = Vec::new();
        text(&mut body, "lat");
        if qos > 0 {
            body.extend_from_slice(&((number % 65535 + 1) as u16).to_be_bytes());
        }
        body.extend_from_slice(&(epoch.elapsed().as_micros() as u64).to_le_bytes());
        body.resize(body.len() + 248, b'x');
        wr.write_all(&packet(0x30 | (qos << 1), &body)).await.unwrap();
    }
    notify.notified().await;
    let mut all = latencies.borrow().clone();
    all.sort_unstable();
    let at = |p: f64| all[((all.len() - 1) as f64 * p) as usize] as f64 / 1000.0;
    println!("latency ms p50 {:.3} p99 {:.3} max {:.3} ({} messages, QoS {qos}, {rate}/s)", at(0.5), at(0.99), at(1.0), all.len());
    std::process::exit(0);
}
