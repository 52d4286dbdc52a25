//! Reads a request's body within a size and a time, and gets rid of one nobody wants.

use std::{
    future::poll_fn,
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use warp::Stream;

use super::fault::{Fault, Kind};

/// How much of a body that is refused is still read, so that the answer is not lost to a connection reset while the caller is sending.
const DRAIN_BYTES: usize = 16 << 20;
/// How long that may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Reads the whole body.
///
/// # Errors
/// 413 over `limit` bytes, 408 when it does not come within `time`, 400 when the connection breaks.
pub(super) async fn read<S, B>(mut stream: Pin<&mut S>, limit: usize, time: Duration) -> Result<Bytes, Fault>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    match tokio::time::timeout(time, collect(stream.as_mut(), limit)).await {
        Ok(body) => body,
        Err(_) => Err(Fault::new(Kind::Slow, format!("the body did not arrive within {time:?}"))),
    }
}

async fn collect<S, B>(mut stream: Pin<&mut S>, limit: usize) -> Result<Bytes, Fault>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let Some(first) = next(stream.as_mut()).await? else { return Ok(Bytes::new()) };
    check(first.len(), limit)?;
    let Some(second) = next(stream.as_mut()).await? else { return Ok(first) };
    let mut all = BytesMut::with_capacity((first.len() + second.len()).saturating_mul(2).min(limit));
    all.extend_from_slice(&first);
    let mut chunk = Some(second);
    while let Some(bytes) = chunk {
        check(all.len() + bytes.len(), limit)?;
        all.extend_from_slice(&bytes);
        chunk = next(stream.as_mut()).await?;
    }
    Ok(all.freeze())
}

fn check(size: usize, limit: usize) -> Result<(), Fault> {
    if size <= limit { Ok(()) } else { Err(too_large(limit)) }
}

/// The fault of a body over the limit.
pub(super) fn too_large(limit: usize) -> Fault {
    Fault::new(
        Kind::TooLarge,
        format!("the body is larger than {limit} bytes; restServerConfig.maxBodyBytes is the limit to raise"),
    )
}

async fn next<S, B>(mut stream: Pin<&mut S>) -> Result<Option<Bytes>, Fault>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    match poll_fn(|context| stream.as_mut().poll_next(context)).await {
        None => Ok(None),
        Some(Ok(mut chunk)) => Ok(Some(chunk.copy_to_bytes(chunk.remaining()))),
        Some(Err(error)) => Err(Fault::new(Kind::Content, format!("the body could not be read: {error}"))),
    }
}

/// Reads on without keeping anything, so that the caller gets to see the refusal.
pub(super) async fn drain<S, B>(mut stream: Pin<&mut S>)
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let until = Instant::now() + DRAIN_LIMIT;
    let mut seen = 0;
    while seen < DRAIN_BYTES {
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, next(stream.as_mut())).await {
            Ok(Ok(Some(chunk))) => seen += chunk.len(),
            _ => return,
        }
    }
}
