//! One GET, one connection.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Fallible;

/// Longest time for an answer.
const LONGEST: Duration = Duration::from_secs(10);

/// The body of a 200 that is not chunked.
pub async fn get(address: &str, path: &str) -> Fallible<String> {
    let answer = timeout(LONGEST, ask(address, path)).await;
    answer.map_err(|_| format!("http://{address}{path}: no answer within {} s", LONGEST.as_secs()))?
}

async fn ask(address: &str, path: &str) -> Fallible<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without an end of its head")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("GET {path}: {}", head.lines().next().unwrap_or_default()).into());
    }
    Ok(body.to_owned())
}

/// The sum of a counter or gauge over its labels, in the text form of Prometheus.
pub fn metric(text: &str, name: &str) -> u64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
